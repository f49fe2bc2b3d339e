"""An order of the nodes that does not depend on their numbering."""

import numpy as np

from ..flow import UNDIRECTED, Flow, kind_of

ROUNDS, DIGITS = 10, 10


def canonical_order(flow: Flow) -> np.ndarray:
    """Nodes ``(n,)`` sorted by their rates, then by those of their neighbours, then of theirs, and so on.

    Colour refinement: two nodes that stay equal can usually be swapped without changing the graph. Rates are compared
    up to rounding, as sums in another order differ in their last digits.
    """
    n = len(flow.flow)
    colour = ranks([flow.flow, flow.exits, flow.enters, *(part for part in (flow.leave, flow.land) if len(part))])
    numbers = np.random.default_rng(0).random(n)
    row = np.repeat(np.arange(n), np.diff(flow.indptr))
    for _ in range(ROUNDS):
        seen = numbers[colour]
        sums = (np.bincount(row, link * seen[flow.neighbour], n) for link in (flow.out, flow.into))
        finer = ranks([colour, *sums])
        if finer.max() == colour.max():
            break
        colour = finer
    return np.argsort(colour, kind="stable")


def ranks(columns: list[np.ndarray]) -> np.ndarray:
    """Rank of each row of the table with these columns, in lexicographic order; equal rows share a rank."""
    n = len(columns[0])
    columns = [np.round(column * n, DIGITS) if column.dtype.kind == "f" else column for column in columns]
    order = np.lexsort(columns[::-1])
    new = np.zeros(n, bool)
    for column in columns:
        new[1:] |= column[order][1:] != column[order][:-1]
    rank = np.empty(n, np.int64)
    rank[order] = np.cumsum(new)
    return rank


def reorder(flow: Flow, order: np.ndarray) -> Flow:
    """The same walk with node ``order[i]`` as node i."""
    n = len(order)
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n)
    row = rank[np.repeat(np.arange(n), np.diff(flow.indptr))]
    column = rank[flow.neighbour]
    place = np.lexsort((column, row))
    out = flow.out[place]
    return Flow(
        np.searchsorted(row[place], np.arange(n + 1)).astype(np.int64),
        column[place].astype(np.int32),
        out,
        out if kind_of(flow) == UNDIRECTED else flow.into[place],
        *(part[order] if len(part) else part for part in flow[4:]),
    )
