"""Triple extraction: Baidu's SKE (DuIE) from the hub or the user's files, or a sample of sentences of our own."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor

from datamodules.cache import ArrayCache
from datamodules.distant_supervision import OtherItems, distinct_triples
from datamodules.errors import DataError
from datamodules.hub import load_from_hub
from datamodules.loader import BatchLoader
from datamodules.ske_files import Sentence, SkeFile, has_triples, parse_sentences, read_schema, read_sentences
from datamodules.triple_encoding import (
    Negatives,
    Occurrences,
    Segmenter,
    TripleEncoder,
    TripleTable,
    Unlabelled,
    count_characters,
    take,
)
from datamodules.triple_loaders import BucketLoader, EvaluationBatches, TrainingBatches
from datamodules.triple_sample import SCHEMA, make_triple_sentences
from datamodules.word_vectors import read_word_vectors

HUB_ID = "xusenlin/duie"
HUB_SPLITS = {"train": ("train",), "val": ("validation", "dev", "valid"), "test": ("test",)}
FILES = {"train": "train_data.json", "val": "dev_data.json", "test": "test_data.json"}
SCHEMA_FILE = "all_50_schemas"
CACHE_VERSION = 1  # to be raised when the same files would be encoded differently


@dataclass(frozen=True)
class Split:
    """Where the sentences of a split come from.

    Args:
        key: plain values that decide what they are; None if they are not worth a cache.
        read: gets them.
    """

    key: Any
    read: Callable[[], SkeFile]


@dataclass(frozen=True)
class EncodedSplit:
    """The sentences of a split, encoded, and what was noticed.

    Args:
        sentences: those that are used; ``table.sentences`` counts in them.
        table: their rows.
        unlabelled: what could not be labelled.
        counts: ``sentences`` and ``triples`` read, ``without_triples``, ``without_labels`` and ``other_slots``.
    """

    sentences: list[Sentence]
    table: TripleTable
    unlabelled: Unlabelled
    counts: dict[str, int]


class SKEDataModule(pl.LightningDataModule):
    """Sentences with their (subject, predicate, object) triples, in the layout of Baidu's SKE (LIC2019, DuIE 1.0).

    Batches are :class:`~datamodules.batches.TripleBatch`. In training they are bucketed by length, and ask each row for
    the objects of one subject, which may be a wrong one. In evaluation a batch has whole sentences, shorter ones first.

    The characters are those of the training text alone: another test file fits the same model. A text longer than
    ``max_length`` becomes windows that overlap by half. Triples whose subject or object isn't in the text can't be
    labelled, but stay in the gold triples of validation and test; training sentences without a triple, or without one
    that can be labelled, are left out. All this is counted, said once and told by :meth:`describe`.

    Args:
        source: ``hub`` (``xusenlin/duie``, by Hugging Face ``datasets``), ``sample`` (sentences of our own over all 49
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
    ) -> None:
        super().__init__()
        sizes = {
            "batch_size": (batch_size, 1),
            "eval_batch_size": (eval_batch_size, 1),
            "max_length": (max_length, 2),
            "min_count": (min_count, 1),
            "max_words": (max_words, 1),
            "sample_train_size": (sample_train_size, 1),
            "sample_test_size": (sample_test_size, 1),
        }
        for name, (size, least) in sizes.items():
            if size < least:
                raise ValueError(f"{name} ({size}) must be at least {least}")
        for name, value, choices in (
            ("occurrences", occurrences, ("first", "all")),
            ("negatives", negatives, ("random_ends", "gold_spans")),
            ("segmenter", segmenter, ("none", "jieba")),
        ):
            if value not in choices:
                raise ValueError(f"{name} ({value}) must be {choices[0]} or {choices[1]}")
        if not 0 <= augment <= 1:
            raise ValueError(f"augment ({augment}) must lie in [0, 1]")
        if not 0 < val_fraction < 1:
            raise ValueError(f"val_fraction ({val_fraction}) must lie between 0 and 1, without the ends")
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed ({seed}) must be at least 0 and below 2**32")
        if segmenter != "none" and vectors_file is None:
            raise ValueError(f"segmenter ({segmenter}) finds words for word vectors: give vectors_file, or none")
        if train_file is not None and source in ("hub", "sample"):
            raise ValueError(f"train_file is not read with source {source}: give source the folder of your files")
        self.source = source
        self.train_file = train_file
        self.val_file = val_file
        self.test_file = test_file
        self.schema_file = schema_file
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
        self.val_fraction = val_fraction
        self.seed = seed
        self.sample_train_size = sample_train_size
        self.sample_test_size = sample_test_size

    # Everything is read when something first asks for it: building the datamodule for --help costs nothing.

    @cached_property
    def schema(self) -> list[list[str]]:
        folder = self._folder
        if self.schema_file is not None:
            return read_schema(self._find(self.schema_file, "schema_file"))
        if folder is not None and (folder / SCHEMA_FILE).is_file():
            return read_schema(folder / SCHEMA_FILE)
        return [list(row) for row in SCHEMA]

    @cached_property
    def predicates(self) -> list[str]:
        return list(dict.fromkeys(predicate for _, predicate, _ in self.schema))

    @cached_property
    def _vectors(self) -> tuple[list[str], np.ndarray]:
        if self.vectors_file is None:
            return [], np.zeros((0, 0), np.float32)
        return read_word_vectors(self._find(self.vectors_file, "vectors_file"), self.max_words)

    @property
    def prior_features(self) -> bool:
        """``prior``, by the name that the model has for it."""
        return self.prior

    @property
    def words(self) -> list[str]:
        return self._vectors[0]

    @property
    def word_vector_size(self) -> int:
        return self._vectors[1].shape[1]

    @cached_property
    def word_vectors(self) -> Tensor:
        vectors = torch.from_numpy(self._vectors[1])
        return torch.cat([vectors.new_zeros(1, vectors.shape[1]), vectors])

    @property
    def characters(self) -> list[str]:
        return self.encoder.characters

    @cached_property
    def known_triples(self) -> list[list[str]]:
        return [list(triple) for triple in self.encoder.known.numbers]

    @property
    def encoder(self) -> TripleEncoder:
        """What turns texts into batches."""
        return self._training[0]

    @cached_property
    def splits(self) -> dict[str, EncodedSplit]:
        """The sentences of ``train``, ``val`` and ``test``."""
        encoder, train = self._training
        val = self._encode_other("val", encoder)
        test = val if self._split("test") is None else self._encode_other("test", encoder)
        return {"train": train, "val": val, "test": test}

    # Where the sentences are.

    @property
    def _folder(self) -> Path | None:
        """The source's folder; None for the hub, the sample and a single file."""
        if self.source in ("hub", "sample"):
            return None
        path = Path(self.source).expanduser()
        return path if path.is_dir() else None

    def _find(self, name: str, argument: str) -> Path:
        path = Path(name).expanduser()
        places = [path] if self._folder is None else [path, self._folder / path]
        for place in places:
            if place.is_file():
                return place
        also = f", nor in {self._folder}" if len(places) > 1 else ""
        raise DataError(f"data.{argument}: there is no file {path}{also}")

    @cached_property
    def _train_files(self) -> list[Path]:
        if self.train_file is not None:
            names = [self.train_file] if isinstance(self.train_file, str) else self.train_file
            if not names:
                raise DataError("data.train_file is an empty list: name a file, or leave it out")
            return [self._find(name, "train_file") for name in names]
        path = Path(self.source).expanduser()
        if not path.exists():
            raise DataError(f"data.source: {path} does not exist; give a folder, a file of JSON lines, hub or sample")
        if path.is_dir() and not (path / FILES["train"]).is_file():
            raise DataError(f"data.source: {path} has no {FILES['train']}; put it there, or give data.train_file")
        return [path / FILES["train"] if path.is_dir() else path]

    def _split(self, name: str) -> Split | None:
        """Where a split is; None where the validation sentences serve for the test."""
        file = self._file(name)
        if file is not None:
            return self._from_files([file])
        if self.source == "sample":
            return Split(None, lambda: SkeFile(self._sample[name], 0))
        if self.source == "hub":
            return self._from_hub(name)
        if name == "test":
            return None
        whole = self._from_files(self._train_files)
        return whole if name == "train" and self._file("val") is not None else self._part(whole, name)

    def _file(self, name: str) -> Path | None:
        """The file of validation or test, where there is one."""
        given = {"train": None, "val": self.val_file, "test": self.test_file}[name]
        if given is not None:
            return self._find(given, f"{name}_file")
        file = None if name == "train" or self._folder is None else self._folder / FILES[name]
        if file is None or not file.is_file():
            return None
        return file if name == "val" or has_triples(file) else None

    def _from_files(self, files: list[Path]) -> Split:
        def read() -> SkeFile:
            parts = [read_sentences(file, self.predicates) for file in files]
            return SkeFile(
                [sentence for part in parts for sentence in part.sentences], sum(part.other_slots for part in parts)
            )

        stamps = []
        for file in files:
            status = file.stat()
            stamps.append([str(file.resolve()), status.st_mtime_ns, status.st_size])
        return Split(stamps, read)

    def _from_hub(self, name: str) -> Split | None:
        splits = {split: next((key for key in keys if key in self._hub), None) for split, keys in HUB_SPLITS.items()}
        if splits["train"] is None:
            raise DataError(f"{HUB_ID} has no split train; give --data.source=PATH (your copy)")
        key = splits[name]
        if name == "test" and (key is None or not any(self._hub[key]["spo_list"] if self._is_labelled(key) else [])):
            return None

        def split_of(key: str) -> Split:
            fingerprint = getattr(self._hub[key], "_fingerprint", None)
            return Split(
                fingerprint and [HUB_ID, key, fingerprint],
                lambda: parse_sentences(self._rows(key), frozenset(self.predicates)),
            )

        if name == "test" or splits["val"] is not None:
            return split_of(key)
        return self._part(split_of(splits["train"]), name)

    def _is_labelled(self, key: str) -> bool:
        return "spo_list" in self._hub[key].column_names

    def _rows(self, key: str) -> Iterator[tuple[str, Any]]:
        rows = self._hub[key]
        rows = rows.select_columns([name for name in ("text", "spo_list") if name in rows.column_names])
        return ((f"{HUB_ID}, {key}, row {number}", row) for number, row in enumerate(rows))

    @cached_property
    def _hub(self) -> Any:
        return load_from_hub(HUB_ID)

    @cached_property
    def _sample(self) -> dict[str, list[Sentence]]:
        train = make_triple_sentences(self.sample_train_size, self.seed, "train")
        others = {
            name: make_triple_sentences(self.sample_test_size, self.seed, name, train) for name in ("val", "test")
        }
        return {"train": train, **others}

    def _part(self, whole: Split, name: str) -> Split:
        """Training or validation sentences of what has both."""

        def read() -> SkeFile:
            sentences, other_slots = whole.read()
            held_out = max(1, round(self.val_fraction * len(sentences)))
            if held_out >= len(sentences):
                raise DataError(
                    f"data.source {self.source}: {len(sentences)} sentences are too few to hold out "
                    f"{held_out} for validation: give data.val_file"
                )
            order = torch.randperm(len(sentences), generator=torch.Generator().manual_seed(self.seed)).tolist()
            chosen = order[:held_out] if name == "val" else order[held_out:]
            return SkeFile([sentences[number] for number in sorted(chosen)], other_slots)

        return Split(whole.key and [whole.key, name, self.val_fraction, self.seed], read)

    # Encoding, kept on disk.

    def _options(self) -> dict[str, Any]:
        words = hashlib.sha256(json.dumps(self.words).encode()).hexdigest()
        return {
            "schema": self.schema,
            "max_length": self.max_length,
            "occurrences": self.occurrences,
            "words": words,
            "segmenter": self.segmenter,
        }

    def _make_encoder(self, characters: list[str], sentences: list[Sentence]) -> TripleEncoder:
        return TripleEncoder(
            characters,
            self.predicates,
            words=self.words,
            segmenter=self.segmenter,
            known_triples=distinct_triples(sentences) if self.prior else (),
            max_length=self.max_length,
            occurrences=self.occurrences,
        )

    @cached_property
    def _training(self) -> tuple[TripleEncoder, EncodedSplit]:
        """What encodes, as the training sentences decide it, and the training sentences."""
        split = self._split("train")
        assert split is not None

        def build() -> tuple[EncodedSplit, dict[str, Any]]:
            read, other_slots = split.read()
            characters = count_characters((sentence.text for sentence in read), self.min_count)
            counts = _count(read, other_slots)
            sentences = [sentence for sentence in read if sentence.triples]
            if not sentences:
                raise DataError(f"data.source {self.source}: no training sentence has a triple in its spo_list")
            encoder = self._make_encoder(characters, sentences)
            others = OtherItems(sentences, encoder.known)
            table, unlabelled = encoder.encode(sentences, lambda number: others.than(sentences[number].text))
            labelled = np.zeros(len(sentences), bool)
            labelled[table.sentences[np.diff(table.subject_starts) > 0]] = True
            counts["without_labels"] = int((~labelled).sum())
            table = take(table, np.flatnonzero(labelled[table.sentences]))
            if not len(table):
                raise DataError(f"data.source {self.source}: no training text has subject and object of its triples")
            return EncodedSplit(sentences, table, unlabelled, counts), {"characters": characters}

        key = {**self._options(), "min_count": self.min_count, "prior": self.prior}
        encoded, about = self._stored(split, key, build)
        self._report("training", encoded)
        return self._make_encoder(about["characters"], encoded.sentences), encoded

    def _encode_other(self, name: str, encoder: TripleEncoder) -> EncodedSplit:
        split = self._split(name)
        assert split is not None

        def build() -> tuple[EncodedSplit, dict[str, Any]]:
            sentences, other_slots = split.read()
            table, unlabelled = encoder.encode(sentences)
            return EncodedSplit(sentences, table, unlabelled, _count(sentences, other_slots)), {}

        encoded, _ = self._stored(split, {"encoder": encoder.fingerprint, "schema": self.schema}, build)
        self._report({"val": "validation", "test": "test"}[name], encoded)
        return encoded

    def _stored(
        self, split: Split, key: dict[str, Any], build: Callable[[], tuple[EncodedSplit, dict[str, Any]]]
    ) -> tuple[EncodedSplit, dict[str, Any]]:
        """What ``build`` makes, from the cache where it is there."""
        if split.key is None:
            return build()
        cache = ArrayCache("triples", CACHE_VERSION, {"split": split.key, **key})

        def build_arrays() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
            rank_zero_info(f"Encoding sentences of {self.source}, once; they are kept in {cache.folder}")
            encoded, about = build()
            documents = np.frombuffer(_as_bytes(encoded.sentences), np.uint8)
            about |= {"counts": encoded.counts, "unlabelled": asdict(encoded.unlabelled)}
            return {**encoded.table.arrays(), "documents": documents}, about

        arrays, about = cache.load_or_build(build_arrays)
        arrays = dict(arrays)
        documents = json.loads(arrays.pop("documents").tobytes())
        sentences = [Sentence(text, tuple(map(tuple, triples))) for text, triples in documents]
        table = TripleTable(**{name: np.asarray(array) for name, array in arrays.items()})
        return EncodedSplit(sentences, table, Unlabelled(**about["unlabelled"]), about["counts"]), about

    def _report(self, name: str, encoded: EncodedSplit) -> None:
        """Say what was noticed, a line each."""
        counts, missing = encoded.counts, encoded.unlabelled
        if missing.not_found:
            examples = "; ".join(missing.examples)
            rank_zero_warn(
                f"{name}: subject or object of {missing.not_found} of {counts['triples']} triples are not in the "
                f"text, so these are not labelled: {examples}"
            )
        if missing.long_texts:
            rank_zero_warn(
                f"{name}: {missing.long_texts} texts are longer than data.max_length ({self.max_length}) and become "
                f"windows that overlap by half; {missing.in_no_window} triples fit in none"
            )
        if name == "training" and counts["without_triples"]:
            rank_zero_warn(f"{name}: {counts['without_triples']} sentences have an empty spo_list and are left out")
        if counts.get("without_labels"):
            rank_zero_warn(f"{name}: {counts['without_labels']} sentences have no triple to label and are left out")
        if counts["other_slots"]:
            rank_zero_warn(f"{name}: {counts['other_slots']} values of objects beside @value (DuIE 2.0) are left aside")

    # Lightning.

    def prepare_data(self) -> None:
        """Download and encode, in one process; the others then find it in the cache."""
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Read and encode everything; the same in every process and at every stage."""
        self.splits  # noqa: B018

    @cached_property
    def training_batches(self) -> TrainingBatches:
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
            digest.update(_as_bytes(split.sentences))
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


def _count(sentences: list[Sentence], other_slots: int) -> dict[str, int]:
    return {
        "sentences": len(sentences),
        "triples": sum(len(sentence.triples) for sentence in sentences),
        "without_triples": sum(not sentence.triples for sentence in sentences),
        "other_slots": other_slots,
    }


def _as_bytes(sentences: Iterable[Sentence]) -> bytes:
    return json.dumps([list(sentence) for sentence in sentences], ensure_ascii=False).encode()
