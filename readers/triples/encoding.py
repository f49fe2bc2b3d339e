"""Encodes sentences and their triples as arrays."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..segmenters import Segmenter as Segmenter
from ..segmenters import jieba_cut
from .distant_supervision import KnownTriples
from .json_lines import Mention, Sentence, Triple
from .matching import find_all, prefer_words
from .normalization import Span, normalize_text
from .tables import Array, TripleTable, batch_arrays, first_spans

PADDING, UNKNOWN = "<pad>", "<unk>"
EXAMPLES = 5  # how many of the triples that can't be labelled are listed
CODE_POINTS = 0x110000

Occurrences = Literal["first", "all"]


@dataclasses.dataclass
class Unlabelled:
    """What could not be labelled.

    Args:
        not_found: number of triples whose subject or object is not in the text.
        otherwise_written: number of those that are in the text but for width and case.
        in_no_window: number of triples whose subject and object are in the text, but not in the same window.
        long_texts: number of texts that were cut into windows.
        examples: up to five of the triples not found, as text.
    """

    not_found: int = 0
    otherwise_written: int = 0
    in_no_window: int = 0
    long_texts: int = 0
    examples: list[str] = dataclasses.field(default_factory=list)


class TripleEncoder:
    """Encodes texts as the arrays of a batch.

    A text longer than ``max_length`` is cut into windows that overlap by half (the last one ends with the text); each
    is labelled, and has candidates, like a text of its own.

    Args:
        characters: ``<pad>``, ``<unk>``, then the known characters; those of a text are looked up in lower case where
            that is a single character.
        predicates: the distinct predicates.
        words: those with word vectors; word i has number i + 1.
        segmenter: how texts are split into words: ``jieba``, or ``none`` (each character is a word).
        known_triples: the distinct (subject, predicate, object) of distant supervision.
        max_length: maximum length of a row in characters, at least 2.
        occurrences: label only the ``first`` occurrence of subject and object, or ``all``; of those at word boundaries
            where there are such. Spans that a file gives are labelled instead.

    Raises:
        DataError: jieba is requested but not installed.
    """

    def __init__(
        self,
        characters: Sequence[str],
        predicates: Sequence[str],
        *,
        words: Sequence[str] = (),
        segmenter: str = "none",
        known_triples: Sequence[Triple] = (),
        max_length: int = 512,
        occurrences: Occurrences = "first",
    ) -> None:
        self.characters = list(characters)
        self.predicates = list(predicates)
        self.words = list(words)
        self.segmenter = segmenter
        self.known = KnownTriples(known_triples)
        self.max_length = max_length
        self.occurrences = occurrences
        self._predicate_numbers = {predicate: number for number, predicate in enumerate(self.predicates)}
        self._cut = jieba_cut() if self.words and segmenter == "jieba" else None

    @cached_property
    def fingerprint(self) -> str:
        """A digest of everything that determines how a text is encoded."""
        parts = [self.characters, self.predicates, self.words, self.segmenter, self.max_length, self.occurrences]
        content = json.dumps([*parts, list(self.known.numbers)])
        return hashlib.sha256(content.encode()).hexdigest()[:24]

    @cached_property
    def _character_numbers(self) -> Array:
        """(0x110000,) number of the character at each code point."""
        numbers = np.ones(CODE_POINTS, np.int32)
        numbers[[ord(character) for character in self.characters[2:]]] = np.arange(2, len(self.characters))
        return numbers[lower_case()]

    @cached_property
    def _word_numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words, 1)}

    @cached_property
    def _word_of_character(self) -> Array:
        """(0x110000,) number of each character as a word; of its lower case if only that has a vector."""
        single = [(ord(word), number) for word, number in self._word_numbers.items() if len(word) == 1]
        numbers = np.zeros(CODE_POINTS, np.int32)
        if single:
            points, values = zip(*single, strict=True)
            numbers[list(points)] = values
        return np.where(numbers > 0, numbers, numbers[lower_case()])

    def _number_words(self, texts: Sequence[str], points: NDArray[np.uint32]) -> Array:
        """The number of each character's word, all texts concatenated."""
        if not self.words:
            return np.zeros(0, np.int32)
        if self._cut is None:
            return self._word_of_character[points]
        known = self._word_numbers
        parts = [word for text in texts for word in self._cut(text)]
        numbers = [known.get(word) or known.get(word.lower(), 0) for word in parts]
        return np.repeat(np.array(numbers, np.int32), [len(word) for word in parts])

    def windows(self, length: int) -> list[int]:
        """Where the rows of a text of the given length begin."""
        if length <= self.max_length:
            return [0]
        last = length - self.max_length
        return [*range(0, last, max(1, self.max_length // 2)), last]

    def encode(
        self,
        sentences: Sequence[Sentence],
        allowed: Callable[[int], Container[int] | None] = lambda _: None,
    ) -> tuple[TripleTable, Unlabelled]:
        """Sentences as a table.

        Args:
            sentences: the texts and their triples.
            allowed: maps the number of a sentence to the numbers of the known triples that may be its candidates;
                None: all.

        Returns:
            the table, and what could not be labelled.
        """
        texts = [sentence.text for sentence in sentences]
        points = code_points("".join(texts))
        begins = np.cumsum([0, *map(len, texts)])
        rows: list[tuple[Any, ...]] = []
        subjects: list[tuple[int, ...]] = []
        objects: list[tuple[int, ...]] = []
        candidates: list[tuple[int, ...]] = []
        counts: tuple[list[int], list[int], list[int]] = ([0], [0], [0])
        report = Unlabelled()
        for number, (text, triples, mentions) in enumerate(sentences):
            given = dict(zip(triples, mentions, strict=True)) if mentions else {}
            windows = self.windows(len(text))
            report.long_texts += len(windows) > 1
            labelled: set[Triple] = set()
            for offset in windows:
                row = text[offset : offset + self.max_length]
                rows.append((begins[number] + offset, len(row), number, offset))
                spans = self._label(row, offset, triples, given, labelled)
                objects += sorted(spans)
                subjects += sorted({span[:2] for span in spans})
                candidates += sorted(
                    (*span[:4], self._predicate_numbers[span[4]]) for span in self.known.find(row, allowed(number))
                )
                for ends, found in zip(counts, (subjects, objects, candidates), strict=True):
                    ends.append(len(found))
            _report_missing(report, text, [triple for triple in triples if triple not in labelled])
        columns = np.array(rows, np.int32).reshape(-1, 4).T
        span_arrays = (
            np.array(part, np.int32).reshape(-1, width)
            for part, width in ((subjects, 2), (objects, 5), (candidates, 5))
        )
        table = TripleTable(
            self._character_numbers[points],
            self._number_words(texts, points),
            *(np.ascontiguousarray(column) for column in columns),
            *span_arrays,
            *(np.array(ends, np.int32) for ends in counts),
        )
        return table, report

    def _label(
        self,
        row: str,
        offset: int,
        triples: Iterable[Triple],
        given: Mapping[Triple, Sequence[Mention]],
        labelled: set[Triple],
    ) -> set[tuple[int, ...]]:
        """Spans of the triples whose entities occur in a row; adds these triples to ``labelled``."""
        spans: set[tuple[int, ...]] = set()
        for triple in triples:
            subject, predicate, obj = triple
            for subject_span, object_span in given.get(triple) or ((None, None),):
                subject_starts = self._starts(row, offset, subject, subject_span)
                object_starts = self._starts(row, offset, obj, object_span)
                if not subject_starts or not object_starts:
                    continue
                labelled.add(triple)
                number = self._predicate_numbers[predicate]
                for start in subject_starts:
                    for place in object_starts:
                        spans.add((start, start + len(subject) - 1, place, place + len(obj) - 1, number))
        return spans

    def _starts(self, row: str, offset: int, entity: str, span: Span | None) -> list[int]:
        """Where in a row an entity begins: at a span of the file if there is one, else its first occurrence, or all."""
        if span is not None:
            return [span[0] - offset] if offset <= span[0] and span[1] <= offset + len(row) else []
        places = prefer_words(row, find_all(row, entity), len(entity))
        return places[:1] if self.occurrences == "first" else places

    def batch_arrays(
        self,
        texts: Sequence[str],
        triples: Sequence[Sequence[Triple]] | None = None,
    ) -> tuple[list[NDArray[Any]], tuple[str, ...], tuple[tuple[Triple, ...], ...]]:
        """All windows of texts, in the form that ``datamodules.batches.TripleBatch.from_arrays`` takes.

        All known triples are candidates. With gold triples, ``spans`` are the first subjects and ``objects`` theirs.

        Args:
            texts: at least one.
            triples: the gold triples of each; None: unknown, and nothing is labelled.
        """
        given: Sequence[Sequence[Triple]] = [()] * len(texts) if triples is None else triples
        gold = [tuple(dict.fromkeys((subject, predicate, obj) for subject, predicate, obj in part)) for part in given]
        sentences = [Sentence(text, part) for text, part in zip(texts, gold, strict=True)]
        table, _ = self.encode(sentences)
        return batch_arrays(table, first_spans(table), sentences)


def _report_missing(report: Unlabelled, text: str, missing: list[Triple]) -> None:
    for subject, predicate, obj in missing:
        if subject in text and obj in text:
            report.in_no_window += 1
            continue
        report.not_found += 1
        plain, *names = (normalize_text(name, "both").text for name in (text, subject, obj))
        report.otherwise_written += all(name in plain for name in names)
        if len(report.examples) < EXAMPLES:
            shown = text if len(text) <= 60 else text[:60] + "…"
            report.examples.append(f"({subject}, {predicate}, {obj}) in: {shown}")


@lru_cache(maxsize=1)
def lower_case() -> NDArray[np.int32]:
    """(0x110000,) int32, the lower case of each code point if that is a single one, else itself."""
    table = np.arange(CODE_POINTS, dtype=np.int32)
    for point in range(0x20000):  # no script above has two cases
        lower = chr(point).lower()
        if len(lower) == 1:
            table[point] = ord(lower)
    return table


def code_points(text: str) -> NDArray[np.uint32]:
    """(N,) uint32, the code point of each of the N characters; lone surrogates are kept."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def count_characters(texts: Iterable[str], min_count: int) -> list[str]:
    """``<pad>``, ``<unk>`` and the characters of texts in lower case, by descending frequency, then by code point.

    Args:
        texts: the training texts.
        min_count: leave out rarer characters.
    """
    counts = np.bincount(lower_case()[code_points("".join(texts))], minlength=1)
    points = np.flatnonzero(counts >= min_count)
    return [PADDING, UNKNOWN, *map(chr, points[np.argsort(-counts[points], kind="stable")])]
