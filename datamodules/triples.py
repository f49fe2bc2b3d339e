"""Triple extraction: Baidu's SKE (DuIE) from the hub or the user's files, or a sample of sentences of our own."""

import hashlib
import json
from dataclasses import asdict
from functools import cached_property
from typing import Any, get_args

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from readers.triples.encoding import Occurrences, Segmenter, TripleEncoder
from readers.triples.tables import Negatives
from readers.word_vectors import read_word_vectors

from .arguments import check_at_least, check_choice, check_seed, check_val_fraction
from .loader import BatchLoader
from .triple_loaders import BucketLoader, EvaluationBatches, TrainingBatches
from .triple_sources import TripleSources
from .triple_splits import EncodedSplit, SplitEncoding, as_bytes


class TripleDataModule(pl.LightningDataModule):
    """Sentences with their (subject, predicate, object) triples, in the layout of Baidu's SKE (LIC2019, DuIE 1.0).

    Batches are ``TripleBatch``. In training they are bucketed by length, and ask each row for
    the objects of one subject, which may be a wrong one. In evaluation a batch has whole sentences, shorter ones first.

    The characters are those of the training text alone: another test file fits the same model. A text longer than
    ``max_length`` becomes windows that overlap by half. Triples whose subject or object isn't in the text can't be
    labelled, but stay in the gold triples of validation and test; training sentences without a triple, or without one
    that can be labelled, are left out. All this is counted, said once and told by ``describe``.

    Args:
        source: ``hub`` (``hub_id`` by Hugging Face ``datasets``), ``sample`` (sentences of our own over all 49
            predicates, made at load time), a folder with ``train_data.json``, ``dev_data.json``, ``test_data.json`` and
            ``all_50_schemas`` (only the first is needed), or one file of JSON lines.
        train_file: training file, or several to be joined; as seen from the working folder, else from ``source``.
        val_file: validation file.
        test_file: test file; where there is none with triples, the test has the validation sentences.
        schema_file: JSON lines with ``subject_type``, ``predicate``, ``object_type``; without it that of the folder,
            else the 50 rows of SKE.
        batch_size: rows of a training batch, for each process.
        eval_batch_size: sentences of a batch of validation and test, for each process.
        max_length: the longest row, in characters.
        min_count: characters that the training text has less often are unknown ones.
        prior: candidates of distant supervision: the triples of the training sentences, of which a training sentence is
            only told those that another one has too.
        occurrences: label only the ``first`` occurrence of subject and object, or ``all``.
        negatives: the subject asked for in training: ``random_ends`` (a subject's start, and any subject's end after
            it: some are wrong on purpose) or ``gold_spans``.
        augment: the probability that the entities of a triple of a training sentence are replaced by those of another
            triple of the same predicate, in [0, 1].
        vectors_file: word vectors: ``.npz`` (``words``, ``vectors``), or the text of word2vec or GloVe.
        max_words: read so many of them.
        segmenter: what finds words, for word vectors: ``jieba``, or ``none``: each character is a word.
        val_fraction: share of the training sentences held out where there is no validation file, in (0, 1).
        seed: of order, subjects, augmentation, held-out sentences and sample.
        sample_train_size: training sentences of ``sample``.
        sample_test_size: test sentences of ``sample``, and as many for validation.
        hub_id: the data set on the hub, ``owner/name``, with columns ``text`` and ``spo_list``.
        hub_config: its configuration, if it has several.

    Attributes:
        characters: ``<pad>``, ``<unk>`` and the known characters, frequent ones first.
        schema: ``[subject_type, predicate, object_type]`` rows.
        predicates: the different predicates, in the order of the schema.
        words: the words with vectors; ``word_vectors`` (W + 1, D) float32 has theirs from row 1 on, row 0 is zero;
            ``word_vector_size`` is D, or 0 without vectors.
        known_triples: the different ``[subject, predicate, object]`` of the training sentences; none without ``prior``.

    Raises:
        ValueError: an argument is out of its range.
        DataError: the data cannot be had or read; the message names file and line.

    Source: the data module's conventions are kg-2019's (Su 2019, https://kexue.fm/archives/6671). Differences: the
    vocabulary is of the training text only; long texts are not cut; sentences with the same text count as one where
    distant supervision leaves a sentence out.
    """

    def __init__(
        self,
        source: str = "hub",
        train_file: str | list[str] | None = None,
        val_file: str | None = None,
        test_file: str | None = None,
        schema_file: str | None = None,
        batch_size: int = 64,
        eval_batch_size: int = 64,
        max_length: int = 512,
        min_count: int = 2,
        prior: bool = True,
        occurrences: Occurrences = "first",
        negatives: Negatives = "random_ends",
        augment: float = 0.0,
        vectors_file: str | None = None,
        max_words: int = 50000,
        segmenter: Segmenter = "none",
        val_fraction: float = 0.1,
        seed: int = 0,
        sample_train_size: int = 4000,
        sample_test_size: int = 500,
        hub_id: str = "xusenlin/duie",
        hub_config: str | None = None,
    ) -> None:
        super().__init__()
        check_at_least(1, batch_size=batch_size, eval_batch_size=eval_batch_size)
        check_at_least(2, max_length=max_length)
        check_at_least(1, min_count=min_count, max_words=max_words)
        check_at_least(1, sample_train_size=sample_train_size, sample_test_size=sample_test_size)
        check_choice("occurrences", occurrences, get_args(Occurrences))
        check_choice("negatives", negatives, get_args(Negatives))
        check_choice("segmenter", segmenter, get_args(Segmenter))
        if not 0 <= augment <= 1:
            raise ValueError(f"augment ({augment}) must lie in [0, 1]")
        check_val_fraction(val_fraction)
        check_seed(seed)
        if segmenter != "none" and vectors_file is None:
            raise ValueError(f"segmenter ({segmenter}) finds words for word vectors: give vectors_file, or none")
        if train_file is not None and source in ("hub", "sample"):
            raise ValueError(f"train_file is not read with source {source}: give source the folder of your files")
        self.source = source
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.max_length = max_length
        self.min_count = min_count
        self.prior = prior
        self.occurrences: Occurrences = occurrences
        self.negatives: Negatives = negatives
        self.augment = augment
        self.vectors_file = vectors_file
        self.max_words = max_words
        self.segmenter: Segmenter = segmenter
        self.seed = seed
        # Everything is read when something first asks for it: building the datamodule for --help costs nothing.
        self.sources = TripleSources(
            source,
            train_file,
            val_file,
            test_file,
            schema_file,
            val_fraction,
            seed,
            sample_train_size,
            sample_test_size,
            hub_id,
            hub_config,
        )

    @property
    def schema(self) -> list[list[str]]:
        """``[subject_type, predicate, object_type]`` rows."""
        return self.sources.schema

    @property
    def predicates(self) -> list[str]:
        """The different predicates, in the order of the schema."""
        return self.sources.predicates

    @cached_property
    def _vectors(self) -> tuple[list[str], np.ndarray]:
        if self.vectors_file is None:
            return [], np.zeros((0, 0), np.float32)
        return read_word_vectors(self.sources.find(self.vectors_file, "vectors_file"), self.max_words)

    @property
    def prior_features(self) -> bool:
        """``prior``, by the name that the model has for it."""
        return self.prior

    @property
    def words(self) -> list[str]:
        """The words with vectors; none without ``vectors_file``."""
        return self._vectors[0]

    @property
    def word_vector_size(self) -> int:
        """D, the numbers of a word's vector; 0 without vectors."""
        return self._vectors[1].shape[1]

    @cached_property
    def word_vectors(self) -> Tensor:
        """(W + 1, D) float32: row 0, of no word, is zero, then the vectors of ``words``."""
        vectors = torch.from_numpy(self._vectors[1])
        return torch.cat([vectors.new_zeros(1, vectors.shape[1]), vectors])

    @property
    def characters(self) -> list[str]:
        """``<pad>``, ``<unk>`` and the characters of the training text, frequent ones first."""
        return self.encoder.characters

    @cached_property
    def known_triples(self) -> list[list[str]]:
        """The different ``[subject, predicate, object]`` of the training sentences; none without ``prior``."""
        return [list(triple) for triple in self.encoder.known.numbers]

    @property
    def encoder(self) -> TripleEncoder:
        """What turns texts into batches."""
        return self._training[0]

    @cached_property
    def _encoding(self) -> SplitEncoding:
        options = (self.segmenter, self.max_length, self.min_count, self.prior, self.occurrences)
        return SplitEncoding(self.source, self.schema, self.words, *options)

    @cached_property
    def _training(self) -> tuple[TripleEncoder, EncodedSplit]:
        return self._encoding.training(self.sources.split("train"))

    @cached_property
    def splits(self) -> dict[str, EncodedSplit]:
        """The sentences of ``train``, ``val`` and ``test``."""
        encoder, train = self._training
        val = self._encoding.evaluation("validation", self.sources.split("val"), encoder)
        test = self.sources.split("test")
        test = val if test is None else self._encoding.evaluation("test", test, encoder)
        return {"train": train, "val": val, "test": test}

    # Lightning.

    def prepare_data(self) -> None:
        """Download and encode, in one process; the others then find it in the cache."""
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Read and encode everything; the same in every process and at every stage."""
        self.splits  # noqa: B018

    @cached_property
    def training_batches(self) -> TrainingBatches:
        """Makes the batches of training."""
        train = self.splits["train"]
        return TrainingBatches(train.table, train.sentences, self.encoder, self.negatives, self.augment, self.seed)

    def train_dataloader(self) -> BatchLoader:
        return BucketLoader(self.training_batches, self.batch_size, self.seed)

    def val_dataloader(self) -> BatchLoader:
        return self._evaluation_loader("val")

    def test_dataloader(self) -> BatchLoader:
        return self._evaluation_loader("test")

    def _evaluation_loader(self, name: str) -> BatchLoader:
        split = self.splits[name]
        return EvaluationBatches(split.table, split.sentences, self.negatives, self.seed).loader(self.eval_batch_size)

    def describe(self) -> dict[str, Any]:
        """What the run was trained on, as plain values."""
        about: dict[str, Any] = {"source": self.source}
        digest = hashlib.sha256(json.dumps([self.characters, self.schema]).encode())
        for name, split in self.splits.items():
            digest.update(as_bytes(split.sentences))
            about |= {f"{name}_{what}": count for what, count in split.counts.items()}
            about |= {f"{name}_{what}": value for what, value in asdict(split.unlabelled).items()}
        return {
            **about,
            "train_rows": len(self.splits["train"].table),
            "test_is_validation": self.splits["test"] is self.splits["val"],
            "predicates": len(self.predicates),
            "characters": len(self.characters),
            "known_triples": len(self.known_triples),
            "words": len(self.words),
            "fingerprint": digest.hexdigest()[:16],
        }
