"""What a trained language model says about texts: parse trees, and how probable they are."""

import math
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metrics.trees import Tree, bracketed
from readers.text.tokens import EOS, UNKNOWN, TextCodec

from .lines import OnError, in_batches, list_of_texts, predict_lines

if TYPE_CHECKING:
    _Mixin = Any
else:
    _Mixin = object

PAPERS_LAYER = 2
WINDOW = 512  # tokens of a text that are scored at once
ROWS = 1024  # words predicted at once


class Score(NamedTuple):
    """How probable a text is.

    Args:
        bits: -log2 of the probability of all its tokens, line ends included.
        perplexity: 2 ^ (bits / tokens); 1 for an empty text.
    """

    bits: float
    perplexity: float


class ReadsTexts(_Mixin):
    """Mixin of ``ONLSTMLanguageModel``: trees and scores of texts, from Python and from files."""

    @torch.inference_mode()
    def parse(self, texts: Iterable[str], layer: int | None = None, batch_size: int = 64) -> list[str]:
        """The bracketed tree of each text, ``((the cat) (sat down))``; empty for an empty text.

        Args:
            texts: one sentence each.
            layer: as in ``predict_file``.
            batch_size: sentences per batch.

        Raises:
            TypeError: ``texts`` is a single string, or holds something other than strings.
            ValueError: the model has no trees, or no such layer.
        """
        texts = list_of_texts(texts, "parse")
        self.eval()
        parser = self._parser(self._layer(layer))
        sentences = [parser.words_of(text) for text in texts]
        trees = iter(in_batches([words for words in sentences if words], lambda part, _: parser(part), batch_size))
        return [next(trees) if words else "" for words in sentences]

    @torch.inference_mode()
    def score(self, texts: Iterable[str]) -> list[Score]:
        """How probable each text is, read from a zero state after an ``<eos>``; words not in the vocabulary are
        ``<unk>``. Lines are sentences; blank ones don't count unless the model was trained with them.

        Raises:
            TypeError: ``texts`` is a single string, or holds something other than strings.
        """
        texts = list_of_texts(texts, "score")
        self.eval()
        codec, scores = self._codec, []
        for text in texts:
            tokens = codec.encode(text)
            nats = self._nats(tokens)
            scores.append(Score(nats / math.log(2), math.exp(nats / max(len(tokens), 1))))
        return scores

    def _nats(self, tokens: list[int]) -> float:
        """-log of the probability of the tokens after an ``<eos>``."""
        row = torch.tensor([[self.index[EOS], *tokens]], device=self.device)
        state, total = None, 0.0
        for start in range(0, len(tokens), WINDOW):
            window = row[:, start : start + WINDOW + 1]
            _, hidden, state, _ = self(window[:, :-1], state)
            total += F.cross_entropy(self.output(hidden.flatten(0, 1)).float(), window[0, 1:], reduction="sum").item()
        return total

    @torch.inference_mode()
    def predict_file(
        self,
        input: Path,
        output: Path,
        layer: int | None = None,
        batch_size: int = 64,
        on_error: OnError = "stop",
        resume: bool = False,
        encoding: str = "utf-8",
    ) -> str:
        """Turns a text file, one sentence per line, into bracketed trees, one per line.

        Words are separated by white space (by jieba, where the model was trained so); a word that is not in the
        vocabulary is tried in lower case, without surrounding punctuation, and as ``N`` if it is a number. The trees
        have the words as written. Empty lines stay empty. Files may be of any size; what is done is in
        ``<output>.part`` until all is.

        Args:
            input: a text file, gzipped or not.
            output: the file to write; gzipped if it ends in ``.gz``.
            layer: the layer whose distances give the trees, from 1; by default the one that the run's validation found
                best or, where that had no gold trees, the second, as in the paper.
            batch_size: sentences per batch.
            on_error: at a line that can't be read ``stop``, or name it and ``skip`` it: its line stays empty.
            resume: go on with the ``<output>.part`` of an interrupted prediction.
            encoding: of the input.

        Returns:
            A summary for the terminal.

        Raises:
            ValueError: if the model has no trees, an argument is out of range, or the file can't be read.
        """
        self.eval()
        layer = self._layer(layer)
        parser = self._parser(layer)
        counts = predict_lines(
            Path(input),
            Path(output),
            lambda line, where: parser.words_of(line) or "",
            lambda sentences, first: parser(sentences),
            batch_size=batch_size,
            on_error=on_error,
            resume=resume,
            encoding=encoding,
        )
        words = f"{parser.words} words ({parser.unknown} not in the vocabulary)"
        return f"{parser.sentences} sentences, {words}, layer {layer}{counts.remarks} -> {output}"

    @property
    def _codec(self) -> TextCodec:
        arguments = self.hparams
        return TextCodec(arguments.vocabulary, arguments.level, arguments.segmenter, arguments.keep_layout)

    def _layer(self, layer: int | None) -> int:
        """The layer asked for, or the one to take by default.

        Raises:
            ValueError: the model has no trees, or no such layer.
        """
        if not self.parses:
            cell = type(self.cells[0]).__name__
            raise ValueError(f"this model has no trees: {cell}, level {self.hparams.level}")
        layer = (self.best_layer or min(PAPERS_LAYER, self.num_levels)) if layer is None else layer
        if not 1 <= layer <= self.num_levels:
            raise ValueError(f"layer ({layer}) must be from 1 to {self.num_levels}")
        return layer

    def _parser(self, layer: int) -> "_SentenceParser":
        def parse(inputs: Tensor, lengths: Tensor) -> list[Tree]:
            return self.parse_batch(inputs.to(self.device), lengths.to(self.device))[1][layer - 1]

        return _SentenceParser(self._codec, parse)


