"""A graph as arrays: what readers and makers of graphs hand on."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

NAME_BYTES = 1 << 28  # above this, names of fixed width take too much memory
MANY_NODES, NODES_PER_LINK = 10_000_000, 100  # as many are always allowed; and as many for each link


class Graph(NamedTuple):
    """A graph as arrays.

    Shapes:
        edges: (E, 2) int64, source and target; nodes are counted from 0.
        names: (n,) strings.
        weights: (E,) float64; None: each link weighs 1.
        directed: None where it isn't said.
        bipartite: the first node of the second kind, or 0.
        labels: (n,) int64, -1 where unknown; None without any.
        features: (n, F) float32; None without any.
    """

    edges: NDArray[np.int64]
    names: NDArray[np.str_]
    weights: NDArray[np.float64] | None = None
    directed: bool | None = None
    bipartite: int = 0
    labels: NDArray[np.int64] | None = None
    features: NDArray[np.float32] | None = None


def drop_light_links(graph: Graph, min_weight: float, what: str) -> Graph:
    """The graph without the links that weigh less than ``min_weight``; its nodes all stay.

    Raises:
        DataError: no link with a positive weight is left of ``what``.
    """
    weights = np.ones(len(graph.edges)) if graph.weights is None else graph.weights
    if not (weights > 0).any():
        raise DataError(f"{what} is an empty graph: it has no link with a positive weight")
    if weights.min() >= min_weight:
        return graph
    kept = weights >= min_weight
    if not kept.any():
        raise DataError(
            f"{what} has no link that weighs {min_weight} or more: lower min_weight to {weights.max():g} or less"
        )
    return graph._replace(edges=graph.edges[kept], weights=weights[kept])


def check_num_nodes(nodes: int, links: int, where: str) -> None:
    """Refuses a number of nodes that is only announced, and fills the memory.

    Raises:
        DataError: there are more than ``MANY_NODES`` and than ``NODES_PER_LINK`` for each link.
    """
    if nodes > max(MANY_NODES, NODES_PER_LINK * links):
        raise DataError(
            f"{where} announces {nodes:,} nodes, but has {links:,} links: number the nodes without such gaps"
        )


def name_array(names: Sequence[str]) -> NDArray[np.str_]:
    """Strings as an array: of fixed width, or of objects where one long name would make that too large."""
    longest = max(map(len, names), default=1)
    return np.array(names, dtype=object if 4 * longest * len(names) > NAME_BYTES else f"U{max(1, longest)}")


def number_names(numbers: NDArray[np.int64]) -> NDArray[np.str_]:
    """Ascending integers as strings."""
    return numbers.astype(f"U{max(len(str(numbers[0])), len(str(numbers[-1])))}")
