"""Whatever holds a graph, as a list of links: arrays, matrices, tables, graph objects, files."""

import os
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

NO_NODE = "the graph is empty: it has no node"


class Links(NamedTuple):
    """A list of links and its nodes.

    Args:
        edges: ``(E, 2)`` integers, source and target; nodes are numbered from 0.
        weight: ``(E,)``, or None for ones.
        names: of the n nodes.
        directed: whether links are directed; None if the input does not say. Links of an undirected graph object
            (False) count in both directions in directed flow.
        symmetric: a symmetric matrix holds each link twice but its loops once.
        ids: ``(n,)`` integers that a file has for the nodes beside their names, or None.
        bipartite: the first node of the second kind, or None.
        states: the physical nodes that the nodes are states of, a ``readers.graphs.graph.States``, or None.
    """

    edges: np.ndarray
    weight: np.ndarray | None
    names: Sequence[Any]
    directed: bool | None = None
    symmetric: bool = False
    ids: np.ndarray | None = None
    bipartite: int | None = None
    states: Any = None

    @property
    def num_nodes(self) -> int:
        """n."""
        return len(self.names)


def read_links(
    edges: Any,
    weights: Any = None,
    num_nodes: int | None = None,
    weight: str | None = "weight",
    one_way: bool | None = None,
) -> Links:
    """The links of any input that ``map_equation.Network`` takes; its arguments, and ``read_graph``'s ``one_way``.

    Raises:
        ValueError: for another type or shape, an id out of range, or weights or num_nodes beside a graph that has them.
        DataError: what ``readers.graphs.read_graph`` raises for a file.
    """
    kind = type(edges).__module__.split(".")[0]
    if isinstance(edges, str | os.PathLike):
        return only(from_file(edges, one_way), weights, num_nodes, "a file")
    if hasattr(edges, "as_graph"):
        return only(from_read(edges.as_graph()), weights, num_nodes, "a network of states")
    if hasattr(edges, "nodes") and hasattr(edges, "is_directed") and hasattr(edges, "edges"):
        return only(from_networkx(edges, weight), weights, num_nodes, "a networkx graph")
    if kind == "igraph":
        return only(from_igraph(edges, weight), weights, num_nodes, "an igraph graph")
    if "scipy.sparse" in sys.modules and sys.modules["scipy.sparse"].issparse(edges):
        return only(from_sparse(edges), weights, num_nodes, "a sparse matrix")
    if kind == "torch":
        edges = edges.detach().cpu().numpy()
        if edges.ndim != 2 or edges.shape[0] != 2:
            raise ValueError(f"a torch edge_index has shape (2, E), not {tuple(edges.shape)}")
        return from_array(edges.T, weights, num_nodes)
    if hasattr(edges, "columns") and hasattr(edges, "__getitem__"):
        return from_table(edges, weights, num_nodes, weight)
    if isinstance(edges, np.ndarray):
        return from_array(edges, weights, num_nodes)
    if isinstance(edges, Iterable) and not isinstance(edges, dict):
        return from_rows(list(edges), weights, num_nodes, weight)
    raise ValueError(
        f"a graph is an array, matrix, table, list of links, graph object or path, not {type(edges).__name__}"
    )


def only(links: Links, weights: Any, num_nodes: int | None, what: str) -> Links:
    """The links of a graph that is complete; ValueError if weights or another number of nodes are given as well."""
    if weights is not None or num_nodes not in (None, links.num_nodes):
        raise ValueError(f"{what} has its own weights and nodes: weights and num_nodes are for arrays of edges")
    return links


def from_file(path: str | os.PathLike[str], one_way: bool | None = None) -> Links:
    """The graph in a file, in any format of ``readers.graphs.read_graph``; names that are integers become such."""
    from readers.graphs import read_graph

    return from_read(read_graph(os.fspath(path), one_way=one_way))


