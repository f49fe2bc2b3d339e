"""Precision, recall and F1 at several thresholds at once."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from .triples import scores_of_counts


class ThresholdCounts(Metric):
    """Numbers of correct, predicted and gold items at each of K settings of a model's thresholds.

    Args:
        num_settings: K.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, num_settings: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(num_settings, 3, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, counts: Tensor) -> None:
        """Adds (K, 3) int64: correct, predicted, gold."""
        self.counts += counts.to(self.counts.device)

    def compute(self) -> dict[str, Tensor]:
        """``f1``, ``precision`` and ``recall``, micro averages in [0, 1], (K,) float32 each.

        As in ``metrics.triples.TripleF1``, all counts start slightly above 0.
        """
        precision, recall, f1 = scores_of_counts(self.counts)
        return {"f1": f1.float(), "precision": precision.float(), "recall": recall.float()}


def count_items(predicted: Sequence[Sequence[Collection[Sequence]]], gold: Sequence[Collection[Sequence]]) -> Tensor:
    """Counts for a batch of sentences, for ``ThresholdCounts``.

    Args:
        predicted: for each of K settings and each sentence, the triples found: (subject, predicate, object, …).
        gold: for each sentence the true (subject, predicate, object).

    Returns:
        (K, 3) int64 on the CPU: correct, predicted and gold triples; duplicates in a sentence count once.
    """
    true = [set(triples) for triples in gold]
    total = sum(map(len, true))
    counts = []
    for sentences in predicted:
        found = [{triple[:3] for triple in triples} for triples in sentences]
        correct = sum(len(ours & theirs) for ours, theirs in zip(found, true, strict=True))
        counts.append((correct, sum(map(len, found)), total))
    return torch.tensor(counts)


def count_predicates(
    predicted: Sequence[Sequence[Collection[Sequence]]], gold: Sequence[Collection[Sequence]], predicates: Sequence[str]
) -> Tensor:
    """Counts as ``count_items``, of each of C predicates: (K, C, 3) int64 on the CPU."""
    rows = {predicate: row for row, predicate in enumerate(predicates)}
    true = [set(triples) for triples in gold]
    counts = torch.zeros(len(predicted), len(rows), 3, dtype=torch.int64)
    for setting, sentences in zip(counts, predicted, strict=True):
        numbers = setting.numpy()
        for triples, theirs in zip(sentences, true, strict=True):
            found = {triple[:3] for triple in triples}
            for column, part in enumerate((found & theirs, found, theirs)):
                for triple in part:
                    numbers[rows[triple[1]], column] += 1
    return counts
