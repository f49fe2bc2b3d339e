"""The canonical graph.

Any list of links becomes a symmetric CSR with sorted rows and summed multi-edges, so that nothing downstream depends on
the order of the edges.
"""

from typing import Literal, NamedTuple, get_args

import numba
import numpy as np

from .compiled import part
from .links import NO_NODE, Links

DIGIT = 11  # bits that entries are sorted by at a time

FlowModel = Literal[
    "undirected",
    "directed",
    "directed_recorded",
    "directed_to_nodes",
    "directed_recorded_to_nodes",
    "uniform_recorded",
]
FLOWS = get_args(FlowModel)
BOTH_WAYS = ("undirected", "uniform_recorded")  # they take links in both directions


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
        ValueError: for a negative or non-finite weight, or no node.
    """
    if not links.num_nodes:
        raise ValueError(NO_NODE)
    if links.num_nodes >= 2**31:
        raise ValueError(f"at most 2**31 - 1 nodes, not {links.num_nodes}")
    undirected = flow in BOTH_WAYS
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


def one_way(flow: str | None, directed: bool | None = None) -> bool | None:
    """Whether a walk follows links in their direction only: what ``flow`` or else ``directed`` says, None for neither.

    Raises:
        ValueError: for an unknown flow, or if the two contradict each other.
    """
    if flow is None:
        return directed
    if flow not in FLOWS:
        raise ValueError(f"flow must be one of {', '.join(FLOWS)}, not {flow!r}")
    if directed not in (None, flow not in BOTH_WAYS):
        raise ValueError(
            f"flow {flow} and directed {str(directed).lower()} contradict each other: leave one of them out"
        )
    return flow not in BOTH_WAYS


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

    Entries are sorted by column, then by row, some bits at a time, so that the places they go to stay in the cache.
    Then equal entries are summed in order of weight. In between, a negative weight marks an incoming entry.
    """
    row, column, value = both_directions(edges, weight, undirected)
    entries = column, row, value
    other = np.empty_like(column), np.empty_like(row), np.empty_like(value)
    bits = max(n - 1, 1).bit_length()
    width = -(-bits // -(-bits // DIGIT))
    for _ in range(2):  # by column, then by row
        for shift in range(0, bits, width):
            sort_by_digit(entries, other, shift, width)
            entries, other = other, entries
        entries, other = (entries[1], entries[0], entries[2]), (other[1], other[0], other[2])
    column, row, value = entries
    del other
    return *sum_equal_entries(n, row, column, value, weight, undirected), loop_weights(n, edges, weight)


def loop_weights(n: int, edges: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The weight ``(n,)`` of each node's self-loops, summed in order of weight."""
    chosen = np.flatnonzero(edges[:, 0] == edges[:, 1])
    if len(weight) == 1:
        return np.bincount(edges[chosen, 0], minlength=n) * weight[0]
    chosen = chosen[np.argsort(weight[chosen])]
    return np.bincount(edges[chosen, 0], weight[chosen], n)


@numba.njit(cache=True, nogil=True)
def both_directions(edges, weight, undirected):
    """Rows, columns and values of all entries but self-loops; no values if all would be the same."""
    one = len(weight) == 1
    row, column = np.empty(2 * len(edges), np.int32), np.empty(2 * len(edges), np.int32)
    value = np.empty(0 if one and undirected else 2 * len(edges))
    count = 0
    for k in range(len(edges)):
        s, t = edges[k, 0], edges[k, 1]
        if s == t:
            continue
        row[count], column[count] = s, t
        row[count + 1], column[count + 1] = t, s
        if len(value):
            w = weight[0] if one else weight[k]
            value[count], value[count + 1] = w, w if undirected else -w
        count += 2
    return row[:count], column[:count], value[:count]


@numba.njit(cache=True, nogil=True)
def sort_by_digit(entries, to, shift, width):
    """Writes entries in the order of these bits of their keys, stably.

    ``entries`` and ``to`` are keys, what belongs to them, and values, if there are any.
    """
    key, other, value = entries
    sorted_key, sorted_other, sorted_value = to
    mask = (1 << width) - 1
    place = np.zeros(mask + 2, np.int64)
    for k in range(len(key)):
        place[((key[k] >> shift) & mask) + 1] += 1
    for digit in range(mask):
        place[digit + 1] += place[digit]
    for k in range(len(key)):
        digit = (key[k] >> shift) & mask
        i = place[digit]
        place[digit] = i + 1
        sorted_key[i], sorted_other[i] = key[k], other[k]
        if len(value):
            sorted_value[i] = value[k]


@part
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
def sum_equal_entries(n, row, column, value, weight, undirected):
    """Merges equal entries of a sorted list: first entries of the rows, columns, weights out and in.

    Columns reuse the memory of the arguments, and so do the weights out, if there are values.
    """
    equal = len(value) == 0
    indptr = np.zeros(n + 1, np.int64)
    out = np.empty(len(column)) if equal else value
    into = out if undirected else np.empty_like(value)
    done = k = 0
    while k < len(row):
        end = k + 1
        while end < len(row) and column[end] == column[k] and row[end] == row[k]:
            end += 1
        if end - k > 2 and not equal:
            sort_values(value, k, end)
        forward = (end - k) * weight[0] if equal else 0.0
        backward = 0.0
        for j in range(end if equal else k, end):
            if value[j] > 0:
                forward += value[j]
            else:
                backward -= value[j]
        column[done] = column[k]
        out[done] = forward
        if not undirected:
            into[done] = backward
        indptr[row[k] + 1] += 1
        done += 1
        k = end
    for u in range(n):
        indptr[u + 1] += indptr[u]
    column, out = column[:done], out[:done]
    into = out if undirected else into[:done]
    if 4 * done < 3 * len(row):  # not worth keeping the memory of what was merged
        column, out = column.copy(), out.copy()
        into = out if undirected else into.copy()
    return indptr, column, out, into
