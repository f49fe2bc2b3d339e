"""The canonical graph.

Any list of links becomes a symmetric CSR with sorted rows and summed multi-edges, so that nothing downstream depends on
the order of the edges.
"""

from typing import Literal, NamedTuple, get_args

import numba
import numpy as np

from .inputs import NO_NODE, Links

FlowModel = Literal[
    "undirected",
    "directed",
    "directed_recorded",
    "directed_to_nodes",
    "directed_recorded_to_nodes",
    "uniform_recorded",
]
FLOWS = get_args(FlowModel)


class Graph(NamedTuple):
    """Neighbours of every node, both ways. ``out`` and ``into`` are the same array if direction does not matter.

    Args:
        indptr: ``(n + 1,)`` int64, first entry of each row.
        neighbour: ``(entries,)`` int32, ascending in each row, without the node itself.
        out: ``(entries,)`` weight of row -> neighbour.
        into: ``(entries,)`` weight of neighbour -> row.
        loops: ``(n,)`` weight of each node's self-loop.
    """

    indptr: np.ndarray
    neighbour: np.ndarray
    out: np.ndarray
    into: np.ndarray
    loops: np.ndarray


def read_graph(links: Links, flow: str) -> Graph:
    """The canonical graph.

    Raises:
        ValueError: for an unknown flow, a negative or non-finite weight, or no node.
    """
    if flow not in FLOWS:
        raise ValueError(f"flow must be one of {', '.join(FLOWS)}, not {flow!r}")
    if not links.num_nodes:
        raise ValueError(NO_NODE)
    if links.num_nodes >= 2**31:
        raise ValueError(f"at most 2**31 - 1 nodes, not {links.num_nodes}")
    undirected = flow in ("undirected", "uniform_recorded")
    edges, weight = links.edges, links.weight
    if weight is not None:
        check_weights(weight)
        weight = in_range(weight)
        if not weight.all():
            kept = weight > 0
            edges, weight = edges[kept], weight[kept]
    if links.directed is False and not undirected:
        once = edges[:, 0] != edges[:, 1]
        edges = np.concatenate([edges, edges[once, ::-1]])
        weight = None if weight is None else np.concatenate([weight, weight[once]])
    if weight is None:
        weight = np.ones(1)
    indptr, neighbour, out, into, loops = build_csr(links.num_nodes, edges, weight, undirected)
    if undirected:
        into = out  # one array: compiled code returns two views
    if undirected and links.symmetric:
        loops *= 2  # the other links came in both directions
    return Graph(indptr, neighbour, out, into, loops)


def check_weights(weight: np.ndarray) -> None:
    """Raises ValueError for weights that are negative or not finite."""
    if not np.isfinite(weight).all():
        number = int(np.flatnonzero(~np.isfinite(weight))[0])
        raise ValueError(f"weights must be finite: weight {number} is {weight[number]}")
    if weight.min(initial=0) < 0:
        number = int(np.flatnonzero(weight < 0)[0])
        raise ValueError(f"weights must not be negative: weight {number} is {weight[number]}")


def in_range(weight: np.ndarray) -> np.ndarray:
    """Weights times a power of two, where their sums could overflow or lose digits; code lengths stay the same."""
    largest = weight.max(initial=0)
    if largest == 0 or 1e-200 < largest < 1e200:
        return weight
    return np.ldexp(weight, -int(np.frexp(largest)[1]))


def build_csr(
    n: int, edges: np.ndarray, weight: np.ndarray, undirected: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The arrays of ``Graph``, from links ``(E, 2)`` and their weights ``(E,)``, or ``(1,)`` if all are equal.

    Two counting sorts (by column, then stably by row), then equal neighbours are summed in order of weight. In between,
    a negative weight marks an incoming entry.
    """
    loops = loop_weights(n, edges, weight)
    indptr = np.zeros(n + 1, np.int64)
    neighbour, value = sort_by_column(edges, weight, undirected, indptr, indptr[:-1].copy())
    neighbour, value = sort_by_row(indptr, neighbour, value)
    return *sum_equal_entries(indptr, neighbour, value, undirected), loops


def loop_weights(n: int, edges: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The weight ``(n,)`` of each node's self-loops, summed in order of weight."""
    chosen = np.flatnonzero(edges[:, 0] == edges[:, 1])
    if len(weight) == 1:
        return np.bincount(edges[chosen, 0], minlength=n) * weight[0]
    chosen = chosen[np.argsort(weight[chosen])]
    return np.bincount(edges[chosen, 0], weight[chosen], n)


@numba.njit(cache=True, nogil=True)
def sort_by_column(edges, weight, undirected, indptr, place):
    """Rows and values of all entries, sorted by column; ``indptr`` receives the first entries of the columns.

    ``indptr`` and ``place`` come as zeros.
    """
    n = len(place)
    one = len(weight) == 1
    for k in range(len(edges)):
        s, t = edges[k, 0], edges[k, 1]
        if s != t:
            indptr[s + 1] += 1
            indptr[t + 1] += 1
    for u in range(n):
        indptr[u + 1] += indptr[u]
        place[u] = indptr[u]
    row = np.empty(indptr[n], np.int32)
    value = np.empty(indptr[n])
    for k in range(len(edges)):
        s, t = edges[k, 0], edges[k, 1]
        if s == t:
            continue
        w = weight[0] if one else weight[k]
        row[place[t]] = s
        value[place[t]] = w
        place[t] += 1
        row[place[s]] = t
        value[place[s]] = w if undirected else -w
        place[s] += 1
    return row, value


@numba.njit(cache=True, nogil=True)
def sort_by_row(indptr, row, value):
    """Columns and values of the entries, which are sorted by column; rows have as many entries as columns."""
    place = indptr[:-1].copy()
    column = np.empty_like(row)
    sorted_value = np.empty_like(value)
    for u in range(len(indptr) - 1):
        for k in range(indptr[u], indptr[u + 1]):
            v = row[k]
            column[place[v]] = u
            sorted_value[place[v]] = value[k]
            place[v] += 1
    return column, sorted_value


@numba.njit(cache=True, nogil=True)
def sort_values(value, first, end):
    """Sorts a part of an array in place, by Shell's method: NumPy's sort takes a second to compile."""
    gap = 1
    while gap < end - first:
        gap = 3 * gap + 1
    while gap > 1:
        gap //= 3
        for i in range(first + gap, end):
            moved = value[i]
            j = i
            while j >= first + gap and value[j - gap] > moved:
                value[j] = value[j - gap]
                j -= gap
            value[j] = moved


@numba.njit(cache=True, nogil=True)
def sum_equal_entries(indptr, column, value, undirected):
    """Merges entries with the same row and column: first entries of the rows, columns, weights out and in.

    All results but the weights in (if they differ from those out) reuse the memory of the arguments.
    """
    out = value
    into = out if undirected else np.empty_like(value)
    done = 0
    last = 0
    for u in range(len(indptr) - 1):
        k = last
        last = indptr[u + 1]
        while k < last:
            end = k + 1
            while end < last and column[end] == column[k]:
                end += 1
            if end - k > 2:
                sort_values(value, k, end)
            forward = 0.0
            backward = 0.0
            for j in range(k, end):
                if value[j] > 0:
                    forward += value[j]
                else:
                    backward -= value[j]
            column[done] = column[k]
            out[done] = forward
            if not undirected:
                into[done] = backward
            done += 1
            k = end
        indptr[u + 1] = done
    if done < len(column):
        column = column[:done].copy()
        out = out[:done].copy()
        into = out if undirected else into[:done].copy()
    return indptr, column, out, into
