"""Exact-match F1 of extracted (subject, predicate, object) triples, in total and by groups."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

TRIPLE_GROUPS = ("triples_1", "triples_2", "triples_3", "triples_4", "triples_5_and_more")
OVERLAP_TYPES = ("normal", "single_entity_overlap", "entity_pair_overlap")
EPSILON = 1e-10  # what each count starts at: to predict nothing where there is no triple scores 1


class ExtractedTriple(NamedTuple):
    """A triple found in a text. Scores compare the first three fields; spans are [start, end) in characters."""

    subject: str
    predicate: str
    object: str
    subject_span: tuple[int, int]
    object_span: tuple[int, int]
    confidence: float  # in [0, 1]


def overlap_types(triples: Collection[Sequence]) -> set[str]:
    """How the triples of a sentence overlap, judging by their (subject, object) pairs.

    ``normal``: no two triples share an entity. ``entity_pair_overlap``: two share their pair in the same order, as in
    CasRel's code ((a, p, b) and (b, q, a) don't). ``single_entity_overlap``: two share an entity, but not the pair. A
    sentence may have both kinds of overlap; one without triples has none.

    Args:
        triples: (subject, predicate, object, …) each; duplicates count once.

    Source: Zeng et al. 2018 (ACL P18-1047) and CasRel (arXiv 1909.03227). Difference: a single triple whose subject is
    its object is ``normal``, as it shares nothing with another.
    """
    triples = {tuple(triple[:3]) for triple in triples}
    if not triples:
        return set()
    pairs = {(subject, object_) for subject, _, object_ in triples}
    pairs_of_entity = Counter(entity for pair in pairs for entity in set(pair))
    types = set()
    if len(pairs) < len(triples):
        types.add("entity_pair_overlap")
    if max(pairs_of_entity.values()) > 1:
        types.add("single_entity_overlap")
    return types or {"normal"}


def scores_of_counts(counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Precision, recall and F1 (...) float64 of counts (..., 3): correct, predicted, gold; as ``TripleF1``."""
    correct, predicted, gold = (counts.double() + EPSILON).unbind(-1)
    none = (counts[..., 1] == 0) & (counts[..., 2] > 0)
    return (correct / predicted).masked_fill(none, 0), correct / gold, 2 * correct / (predicted + gold)


class TripleF1(Metric):
    """Micro precision, recall and F1, in [0, 1], over exact matches of triples.

        A = ε + Σ |R ∩ T|,   B = ε + Σ |R|,   C = ε + Σ |T|,   ε = 1e-10
        precision = A / B (0 where nothing is predicted of some triples),   recall = A / C,   F1 = 2 A / (B + C)

    where R and T are the sets of predicted and gold triples of a sentence, compared as strings, and the sums run over
    sentences. ``compute`` gives the total ``precision``, ``recall`` and ``f1``, and the F1 by groups:

    - ``f1/predicate/<predicate>``: triples of one predicate, if it occurs in gold or prediction;
    - ``f1/triples_1`` … ``f1/triples_4``, ``f1/triples_5_and_more``: sentences by number of gold triples;
    - ``f1/normal``, ``f1/single_entity_overlap``, ``f1/entity_pair_overlap``: sentences by how their gold triples
      overlap (``overlap_types``).

    Empty groups are left out, and sentences without gold triples belong to none. Only counts are kept, so the result
    doesn't depend on how sentences are divided among processes.

    Args:
        predicates: the distinct predicates of the schema.

    Raises:
        ValueError: if a predicate is given twice.

    Source: the LIC2019 metric as in bojone/kg-2019 (b6b4323), with the same F1. Difference: there precision is 1 where
    nothing is predicted.
    """

    full_state_update = False
    higher_is_better = True
    counts: Tensor

    def __init__(self, predicates: Sequence[str], **kwargs) -> None:
        super().__init__(**kwargs)
        self.predicates = tuple(predicates)
        self._parts = (*(f"predicate/{name}" for name in self.predicates), *TRIPLE_GROUPS, *OVERLAP_TYPES)
        self._rows = {part: row for row, part in enumerate(self._parts, 1)}
        if len(self._rows) < len(self._parts):
            raise ValueError(f"predicates must be distinct, got {', '.join(self.predicates)}")
        # Rows: all, then the parts. Columns: triples in both, predicted, gold.
        zeros = torch.zeros(1 + len(self._parts), 3, dtype=torch.int64)
        self.add_state("counts", default=zeros, dist_reduce_fx="sum")

    def update(self, predicted: Sequence[Collection[Sequence]], gold: Sequence[Collection[Sequence]]) -> None:
        """Adds sentences.

        Args:
            predicted: the triples found in each sentence: (subject, predicate, object, …), of which the first three
                are compared, such as ``ExtractedTriple``.
            gold: the true triples, likewise.

        Raises:
            ValueError: if the two differ in length, or a predicate is not one of ``predicates``.
        """
        if len(predicted) != len(gold):
            raise ValueError(f"each sentence needs predicted and gold triples; got {len(predicted)} and {len(gold)}")
        counts = [[0, 0, 0] for _ in range(len(self._parts) + 1)]
        for found, true in zip(predicted, gold, strict=True):
            found, true = ({tuple(triple[:3]) for triple in triples} for triples in (found, true))
            both = found & true
            rows = [0]
            if true:
                rows.append(self._rows[TRIPLE_GROUPS[min(len(true), len(TRIPLE_GROUPS)) - 1]])
                rows += [self._rows[kind] for kind in overlap_types(true)]
            for column, triples in enumerate((both, found, true)):
                for row in rows:
                    counts[row][column] += len(triples)
                for _, predicate, _ in triples:
                    counts[self._row_of(predicate)][column] += 1
        self.counts += torch.tensor(counts).to(self.counts.device)

    def _row_of(self, predicate: str) -> int:
        row = self._rows.get(f"predicate/{predicate}")
        if row is None:
            raise ValueError(f"{predicate!r} is not one of the {len(self.predicates)} predicates of the schema")
        return row

    def compute(self) -> dict[str, Tensor]:
        """The scores, each a scalar in float64."""
        precision, recall, f1 = scores_of_counts(self.counts)
        scores = {"precision": precision[0], "recall": recall[0], "f1": f1[0]}
        occurs = (self.counts > 0).any(1).tolist()
        return scores | {f"f1/{part}": f1[row] for part, row in self._rows.items() if occurs[row]}
