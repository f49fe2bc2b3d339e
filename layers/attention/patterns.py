"""Which keys a query sees, and how that is cut into dense tiles: full, atrous, local, sparse, fixed."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .tiles import Branch, Columns, Grid, Piece, band, bias_of, residue_classes

FIXED_ROWS = 1024  # queries per tile against the summary columns, if causal: bounds the size of the mask


@dataclass(frozen=True)
class Pattern(ABC):
    """Pairs (i, j) of query and key. A pattern contains i = j, and its causal form is its intersection with j <= i."""

    @abstractmethod
    def allowed(self, i: Tensor, j: Tensor) -> Tensor:
        """Whether query i sees key j in the non-causal form: bool, of the broadcast shape of i and j."""

    @abstractmethod
    def pairs(self, n: int, causal: bool) -> int:
        """Number of pairs over n positions, in closed form."""

    @abstractmethod
    def branches(self, n: int, causal: bool) -> list[Branch]:
        """Disjoint sets of pairs whose union is the pattern; the first has each of the n queries exactly once."""

    @abstractmethod
    def visible(self, i: int) -> Tensor:
        """The keys j <= i that query i sees, in ascending order: (keys,) int64."""

    def mask(self, n: int, causal: bool) -> Tensor:
        """(n, n) bool, True where query i (row) sees key j (column)."""
        i, j = torch.arange(n)[:, None], torch.arange(n)[None, :]
        mask = self.allowed(i, j).expand(n, n)
        return mask & (j <= i) if causal else mask.clone()

    def memory(self, max_length: int) -> int:
        """Number of most recent keys that decoding has to keep."""
        return max_length


@dataclass(frozen=True)
class Full(Pattern):
    """All pairs."""

    def allowed(self, i: Tensor, j: Tensor) -> Tensor:
        return torch.ones(torch.broadcast_shapes(i.shape, j.shape), dtype=torch.bool)

    def pairs(self, n: int, causal: bool) -> int:
        return n * (n + 1) // 2 if causal else n * n

    def branches(self, n: int, causal: bool) -> list[Branch]:
        everything = Grid(0, 1, n, n)
        return [[Piece(everything, everything, causal=causal)]]

    def visible(self, i: int) -> Tensor:
        return torch.arange(i + 1)


@dataclass(frozen=True)
class Atrous(Pattern):
    """(i - j) mod rate = 0. The residue classes are independent of each other, one tile each."""

    rate: int

    def __post_init__(self) -> None:
        check_positive("rate", self.rate)

    def allowed(self, i: Tensor, j: Tensor) -> Tensor:
        return (i - j) % self.rate == 0

    def pairs(self, n: int, causal: bool) -> int:
        both = sum(count * size**2 for _, count, size in residue_classes(n, self.rate))
        return (both + n) // 2 if causal else both

    def branches(self, n: int, causal: bool) -> list[Branch]:
        grids = [Grid(first, count, 1, size, self.rate) for first, count, size in residue_classes(n, self.rate)]
        return [[Piece(grid, grid, causal=causal) for grid in grids]]

    def visible(self, i: int) -> Tensor:
        return torch.arange(i % self.rate, i + 1, self.rate)


@dataclass(frozen=True)
class Local(Pattern):
    """|i - j| <= window * dilation in steps of dilation: a band within each residue class modulo dilation.

    The band is cut into tiles: consecutive queries with all keys that any of them sees.
    """

    window: int
    dilation: int = 1

    def __post_init__(self) -> None:
        check_positive("window", self.window)
        check_positive("dilation", self.dilation)

    def allowed(self, i: Tensor, j: Tensor) -> Tensor:
        return ((i - j) % self.dilation == 0) & ((i - j).abs() <= self.window * self.dilation)

    def pairs(self, n: int, causal: bool) -> int:
        both = 0
        for _, count, size in residue_classes(n, self.dilation):
            radius = min(self.window, size - 1)
            both += count * (size * (2 * radius + 1) - radius * (radius + 1))
        return (both + n) // 2 if causal else both

    def branches(self, n: int, causal: bool) -> list[Branch]:
        pieces: Branch = []
        for first, count, size in residue_classes(n, self.dilation):
            for piece in _band_tiles(size, self.window, causal):
                pieces += _in_classes(piece, first, count, self.dilation)
        return [pieces]

    def visible(self, i: int) -> Tensor:
        first = max(i % self.dilation, i - self.window * self.dilation)
        return torch.arange(first, i + 1, self.dilation)

    def memory(self, max_length: int) -> int:
        return min(max_length, self.window * self.dilation + 1)


@dataclass(frozen=True)
class Sparse(Pattern):
    """|i - j| <= rate or (i - j) mod rate = 0.

    Distances 0 and rate satisfy both conditions, so the branches are the atrous pattern and the band of radius
    rate - 1 without its centre.
    """

    rate: int

    def __post_init__(self) -> None:
        check_positive("rate", self.rate)

    def allowed(self, i: Tensor, j: Tensor) -> Tensor:
        return ((i - j) % self.rate == 0) | ((i - j).abs() <= self.rate)

    def pairs(self, n: int, causal: bool) -> int:
        atrous = Atrous(self.rate).pairs(n, causal)
        return atrous + (Local(self.rate - 1).pairs(n, causal) - n if self.rate > 1 else 0)

    def branches(self, n: int, causal: bool) -> list[Branch]:
        branches = Atrous(self.rate).branches(n, causal)
        if self.rate > 1 and n > 1:
            branches.append([_without_centre(piece) for piece in _band_tiles(n, self.rate - 1, causal)])
        return branches

    def visible(self, i: int) -> Tensor:
        first = max(0, i - self.rate + 1)
        far = torch.arange(i % self.rate, i, self.rate)
        return torch.cat([far[far < first], torch.arange(first, i + 1)])


@dataclass(frozen=True)
class Fixed(Pattern):
    """floor(i / block) = floor(j / block) or first <= j mod block < last: own block and a sub-block of every block.

        last = block - number * summary;    first = last - summary

    Sub-blocks are numbered from the end of the blocks.
    """

    block: int
    summary: int
    number: int = 0

    @property
    def first(self) -> int:
        """Where in a block its summary begins."""
        return self.block - (self.number + 1) * self.summary

    def _summarises(self, j: Tensor) -> Tensor:
        place = j % self.block
        return (place >= self.first) & (place < self.first + self.summary)

    def __post_init__(self) -> None:
        check_positive("block", self.block)
        check_positive("summary", self.summary)
        if self.summary > self.block:
            raise ValueError(f"summary ({self.summary}) must be at most block ({self.block})")

    def allowed(self, i: Tensor, j: Tensor) -> Tensor:
        return (i // self.block == j // self.block) | self._summarises(j)

    def pairs(self, n: int, causal: bool) -> int:
        total = seen = 0
        for start in range(0, n, self.block):
            size = min(self.block, n - start)
            total += size * (size + 1) // 2 + size * seen if causal else size * size
            columns = min(max(0, size - self.first), self.summary)
            total += 0 if causal else (n - size) * columns
            seen += columns
        return total

    def branches(self, n: int, causal: bool) -> list[Branch]:
        blocks, rest = divmod(n, self.block)
        grids = [Grid(0, blocks, self.block, self.block)] if blocks else []
        if rest:
            grids.append(Grid(blocks * self.block, 1, rest, rest))
        own = [self._rest_of_block(grid, causal) for grid in grids]
        summaries = list(self._summaries(n, causal))
        return [own, summaries] if summaries else [own]

    def _rest_of_block(self, grid: Grid, causal: bool) -> Piece:
        """Queries against the keys of their own block that are no summary."""
        i, j = torch.arange(grid.length)[:, None], torch.arange(grid.length)[None, :]
        hidden = self._summarises(j)
        if not hidden.any():
            return Piece(grid, grid, causal=causal)
        return Piece(grid, grid, bias_of(~hidden & (j <= i) if causal else (~hidden).expand(len(i), -1)))

    def _summaries(self, n: int, causal: bool) -> Iterator[Piece]:
        """Queries against the summary columns, with masks only within some rows: no memory quadratic in n."""
        positions = torch.arange(n)
        columns = positions[self._summarises(positions)]
        if not causal:
            if len(columns):
                yield Piece(Grid(0, 1, n, n), Columns(columns))
            return
        rows = self.block * max(1, FIXED_ROWS // self.block)
        bias = bias_of(columns[columns < rows] <= positions[:rows, None])  # the same in all rows
        for start in range(0, n, rows):
            i = positions[start : start + rows]
            queries = Grid(start, 1, len(i), len(i))
            earlier, here = columns[columns < start], columns[(columns >= start) & (columns <= i[-1])]
            if len(earlier):
                yield Piece(queries, Columns(earlier))
            if len(here):
                yield Piece(queries, Columns(here), bias[: len(i), : len(here)])

    def visible(self, i: int) -> Tensor:
        start = i // self.block * self.block
        offset = torch.arange(self.first, self.first + self.summary)
        columns = (torch.arange(0, start, self.block)[:, None] + offset).flatten()
        return torch.cat([columns, torch.arange(start, i + 1)])


def fixed_patterns(block: int, summary: int, distinct: bool) -> Fixed | list[Fixed]:
    """The fixed pattern; if distinct those of all sub-blocks, which the heads take in turn."""
    last = Fixed(block, summary)
    return [Fixed(block, summary, number) for number in range(block // summary)] if distinct else last


def pattern_of(name: str, numbers: Sequence[int]) -> Pattern:
    """The pattern of this class name and these numbers."""
    return {kind.__name__: kind for kind in (Full, Atrous, Local, Sparse, Fixed)}[name](*numbers)


def check_positive(name: str, value: int) -> None:
    """Raises ValueError unless the argument is a positive integer."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} ({value!r}) must be a positive integer")


