"""Text for language models: the Penn Treebank, the user's own, or a sample of a grammar; with trees to test parsing."""

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
    """Contiguous text in rows that go on from batch to batch, as language models that carry their state are trained.

    Batches are ``TokenBatch``; see ``ContiguousLoader`` for what
    "contiguous" promises. Each line is a sentence, ended by ``<eos>``. The vocabulary is that of all three texts, and
    always has ``<unk>``. Testing yields a second loader of ``ParseBatch``, shorter sentences
    first, where there are gold trees: with ``treebank``, and always for ``sample``.

    Args:
        source: ``hub`` (``hub_id`` by Hugging Face ``datasets``; by default the Penn Treebank in Mikolov's form),
            ``sample`` (a grammar of our own, made at load time, with gold trees), or a folder: parquet files, or
            ``ptb.train.txt``, ``ptb.valid.txt`` and ``ptb.test.txt``, or any three UTF-8 ``.txt`` files named after
            train, valid (val, dev) and test; a sentence a line.
        level: a token is a ``word`` (what stands between white space) or a ``character``.
        batch_size: rows (or, in random order, windows) of a training batch, for each process.
        eval_batch_size: those of validation, of all processes together, and sentences a batch of the treebank.
        test_batch_size: those of the test, of all processes together; the more rows, the more words are predicted
            without what came before.
        bptt: tokens of a window.
        variable_bptt: training windows of random length about ``bptt``, new in each epoch.
        order: ``contiguous``, or ``random``: independent windows of ``bptt`` tokens, for models without a state.
        treebank: ``.mrg`` file, folder or ``.zip`` of such files (Penn Treebank, or its sample from NLTK) to test
            parsing on; for ``sample`` in place of its own trees.
        drop_first_train_lines: leave out so many lines at the beginning of the training text: NLTK's treebank sample
            is the first 3,914 lines of PTB. ``sample`` tests on sentences of its own, and drops nothing.
        seed: of window lengths and order, and of the sample.
        sample_train_size: training sentences of ``sample``.
        sample_test_size: test sentences of ``sample``, and as many for validation.
        hub_id: the data set on the hub, ``owner/name``, of splits train, validation and test.
        hub_config: its configuration, if it has several, as ``wikitext-2-raw-v1``; for parquet files, too.
        text_column: its column of text, a line a row; None: ``text`` or ``sentence``. For parquet files, too.

    Attributes:
        vocabulary: the tokens, by their numbers; known at once, as is ``vocab_size``, their number.
        sequence_length: tokens of a window, ``bptt``; windows of variable length may be longer.

    Raises:
        ValueError: an argument is out of its range.
        DataError: the text cannot be had or read, or is too short for the batch size.
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
            raise ValueError("treebank: trees have words for leaves; they need level word")
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

    # The text is read when something first asks for it: building the datamodule for --help costs nothing.

    @property
    def vocabulary(self) -> list[str]:
        """The tokens, by their numbers."""
        return self.corpus.vocabulary

    @property
    def vocab_size(self) -> int:
        """How many tokens the vocabulary has."""
        return len(self.vocabulary)

    @property
    def sequence_length(self) -> int:
        """Tokens of a window, ``bptt``."""
        return self.bptt

    @cached_property
    def corpus(self) -> Corpus:
        """The three texts, as numbers."""
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
        """The sentences with gold trees of the test; empty where there are none."""
        if self.level == "character":
            return ()
        if self.treebank is not None:
            return read_treebank(Path(self.treebank))
        return tuple(self._sample["test"]) if self.source == "sample" else ()

    def prepare_data(self) -> None:
        """Download, in one process."""
        if self.source == "hub":
            read_corpus(self.source, self.level, self.data_set)

    def setup(self, stage: str | None = None) -> None:
        """Read everything; the same in every process and at every stage."""
        self.corpus, self.trees  # noqa: B018
        if stage in ("fit", None):
            # Now, not when the training is over, is the time to hear that the text for the test is too short.
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
        options = {"seed": self.seed, "name": self.corpus.names[split]}
        if self.order == "random":
            return RandomWindowLoader(text, batch_size, self.bptt, training=training, **options)
        variable = training and self.variable_bptt
        return ContiguousLoader(text, batch_size, self.bptt, variable=variable, shared=not training, **options)

    def _parse_loader(self) -> BatchLoader:
        # Sentences of like length in a batch: little to fill up.
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
        numbers: number of each word of the vocabulary.
    """
    end, unknown = numbers[EOS], numbers[UNKNOWN]
    lengths = torch.tensor([len(sentence.words) for sentence in sentences])
    inputs = torch.full((len(sentences), int(lengths.max()) + 2), end)
    for row, sentence in enumerate(sentences):
        known = [numbers.get(word, unknown) for word in sentence.words]
        inputs[row, 1 : len(known) + 1] = torch.tensor(known)
    words = tuple(sentence.words for sentence in sentences)
    return ParseBatch(inputs, lengths, words, tuple(sentence.spans for sentence in sentences))
