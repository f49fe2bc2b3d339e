"""Spans to start and end marks and back (half pointer, half tagging), for many sequences at once."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor

Pairing = Literal["nearest", "nested"]


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


def pair_spans(
    start: Tensor, end: Tensor, start_threshold: float, end_threshold: float, pairing: Pairing = "nearest"
) -> Tensor:
    """Spans of each sequence: starts above their threshold with ends above their own, at or after them.

    ``nearest``: every start with the nearest end. ``nested``: like brackets, each end with the last start that is still
    open; starts that stay open with the nearest end, ends without one with the nearest start. Of spans that begin at
    the same position (``北京市`` and ``北京市政府``) ``nearest`` finds the shortest, ``nested`` all.

    Args:
        start, end: (N, L) probabilities.
        start_threshold, end_threshold: a position counts if its probability is larger.
        pairing: which starts and ends make a span.

    Returns:
        (S, 3) int64: sequence, start, inclusive end, in this order; starts without an end are left out.

    Source: ``nearest`` is that of kexue.fm/archives/6671.
    """
    if pairing == "nested":
        return _nested_spans(start > start_threshold, end > end_threshold)
    ends = nearest_end(end > end_threshold)
    found = (start > start_threshold) & (ends < start.shape[1])
    sequence, place = found.nonzero(as_tuple=True)
    return torch.stack([sequence, place, ends[sequence, place]], dim=1)


def _nested_spans(is_start: Tensor, is_end: Tensor) -> Tensor:
    """(S, 3) int64 from (N, L) bool, as ``pair_spans``."""
    found: list[tuple[int, int, int]] = []
    marks = torch.stack([is_start, is_end], dim=-1).nonzero().tolist()  # by sequence and position, a start first
    for sequence, of_sequence in groupby(marks, key=lambda mark: mark[0]):
        spans: set[tuple[int, int]] = set()
        opened: list[int] = []
        last = None  # the start nearest to the present position
        ends: list[int] = []
        for _, place, is_an_end in of_sequence:
            if not is_an_end:
                opened.append(place)
                last = place
            elif last is not None:
                ends.append(place)
                spans.add((opened.pop() if opened else last, place))
        for place in opened:
            spans.update((place, end) for end in ends[bisect_left(ends, place) :][:1])
        found += [(sequence, *span) for span in sorted(spans)]
    return torch.tensor(found, dtype=torch.int64, device=is_start.device).reshape(-1, 3)
