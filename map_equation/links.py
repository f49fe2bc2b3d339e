"""A list of links and its nodes: what every input becomes."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from numbers import Real
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

    def order(self) -> np.ndarray | None:
        """The nodes ``(n,)`` by id, else by name: an order that does not depend on that of the input.

        None if they are in this order, or have none.
        """
        return sorting(self.names if self.ids is None else self.ids.tolist())


def only(links: Links, weights: Any, num_nodes: int | None, what: str) -> Links:
    """The links of a graph that is complete; ValueError if weights or another number of nodes are given as well."""
    if weights is not None or num_nodes not in (None, links.num_nodes):
        raise ValueError(f"{what} has its own weights and nodes: weights and num_nodes are for arrays of edges")
    return links


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


def number(sources: Iterable[Any], targets: Iterable[Any]) -> tuple[np.ndarray, list[Any]]:
    """Edges between the places of the names, and the names: sorted, so that the order of the links does not matter;
    in order of appearance where they have no order."""
    places: dict[Any, int] = {}
    try:
        pairs = [
            (places.setdefault(source, len(places)), places.setdefault(target, len(places)))
            for source, target in zip(sources, targets, strict=True)
        ]
    except TypeError as error:  # a list, for example
        raise ValueError(f"the name of a node may be all that can be the key of a dict: {error}") from error
    edges, names = np.array(pairs, np.int64).reshape(-1, 2), list(places)
    try:
        order = sorted(range(len(names)), key=names.__getitem__)
    except TypeError:
        return edges, names
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    return rank[edges], [names[place] for place in order]


def sorting(values: Sequence[Any]) -> np.ndarray | None:
    """The places of the values in ascending order; None if they are in this order, or have none."""
    if isinstance(values, range):
        return None
    for key in (None, by_kind):
        try:
            keys = values if key is None else [key(value) for value in values]
            if is_ascending(keys):
                return None
            order = sorted(range(len(keys)), key=keys.__getitem__)
            if is_ascending([keys[place] for place in order]):  # not so of sets, which are compared as subsets
                return np.array(order)
        except TypeError:
            continue
    return None


def is_ascending(values: Sequence[Any]) -> bool:
    """Whether no value is larger than the next."""
    return all(a <= b for a, b in pairwise(values))


def by_kind(value: Any) -> tuple[Any, ...]:
    """What None, numbers, strings and tuples of such are sorted by together; TypeError for others."""
    if value is None:
        return (0,)
    if isinstance(value, Real):
        return 1, value
    if isinstance(value, str):
        return 2, value
    if isinstance(value, tuple):
        return (3, *map(by_kind, value))
    raise TypeError(f"{type(value).__name__} has no order among names")


def is_sorted_ids(names: Sequence[Any]) -> bool:
    """Whether the names are ascending integers."""
    return all(isinstance(name, int) for name in names) and all(a < b for a, b in pairwise(names))


def read_weights(weights: Any, count: int) -> np.ndarray | None:
    """``(E,)`` float64, or None; ValueError for another number of them."""
    if weights is None:
        return None
    weights = to_numpy(weights).astype(np.float64)
    if weights.shape != (count,):
        raise ValueError(f"weights must have shape ({count},), one per edge, not {weights.shape}")
    return weights


def to_numpy(values: Any) -> np.ndarray:
    """A torch tensor of any kind on any device, or anything array-like, as an array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.double() if values.is_floating_point() else values  # NumPy has no bfloat16
    return np.asarray(values)


def from_sparse(matrix: Any) -> Links:
    """A scipy sparse matrix ``(n, n)``, row -> column; ValueError if it isn't square.

    It does not say whether links have a direction: one that isn't symmetric may hold each link once.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"an adjacency matrix must be square, not {matrix.shape}")
    from readers.graphs.matrix_market import is_symmetric

    matrix = matrix.tocsr()
    symmetric = is_symmetric(matrix, matrix.dtype)
    matrix = matrix.tocoo()
    edges = np.stack([matrix.row, matrix.col], 1)
    return Links(edges, matrix.data.astype(np.float64), range(matrix.shape[0]), symmetric=symmetric)


def numbered(names: list[Any]) -> Sequence[Any]:
    """The names, as a range if they are 0 ... n - 1 in order."""
    plain = all(type(name) is int for name in names) and names == list(range(len(names)))
    return range(len(names)) if plain else names
