"""How a pattern is cut into dense tiles: which queries meet which keys, as views of the tensors."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """The positions start + g * step + i * stride for g < count and i < length.

    Rows of ``g`` may overlap only where ``step`` is a multiple of ``stride``.
    """

    start: int
    count: int
    step: int
    length: int
    stride: int = 1

    def read(self, x: Tensor) -> Tensor:
        """A view of x (R, N, ...) at these positions: (count, R, length, ...)."""
        rows, places, *rest = x.stride()
        shape = (self.count, x.shape[0], self.length, *x.shape[2:])
        strides = (self.step * places, rows, self.stride * places, *rest)
        return x.as_strided(shape, strides, x.storage_offset() + self.start * places)

    def add(self, x: Tensor, values: Tensor) -> None:
        """Adds values (count, R, length, ...) to x (R, N, ...) at these positions; repeated positions add up."""
        shift = self.step // self.stride
        if self.count == 1 or not 0 < shift < self.length:
            self.read(x).add_(values)
            return
        for i in range(0, self.length, shift):  # pieces of rows that don't overlap
            length = min(shift, self.length - i)
            part = replace(self, start=self.start + i * self.stride, length=length)
            part.read(x).add_(values[:, :, i : i + length])

    def positions(self) -> Tensor:
        """The positions themselves: (count, length) int64."""
        rows = self.start + torch.arange(self.count) * self.step
        return rows[:, None] + torch.arange(self.length) * self.stride

    def rows(self, first: int, last: int) -> "Grid":
        """The rows first <= g < last."""
        return replace(self, start=self.start + first * self.step, count=last - first)


@dataclass(frozen=True)
class Columns:
    """Irregularly spaced positions, the same keys for every query: a single tile.

    Args:
        index: (length,) int64, each at most once.
    """

    index: Tensor

    @property
    def length(self) -> int:
        """Number of positions."""
        return len(self.index)

    def read(self, x: Tensor) -> Tensor:
        """A copy of x (R, N, ...) at these positions: (1, R, length, ...)."""
        return x.index_select(1, self.index).unsqueeze(0)

    def add(self, x: Tensor, values: Tensor) -> None:
        """Adds values (1, R, length, ...) to x (R, N, ...) at these positions."""
        x.index_add_(1, self.index, values[0].to(x.dtype))

    def positions(self) -> Tensor:
        """The positions themselves: (1, length) int64."""
        return self.index.unsqueeze(0)

    def to(self, device: torch.device) -> "Columns":
        """The same on a device."""
        return Columns(self.index.to(device))

    def rows(self, first: int, last: int) -> "Columns":
        """Itself: the keys are the same for all queries."""
        return self


@dataclass(frozen=True)
class Piece:
    """Tiles of one shape: queries g of one grid see keys g of the other.

    Args:
        queries: count rows of m positions.
        keys: count rows of n positions.
        bias: (m, n), 0 where query i of a row sees key j, else -inf; None if it sees all.
        causal: query i of a row sees only keys j <= i; needs m = n and no ``bias``.
    """

    queries: Grid
    keys: Grid | Columns
    bias: Tensor | None = None
    causal: bool = False

    def split(self, most_keys: int) -> Iterator["Piece"]:
        """The piece in parts, each of one tile or of tiles with at most ``most_keys`` keys in total."""
        count = self.queries.count
        size = max(1, most_keys // self.keys.length)
        for first in range(0, count, size):
            last = min(first + size, count)
            yield replace(self, queries=self.queries.rows(first, last), keys=self.keys.rows(first, last))


Branch = list[Piece]


def residue_classes(n: int, rate: int) -> list[tuple[int, int, int]]:
    """The classes of 0 ... n-1 modulo rate by size, as (first class, how many classes, positions in each)."""
    short, longer = divmod(n, rate)
    groups = [(0, longer, short + 1), (longer, rate - longer, short)]
    return [group for group in groups if group[1] and group[2]]


def band(queries: range, keys: range, window: int, causal: bool) -> Tensor:
    """The bias (m, n) of |i - j| <= window, and j <= i if causal."""
    offset = torch.tensor(keys)[None, :] - torch.tensor(queries)[:, None]
    return bias_of((offset >= -window) & (offset <= (0 if causal else window)))


def bias_of(mask: Tensor) -> Tensor:
    """What is added to logits: 0 where the bool mask is True, else -inf."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -torch.inf)
