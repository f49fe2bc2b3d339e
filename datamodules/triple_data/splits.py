"""The encoded sentences of each split for triple extraction, cached on disk, and reports about them."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_warn

from readers.errors import DataError
from readers.triples.distant_supervision import OtherItems, distinct_triples
from readers.triples.encoding import Occurrences, Segmenter, TripleEncoder, Unlabelled, count_characters
from readers.triples.json_lines import Sentence, Triple
from readers.triples.normalization import Normalize
from readers.triples.tables import TripleTable, take

from ..cache import ArrayCache
from .sources import Split
from .trained import TrainedVocabulary

CACHE_VERSION = 2  # raise it when the same files would be encoded differently


@dataclass(frozen=True)
class EncodedSplit:
    """The encoded sentences of a split, and counts.

    Args:
        sentences: the sentences used; ``table.sentences`` are indices into them.
        table: their rows.
        unlabelled: what could not be labelled.
        counts: ``sentences`` and ``triples`` read, ``without_triples`` and ``without_labels``.
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
        segmenter, max_length, min_count, prior, occurrences, normalize, keep_empty: those of ``TripleDataModule``.
        trained: the vocabulary of a trained model, in place of the training sentences' own.
    """

    source: str
    schema: list[list[str]]
    words: list[str]
    segmenter: Segmenter
    max_length: int
    min_count: int
    prior: bool
    occurrences: Occurrences
    normalize: Normalize
    keep_empty: bool
    trained: TrainedVocabulary | None = None

    def trained_encoder(self) -> TripleEncoder:
        """The encoder of the trained model: no training sentence is read."""
        return self._encoder([], [])

    def training(self, split: Split) -> tuple[TripleEncoder, EncodedSplit]:
        """The encoder that the training sentences determine, and these sentences.

        Raises:
            DataError: no sentence can be learned from.
        """

        def build() -> tuple[EncodedSplit, dict[str, Any]]:
            read = split.read()
            characters = count_characters((sentence.text for sentence in read), self.min_count)
            counts = _count(read)
            sentences = [sentence for sentence in read if sentence.triples or self.keep_empty]
            if counts["without_triples"] == len(read):
                raise DataError(f"data.source {self.source}: no training sentence has a triple in its spo_list")
            encoder = self._encoder(characters, sentences)
            others = OtherItems(sentences, encoder.known)
            table, unlabelled = encoder.encode(sentences, lambda number: others.than(sentences[number].text))
            labelled = np.array([not sentence.triples for sentence in sentences])
            labelled[table.sentences[np.diff(table.subject_starts) > 0]] = True
            counts["without_labels"] = int((~labelled).sum())
            table = take(table, np.flatnonzero(labelled[table.sentences]))
            if not len(table.subjects):
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
            "normalize": self.normalize,
            "keep_empty": self.keep_empty,
        }
        if self.trained is not None:
            key["encoder"] = self.trained_encoder().fingerprint
        encoded, about = self._stored(split, key, build)
        self._report("training", encoded)
        return self._encoder(about["characters"], encoded.sentences), encoded

    def evaluation(self, name: str, split: Split, encoder: TripleEncoder) -> EncodedSplit:
        """The sentences of ``validation`` or ``test``."""

        def build() -> tuple[EncodedSplit, dict[str, Any]]:
            sentences = split.read()
            table, unlabelled = encoder.encode(sentences)
            return EncodedSplit(sentences, table, unlabelled, _count(sentences)), {}

        key = {"encoder": encoder.fingerprint, "schema": self.schema, "normalize": self.normalize}
        encoded, _ = self._stored(split, key, build)
        self._report(name, encoded)
        return encoded

    def _encoder(self, characters: list[str], sentences: list[Sentence]) -> TripleEncoder:
        """The encoder of the trained model, or that of these characters and training sentences."""
        known: Sequence[Triple] = ()
        if self.prior:
            known = distinct_triples(sentences) if self.trained is None else self.trained.known_triples
        return TripleEncoder(
            characters if self.trained is None else self.trained.characters,
            list(dict.fromkeys(predicate for _, predicate, _ in self.schema)),
            words=self.words,
            segmenter=self.segmenter,
            known_triples=known,
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
        sentences = [_from_json(*document) for document in documents]
        table = TripleTable(**{name: np.asarray(array) for name, array in arrays.items()})
        return EncodedSplit(sentences, table, Unlabelled(**about["unlabelled"]), about["counts"]), about

    def _report(self, name: str, encoded: EncodedSplit) -> None:
        """Warn about whatever was left out, one line each."""
        counts, missing = encoded.counts, encoded.unlabelled
        if missing.not_found:
            examples = "; ".join(missing.examples)
            hint = f" (data.normalize finds {missing.otherwise_written} of them)" if missing.otherwise_written else ""
            rank_zero_warn(
                f"{name}: subject or object of {missing.not_found} of {counts['triples']} triples are not in the "
                f"text, so these are not labelled{hint}: {examples}"
            )
        if missing.long_texts:
            rank_zero_warn(
                f"{name}: {missing.long_texts} texts are longer than data.max_length ({self.max_length}) and become "
                f"windows that overlap by half; {missing.in_no_window} triples fit in none"
            )
        if name == "training" and counts["without_triples"] and not self.keep_empty:
            rank_zero_warn(
                f"{name}: {counts['without_triples']} sentences have an empty spo_list and are left out; "
                "data.keep_empty=true trains with them"
            )
        if counts.get("without_labels"):
            rank_zero_warn(f"{name}: {counts['without_labels']} sentences have no triple to label and are left out")


def as_bytes(sentences: Iterable[Sentence]) -> bytes:
    """Sentences and their triples as JSON, with the spans that the file gives, if any."""
    parts = [sentence if sentence.mentions else sentence[:2] for sentence in sentences]
    return json.dumps(parts, ensure_ascii=False).encode()


def _from_json(text: str, triples: list[Any], mentions: Iterable[Any] = ()) -> Sentence:
    spans: Any = (tuple(tuple(span and tuple(span) for span in mention) for mention in several) for several in mentions)
    return Sentence(text, tuple(map(tuple, triples)), tuple(spans))


def _count(sentences: list[Sentence]) -> dict[str, int]:
    return {
        "sentences": len(sentences),
        "triples": sum(len(sentence.triples) for sentence in sentences),
        "without_triples": sum(not sentence.triples for sentence in sentences),
    }
