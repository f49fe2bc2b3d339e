"""Sentences with triples for triple extraction: from the hub, the user's files, or a sample."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from readers.encodings import check_encoding
from readers.errors import DataError
from readers.triples.aliases import read_aliases
from readers.triples.encoding import Occurrences, Segmenter, TripleEncoder
from readers.triples.normalization import Normalize
from readers.triples.schemas import write_schema
from readers.triples.tables import Negatives
from readers.word_vectors import read_word_vectors

from .arguments import check_at_least, check_choice, check_seed, check_val_fraction
from .loader import BatchLoader, rank_and_world_size
from .triple_data.loaders import BucketLoader, EvaluationBatches, TrainingBatches
from .triple_data.sources import SchemaFrom, TripleSources
from .triple_data.splits import EncodedSplit, SplitEncoding, as_bytes
from .triple_data.trained import TrainedVocabulary

FEW_ROWS = 8  # of a training batch on little data


class TripleDataModule(pl.LightningDataModule):
    """Sentences with their (subject, predicate, object) triples, as JSON lines in the format of SKE (DuIE 1.0).

    Batches are ``TripleBatch``. Training batches are bucketed by length and ask for the objects of one subject per row,
    which may be a wrong one. Evaluation batches have whole sentences, shorter ones first.

    The characters are those of the training text alone, so that other test files fit the same model. A text longer than
    ``max_length`` is cut into windows that overlap by half. Triples whose subject or object isn't in the text can't be
    labelled, but remain gold triples of validation and test; training sentences without a triple that can be labelled
    are left out. All this is counted, reported once and part of ``describe``.

    Args:
        source: ``hub`` (``hub_id``, by Hugging Face ``datasets``), ``sample`` (Chinese sentences over all 49 predicates
            of SKE, made at load time), a file of JSON lines, or a folder with SKE's file names ``train_data.json``,
            ``dev_data.json``, ``test_data.json`` and ``all_50_schemas`` (only the first is required).
        train_file: training file, or several to be concatenated; relative to the working folder, else to ``source``.
        val_file: validation file.
        test_file: test file; without one that has triples, the validation sentences are the test.
        schema_file: JSON lines with ``subject_type``, ``predicate``, ``object_type``; None: that of the folder, else
            SKE's 50 rows.
        batch_size: rows per training batch and process.
        min_batches: batches of an epoch at least, over all processes: on little data they have fewer rows, down to 8
            (or as many as there are).
        eval_batch_size: sentences per batch and process in validation and test.
        max_length: maximum length of a row, in characters.
        min_count: characters that are rarer in the training text count as unknown.
        prior: use distant supervision: candidates are the triples of the training sentences; for a training sentence,
            only those that another one states, too.
        occurrences: label only the ``first`` occurrence of subject and object, or ``all``; of those at word
            boundaries where there are such. Spans that the file gives (``subject_span``, ``object_span``) are
            labelled instead.
        negatives: the subject to predict the objects of in training: ``random_ends`` (a subject's start, and any
            subject's end after it, so some are wrong on purpose) or ``gold_spans``.
        augment: the probability that the entities of a triple of a training sentence are replaced by those of another
            triple with the same predicate, in [0, 1].
        vectors_file: word vectors (``readers.word_vectors``).
        max_words: how many of them to read.
        segmenter: how texts are split into words, for word vectors: ``jieba``, or ``none`` (each character is a word).
        val_fraction: fraction of the training sentences held out if there is no validation file, strictly between 0
            and 1.
        schema: where the predicates are from: ``file`` (``schema_file`` and what stands there), or ``from_data``: those
            of the training and validation sentences. It is written into the run folder as ``schema.json``, which
            ``schema_file`` reads.
        normalize: the form in which entities are looked for, and in which the model reads texts: ``width`` (NFKC),
            ``case`` (lower case), ``both``, or ``none``. Predictions have the text's own characters and positions.
        keep_empty: train on sentences without triples, too: the model then finds fewer triples in such texts.
        alias_file: names and their aliases, separated by tabs, for the competitions' score of the test.
        encoding: of the files: ``utf-8``, ``gbk``, ``utf-16`` …
        seed: of order, subjects, augmentation, held-out sentences and sample.
        sample_train_size: number of training sentences of ``sample``.
        sample_test_size: number of test sentences of ``sample``, and of validation sentences.
        hub_id: the data set on the hub, ``owner/name``, with columns ``text`` and ``spo_list``.
        hub_config: its configuration, if it has several.

    Attributes:
        characters: ``<pad>``, ``<unk>`` and the known characters, frequent ones first.
        schema: ``[subject_type, predicate, object_type]`` rows. A further slot of an object (DuIE 2.0) has a row of its
            own, with a predicate such as ``票房@inArea``.
        object_slots: whether objects are in DuIE 2.0's form, ``{"@value": …, "inArea": …}``.
        predicates: the distinct predicates, in the order of the schema.
        words: the words with vectors; row i + 1 of ``word_vectors`` (W + 1, D) float32 belongs to word i, row 0 is
            zero; ``word_vector_size`` is D, or 0 without vectors.
        known_triples: the distinct ``[subject, predicate, object]`` of the training sentences; none without ``prior``.

    Raises:
        ValueError: an argument is out of range.
        DataError: the data is not available or can't be read; the message names file and line.

    Source: the conventions are those of kg-2019 (Su 2019, https://kexue.fm/archives/6671). Differences: the vocabulary
    is that of the training text only; long texts are not truncated; sentences with the same text count as one in the
    leave-one-out of distant supervision.

    Example:
        data:
          class_path: TripleDataModule
          init_args: {source: my_triples, schema_file: schema.json, max_length: 256}
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
        schema: SchemaFrom = "file",
        normalize: Normalize = "none",
        keep_empty: bool = False,
        alias_file: str | None = None,
        encoding: str = "utf-8",
        val_fraction: float = 0.1,
        seed: int = 0,
        sample_train_size: int = 4000,
        sample_test_size: int = 500,
        hub_id: str = "xusenlin/duie",
        hub_config: str | None = None,
        min_batches: int = 1,
    ) -> None:
        super().__init__()
        check_at_least(1, batch_size=batch_size, min_batches=min_batches, eval_batch_size=eval_batch_size)
        check_at_least(2, max_length=max_length)
        check_at_least(1, min_count=min_count, max_words=max_words)
        check_at_least(1, sample_train_size=sample_train_size, sample_test_size=sample_test_size)
        check_choice("occurrences", occurrences, get_args(Occurrences))
        check_choice("negatives", negatives, get_args(Negatives))
        check_choice("segmenter", segmenter, get_args(Segmenter))
        check_choice("schema", schema, get_args(SchemaFrom))
        check_choice("normalize", normalize, get_args(Normalize))
        check_encoding(encoding)
        if schema == "from_data" and schema_file is not None:
            raise ValueError(f"schema=from_data reads no schema_file ({schema_file}): leave one of them out")
        if not 0 <= augment <= 1:
            raise ValueError(f"augment ({augment}) must be in [0, 1]")
        check_val_fraction(val_fraction)
        check_seed(seed)
        if segmenter != "none" and vectors_file is None:
            raise ValueError(f"segmenter ({segmenter}) finds words for word vectors: give vectors_file, or none")
        if train_file is not None and source in ("hub", "sample"):
            raise ValueError(f"train_file is not read with source {source}: give source the folder of your files")
        self.source = source
        self.batch_size, self.min_batches = batch_size, min_batches
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
        self.normalize: Normalize = normalize
        self.keep_empty = keep_empty
        self.alias_file = alias_file
        self.seed = seed
        self._trained: TrainedVocabulary | None = None
        self._splits: dict[str, EncodedSplit] = {}
        # The data is read on first use: building the datamodule for --help costs nothing.
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
            schema,
            normalize,
            encoding,
        )

    def adopt(self, hyperparameters: Mapping[str, Any]) -> None:
        """Takes characters, schema, slots, words and known triples of a trained model in place of the data's own.

        Args:
            hyperparameters: those of the model.

        Raises:
            ValueError: it reads texts in another form, or has no word vectors.
        """
        trained = TrainedVocabulary.of(hyperparameters)
        if trained is None:
            return
        for name, own in (("normalize", self.normalize), ("segmenter", self.segmenter)):
            if hyperparameters.get(name, own) != own:
                raise ValueError(f"data.{name} is {own}, the trained model's {hyperparameters[name]}: set it to that")
        if self.vectors_file is not None and not trained.words:
            raise ValueError("data.vectors_file is given, but the trained model has no word vectors: leave it out")
        self._trained = trained
        self.sources = replace(self.sources, trained_schema=trained.schema)
        self._splits.clear()
        for name in ("_encoding", "_training", "encoder", "known_triples", "training_batches", "word_vectors"):
            self.__dict__.pop(name, None)

    def measure_whole(self) -> None:
        """Other sentences than the training's are only measured, with an adopted vocabulary: all of a single file."""
        self.sources = replace(self.sources, whole=self._trained is not None)
        self._splits.clear()

    @property
    def schema(self) -> list[list[str]]:
        """``[subject_type, predicate, object_type]`` rows."""
        return self.sources.schema.rows

    @property
    def object_slots(self) -> bool:
        """Whether objects are in DuIE 2.0's form."""
        return self.sources.schema.object_slots

    @property
    def predicates(self) -> list[str]:
        """The distinct predicates, in the order of the schema."""
        return self.sources.predicates

    @cached_property
    def _vectors(self) -> tuple[list[str], np.ndarray]:
        if self.vectors_file is None:
            return [], np.zeros((0, 0), np.float32)
        return read_word_vectors(self.sources.find(self.vectors_file, "vectors_file"), self.max_words)

    @cached_property
    def aliases(self) -> dict[str, list[str]]:
        """Of each name of ``alias_file``."""
        if self.alias_file is None:
            return {}
        return read_aliases(self.sources.find(self.alias_file, "alias_file"), self.sources.encoding)

    @property
    def prior_features(self) -> bool:
        """``prior``, under the name that the model uses."""
        return self.prior

    @property
    def words(self) -> list[str]:
        """The words with vectors; none without ``vectors_file``."""
        return self._vectors[0] if self._trained is None else self._trained.words

    @property
    def word_vector_size(self) -> int:
        """D, the dimension of the word vectors; 0 without vectors."""
        return self._vectors[1].shape[1] if self._trained is None else self._trained.word_vector_size

    @cached_property
    def word_vectors(self) -> Tensor:
        """(W + 1, D) float32: row 0 is zero (no word), followed by the vectors of ``words``.

        Raises:
            DataError: a trained model has vectors of other words.
        """
        if self._vectors[0] != self.words:
            raise DataError(
                f"data.vectors_file ({self.vectors_file}) has other words than the trained model: give the file that "
                "it was trained with"
            )
        vectors = torch.from_numpy(self._vectors[1])
        return torch.cat([vectors.new_zeros(1, vectors.shape[1]), vectors])

    @property
    def characters(self) -> list[str]:
        """``<pad>``, ``<unk>`` and the characters of the training text, frequent ones first."""
        return self.encoder.characters

    @cached_property
    def known_triples(self) -> list[list[str]]:
        """The distinct ``[subject, predicate, object]`` of the training sentences; none without ``prior``."""
        return [list(triple) for triple in self.encoder.known.numbers]

    @cached_property
    def encoder(self) -> TripleEncoder:
        """Encodes texts as arrays."""
        return self._training[0] if self._trained is None else self._encoding.trained_encoder()

    @cached_property
    def _encoding(self) -> SplitEncoding:
        options = (self.segmenter, self.max_length, self.min_count, self.prior, self.occurrences)
        return SplitEncoding(
            self.source, self.schema, self.words, *options, self.normalize, self.keep_empty, self._trained
        )

    @cached_property
    def _training(self) -> tuple[TripleEncoder, EncodedSplit]:
        train = self.sources.split("train")
        assert train is not None  # only the test may be missing
        return self._encoding.training(train)

    def split(self, name: str) -> EncodedSplit:
        """The sentences of ``train``, ``val`` or ``test``."""
        if name not in self._splits:
            self._splits[name] = self._encode(name)
        return self._splits[name]

    def _encode(self, name: str) -> EncodedSplit:
        if name == "train":
            return self._training[1]
        source = self.sources.split(name)
        if source is None:  # only the test may be missing
            return self.split("val")
        return self._encoding.evaluation("validation" if name == "val" else name, source, self.encoder)

    @property
    def splits(self) -> dict[str, EncodedSplit]:
        """The sentences of ``train``, ``val`` and ``test``."""
        return {name: self.split(name) for name in ("train", "val", "test")}

    # Lightning.

    def prepare_data(self) -> None:
        """Download, encode and fill the cache, in one process."""
        self.setup("test" if self.trainer is not None and self.trainer.state.fn == "test" else None)

    def setup(self, stage: str | None = None) -> None:
        """Read and encode everything, the same in every process; for the test alone only what it needs."""
        if stage == "test":
            self.split("test")
            return
        self.splits  # noqa: B018
        if stage == "fit" and self.sources.schema_from == "from_data" and self.trainer is not None:
            for logger in self.trainer.loggers if self.trainer.is_global_zero else ():
                if hasattr(logger, "log_file"):
                    logger.log_file("schema.json", self._write_schema)

    def _write_schema(self, path: Path) -> None:
        path.write_text(write_schema(self.sources.schema), encoding="utf-8")

    @cached_property
    def training_batches(self) -> TrainingBatches:
        """Makes the batches of training."""
        train = self.split("train")
        return TrainingBatches(train.table, train.sentences, self.encoder, self.negatives, self.augment, self.seed)

    def train_dataloader(self) -> BatchLoader:
        rows, (_, processes) = len(self.training_batches.table), rank_and_world_size()
        size = max(FEW_ROWS, rows // self.min_batches)
        return BucketLoader(self.training_batches, min(self.batch_size, size, max(1, rows // processes)), self.seed)

    def val_dataloader(self) -> BatchLoader:
        return self._evaluation_loader("val")

    def test_dataloader(self) -> BatchLoader:
        return self._evaluation_loader("test")

    def _evaluation_loader(self, name: str) -> BatchLoader:
        split = self.split(name)
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
            "train_rows": len(self.split("train").table),
            "test_is_validation": self.split("test") is self.split("val"),
            "predicates": len(self.predicates),
            "characters": len(self.characters),
            "known_triples": len(self.known_triples),
            "words": len(self.words),
            "fingerprint": digest.hexdigest()[:16],
        }
