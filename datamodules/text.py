"""Text for language models, from the hub, files, or a grammar; with trees to test parsing."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from readers.encodings import check_encoding
from readers.files import user_path
from readers.text.tokens import EOS, UNKNOWN, Level, Segmenter
from readers.text.treebank import ParsedSentence, read_treebank

from .arguments import check_at_least, check_choice, check_seed
from .batches import ParseBatch
from .corpus import Corpus, DataSet, build_corpus, read_corpus
from .loader import BatchLoader
from .samples.grammar import make_sentences
from .token_ids import TextSettings
from .unknown_words import SOME, compare_shares, describe_shares, read_as_unknown, unsegmented
from .windows import ContiguousLoader, RandomWindowLoader

Order = Literal["contiguous", "random"]


class TextDataModule(pl.LightningDataModule):
    """Text in rows that continue from batch to batch, for language models that carry their state.

    Batches are ``TokenBatch``; see ``ContiguousLoader`` for the order. Each line is a sentence, ended by ``<eos>``. The
    vocabulary is that of the training text, and always has ``<unk>``, which all other words are; a model that goes on
    with or is tested on another text keeps its own. If there are gold trees (with ``treebank``, and always for
    ``sample``), testing yields a second loader of ``ParseBatch``, shorter sentences first, and so does validation: of
    the sample's validation sentences, or of every tenth one of the treebank, to choose a layer by.

    Texts may be of any size: their token numbers are made once, kept in the user's cache folder, mapped into memory
    and shared by processes.

    Args:
        source: ``hub`` (``hub_id``, by Hugging Face ``datasets``; by default the Penn Treebank as preprocessed by
            Mikolov), ``sample`` (a grammar, with gold trees, made at load time), or a folder: parquet files,
            ``ptb.train.txt``, ``ptb.valid.txt`` and ``ptb.test.txt``, or any three text files named after train,
            valid (val, dev) and test, with one sentence per line: ``.txt``, or WikiText's ``.tokens`` and ``.raw``,
            each also as ``.gz``; or one text file, whose last twentieth is the test text, and the one before it the
            validation text.
        level: a token is a ``word`` (separated by white space), a ``character`` or a ``byte``.
        batch_size: rows (or, in random order, windows) per training batch and process.
        eval_batch_size: the same in validation, over all processes; also sentences per batch of the treebank.
        test_batch_size: the same in the test, over all processes; with more rows, more words are predicted without
            their context.
        bptt: tokens per window.
        variable_bptt: training windows of random length around ``bptt``, new in each epoch.
        order: ``contiguous``, or ``random``: independent windows of ``bptt`` tokens, for models without a state.
        treebank: ``.mrg`` file, or folder or ``.zip`` of such files (Penn Treebank, or NLTK's sample of it), to test
            parsing on; for ``sample`` instead of its own trees.
        drop_first_train_lines: number of lines to drop at the beginning of the training text: NLTK's treebank sample
            is the first 3,914 lines of PTB. Ignored by ``sample``, which tests on other sentences.
        seed: of window lengths and order, and of the sample.
        sample_train_size: number of training sentences of ``sample``.
        sample_test_size: number of test sentences of ``sample``, and of validation sentences.
        hub_id: the data set on the hub, ``owner/name``, with splits train, validation and test.
        hub_config: its configuration, if it has several, e.g. ``wikitext-2-raw-v1``; also for parquet files.
        text_column: its column of text, one line per row; None: ``text`` or ``sentence``, else the only column. Also
            for parquet files.
        segmenter: where else words end: ``none``, or where ``jieba`` says, for Chinese.
        keep_layout: blank lines and indentation are text, as in code or plays. The indentation of a line is one word.
        eos_on_blank_lines: blank lines are ``<eos>``, as is usual for WikiText; None: they are where the files or the
            data set are named as WikiText's.
        min_count: how often a word must occur in the training text to be in the vocabulary.
        max_words: the most entries of the vocabulary, of the most frequent words, ``<eos>`` and ``<unk>`` included.
        unk_rate: the share of words that training reads as ``<unk>``, so that it learns what to expect there; None:
            0.01 for words of a folder whose training text has no ``<unk>``, else 0.
        encoding: of text files; bytes are always those of the file.

    Attributes:
        vocabulary: the tokens by number; available at once, like their number ``vocab_size``.
        sequence_length: tokens per window, ``bptt``; windows of variable length may be longer.

    Raises:
        ValueError: an argument is out of range.
        DataError: the text is not available, can't be read, or is too short for the batch size.

    Example:
        data:
          class_path: TextDataModule
          init_args: {source: hub, hub_id: Salesforce/wikitext, hub_config: wikitext-2-raw-v1, bptt: 35}
    """

    def __init__(
        self,
        source: str = "hub",
        level: Level = "word",
        batch_size: int = 20,
        eval_batch_size: int = 10,
        test_batch_size: int = 1,
        bptt: int = 70,
        variable_bptt: bool = True,
        order: Order = "contiguous",
        treebank: Path | None = None,
        drop_first_train_lines: int = 0,
        seed: int = 0,
        sample_train_size: int = 5000,
        sample_test_size: int = 500,
        hub_id: str = "ptb-text-only/ptb_text_only",
        hub_config: str | None = None,
        text_column: str | None = None,
        segmenter: Segmenter = "none",
        keep_layout: bool = False,
        eos_on_blank_lines: bool | None = None,
        min_count: int = 1,
        max_words: int | None = None,
        unk_rate: float | None = None,
        encoding: str = "utf-8",
    ) -> None:
        super().__init__()
        check_at_least(1, batch_size=batch_size, eval_batch_size=eval_batch_size, test_batch_size=test_batch_size)
        check_at_least(1, bptt=bptt, sample_train_size=sample_train_size, sample_test_size=sample_test_size)
        check_at_least(0, drop_first_train_lines=drop_first_train_lines)
        check_choice("level", level, get_args(Level))
        check_choice("order", order, get_args(Order))
        check_seed(seed)
        check_choice("segmenter", segmenter, get_args(Segmenter))
        check_at_least(1, min_count=min_count)
        check_at_least(3, max_words=max_words)
        if unk_rate is not None and not 0 <= unk_rate < 1:
            raise ValueError(f"unk_rate ({unk_rate}) must be at least 0 and below 1")
        if level != "word" and treebank is not None:
            raise ValueError("treebank: the leaves of trees are words; set level to word")
        if level != "word" and segmenter != "none":
            raise ValueError(f"segmenter ({segmenter}) finds words; set level to word")
        if level == "byte" and (min_count > 1 or max_words is not None):
            raise ValueError("min_count and max_words: there are 256 bytes, and all have a number; leave them out")
        self.source = source
        self.level: Level = level
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.test_batch_size = test_batch_size
        self.bptt = bptt
        self.variable_bptt = variable_bptt
        self.order: Order = order
        self.treebank = treebank
        self.drop_first_train_lines = drop_first_train_lines
        self.seed = seed
        self.sample_train_size = sample_train_size
        self.sample_test_size = sample_test_size
        self.data_set = DataSet(hub_id, hub_config, text_column)
        self.segmenter: Segmenter = segmenter
        self.keep_layout = keep_layout
        self.eos_on_blank_lines = eos_on_blank_lines
        self.min_count = min_count
        self.max_words = max_words
        self.unk_rate = unk_rate
        self.encoding = check_encoding(encoding)
        self._vocabulary: tuple[str, ...] | None = None
        self._is_measured = False

    def measure_whole(self) -> None:
        """Another text than the training's is only measured, with an adopted vocabulary: a single file whole, and a
        folder may have just one text."""
        self._is_measured = self._vocabulary is not None
        self.__dict__.pop("corpus", None)

    def adopt(self, hyperparameters: Mapping[str, Any]) -> None:
        """Takes the vocabulary of a trained model in place of the training text's own.

        Args:
            hyperparameters: those of the model.

        Raises:
            ValueError: its tokens are of another kind.
        """
        vocabulary = hyperparameters.get("vocabulary") or ()
        if EOS not in vocabulary:  # no language model's
            return
        for name, own in (("level", self.level), ("segmenter", self.segmenter)):
            if hyperparameters.get(name, own) != own:
                raise ValueError(f"data.{name} is {own}, the trained model's {hyperparameters[name]}: set it to that")
        self._vocabulary = tuple(vocabulary)
        self.__dict__.pop("corpus", None)

    # The text is read on first use: building the datamodule for --help costs nothing.

    @property
    def vocabulary(self) -> list[str]:
        """The tokens by number."""
        return self.corpus.vocabulary if self._vocabulary is None else list(self._vocabulary)

    @property
    def vocab_size(self) -> int:
        """Number of tokens in the vocabulary."""
        return len(self.vocabulary)

    @property
    def sequence_length(self) -> int:
        """Tokens per window, ``bptt``."""
        return self.bptt

    @cached_property
    def corpus(self) -> Corpus:
        """The three texts as token numbers."""
        settings = TextSettings(
            self.level,
            self.segmenter,
            self.keep_layout,
            self.eos_on_blank_lines or False,
            self.min_count,
            self.max_words,
            0 if self.source == "sample" else self.drop_first_train_lines,
            self._vocabulary,
        )
        if self.source != "sample":
            by_name = self.eos_on_blank_lines is None
            return read_corpus(self.source, settings, self.data_set, self.encoding, by_name, self._is_measured)
        lines = {name: [" ".join(sentence.words) for sentence in part] for name, part in self._sample.items()}
        return build_corpus(lines, settings, {name: f"the sample's {name} text" for name in lines})

    @cached_property
    def _sample(self) -> dict[str, list[ParsedSentence]]:
        train = make_sentences(self.sample_train_size, self.seed, "train")
        held_out = {name: make_sentences(self.sample_test_size, self.seed, name, train) for name in ("valid", "test")}
        return {"train": train, **held_out}

    @cached_property
    def trees(self) -> tuple[ParsedSentence, ...]:
        """The test sentences with gold trees; empty if there are none."""
        return self._trees("test")

    @cached_property
    def validation_trees(self) -> tuple[ParsedSentence, ...]:
        """The sentences with gold trees to choose a layer by; empty if there are none."""
        return self._trees("valid")

    def _trees(self, split: str) -> tuple[ParsedSentence, ...]:
        if self.level != "word":
            return ()
        if self.treebank is not None:
            sentences = read_treebank(Path(self.treebank))
            return sentences if split == "test" else sentences[::10]
        return tuple(self._sample[split]) if self.source == "sample" else ()

    def prepare_data(self) -> None:
        """Download and encode, in one process."""
        self.corpus  # noqa: B018

    def setup(self, stage: str | None = None) -> None:
        """Read everything; the same in every process and at every stage."""
        self.corpus, self.trees  # noqa: B018
        if stage in ("fit", None):
            # Report now, not after training, that the test text is too short.
            self.val_dataloader(), self.test_dataloader()
            if self.level == "word" and self.segmenter == "none" and (warning := unsegmented(self.vocabulary)):
                rank_zero_warn(warning)
        if stage == "test":
            self._warn_of_unknown_words()

    def _warn_of_unknown_words(self) -> None:
        known = set(self.vocabulary)
        words = [word in known for sentence in self.trees for word in sentence.words]
        if len(words) > 2 * sum(words):
            rank_zero_warn(
                f"{len(words) - sum(words):,} of {len(words):,} words of {self.treebank or 'the sample'} are not in "
                "the vocabulary, so its trees say little about the model"
            )

    def train_dataloader(self) -> BatchLoader:
        return self._loader("train", self.batch_size)

    def val_dataloader(self) -> list[BatchLoader]:
        tokens = self._loader("valid", self.eval_batch_size)
        return [tokens, self._parse_loader(self.validation_trees)] if self.validation_trees else [tokens]

    def test_dataloader(self) -> list[BatchLoader]:
        tokens = self._loader("test", self.test_batch_size)
        return [tokens, self._parse_loader(self.trees)] if self.trees else [tokens]

    def _loader(self, split: str, batch_size: int) -> BatchLoader:
        text, training = self.corpus.texts[split], split == "train"
        options: dict[str, Any] = {"seed": self.seed, "name": self.corpus.names[split]}
        if training and self._unk_rate:
            options["alter"] = read_as_unknown(self._unk_rate, self.vocabulary)
        if self.order == "random":
            return RandomWindowLoader(text, batch_size, self.bptt, training=training, **options)
        variable = training and self.variable_bptt
        return ContiguousLoader(text, batch_size, self.bptt, variable=variable, shared=not training, **options)

    @property
    def _unk_rate(self) -> float:
        """The share of words that training reads as ``<unk>``."""
        if self.unk_rate is not None:
            return self.unk_rate
        is_own_text = self.level == "word" and self.source not in ("hub", "sample")
        return SOME if is_own_text and not self.corpus.unknown["train"] else 0.0

    def _parse_loader(self, trees: tuple[ParsedSentence, ...]) -> BatchLoader:
        # Sentences of similar length in a batch: little padding.
        sentences = sorted(trees, key=lambda sentence: len(sentence.words))
        numbers = {word: number for number, word in enumerate(self.vocabulary)}

        def fetch(index: Tensor) -> ParseBatch:
            return parse_batch([sentences[place] for place in index.tolist()], numbers)

        return BatchLoader(fetch, len(sentences), self.eval_batch_size)

    def describe(self) -> dict[str, Any]:
        """What the run was trained on, as plain values."""
        sizes = {f"{split}_tokens": len(text) for split, text in self.corpus.texts.items()}
        lines = {f"{split}_lines": count for split, count in self.corpus.lines.items()}
        unknown = {f"{split}_unknown_share": share for split, share in self.corpus.unknown.items()}
        shape = {"level": self.level, "vocab_size": self.vocab_size, "gold_trees": len(self.trees)}
        return {"source": self.source, **shape, **lines, **sizes, **unknown, "fingerprint": self.corpus.fingerprint}

    def remarks(self) -> list[str]:
        """Lines for the terminal, beside the measured results."""
        if self.source == "sample":
            return []
        held_out = []
        if len(self.corpus.texts) == 1:
            lines = self.corpus.lines["test"]
            held_out = [f"{self.corpus.names['test']} is measured whole: {lines:,} line{'s' * (lines != 1)}"]
        elif self.source != "hub" and user_path(self.source).is_file():
            counts = ", ".join(f"{count:,} of {split}" for split, count in self.corpus.lines.items())
            held_out = [f"{self.source} is one file, whose last lines are held out: {counts}"]
        return [*held_out, describe_shares(self.corpus.unknown, self.level)]

    def state_dict(self) -> dict[str, Any]:
        """What a model that is tested on another text must know of this one."""
        was_trained = self.corpus.unknown["train"] > 0 or self._unk_rate > 0
        limits = {"min_count": self.min_count, "max_words": self.max_words}
        return {"unknown_shares": dict(self.corpus.unknown), "unknown_trained": was_trained, **limits}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Warns where perplexities of this text don't compare with those of the text in a checkpoint.

        Raises:
            ValueError: the vocabulary was chosen by other limits, which can't change any more.
        """
        for name in ("min_count", "max_words"):
            if state_dict.get(name, own := getattr(self, name)) != own:
                raise ValueError(f"data.{name} is {own}, the trained model's {state_dict[name]}: set it to that")
        before, was_trained = state_dict["unknown_shares"], state_dict["unknown_trained"]
        if warning := compare_shares(self.corpus.unknown, before, was_trained, self.level):
            rank_zero_warn(warning)


def parse_batch(sentences: list[ParsedSentence], numbers: dict[str, int]) -> ParseBatch:
    """Sentences as a ``ParseBatch``.

    Args:
        sentences: the sentences.
        numbers: the number of each word of the vocabulary.
    """
    end, unknown = numbers[EOS], numbers[UNKNOWN]
    lengths = torch.tensor([len(sentence.words) for sentence in sentences])
    inputs = torch.full((len(sentences), int(lengths.max()) + 2), end)
    for row, sentence in enumerate(sentences):
        known = [numbers.get(word, unknown) for word in sentence.words]
        inputs[row, 1 : len(known) + 1] = torch.tensor(known)
    words = tuple(sentence.words for sentence in sentences)
    return ParseBatch(inputs, lengths, words, tuple(sentence.spans for sentence in sentences))
