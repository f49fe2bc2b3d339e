"""F1 of triples by the rules of the LIC2019 and DuIE competitions."""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from .triples import EPSILON

Fact = tuple[str, str, tuple[tuple[str, str], ...]]  # subject, predicate, slots of the object


class OfficialTripleF1(Metric):
    """Precision, recall and F1 as the competitions count them: names may differ in case, 《》 and by aliases.

        precision = predictions with a gold triple that they match / predictions
        recall    = gold triples with a prediction that they match / gold triples
        F1        = 2 precision recall / (precision + recall)

    Two triples match if the predicates are equal, and subjects and all slots of the objects are the same or aliases.
    Of predictions that match one another one counts, and of gold triples. Precision is 0 where nothing is predicted.

    Args:
        aliases: of names: others that mean the same. A name matches each of its aliases, in either direction; two
            aliases of one name don't match, as the competitions' dictionary is looked up by name.

    Source: the rules of LIC2019 and DuIE 2.0 (github.com/PaddlePaddle/PaddleNLP, ``re_official_evaluation``).
    Difference: no list of places that contain one another.
    """

    full_state_update = False
    higher_is_better = True
    counts: Tensor

    def __init__(self, aliases: Mapping[str, Collection[str]] | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.aliases: dict[str, set[str]] = {}
        for name, others in (aliases or {}).items():
            for other in others:
                self.aliases.setdefault(plain_name(name), set()).add(plain_name(other))
                self.aliases.setdefault(plain_name(other), set()).add(plain_name(name))
        # Predictions that match, predictions, gold triples that are matched, gold triples.
        self.add_state("counts", torch.zeros(4, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predicted: Sequence[Collection[Sequence]], gold: Sequence[Collection[Sequence]]) -> None:
        """Adds sentences.

        Args:
            predicted: the triples found in each: (subject, predicate, object); an object is a string, or a dict of
                slots.
            gold: the true triples, likewise.
        """
        counts = [0, 0, 0, 0]
        for found, true in zip(predicted, gold, strict=True):
            ours, theirs = self._distinct(found), self._distinct(true)
            for place, facts, others in ((0, ours, theirs), (2, theirs, ours)):
                counts[place] += sum(any(self._match(fact, other) for other in others) for fact in facts)
                counts[place + 1] += len(facts)
        self.counts += torch.tensor(counts).to(self.counts.device)

    def _distinct(self, triples: Collection[Sequence]) -> list[Fact]:
        distinct: list[Fact] = []
        for subject, predicate, obj in (triple[:3] for triple in triples):
            slots = obj if isinstance(obj, Mapping) else {"@value": obj}
            names = tuple(sorted((slot, plain_name(value)) for slot, value in slots.items()))
            fact = (plain_name(subject), predicate, names)
            if not any(self._match(fact, other) for other in distinct):
                distinct.append(fact)
        return distinct

    def _match(self, one: Fact, other: Fact) -> bool:
        return (
            one[1] == other[1]
            and self._same(one[0], other[0])
            and [slot for slot, _ in one[2]] == [slot for slot, _ in other[2]]
            and all(self._same(ours, theirs) for (_, ours), (_, theirs) in zip(one[2], other[2], strict=True))
        )

    def _same(self, one: str, other: str) -> bool:
        return one == other or other in self.aliases.get(one, ())

    def compute(self) -> dict[str, Tensor]:
        """``precision``, ``recall`` and ``f1``, scalars in float64."""
        matching, predicted, matched, gold = self.counts.double() + EPSILON
        nothing = (self.counts[1] == 0) & (self.counts[3] > 0)
        precision, recall = (matching / predicted).masked_fill(nothing, 0), matched / gold
        return {
            "precision": precision,
            "recall": recall,
            "f1": 2 * precision * recall / (precision + recall).clamp(min=EPSILON),
        }


def plain_name(name: str) -> str:
    """A name in lower case, without a title's 《》."""
    name = name.lower()
    return name[1:-1] if len(name) > 1 and name.startswith("《") and name.endswith("》") else name
