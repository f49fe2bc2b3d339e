"""Input formats and the canonical graph.

Any input becomes a symmetric CSR with sorted rows and summed multi-edges, so that nothing downstream depends on the
order of the edges.
"""

from typing import Any, Literal, NamedTuple, get_args

import numba
import numpy as np
import scipy.sparse

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


class Links(NamedTuple):
    """A list of links: node indices ``(E,)``, weights ``(E,)`` or None for ones, and properties of the graph."""

    source: np.ndarray
    target: np.ndarray
    weight: np.ndarray | None
    num_nodes: int
    names: list[Any] | None
    both_ways: bool  # links of an undirected graph object, each listed once
    symmetric: bool = False  # a symmetric matrix holds each link twice but its loops once


def read_graph(
    edges: Any, weights: Any = None, num_nodes: int | None = None, flow: str = "undirected"
) -> tuple[Graph, list[Any] | None]:
    """The canonical graph and the node names (None for arrays and matrices).

    Raises:
        ValueError: for an unknown flow, a wrong shape, an id out of range, a negative or non-finite weight, or no link.
    """
    if flow not in FLOWS:
        raise ValueError(f"flow must be one of {', '.join(FLOWS)}, not {flow!r}")
    links = read_links(edges, weights, num_nodes)
    undirected = flow in ("undirected", "uniform_recorded")
    source, target, weight = links.source, links.target, links.weight
    if weight is not None:
        check_weights(weight)
        if not weight.all():
            kept = weight > 0
            source, target, weight = source[kept], target[kept], weight[kept]
    if not len(source):
        raise ValueError("the graph is empty: it has no link with a positive weight")
    if links.both_ways and not undirected:
        once = source != target
        source, target = np.concatenate([source, target[once]]), np.concatenate([target, source[once]])
        weight = None if weight is None else np.concatenate([weight, weight[once]])
    if weight is None:
        weight = np.ones(1)
    if links.num_nodes >= 2**31:
        raise ValueError(f"at most 2**31 - 1 nodes, not {links.num_nodes}")
    indptr, neighbour, out, into, loops = build_csr(links.num_nodes, source, target, weight, undirected)
    if undirected:
        into = out  # one array: compiled code returns two views
    if undirected and links.symmetric:
        loops *= 2  # the other links came in both directions
    return Graph(indptr, neighbour, out, into, loops), links.names


def check_weights(weight: np.ndarray) -> None:
    """Raises ValueError for weights that are negative or not finite."""
    if not np.isfinite(weight).all():
        number = int(np.flatnonzero(~np.isfinite(weight))[0])
        raise ValueError(f"weights must be finite: weight {number} is {weight[number]}")
    if weight.min(initial=0) < 0:
        number = int(np.flatnonzero(weight < 0)[0])
        raise ValueError(f"weights must not be negative: weight {number} is {weight[number]}")


def read_links(edges: Any, weights: Any, num_nodes: int | None) -> Links:
    """One branch per input format."""
    kind = type(edges).__module__.split(".")[0]
    if hasattr(edges, "nodes") and hasattr(edges, "is_directed") and hasattr(edges, "edges"):
        return only_edges(from_networkx(edges), weights, num_nodes, "a networkx graph")
    if kind == "igraph":
        return only_edges(from_igraph(edges), weights, num_nodes, "an igraph graph")
    if scipy.sparse.issparse(edges):
        return only_edges(from_sparse(edges), weights, num_nodes, "a sparse matrix")
    if kind == "torch":
        edges = edges.detach().cpu().numpy()
        if edges.ndim != 2 or edges.shape[0] != 2:
            raise ValueError(f"a torch edge_index has shape (2, E), not {tuple(edges.shape)}")
        edges = edges.T
    return from_array(edges, weights, num_nodes)


def only_edges(links: Links, weights: Any, num_nodes: int | None, what: str) -> Links:
    """The links of a graph object; ValueError if weights or another number of nodes are given as well."""
    if weights is not None or num_nodes not in (None, links.num_nodes):
        raise ValueError(f"{what} has its own weights and nodes: weights and num_nodes are for arrays of edges")
    return links


