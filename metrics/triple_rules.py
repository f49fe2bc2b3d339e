"""What a schema implies about triples beyond their spans, as a list of rules on the triples of a sentence."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from .triples import ExtractedTriple


class TripleRule(ABC):
    """A rule on the triples of one sentence; each is a frozen dataclass, so that a schema's rules print as a list."""

    @abstractmethod
    def apply(self, triples: list[ExtractedTriple]) -> list[ExtractedTriple]:
        """The triples after the rule, in their order, new ones last; the given list is not changed."""


@dataclass(frozen=True)
class Symmetric(TripleRule):
    """(a, first, b) implies (b, second, a) and vice versa: whichever is missing is added.

    The added triple has the spans of the one that implies it, swapped, and its confidence (the highest if several do).

    Args:
        first: a predicate.
        second: its converse; the same again for a predicate that is its own converse.

    Example:
        from metrics import ExtractedTriple, Symmetric

        triple = ExtractedTriple("Ann", "husband", "Bob", (0, 3), (12, 15), 0.9)
        both = Symmetric("husband", "wife").apply([triple])
        assert both[1] == ExtractedTriple("Bob", "wife", "Ann", (12, 15), (0, 3), 0.9)
    """

    first: str
    second: str

    def apply(self, triples: list[ExtractedTriple]) -> list[ExtractedTriple]:
        converse = {self.second: self.first, self.first: self.second}
        stated = {triple[:3] for triple in triples}
        added: dict[tuple[str, str, str], ExtractedTriple] = {}
        for subject, predicate, object_, subject_span, object_span, confidence in triples:
            if predicate not in converse:
                continue
            key = (object_, converse[predicate], subject)
            if key not in stated and (key not in added or confidence > added[key].confidence):
                added[key] = ExtractedTriple(*key, object_span, subject_span, confidence)
        return [*triples, *added.values()]


@dataclass(frozen=True)
class ExcludeSubjects(TripleRule):
    """Drops triples of ``predicates`` whose subject has the wrong type, judging by another predicate.

    A subject is wrong if it is an object of ``objects_of`` in the same sentence and not also a subject of it: songs
    belong to an album, and the schema gives an album no singer of its own, unless a song has the same name.

    Args:
        predicates: whose triples may be dropped.
        objects_of: the predicate that reveals the type.

    Example:
        from metrics import ExcludeSubjects, ExtractedTriple

        album = ExtractedTriple("Imagine", "album", "Legend", (0, 7), (12, 18), 0.9)
        singer = ExtractedTriple("Legend", "singer", "Lennon", (12, 18), (22, 28), 0.6)
        assert ExcludeSubjects(("singer",), objects_of="album").apply([album, singer]) == [album]
    """

    predicates: tuple[str, ...]
    objects_of: str

    def apply(self, triples: list[ExtractedTriple]) -> list[ExtractedTriple]:
        telling = [triple for triple in triples if triple.predicate == self.objects_of]
        wrong = {triple.object for triple in telling} - {triple.subject for triple in telling}
        return [triple for triple in triples if triple.predicate not in self.predicates or triple.subject not in wrong]


# The rules of bojone/kg-2019 for the schema of LIC2019 SKE: husband and wife; no singer or writer of a whole album.
SKE_RULES: tuple[TripleRule, ...] = (
    Symmetric(first="丈夫", second="妻子"),
    ExcludeSubjects(predicates=("歌手", "作词", "作曲"), objects_of="所属专辑"),
)


def apply_rules(triples: list[ExtractedTriple], rules: Sequence[TripleRule]) -> list[ExtractedTriple]:
    """The triples of a sentence after all ``rules``, one after the other."""
    for rule in rules:
        triples = rule.apply(triples)
    return triples
