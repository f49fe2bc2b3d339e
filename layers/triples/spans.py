"""Spans to start and end marks and back (half pointer, half tagging), for many sequences at once."""

from collections.abc import Sequence

import torch
from torch import Tensor


def mark_ends(shape: Sequence[int], row: Tensor, start: Tensor, end: Tensor, *label: Tensor) -> Tensor:
    """Ones where spans start and end, zeros elsewhere.

    Args:
        shape: (N, L, 2), or (N, L, C, 2) if spans have labels.
        row, start, end: (S,) int64, each span's sequence, start and inclusive end.
        label: (S,) int64 in [0, C), if spans have labels.

    Returns:
        float32 of this shape; starts at index 0, ends at index 1 of the last dimension.
    """
    marks = torch.zeros(*shape, device=row.device)
    marks[..., 0][row, start, *label] = 1
    marks[..., 1][row, end, *label] = 1
    return marks


def nearest_end(is_end: Tensor) -> Tensor:
    """The first end at or after each position.

    Args:
        is_end: (N, L) bool.

    Returns:
        (N, L) int64 positions; L where no end follows.
    """
    length = is_end.shape[1]
    place = torch.arange(length, device=is_end.device)
    place = torch.where(is_end, place, length)
    return place.flip(1).cummin(1).values.flip(1)


def pair_spans(start: Tensor, end: Tensor, start_threshold: float, end_threshold: float) -> Tensor:
    """Spans of each sequence: every start above its threshold with the nearest end above its own at or after it.

    Args:
        start, end: (N, L) probabilities.
        start_threshold, end_threshold: a position counts if its probability is larger.

    Returns:
        (S, 3) int64: sequence, start, inclusive end, in this order; starts without an end are left out.
    """
    ends = nearest_end(end > end_threshold)
    found = (start > start_threshold) & (ends < start.shape[1])
    sequence, place = found.nonzero(as_tuple=True)
    return torch.stack([sequence, place, ends[sequence, place]], dim=1)