def from_array(edges: Any, weights: Any, num_nodes: int | None) -> Links:
    """``(E, 2)`` integers from 0 and weights ``(E,)`` or None, arrays or lists; ValueError for anything else."""
    edges = np.asarray(edges)
    if edges.size == 0:
        raise ValueError("the graph is empty: it has no link")
    if edges.ndim != 2 or edges.shape[1] != 2:
        raise ValueError(f"edges must have shape (E, 2), not {edges.shape}")
    if not np.issubdtype(edges.dtype, np.integer):
        raise ValueError(f"edges must be integers (node ids from 0), not {edges.dtype}")
    if num_nodes is not None and num_nodes < 1:
        raise ValueError(f"num_nodes must be positive, not {num_nodes}")
    low, high = int(edges.min()), int(edges.max())
    if low < 0:
        raise ValueError(f"node ids must not be negative: {low}")
    if num_nodes is not None and high >= num_nodes:
        raise ValueError(f"node id {high} is out of range: num_nodes is {num_nodes}")
    if weights is not None:
        weights = to_numpy(weights).astype(np.float64)
        if weights.shape != (len(edges),):
            raise ValueError(f"weights must have shape ({len(edges)},), one per edge, not {weights.shape}")
    if edges.dtype not in (np.int32, np.int64):  # compiled code lacks some others, and would be compiled for each
        edges = edges.astype(np.int64)
    return Links(edges[:, 0], edges[:, 1], weights, high + 1 if num_nodes is None else num_nodes, None, False)


def to_numpy(values: Any) -> np.ndarray:
    """A torch tensor on any device, or anything array-like, as an array."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def from_sparse(matrix: Any) -> Links:
    """A scipy sparse matrix ``(n, n)``, row -> column; ValueError if it isn't square."""
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"an adjacency matrix must be square, not {matrix.shape}")
    matrix = matrix.tocsr()
    symmetric = bool((abs(matrix - matrix.T) > 0).nnz == 0)
    matrix = matrix.tocoo()
    return Links(
        matrix.row, matrix.col, matrix.data.astype(np.float64), matrix.shape[0], None, False, symmetric=symmetric
    )


def from_networkx(graph: Any) -> Links:
    """Nodes in the graph's order; links without the attribute ``weight`` have weight 1."""
    names = list(graph.nodes)
    index = {name: number for number, name in enumerate(names)}
    links = list(graph.edges(data="weight", default=1))
    source = np.fromiter((index[link[0]] for link in links), np.int64, len(links))
    target = np.fromiter((index[link[1]] for link in links), np.int64, len(links))
    weight = np.array([link[2] for link in links], np.float64)
    return Links(source, target, weight, len(names), names, not graph.is_directed())


def from_igraph(graph: Any) -> Links:
    """Nodes in the graph's order, named by the attribute ``name``, else by number."""
    pairs = np.array(graph.get_edgelist(), np.int64).reshape(-1, 2)
    weight = np.array(graph.es["weight"], np.float64) if "weight" in graph.es.attributes() else None
    names = list(graph.vs["name"]) if "name" in graph.vs.attributes() else list(range(graph.vcount()))
    return Links(pairs[:, 0], pairs[:, 1], weight, graph.vcount(), names, not graph.is_directed())


def build_csr(
    n: int, source: np.ndarray, target: np.ndarray, weight: np.ndarray, undirected: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The arrays of ``Graph``, from links ``(E,)`` and their weights ``(E,)``, or ``(1,)`` if all are equal.

    Two counting sorts (by column, then stably by row), then equal neighbours are summed in order of weight. In between,
    a negative weight marks an incoming entry.
    """
    indptr, neighbour, value, loops = sort_by_column(n, source, target, weight, undirected)
    neighbour, value = sort_by_row(indptr, neighbour, value)
    return *sum_equal_entries(indptr, neighbour, value, undirected), loops


@numba.njit(cache=True, nogil=True)
def sort_by_column(n, source, target, weight, undirected):
    """First entries of the columns, rows and values of all entries, and the weights of self-loops."""
    loops = np.zeros(n)
    indptr = np.zeros(n + 1, np.int64)
    one = len(weight) == 1
    for k in range(len(source)):
        s, t = source[k], target[k]
        if s != t:
            indptr[s + 1] += 1
            indptr[t + 1] += 1
    for u in range(n):
        indptr[u + 1] += indptr[u]
    place = indptr[:-1].copy()
    row = np.empty(indptr[n], np.int32)
    value = np.empty(indptr[n])
    many = 0
    for k in range(len(source)):
        s, t = source[k], target[k]
        w = weight[0] if one else weight[k]
        if s == t:
            many += loops[s] > 0
            loops[s] += w
            continue
        row[place[t]] = s
        value[place[t]] = w
        place[t] += 1
        row[place[s]] = t
        value[place[s]] = w if undirected else -w
        place[s] += 1
    if many and not one:  # again, in order of weight
        loops[:] = 0
        chosen = np.flatnonzero(source == target)
        for k in chosen[np.argsort(weight[chosen])]:
            loops[source[k]] += weight[k]
    return indptr, row, value, loops


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
                value[k:end].sort()
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