def from_read(graph: Any) -> Links:
    """A ``readers.graphs.Graph`` that was read."""
    names = whole_numbers(graph.names) if graph.ids is None else graph.names.tolist()
    return Links(
        graph.edges,
        graph.weights,
        names,
        graph.directed,
        ids=graph.ids,
        bipartite=graph.bipartite or None,
        states=graph.states,
    )


def whole_numbers(names: np.ndarray) -> Sequence[Any]:
    """The names, as integers if all are such without leading zeros: 0 ... n - 1 as a range."""
    try:
        numbers = names.astype(np.int64)
    except (ValueError, OverflowError):
        return names.tolist()
    if (numbers.astype(str) != names).any():
        return names.tolist()
    return range(len(names)) if (numbers == np.arange(len(names))).all() else numbers.tolist()


def from_array(edges: np.ndarray, weights: Any, num_nodes: int | None) -> Links:
    """``(E, 2)`` node ids, ``(E, 3)`` with weights, or a dense matrix ``(n, n)``; two pairs of integers are links."""
    edges = np.asarray(edges)
    if edges.ndim != 2:
        raise ValueError(f"edges must have shape (E, 2), not {edges.shape}" if edges.size else NO_NODE)
    if edges.dtype.kind in "OUS":
        return from_rows(edges.tolist(), weights, num_nodes, None)
    rows, columns = edges.shape
    if rows == columns and not (columns == 2 and edges.dtype.kind in "iu"):
        from scipy.sparse import coo_array

        return only(from_sparse(coo_array(edges)), weights, num_nodes, "a dense matrix")
    if columns == 3:
        if weights is not None:
            raise ValueError("edges of shape (E, 3) have their weights in the third column: leave weights out")
        edges, weights = edges[:, :2], edges[:, 2]
    elif columns != 2:
        hint = "; transpose it" if rows == 2 else ""
        raise ValueError(f"edges must have shape (E, 2), (E, 3) with weights, or (n, n), not {edges.shape}{hint}")
    if edges.dtype.kind == "f" and (edges == np.floor(edges)).all():
        edges = edges.astype(np.int64)
    if not np.issubdtype(edges.dtype, np.integer):
        raise ValueError(f"edges must be integers (node ids), not {edges.dtype}")
    return from_ids(edges, weights, num_nodes)


def from_ids(edges: np.ndarray, weights: Any, num_nodes: int | None) -> Links:
    """``(E, 2)`` node ids from 0 to num_nodes - 1; without num_nodes the nodes are the ids that occur."""
    if num_nodes is not None and num_nodes < 1:
        raise ValueError(f"num_nodes must be positive, not {num_nodes}")
    if not len(edges):
        if num_nodes is None:
            raise ValueError(NO_NODE)
        return Links(np.empty((0, 2), np.int64), None, range(num_nodes))
    low, high = int(edges.min()), int(edges.max())
    if low < 0:
        raise ValueError(f"node ids must not be negative: {low}")
    if num_nodes is not None and high >= num_nodes:
        raise ValueError(f"node id {high} is out of range: num_nodes is {num_nodes}")
    # Compiled code lacks some other types, and would be compiled for each.
    if edges.dtype not in (np.int32, np.int64) and high < 1 << 63:
        edges = edges.astype(np.int64)
    names: Sequence[int] = range(high + 1 if num_nodes is None else num_nodes)
    if num_nodes is None:
        edges, names = without_gaps(edges, high)
    return Links(np.ascontiguousarray(edges), read_weights(weights, len(edges)), names)


def without_gaps(edges: np.ndarray, high: int) -> tuple[np.ndarray, Sequence[int]]:
    """Edges between numbers from 0, and the ids that occur."""
    if high >= 8 * len(edges) + 1000:
        ids, places = np.unique(edges, return_inverse=True)
        return places.reshape(edges.shape), ids.tolist()
    there = np.zeros(high + 1, bool)
    there[edges[:, 0]] = True
    there[edges[:, 1]] = True
    if there.all():
        return edges, range(high + 1)
    return (np.cumsum(there) - 1)[edges], np.flatnonzero(there).tolist()


