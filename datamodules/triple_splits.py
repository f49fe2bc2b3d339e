"""The encoded sentences of each split for triple extraction, cached on disk, and reports about them."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_warn

from readers.errors import DataError
from readers.triples.distant_supervision import OtherItems, distinct_triples
from readers.triples.encoding import Occurrences, Segmenter, TripleEncoder, Unlabelled, count_characters
from readers.triples.json_lines import Sentence
from readers.triples.tables import TripleTable, take

from .cache import ArrayCache
from .triple_sources import Split

CACHE_VERSION = 1  # raise it when the same files would be encoded differently


@dataclass(frozen=True)
class EncodedSplit:
    """The encoded sentences of a split, and counts.

    Args:
        sentences: the sentences used; ``table.sentences`` are indices into them.
        table: their rows.
        unlabelled: what could not be labelled.
        counts: ``sentences`` and ``triples`` read, ``without_triples``, ``without_labels`` and ``other_slots``.
    """

    sentences: list[Sentence]
    table: TripleTable
    unlabelled: Unlabelled
    counts: dict[str, int]


@dataclass(frozen=True)
class SplitEncoding:
    """Encodes splits.

    Args:
        source: what messages call the data.
        schema: ``[subject_type, predicate, object_type]`` rows.
        words: those with word vectors.
        segmenter, max_length, min_count, prior, occurrences: those of ``TripleDataModule``.
    """

    source: str
    schema: list[list[str]]
    words: list[str]
    segmenter: Segmenter
    max_length: int
    min_count: int
    prior: bool
    occurrences: Occurrences

    def training(self, split: Split) -> tuple[TripleEncoder, EncodedSplit]:
        """The encoder that the training sentences determine, and these sentences.

        Raises:
            DataError: no sentence can be learned from.
        """

        def build() -> tuple[EncodedSplit, dict[str, Any]]:
            read, other_slots = split.read()
            characters = count_characters((sentence.text for sentence in read), self.min_count)
            counts = _count(read, other_slots)
            sentences = [sentence for sentence in read if sentence.triples]
            if not sentences:
                raise DataError(f"data.source {self.source}: no training sentence has a triple in its spo_list")
            encoder = self._encoder(characters, sentences)
            others = OtherItems(sentences, encoder.known)
            table, unlabelled = encoder.encode(sentences, lambda number: others.than(sentences[number].text))
            labelled = np.zeros(len(sentences), bool)
            labelled[table.sentences[np.diff(table.subject_starts) > 0]] = True
            counts["without_labels"] = int((~labelled).sum())
            table = take(table, np.flatnonzero(labelled[table.sentences]))
            if not len(table):
                raise DataError(f"data.source {self.source}: no training text has subject and object of its triples")
            return EncodedSplit(sentences, table, unlabelled, counts), {"characters": characters}

        key = {
            "schema": self.schema,
            "max_length": self.max_length,
            "occurrences": self.occurrences,
            "words": hashlib.sha256(json.dumps(self.words).encode()).hexdigest(),
            "segmenter": self.segmenter,
            "min_count": self.min_count,
            "prior": self.prior,
        }
        encoded, about = self._stored(split, key, build)
        self._report("training", encoded)
        return self._encoder(about["characters"], encoded.sentences), encoded

    def evaluation(self, name: str, split: Split, encoder: TripleEncoder) -> EncodedSplit:
        """The sentences of ``validation`` or ``test``."""

        def build() -> tuple[EncodedSplit, dict[str, Any]]:
            sentences, other_slots = split.read()
            table, unlabelled = encoder.encode(sentences)
            return EncodedSplit(sentences, table, unlabelled, _count(sentences, other_slots)), {}

        encoded, _ = self._stored(split, {"encoder": encoder.fingerprint, "schema": self.schema}, build)
        self._report(name, encoded)
        return encoded

    def _encoder(self, characters: list[str], sentences: list[Sentence]) -> TripleEncoder:
        return TripleEncoder(
            characters,
            list(dict.fromkeys(predicate for _, predicate, _ in self.schema)),
            words=self.words,
            segmenter=self.segmenter,
            known_triples=distinct_triples(sentences) if self.prior else (),
            max_length=self.max_length,
            occurrences=self.occurrences,
        )

    def _stored(
        self, split: Split, key: dict[str, Any], build: Callable[[], tuple[EncodedSplit, dict[str, Any]]]
    ) -> tuple[EncodedSplit, dict[str, Any]]:
        """The result of ``build``, from the cache if it is there."""
        if split.key is None:
            return build()
        cache = ArrayCache("triples", CACHE_VERSION, {"split": split.key, **key})

        def build_arrays() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
            rank_zero_info(f"Encoding sentences of {self.source} once; they are kept in {cache.folder}")
            encoded, about = build()
            documents = np.frombuffer(as_bytes(encoded.sentences), np.uint8)
            about |= {"counts": encoded.counts, "unlabelled": asdict(encoded.unlabelled)}
            return {**encoded.table.arrays(), "documents": documents}, about

        arrays, about = cache.load_or_build(build_arrays)
        arrays = dict(arrays)
        documents = json.loads(arrays.pop("documents").tobytes())
        sentences = [Sentence(text, tuple(map(tuple, triples))) for text, triples in documents]
        table = TripleTable(**{name: np.asarray(array) for name, array in arrays.items()})
        return EncodedSplit(sentences, table, Unlabelled(**about["unlabelled"]), about["counts"]), about

    def _report(self, name: str, encoded: EncodedSplit) -> None:
        """Warn about whatever was left out, one line each."""
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
            rank_zero_warn(f"{name}: {counts['other_slots']} values of objects besides @value (DuIE 2.0) are ignored")


def as_bytes(sentences: Iterable[Sentence]) -> bytes:
    """Sentences and their triples as JSON."""
    return json.dumps([list(sentence) for sentence in sentences], ensure_ascii=False).encode()


def _count(sentences: list[Sentence], other_slots: int) -> dict[str, int]:
    return {
        "sentences": len(sentences),
        "triples": sum(len(sentence.triples) for sentence in sentences),
        "without_triples": sum(not sentence.triples for sentence in sentences),
        "other_slots": other_slots,
    }
