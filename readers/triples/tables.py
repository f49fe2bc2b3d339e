"""Encoded sentences as flat arrays, and batches gathered from them without loops over sentences or characters."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .json_lines import Sentence, Triple

Negatives = Literal["random_ends", "gold_spans"]
Array = NDArray[np.int32]


@dataclasses.dataclass(frozen=True)
class TripleTable:
    """Encoded rows (sentences, or windows of long ones) as flat arrays; the entries of row i begin at ``*_starts[i]``.

    Shapes (int32):
        characters: (N,) numbers of characters.
        words: (N,) numbers of words; (0,) without word vectors.
        starts, lengths: (R,) where the characters of a row begin, and their number.
        sentences: (R,) the sentence of each row, in non-decreasing order.
        offsets: (R,) where in its sentence a row begins.
        subjects: (S, 2) start and end of the distinct subjects, by start, in characters of the row.
        objects: (M, 5) start and end of a subject, start and end of an object, predicate.
        candidates: (Q, 5) likewise, the candidates of distant supervision.
        subject_starts, object_starts, candidate_starts: (R + 1,) where those of a row begin.
    """

    characters: Array
    words: Array
    starts: Array
    lengths: Array
    sentences: Array
    offsets: Array
    subjects: Array
    objects: Array
    candidates: Array
    subject_starts: Array
    object_starts: Array
    candidate_starts: Array

    def __len__(self) -> int:
        return len(self.lengths)

    def arrays(self) -> dict[str, Array]:
        """All arrays by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def gather(starts: NDArray[Any], counts: NDArray[Any]) -> NDArray[np.int64]:
    """The numbers starts[i], …, starts[i] + counts[i] - 1, concatenated over i."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + counts, counts)


def take(table: TripleTable, rows: NDArray[np.int64]) -> TripleTable:
    """Some rows of a table."""
    lengths = table.lengths[rows]
    flat = gather(table.starts[rows], lengths)
    parts, ends = [], []
    for values, starts in (
        (table.subjects, table.subject_starts),
        (table.objects, table.object_starts),
        (table.candidates, table.candidate_starts),
    ):
        counts = starts[rows + 1] - starts[rows]
        parts.append(values[gather(starts[rows], counts)])
        ends.append(_from_counts(counts))
    words = table.words[flat] if len(table.words) else table.words
    begins = _from_counts(lengths)[:-1]
    places = (table.sentences[rows], table.offsets[rows])
    return TripleTable(table.characters[flat], words, begins, lengths, *places, *parts, *ends)


def concatenate(first: TripleTable, second: TripleTable) -> TripleTable:
    """The rows of two tables, concatenated; sentences keep their numbers."""
    joined = {name: np.concatenate([values, getattr(second, name)]) for name, values in first.arrays().items()}
    joined["starts"] = np.concatenate([first.starts, second.starts + len(first.characters)])
    for name in ("subject", "object", "candidate"):
        ends, others = getattr(first, f"{name}_starts"), getattr(second, f"{name}_starts")
        joined[f"{name}_starts"] = np.concatenate([ends, others[1:] + ends[-1]])
    return TripleTable(**joined)


def _from_counts(counts: NDArray[Any]) -> NDArray[Any]:
    ends = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=ends[1:])
    return ends


def first_spans(table: TripleTable) -> NDArray[np.int64]:
    """(R, 2) start and end of each row's first subject, -1 where it has none."""
    return _pick_subjects(table, np.zeros(len(table)))


def draw_spans(table: TripleTable, draws: NDArray[np.float64], negatives: Negatives) -> NDArray[np.int64]:
    """(R, 2) start and inclusive end of the subject whose objects each row has to predict, -1 where it has none.

    ``random_ends``: a start k1, uniform among the starts of the row's subjects, and an end k2, uniform among the ends
    of its subjects that are not before k1. The span may therefore not be a subject, like one that a model finds by
    mistake; then it has no objects. ``gold_spans``: one of the subjects, uniformly.

    Args:
        table: the rows.
        draws: (2, R) uniform in [0, 1), for k1 and k2.
        negatives: how to draw.

    Source: kg-2019. Difference: it compares exclusive ends with k1, which allows ends before the start.
    """
    chosen = _pick_subjects(table, draws[0])
    if negatives == "gold_spans" or not len(table.subjects):
        return chosen
    starts = table.subject_starts
    counts = np.diff(starts)
    # All ends in one list, sorted by row and end: the ends of a row from k1 on are contiguous.
    width = int(table.lengths.max()) + 1
    ends = np.sort(np.repeat(np.arange(len(table)), counts) * width + table.subjects[:, 1])
    first = np.searchsorted(ends, np.arange(len(table)) * width + chosen[:, 0])
    place = first + (draws[1] * (starts[1:] - first)).astype(np.int64)
    some = counts > 0
    chosen[some, 1] = ends[place[some]] % width
    return chosen


def _pick_subjects(table: TripleTable, draws: NDArray[np.float64]) -> NDArray[np.int64]:
    counts = np.diff(table.subject_starts)
    spans = np.full((len(table), 2), -1)
    some = counts > 0
    place = table.subject_starts[:-1] + (draws * counts).astype(np.int64)
    spans[some] = table.subjects[place[some]]
    return spans


def batch_arrays(
    table: TripleTable, spans: NDArray[np.int64], sentences: Sequence[Sentence]
) -> tuple[list[NDArray[Any]], tuple[str, ...], tuple[tuple[Triple, ...], ...]]:
    """A table in the form that ``datamodules.batches.TripleBatch.from_arrays`` takes: arrays, texts and their triples.

    Args:
        table: the rows; ``table.sentences`` are indices into ``sentences``.
        spans: (R, 2) the subject whose objects each row has to predict, or -1.
        sentences: those of the batch.
    """
    lengths = table.lengths
    shape = (len(table), max(1, int(lengths.max(initial=0))))
    inside = np.arange(shape[1]) < lengths[:, None]
    flat = gather(table.starts, lengths)
    characters, words = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    characters[inside] = table.characters[flat]
    if len(table.words):
        words[inside] = table.words[flat]
    rows = np.arange(len(table))
    subjects = np.column_stack([np.repeat(rows, np.diff(table.subject_starts)), table.subjects])
    candidates = np.column_stack([np.repeat(rows, np.diff(table.candidate_starts)), table.candidates])
    object_rows = np.repeat(rows, np.diff(table.object_starts))
    asked = (table.objects[:, :2] == spans[object_rows]).all(1)
    objects = np.column_stack([object_rows[asked], table.objects[asked, 2:]])
    arrays = [characters, words, subjects, spans, objects, candidates, table.sentences, table.offsets]
    return arrays, tuple(sentence.text for sentence in sentences), tuple(sentence.triples for sentence in sentences)