def from_rows(rows: list[Any], weights: Any, num_nodes: int | None, weight: str | None) -> Links:
    """Links as tuples ``(a, b)``, ``(a, b, weight)`` or ``(a, b, attributes)``; nodes have any names."""
    if not rows:
        return from_ids(np.empty((0, 2), np.int64), None, num_nodes)
    for row in rows:
        if isinstance(row, str) or not hasattr(row, "__len__") or len(row) not in (2, 3):
            raise ValueError(f"a list of links has pairs of nodes, or pairs and weights; not {row!r:.60}")
    if any(len(row) == 3 for row in rows):
        if weights is not None:
            raise ValueError("links of three have their weights: leave weights out")
        weights = [weight_of(row[2], weight) if len(row) == 3 else 1.0 for row in rows]
    ends = [row[0] for row in rows], [row[1] for row in rows]
    if all(isinstance(end, Integral) and not isinstance(end, bool) and end < 1 << 63 for end in chain(*ends)):
        return from_ids(np.array(ends, np.int64).T, weights, num_nodes)
    edges, names = number(*ends)
    return only(Links(edges, read_weights(weights, len(edges)), names), None, num_nodes, "a list of named nodes")


def weight_of(value: Any, weight: str | None) -> float:
    """The third entry of a link: its weight, or networkx's attributes."""
    return float(value.get(weight, 1) if isinstance(value, dict) else value)


def number(sources: Iterable[Any], targets: Iterable[Any]) -> tuple[np.ndarray, list[Any]]:
    """Edges between the places of the names, and the names: sorted, so that the order of the links does not matter;
    in order of appearance where they have no order."""
    places: dict[Any, int] = {}
    pairs = [(places.setdefault(a, len(places)), places.setdefault(b, len(places))) for a, b in zip(sources, targets)]  # noqa: B905
    edges, names = np.array(pairs, np.int64).reshape(-1, 2), list(places)
    try:
        order = sorted(range(len(names)), key=names.__getitem__)
    except TypeError:
        return edges, names
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    return rank[edges], [names[place] for place in order]


def is_sorted_ids(names: Sequence[Any]) -> bool:
    """Whether the names are ascending integers."""
    return all(isinstance(name, int) for name in names) and all(a < b for a, b in pairwise(names))


def from_table(table: Any, weights: Any, num_nodes: int | None, weight: str | None) -> Links:
    """A data frame: the columns named source and target, else the first two, and ``weight``, or the third of three.

    Or an adjacency matrix, if its index has the same names as its columns.
    """
    from readers.graphs.edge_list import SOURCES, TARGETS, WEIGHTS

    columns = list(table.columns)
    plain = [re.sub("[_ -]", "", str(column).lower()) for column in columns]
    source, target, named_weight = (
        next((column for column, name in zip(columns, plain, strict=True) if name in names), None)
        for names in (SOURCES | {"u"}, TARGETS | {"v"}, WEIGHTS)
    )
    ends = [source, target]
    if None in ends:
        if is_adjacency(table):
            return only(from_adjacency(table), weights, num_nodes, "an adjacency matrix")
        if len(columns) < 2:
            raise ValueError(f"a table of links has columns source and target, not only {columns}")
        ends = columns[:2]
    sources, targets = (read_ends(table[end], end) for end in ends)
    if weights is None and weight is not None:
        rest = [column for column in columns if column not in ends]
        if weight in columns:
            weights = table[weight]
        elif weight == "weight" and named_weight in rest:
            weights = table[named_weight]
        elif weight != "weight":
            raise ValueError(f"the table has no column {weight!r} for weights, but {columns}")
        elif len(columns) == 3 and np.asarray(table[rest[0]]).dtype.kind in "iuf":
            weights = table[rest[0]]
    if sources.dtype.kind in "iu" and targets.dtype.kind in "iu":
        pairs = np.stack([sources, targets], 1)
        if pairs.dtype.kind in "iu":
            return from_ids(pairs, weights, num_nodes)
    edges, names = number(sources.tolist(), targets.tolist())
    return only(Links(edges, read_weights(weights, len(edges)), names), None, num_nodes, "a table of named nodes")