def _band_tiles(n: int, window: int, causal: bool) -> Iterator[Piece]:
    """|i - j| <= window among n positions. Tiles at the ends have only the keys that exist."""
    # Small tiles waste little work outside the band, large ones use the processor better.
    m = min(128, max(32, window))
    after = 0 if causal else window
    inner_first = -(-window // m)  # tiles of full width: inner_first <= t < inner_last
    inner_last = max((n - after) // m, 0)
    tiles = -(-n // m)
    t = 0
    while t < tiles:
        inner = inner_first <= t < inner_last
        count = inner_last - t if inner else 1
        queries = range(t * m, min(n, t * m + m))
        keys = range(max(0, queries.start - window), min(n, queries.stop + after))
        bias = band(queries, keys, window, causal)
        yield Piece(Grid(queries.start, count, m, len(queries)), Grid(keys.start, count, m, len(keys)), bias)
        t += count


def _in_classes(piece: Piece, first: int, count: int, dilation: int) -> Iterator[Piece]:
    """A piece in positions within a residue class, mapped to ``count`` classes starting at ``first``."""
    assert isinstance(piece.keys, Grid)
    grids = piece.queries, piece.keys
    if count <= piece.queries.count:  # class by class, tiles together
        for residue in range(first, first + count):
            queries, keys = (
                Grid(g.start * dilation + residue, g.count, g.step * dilation, g.length, dilation) for g in grids
            )
            yield replace(piece, queries=queries, keys=keys)
        return
    for tile in range(piece.queries.count):  # tile by tile, classes together
        queries, keys = (
            Grid((g.start + tile * g.step) * dilation + first, count, 1, g.length, dilation) for g in grids
        )
        yield replace(piece, queries=queries, keys=keys)


def _without_centre(piece: Piece) -> Piece:
    assert isinstance(piece.keys, Grid)
    assert piece.bias is not None
    i = piece.queries.start + torch.arange(piece.queries.length)
    j = piece.keys.start + torch.arange(piece.keys.length)
    return replace(piece, bias=piece.bias.masked_fill(i[:, None] == j[None, :], -torch.inf))
