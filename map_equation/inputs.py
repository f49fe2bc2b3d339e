"""Whatever holds a graph, as a list of links: arrays, matrices, tables, graph objects, files."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from numbers import Integral
from typing import Any

import numpy as np

from .links import NO_NODE, Links, from_ids, from_sparse, number, numbered, only, read_weights, to_numpy
from .tables import from_table


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
        return from_torch(edges, weights, num_nodes)
    if hasattr(edges, "edge_index"):
        return only(from_geometric(edges, weight), weights, num_nodes, "a graph with an edge_index")
    if kind == "pyarrow":
        edges = edges.to_pandas()
    if hasattr(edges, "columns") and hasattr(edges, "__getitem__"):
        return from_table(edges, weights, num_nodes, weight)
    if kind == "networkx" and callable(edges):  # the links of a multigraph, with their keys unless they are called
        edges = edges()
    if isinstance(edges, np.ndarray):
        return from_array(edges, weights, num_nodes)
    if isinstance(edges, Iterable) and not isinstance(edges, dict):
        return from_rows(list(edges), weights, num_nodes, weight)
    raise ValueError(
        f"a graph is an array, matrix, table, list of links, graph object or path, not {type(edges).__name__}"
    )


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


def from_torch(edges: Any, weights: Any, num_nodes: int | None) -> Links:
    """A torch ``edge_index (2, E)``, or a sparse tensor ``(n, n)``, row -> column."""
    shape = tuple(edges.shape)
    edges = edges.detach().cpu()
    if str(edges.layout) != "torch.strided" and len(shape) == 2:
        from scipy.sparse import coo_array

        edges = edges.to_sparse_coo().coalesce()
        matrix = coo_array((to_numpy(edges.values()), edges.indices().numpy()), shape)
        return only(from_sparse(matrix), weights, num_nodes, "a sparse tensor")
    if len(shape) != 2 or shape[0] != 2:
        hint = "; transpose it" if shape[1:] == (2,) else "; a matrix is given .to_sparse()" * (shape == shape[:1] * 2)
        raise ValueError(f"a torch edge_index has shape (2, E), not {shape}{hint}")
    return from_array(edges.numpy().T, weights, num_nodes)


def from_geometric(graph: Any, weight: str | None) -> Links:
    """torch_geometric's ``Data``: nodes 0 ... num_nodes - 1, weights ``edge_weight`` or the attribute ``weight``."""
    weights = None if weight is None else getattr(graph, "edge_weight" if weight == "weight" else weight, None)
    if weights is None and weight not in (None, "weight"):
        raise ValueError(f"the graph has no attribute {weight!r} for the weights of its links")
    return from_torch(graph.edge_index, weights, graph.num_nodes)


def from_rows(rows: list[Any], weights: Any, num_nodes: int | None, weight: str | None) -> Links:
    """Links as tuples ``(a, b)``, ``(a, b, weight)`` or ``(a, b, attributes)``; nodes have any names."""
    if not rows:
        return from_ids(np.empty((0, 2), np.int64), None, num_nodes)
    for row in rows:
        if isinstance(row, str | Mapping) or not hasattr(row, "__getitem__") or len(row) not in (2, 3):
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
    value = value.get(weight, 1) if isinstance(value, dict) else value
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the weight of a link is a number, not {value!r:.60}") from error


def attribute_weights(values: Sequence[Any]) -> np.ndarray | None:
    """Weights ``(E,)`` of the links from their attribute, 1 where it is None; None if it is so everywhere."""
    if all(value is None for value in values):
        return None
    return np.array([1.0 if value is None else weight_of(value, None) for value in values])


def from_networkx(graph: Any, weight: str | None) -> Links:
    """Nodes in the graph's order; links without the attribute ``weight`` have weight 1, and so have all without it."""
    names = list(graph.nodes)
    index = {name: place for place, name in enumerate(names)}
    links = list(graph.edges(data=weight, default=None)) if weight is not None else list(graph.edges())
    edges = np.array([(index[link[0]], index[link[1]]) for link in links], np.int64).reshape(-1, 2)
    values = [link[2] for link in links] if weight is not None else []
    if weight not in (None, "weight") and links and all(value is None for value in values):
        raise ValueError(f"no link of the graph has the attribute {weight!r} for its weight")
    return Links(edges, attribute_weights(values), numbered(names), bool(graph.is_directed()))


def from_igraph(graph: Any, weight: str | None) -> Links:
    """Nodes in the graph's order, named by the attribute ``name``, else by number."""
    edges = np.array(graph.get_edgelist(), np.int64).reshape(-1, 2)
    known = graph.es.attributes()
    if weight not in (None, "weight", *known):
        raise ValueError(f"the links of the graph have no attribute {weight!r} for their weights")
    weights = attribute_weights(graph.es[weight]) if weight in known else None
    names = list(graph.vs["name"]) if "name" in graph.vs.attributes() else range(graph.vcount())
    return Links(edges, weights, names, bool(graph.is_directed()))