def read_ends(column: Any, name: Any) -> np.ndarray:
    """A column of a table of links; whole numbers as integers. ValueError if a node is missing."""
    ends = np.asarray(column)
    missing = np.asarray(column.isna()) if hasattr(column, "isna") else np.array([end is None for end in ends], bool)
    if missing.any():
        raise ValueError(f"row {int(np.flatnonzero(missing)[0])} of the table has no node in the column {name!r}")
    return ends.astype(np.int64) if ends.dtype.kind == "f" and (ends == np.floor(ends)).all() else ends


def is_adjacency(table: Any) -> bool:
    """Whether a table is a matrix: its index has the names of its columns, not the default ones of two or three."""
    index, columns = list(getattr(table, "index", ())), list(table.columns)
    if len(index) != len(columns) or set(index) != set(columns) or len(set(index)) != len(index):
        return False
    return len(index) > 3 or type(table.index).__name__ != "RangeIndex"


def from_adjacency(table: Any) -> Links:
    """A matrix with named rows and columns, row -> column."""
    from scipy.sparse import coo_array

    names = list(table.index)
    return from_sparse(coo_array(np.asarray(table[names])))._replace(names=numbered(names))


def read_weights(weights: Any, count: int) -> np.ndarray | None:
    """``(E,)`` float64, or None; ValueError for another number of them."""
    if weights is None:
        return None
    weights = to_numpy(weights).astype(np.float64)
    if weights.shape != (count,):
        raise ValueError(f"weights must have shape ({count},), one per edge, not {weights.shape}")
    return weights


def to_numpy(values: Any) -> np.ndarray:
    """A torch tensor on any device, or anything array-like, as an array."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def from_sparse(matrix: Any) -> Links:
    """A scipy sparse matrix ``(n, n)``, row -> column; ValueError if it isn't square.

    It does not say whether links have a direction: one that isn't symmetric may hold each link once.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"an adjacency matrix must be square, not {matrix.shape}")
    matrix = matrix.tocsr()
    symmetric = (matrix != matrix.T).nnz == 0
    matrix = matrix.tocoo()
    edges = np.stack([matrix.row, matrix.col], 1)
    return Links(edges, matrix.data.astype(np.float64), range(matrix.shape[0]), symmetric=symmetric)


def from_networkx(graph: Any, weight: str | None) -> Links:
    """Nodes in the graph's order; links without the attribute ``weight`` have weight 1, and so have all without it."""
    names = list(graph.nodes)
    index = {name: place for place, name in enumerate(names)}
    links = list(graph.edges(data=weight, default=None)) if weight is not None else list(graph.edges())
    edges = np.array([(index[link[0]], index[link[1]]) for link in links], np.int64).reshape(-1, 2)
    values = [link[2] for link in links] if weight is not None else []
    if weight not in (None, "weight") and links and all(value is None for value in values):
        raise ValueError(f"no link of the graph has the attribute {weight!r} for its weight")
    weighted = any(value is not None for value in values)
    weights = np.array([1 if value is None else value for value in values], np.float64) if weighted else None
    return Links(edges, weights, numbered(names), bool(graph.is_directed()))


def from_igraph(graph: Any, weight: str | None) -> Links:
    """Nodes in the graph's order, named by the attribute ``name``, else by number."""
    edges = np.array(graph.get_edgelist(), np.int64).reshape(-1, 2)
    known = graph.es.attributes()
    if weight not in (None, "weight", *known):
        raise ValueError(f"the links of the graph have no attribute {weight!r} for their weights")
    weights = np.array(graph.es[weight], np.float64) if weight in known else None
    names = list(graph.vs["name"]) if "name" in graph.vs.attributes() else range(graph.vcount())
    return Links(edges, weights, names, bool(graph.is_directed()))


def numbered(names: list[Any]) -> Sequence[Any]:
    """The names, as a range if they are 0 ... n - 1 in order."""
    plain = all(type(name) is int for name in names) and names == list(range(len(names)))
    return range(len(names)) if plain else names
