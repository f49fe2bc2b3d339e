"""What a schema says about triples beyond their spans, as a declared list of rules on the triples of a sentence."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from .triples import ExtractedTriple


class TripleRule(ABC):
    """A rule on the triples of one sentence; a frozen dataclass each, so that a schema's rules print as a list."""

    @abstractmethod
    def apply(self, triples: list[ExtractedTriple]) -> list[ExtractedTriple]:
        """The triples after the rule, in their order, what is new behind; the given list stays as it is."""


@dataclass(frozen=True)
class Symmetric(TripleRule):
    """(a, first, b) states (b, second, a) and the other way about: whichever is missing is added.

    The added triple has the spans of the one it follows from, changed over, and its confidence (the highest, where it
    follows from several).

    Args:
        first: a predicate.
        second: its converse; the same one again for a predicate that is its own converse.
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
    """Drops triples of ``predicates`` whose subject is of the wrong type, as another predicate tells.

    A subject is wrong if it is an object of ``objects_of`` in the same sentence and not also a subject of it: what
    songs belong to is an album, and an album has no singer of its own in the schema, unless a song has the same name.

    Args:
        predicates: whose triples may be dropped.
        objects_of: the predicate that tells.
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
