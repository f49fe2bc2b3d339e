"""The sources of sentences for triple extraction: the hub, the user's files, or a sample."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import torch

from readers.errors import DataError
from readers.files import user_path
from readers.hub import load_from_hub
from readers.triples.json_lines import (
    SCHEMA_WAY_OUT,
    Sentence,
    has_triples,
    parse_sentences,
    read_records,
    unknown_predicates,
)
from readers.triples.normalization import Normalize
from readers.triples.schemas import Schema, read_schema, schema_of_records, with_slots_of

from ..cache import ArrayCache
from ..samples.triples import SCHEMA, make_triple_sentences

HUB_SPLITS = {"train": ("train",), "val": ("validation", "dev", "valid"), "test": ("test",)}
FILES = {"train": "train_data.json", "val": "dev_data.json", "test": "test_data.json"}
SCHEMA_FILE = "all_50_schemas"
PACKED = ("", ".gz")  # endings of a file's name
FIRST_RECORDS = 20  # that tell whether objects are in DuIE 2.0's form
TRAINED_WAY_OUT = "that is the trained model's: leave these triples out, or train a model that knows them"
CACHE_VERSION = 1  # raise it when the same files would give another schema

SchemaFrom = Literal["file", "from_data"]
Records = Iterator[tuple[str, Any]]


@dataclass(frozen=True)
class Split:
    """The source of a split's sentences.

    Args:
        key: plain values that determine them; None: don't cache them.
        read: reads them.
        records: reads them as plain values in SKE's layout, each with what messages call it.
    """

    key: Any
    read: Callable[[], list[Sentence]]
    records: Callable[[], Records]


@dataclass
class TripleSources:
    """Finds the sentences of each split and their schema; reads on first use.

    Args: those of ``TripleDataModule``; the schema of a trained model, which stands for all others; and whether the
    sentences are only to be measured: without those of validation and test all are the test.

    Raises:
        DataError: something is missing; the message names the argument.
    """

    source: str
    train_file: str | list[str] | None
    val_file: str | None
    test_file: str | None
    schema_file: str | None
    val_fraction: float
    seed: int
    sample_train_size: int
    sample_test_size: int
    hub_id: str
    hub_config: str | None
    schema_from: SchemaFrom
    normalize: Normalize
    encoding: str
    trained_schema: Schema | None = None
    whole: bool = False

    @cached_property
    def schema(self) -> Schema:
        """That of a file, with the further slots of objects that the training data has; or that of the data."""
        if self.trained_schema is not None:
            return self.trained_schema
        if self.source == "sample":
            return self._given_schema()
        train = self.split("train")
        assert train is not None  # only the test may be missing
        if self.schema_from == "from_data":
            val = self.split("val")
            return self._scan(train, *([val] if val else []))
        schema = self._given_schema()
        return with_slots_of(schema, self._scan(train)) if schema.object_slots or _has_slots(train) else schema

    def _given_schema(self) -> Schema:
        places = [self._folder / f"{SCHEMA_FILE}{ending}" for ending in PACKED] if self._folder is not None else []
        if self.schema_file is not None:
            places = [self.find(self.schema_file, "schema_file")]
        file = next((place for place in places if place.is_file()), None)
        return Schema([list(row) for row in SCHEMA]) if file is None else read_schema(file, self.encoding)

    def _scan(self, *splits: Split) -> Schema:
        """The schema that the records of splits follow, kept in the cache."""

        def build() -> tuple[dict[str, Any], dict[str, Any]]:
            schema = schema_of_records(chain.from_iterable(split.records() for split in splits))
            return {}, schema._asdict()

        keys = [split.key for split in splits]
        if None in keys:
            return Schema(**build()[1])
        return Schema(**ArrayCache("triple_schemas", CACHE_VERSION, {"splits": keys}).load_or_build(build)[1])

    @cached_property
    def predicates(self) -> list[str]:
        """The distinct predicates, in the order of the schema; further slots of objects have their own."""
        return list(dict.fromkeys(predicate for _, predicate, _ in self.schema.rows))

    def find(self, name: str, argument: str) -> Path:
        """The file that an argument names, relative to the working folder, else to the source's."""
        path = user_path(name)
        places = [path] if self._folder is None else [path, self._folder / path]
        for place in places:
            if place.is_file():
                return place
        also = f", nor in {self._folder}" if len(places) > 1 else ""
        raise DataError(f"data.{argument}: there is no file {path}{also}")

    def split(self, name: str) -> Split | None:
        """The source of ``train``, ``val`` or ``test``; None if the validation sentences serve as the test."""
        file = self._file(name)
        if file is not None:
            return self._from_files([file])
        if self.source == "sample":
            return Split(None, lambda: self._known(self._sample[name]), lambda: iter(()))
        if self.source == "hub":
            return self._from_hub(name)
        if name == "test":
            return self._from_files(self._train_files) if self.whole and self._file("val") is None else None
        whole = self._from_files(self._train_files)
        return whole if name == "train" and self._file("val") is not None else self._part(whole, name)

    # Files.

    @property
    def _folder(self) -> Path | None:
        """The source's folder; None for the hub, the sample and a single file."""
        if self.source in ("hub", "sample"):
            return None
        path = user_path(self.source)
        return path if path.is_dir() else None

    @cached_property
    def _train_files(self) -> list[Path]:
        if self.train_file is not None:
            names = [self.train_file] if isinstance(self.train_file, str) else self.train_file
            if not names:
                raise DataError("data.train_file is an empty list: name a file, or leave it out")
            return [self.find(name, "train_file") for name in names]
        path = user_path(self.source)
        if not path.exists():
            raise DataError(f"data.source: {path} does not exist; give a folder, a file of JSON lines, hub or sample")
        if not path.is_dir():
            if not path.is_file():  # it is read several times
                raise DataError(f"data.source: {path} is a pipe or a device; give a file or a folder")
            return [path]
        file = self._in_folder("train")
        if file is None:
            also = ""
            if self.trained_schema is not None:
                also = f" (a trained model is measured on {FILES['test']} with triples, or {FILES['val']})"
            raise DataError(f"data.source: {path} has no {FILES['train']}; put it there, or give data.train_file{also}")
        return [file]

    def _in_folder(self, name: str) -> Path | None:
        """The file of a split in the source's folder, gzipped or not, if there is one."""
        places = [] if self._folder is None else [self._folder / f"{FILES[name]}{ending}" for ending in PACKED]
        return next((place for place in places if place.is_file()), None)

    def _file(self, name: str) -> Path | None:
        """The validation or test file, if there is one."""
        given = {"train": None, "val": self.val_file, "test": self.test_file}[name]
        if given is not None:
            return self.find(given, f"{name}_file")
        file = None if name == "train" else self._in_folder(name)
        return file if file is None or name == "val" or has_triples(file, self.encoding) else None

    def _from_files(self, files: list[Path]) -> Split:
        def records() -> Records:
            return chain.from_iterable(read_records(file, self.encoding) for file in files)

        stamps = []
        for file in files:
            status = file.stat()
            stamps.append([str(file.resolve()), status.st_mtime_ns, status.st_size])
        return Split([*stamps, self.encoding], lambda: self._parse(records()), records)

    def _parse(self, records: Records) -> list[Sentence]:
        return parse_sentences(records, frozenset(self.predicates), self.normalize, self._way_out)

    @property
    def _way_out(self) -> str:
        return SCHEMA_WAY_OUT if self.trained_schema is None else TRAINED_WAY_OUT

    def _known(self, sentences: list[Sentence]) -> list[Sentence]:
        """Sentences of the sample, whose predicates a trained model may not know."""
        stated = {predicate for sentence in sentences for _, predicate, _ in sentence.triples}
        if unknown := sorted(stated - set(self.predicates)):
            where = dict.fromkeys(unknown, "the sample")
            raise unknown_predicates(where, frozenset(self.predicates), self._way_out)
        return sentences

    # The hub.

    def _from_hub(self, name: str) -> Split | None:
        splits = {split: next((key for key in keys if key in self._hub), None) for split, keys in HUB_SPLITS.items()}
        if splits["train"] is None:
            raise DataError(
                f"{self.hub_id} has no split train, only {', '.join(self._hub)}: set data.hub_id to another"
            )
        key = splits[name]
        if name == "test" and (key is None or not any(self._hub[key]["spo_list"] if self._is_labelled(key) else [])):
            return None

        def split_of(key: str) -> Split:
            fingerprint = getattr(self._hub[key], "_fingerprint", None)
            return Split(
                fingerprint and [self.hub_id, self.hub_config, key, fingerprint],
                lambda: self._parse(self._rows(key)),
                lambda: self._rows(key),
            )

        if name == "test" or splits["val"] is not None:
            assert key is not None
            return split_of(key)
        return self._part(split_of(splits["train"]), name)

    def _is_labelled(self, key: str) -> bool:
        return "spo_list" in self._hub[key].column_names

    def _rows(self, key: str) -> Iterator[tuple[str, Any]]:
        rows = self._hub[key]
        rows = rows.select_columns([name for name in ("text", "spo_list") if name in rows.column_names])
        return ((f"{self.hub_id}, {key}, row {number}", row) for number, row in enumerate(rows))

    @cached_property
    def _hub(self) -> Any:
        return load_from_hub(self.hub_id, self.hub_config)

    # The sample, and held-out sentences.

    @cached_property
    def _sample(self) -> dict[str, list[Sentence]]:
        train = make_triple_sentences(self.sample_train_size, self.seed, "train")
        others = {
            name: make_triple_sentences(self.sample_test_size, self.seed, name, train) for name in ("val", "test")
        }
        return {"train": train, **others}

    def _part(self, whole: Split, name: str) -> Split:
        """The training or validation part of a split that has both."""

        def read() -> list[Sentence]:
            sentences = whole.read()
            held_out = max(1, round(self.val_fraction * len(sentences)))
            if held_out >= len(sentences):
                raise DataError(
                    f"data.source {self.source}: {len(sentences)} sentences are too few to hold out "
                    f"{held_out} for validation: give data.val_file"
                )
            order = torch.randperm(len(sentences), generator=torch.Generator().manual_seed(self.seed)).tolist()
            chosen = order[:held_out] if name == "val" else order[held_out:]
            return [sentences[number] for number in sorted(chosen)]

        return Split(whole.key and [whole.key, name, self.val_fraction, self.seed], read, whole.records)


def _has_slots(split: Split) -> bool:
    """Whether one of the first records has an object in DuIE 2.0's form."""
    return schema_of_records(islice(split.records(), FIRST_RECORDS)).object_slots
