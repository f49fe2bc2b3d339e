"""Distant supervision: triples that a text may state because its entities are known to be related."""

from collections.abc import Container, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from .json_lines import Sentence, Triple
from .matching import prefer_words

if TYPE_CHECKING:
    import ahocorasick

# A known triple that a text may state: start and inclusive end of the subject and of the object, predicate.
Candidate = tuple[int, int, int, int, str]


class KnownTriples:
    """Finds the known triples whose subject and object both occur in a text.

    Args:
        triples: distinct (subject, predicate, object).

    Attributes:
        numbers: the number of each triple, in order, from 0.

    Source: the features of kg-2019, by an Aho-Corasick automaton (Aho and Corasick 1975). Difference: one automaton for
    subjects and objects.
    """

    def __init__(self, triples: Sequence[Triple]) -> None:
        self.numbers: dict[Triple, int] = {
            (subject, predicate, obj): number for number, (subject, predicate, obj) in enumerate(triples)
        }
        self._facts: dict[str, list[tuple[str, str, int]]] = {}
        for (subject, predicate, obj), number in self.numbers.items():
            self._facts.setdefault(subject, []).append((obj, predicate, number))

    @cached_property
    def _automaton(self) -> "ahocorasick.Automaton | None":
        """Finds all entities in one pass over a text; None if there are no entities."""
        import ahocorasick

        automaton = ahocorasick.Automaton()
        for subject, facts in self._facts.items():
            automaton.add_word(subject, subject)
            for obj, _, _ in facts:
                automaton.add_word(obj, obj)
        automaton.make_automaton()
        return automaton if len(automaton) else None

    def __getstate__(self) -> dict:
        # The automaton is rebuilt when needed: its pickle depends on how the library was compiled.
        return {name: value for name, value in self.__dict__.items() if name != "_automaton"}

    def find(self, text: str, allowed: Container[int] | None = None) -> list[Candidate]:
        """The known triples whose subject and object occur in a text, each at its first occurrence at word boundaries.

        Args:
            text: the text.
            allowed: the numbers of the triples to consider; None: all.
        """
        if self._automaton is None:
            return []
        places: dict[str, list[int]] = {}
        for end, entity in self._automaton.iter(text):
            places.setdefault(entity, []).append(end + 1 - len(entity))
        starts = {entity: prefer_words(text, found, len(entity))[0] for entity, found in places.items()}
        found = []
        for subject, start in starts.items():
            for obj, predicate, number in self._facts.get(subject, ()):
                place = starts.get(obj)
                if place is not None and (allowed is None or number in allowed):
                    found.append((start, start + len(subject) - 1, place, place + len(obj) - 1, predicate))
        return found


class OtherItems:
    """Leave-one-out: the known triples that training items other than the given ones state.

    Items with the same text count as one: a duplicated sentence must not leak its own triples.

    Args:
        sentences: the training items.
        known: their triples.
    """

    def __init__(self, sentences: Sequence[Sentence], known: KnownTriples) -> None:
        self._triples: dict[str, set[int]] = {}
        for text, triples, _ in sentences:
            own = (known.numbers[triple] for triple in triples if triple in known.numbers)  # none without a prior
            self._triples.setdefault(text, set()).update(own)
        self._counts = [0] * len(known.numbers)
        for numbers in self._triples.values():
            for number in numbers:
                self._counts[number] += 1

    def than(self, *texts: str) -> Container[int]:
        """The numbers of the triples that may be used for a sentence composed of the items with these texts."""
        return _Allowed(self._counts, [self._triples.get(text, frozenset()) for text in dict.fromkeys(texts)])


class _Allowed(Container[int]):
    """The numbers of the triples that items other than the given ones state, too."""

    def __init__(self, counts: Sequence[int], own: list[Container[int]]) -> None:
        self._counts = counts
        self._own = own

    def __contains__(self, number: object) -> bool:
        return self._counts[number] > sum(number in triples for triples in self._own)  # type: ignore[call-overload]


def distinct_triples(sentences: Iterable[Sentence]) -> list[Triple]:
    """The distinct triples of sentences, in order of first appearance."""
    return list(dict.fromkeys(triple for sentence in sentences for triple in sentence.triples))
