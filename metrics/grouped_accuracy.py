"""Accuracy within groups of the examples."""

import torch
from torch import Tensor
from torchmetrics import Metric


class GroupedAccuracy(Metric):
    """Correct and total examples in each of several groups, such as sentences by number of operations.

    Args:
        num_groups: number of groups.
    """

    full_state_update = False
    correct: Tensor
    total: Tensor

    def __init__(self, num_groups: int) -> None:
        super().__init__()
        self.add_state("correct", torch.zeros(num_groups, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(num_groups, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, correct: Tensor, groups: Tensor) -> None:
        """Adds examples: whether each is correct, (B,) bool, and its group, (B,) int64 in [0, num_groups)."""
        self.total += torch.bincount(groups, minlength=len(self.total))
        self.correct += torch.bincount(groups[correct], minlength=len(self.total))

    def compute(self) -> tuple[Tensor, Tensor]:
        """Numbers of correct and of total examples, (num_groups,) int64 each."""
        return self.correct, self.total
