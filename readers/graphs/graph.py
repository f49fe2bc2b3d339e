"""A graph as arrays: what readers and generators of graphs return."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

NAME_BYTES = 1 << 28  # above this, fixed-width names take too much memory
MANY_NODES, NODES_PER_LINK = 10_000_000, 100  # always allowed, and allowed per link

Links = tuple[NDArray[np.int64], NDArray[np.float64] | None]  # (E, 2) ends and (E,) weights; None: all are 1


class States(NamedTuple):
    """The physical nodes that the n nodes of a graph are states of.

    Shapes:
        names: (n,) strings, the physical node of each state; states of one node have the same.
        nodes: (n,) int64, its number in the file.
        layers: (n,) int64, the layer of each state; None if states are no layers.
        directed: of layers that were read from links inside them (``*Intra``): whether these count one way only. The
            links of the graph, between states, are arcs in any case. None for all others.
    """

    names: NDArray[np.str_]
    nodes: NDArray[np.int64]
    layers: NDArray[np.int64] | None = None
    directed: bool | None = None


class Graph(NamedTuple):
    """A graph as arrays.

    Shapes:
        edges: (E, 2) int64, source and target; nodes are numbered from 0.
        names: (n,) strings.
        weights: (E,) float64; None: all are 1.
        directed: None if not stated.
        bipartite: the first node of the second kind, or 0.
        labels: (n,) int64, -1 where unknown; None if there are none.
        features: (n, F) float32; None if there are none.
        ids: (n,) int64, the numbers that the file has for the nodes beside their names; None if there are none.
        states: the physical nodes, if the nodes are states of such.
    """

    edges: NDArray[np.int64]
    names: NDArray[np.str_]
    weights: NDArray[np.float64] | None = None
    directed: bool | None = None
    bipartite: int = 0
    labels: NDArray[np.int64] | None = None
    features: NDArray[np.float32] | None = None
    ids: NDArray[np.int64] | None = None
    states: States | None = None


def drop_light_links(graph: Graph, min_weight: float, what: str) -> Graph:
    """The graph without links lighter than ``min_weight``; all nodes stay.

    Raises:
        DataError: there are links, but all are lighter; the message calls the graph ``what``.
    """
    weights = np.ones(len(graph.edges)) if graph.weights is None else graph.weights
    if weights.min(initial=np.inf) >= min_weight:
        return graph
    kept = weights >= min_weight
    if not kept.any():
        raise DataError(
            f"{what} has no link that weighs {min_weight} or more: lower min_weight to {weights.max():g} or less"
        )
    return graph._replace(edges=graph.edges[kept], weights=weights[kept])


def check_links(graph: Graph, what: str) -> Graph:
    """The graph.

    Raises:
        DataError: it has no link with a positive weight; the message calls the graph ``what``.
    """
    if not len(graph.edges) or (graph.weights is not None and not (graph.weights > 0).any()):
        raise DataError(f"{what} is an empty graph: it has no link with a positive weight")
    return graph


def check_num_nodes(nodes: int, links: int, where: str) -> None:
    """Rejects a declared number of nodes that would fill the memory.

    Raises:
        DataError: it exceeds both ``MANY_NODES`` and ``NODES_PER_LINK`` per link.
    """
    if nodes > max(MANY_NODES, NODES_PER_LINK * links):
        raise DataError(
            f"{where} declares {nodes:,} nodes, but has {links:,} links: number the nodes without such gaps"
        )


def name_array(names: Sequence[str]) -> NDArray[np.str_]:
    """Strings as an array: fixed-width, or of objects if one long name would make that too large."""
    longest = max(map(len, names), default=1)
    return np.array(names, dtype=object if 4 * longest * len(names) > NAME_BYTES else f"U{max(1, longest)}")


def number_names(numbers: NDArray[np.int64]) -> NDArray[np.str_]:
    """Ascending integers as strings."""
    return numbers.astype(f"U{max(len(str(numbers[0])), len(str(numbers[-1])))}")
