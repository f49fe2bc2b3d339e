"""Text for language models, from the hub, files, or a grammar; with trees to test parsing."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from readers.text.treebank import ParsedSentence, read_treebank

from .arguments import check_at_least, check_choice, check_seed
from .batches import ParseBatch
from .corpus import EOS, UNKNOWN, Corpus, DataSet, Level, build_corpus, read_corpus
from .loader import BatchLoader
from .samples.grammar import make_sentences
from .windows import ContiguousLoader, RandomWindowLoader

Order = Literal["contiguous", "random"]


class TextDataModule(pl.LightningDataModule):
    """Text in rows that continue from batch to batch, for language models that carry their state.

    Batches are ``TokenBatch``; see ``ContiguousLoader`` for the order. Each line is a sentence, ended by ``<eos>``. The
    vocabulary is that of all three texts, and always has ``<unk>``. If there are gold trees (with ``treebank``, and
    always for ``sample``), testing yields a second loader of ``ParseBatch``, shorter sentences first.

    Args:
        source: ``hub`` (``hub_id``, by Hugging Face ``datasets``; by default the Penn Treebank as preprocessed by
            Mikolov), ``sample`` (a grammar, with gold trees, made at load time), or a folder: parquet files,
            ``ptb.train.txt``, ``ptb.valid.txt`` and ``ptb.test.txt``, or any three UTF-8 ``.txt`` files named after
            train, valid (val, dev) and test, with one sentence per line.
        level: a token is a ``word`` (separated by white space) or a ``character``.
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
    ) -> None:
        super().__init__()
        check_at_least(1, batch_size=batch_size, eval_batch_size=eval_batch_size, test_batch_size=test_batch_size)
        check_at_least(1, bptt=bptt, sample_train_size=sample_train_size, sample_test_size=sample_test_size)
        check_at_least(0, drop_first_train_lines=drop_first_train_lines)
        check_choice("level", level, get_args(Level))
        check_choice("order", order, get_args(Order))
        check_seed(seed)
        if level == "character" and treebank is not None:
            raise ValueError("treebank: the leaves of trees are words; set level to word")
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

    # The text is read on first use: building the datamodule for --help costs nothing.

    @property
    def vocabulary(self) -> list[str]:
        """The tokens by number."""
        return self.corpus.vocabulary

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
        if self.source != "sample":
            return read_corpus(self.source, self.level, self.data_set, self.drop_first_train_lines)
        lines = {name: [" ".join(sentence.words) for sentence in part] for name, part in self._sample.items()}
        return build_corpus(lines, self.level, {name: f"the sample's {name} text" for name in lines})

    @cached_property
    def _sample(self) -> dict[str, list[ParsedSentence]]:
        train = make_sentences(self.sample_train_size, self.seed, "train")
        held_out = {name: make_sentences(self.sample_test_size, self.seed, name, train) for name in ("valid", "test")}
        return {"train": train, **held_out}

    @cached_property
    def trees(self) -> tuple[ParsedSentence, ...]:
        """The test sentences with gold trees; empty if there are none."""
        if self.level == "character":
            return ()
        if self.treebank is not None:
            return read_treebank(Path(self.treebank))
        return tuple(self._sample["test"]) if self.source == "sample" else ()

    def prepare_data(self) -> None:
        """Download, in one process."""
        if self.source == "hub":
            self.corpus  # noqa: B018

    def setup(self, stage: str | None = None) -> None:
        """Read everything; the same in every process and at every stage."""
        self.corpus, self.trees  # noqa: B018
        if stage in ("fit", None):
            # Report now, not after training, that the test text is too short.
            self.val_dataloader(), self.test_dataloader()
        if stage == "test":
            self._warn_of_unknown_words()

    def _warn_of_unknown_words(self) -> None:
        known = set(self.vocabulary)
        words = [word in known for sentence in self.trees for word in sentence.words]
        if len(words) > 2 * sum(words):
            rank_zero_warn(
                f"{len(words) - sum(words):,} of {len(words):,} words of {self.treebank} are not in the vocabulary, so "
                "its trees say little about the model"
            )

    def train_dataloader(self) -> BatchLoader:
        return self._loader("train", self.batch_size)

    def val_dataloader(self) -> BatchLoader:
        return self._loader("valid", self.eval_batch_size)

    def test_dataloader(self) -> list[BatchLoader]:
        tokens = self._loader("test", self.test_batch_size)
        return [tokens, self._parse_loader()] if self.trees else [tokens]

    def _loader(self, split: str, batch_size: int) -> BatchLoader:
        text, training = self.corpus.texts[split], split == "train"
        options: dict[str, Any] = {"seed": self.seed, "name": self.corpus.names[split]}
        if self.order == "random":
            return RandomWindowLoader(text, batch_size, self.bptt, training=training, **options)
        variable = training and self.variable_bptt
        return ContiguousLoader(text, batch_size, self.bptt, variable=variable, shared=not training, **options)

    def _parse_loader(self) -> BatchLoader:
        # Sentences of similar length in a batch: little padding.
        sentences = sorted(self.trees, key=lambda sentence: len(sentence.words))
        numbers = {word: number for number, word in enumerate(self.vocabulary)}

        def fetch(index: Tensor) -> ParseBatch:
            return parse_batch([sentences[place] for place in index.tolist()], numbers)

        return BatchLoader(fetch, len(sentences), self.eval_batch_size)

    def describe(self) -> dict[str, Any]:
        """What the run was trained on, as plain values."""
        digest = hashlib.sha256("\n".join(self.vocabulary).encode())
        for text in self.corpus.texts.values():
            digest.update(text.numpy().tobytes())
        sizes = {f"{split}_tokens": len(text) for split, text in self.corpus.texts.items()}
        lines = {f"{split}_lines": count for split, count in self.corpus.lines.items()}
        fingerprint = digest.hexdigest()[:16]
        shape = {"level": self.level, "vocab_size": self.vocab_size, "gold_trees": len(self.trees)}
        return {"source": self.source, **shape, **lines, **sizes, "fingerprint": fingerprint}


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