class _SentenceParser:
    """Sentences as users write them to bracketed trees.

    Args:
        codec: what their words are.
        parse: the trees of a batch, called with tokens (B, T) int64 (``<eos> w_1 ... w_n <eos>`` and padding) and the
            numbers n of words (B,) int64.

    Attributes:
        sentences: how many were parsed.
        words: how many words they had.
        unknown: how many of these are not in the vocabulary.
    """

    def __init__(self, codec: TextCodec, parse: Callable[[Tensor, Tensor], list[Tree]]) -> None:
        self.codec, self.parse = codec, parse
        self.sentences = self.words = self.unknown = 0

    def words_of(self, text: str) -> list[str]:
        """The words of a text, white space aside."""
        return [word for line in text.split("\n") for word in self.codec.tokenizer(line.strip())]

    def __call__(self, sentences: Sequence[Sequence[str]]) -> list[str]:
        """The bracketed tree of each sentence of one word or more."""
        index = self.codec.index
        end, unknown = index[EOS], index[UNKNOWN]
        indices = [[lookup(word, index) for word in words] for words in sentences]
        self.sentences += len(sentences)
        self.words += sum(map(len, indices))
        self.unknown += sum(row.count(unknown) for row in indices)
        rows = [torch.tensor([end, *row, end]) for row in indices]
        inputs = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=end)
        trees = self.parse(inputs, torch.tensor([len(row) for row in indices]))
        return [bracketed(tree, words) for tree, words in zip(trees, sentences, strict=True)]


def lookup(word: str, index: Mapping[str, int]) -> int:
    """Index of a word as users write it: tried as written, in lower case, without surrounding punctuation, and as ``N``
    if it is a number; else that of ``<unk>``."""
    lower = word.lower()
    bare = lower.strip(string.punctuation)
    number = "N" if re.fullmatch(r"[0-9]+([.,:/-][0-9]+)*", bare) else bare
    return next((index[form] for form in (word, lower, bare, number) if form in index), index[UNKNOWN])
