"""Community detection by the map equation: the shortest description of a random walk on a graph.

A walk is encoded with one code book per module and one above them that names the modules (more in a hierarchy).
With ``plogp(x) = x log2 x``, visit rates p and exit and enter rates of the modules, a flat partition M costs

    L(M) =   plogp(sum_i enter_i) - sum_i plogp(enter_i)
           + sum_i plogp(exit_i + sum_{a in i} p_a) - sum_i plogp(exit_i) - sum_a plogp(p_a)      bits per step.

``infomap`` searches for the partition of least L, ``codelength`` scores a given one, ``Network`` does both repeatedly
on one graph. NumPy and Numba only; compiled code is cached on disk at first use.

Source: Rosvall and Bergstrom (2008, 2011); kexue.fm 7006. Reimplemented from the formulas.
"""

from typing import Any

from .flow import Flow
from .graph import FlowModel, Graph
from .links import Links
from .network import Network
from .partition import Partition
from .search.walk_graph import WalkGraph
from .trials import best_of_trials

__all__ = [
    "Flow",
    "FlowModel",
    "Graph",
    "Links",
    "Network",
    "Partition",
    "WalkGraph",
    "best_of_trials",
    "codelength",
    "infomap",
]


def infomap(
    edges: Any,
    weights: Any = None,
    *,
    num_nodes: int | None = None,
    weight: str | None = "weight",
    flow: str | None = None,
    two_level: bool = False,
    teleportation: float = 0.15,
    num_trials: int = 1,
    seed: int = 1,
    markov_time: float = 1.0,
    bipartite: int | None = None,
    physical: Any = None,
    initial: Any = None,
    num_threads: int = 1,
    progress: bool = False,
) -> Partition:
    """The partition of a graph, flat or hierarchical, with the least code length found.

    The same seed gives the same partition for any order of the edges and nodes and any number of threads.
    Multi-edges are summed, links of weight 0 dropped; a node without links is a module of its own, also where
    recorded teleportation to all nodes visits it and another place would be shorter.

    Args:
        edges, weights, num_nodes, weight, flow, teleportation, markov_time, bipartite, physical: the graph and its
            walk, see ``Network``: a path, an array, a matrix, a table, a list of links, a networkx or igraph graph.
        two_level: a flat partition rather than a hierarchy.
        num_trials: independent searches; the best is kept, the first one in a tie.
        seed: of the search; each trial has its own random stream.
        initial: modules in any form (see ``Network.partition``) that every trial starts from; the result is never
            longer.
        num_threads: trials that run at the same time.
        progress: print a line to stderr for each trial.

    Raises:
        ValueError: for a wrong shape, an id out of range, a negative or non-finite weight, no node, or an unknown flow
            model.
        DataError: for a file that can't be read.
    """
    network = Network(
        edges,
        weights,
        num_nodes=num_nodes,
        weight=weight,
        flow=flow,
        teleportation=teleportation,
        markov_time=markov_time,
        bipartite=bipartite,
        physical=physical,
    )
    return best_of_trials(network, num_trials, num_threads, progress, seed=seed, two_level=two_level, initial=initial)


def codelength(
    edges: Any,
    modules: Any,
    *,
    weights: Any = None,
    num_nodes: int | None = None,
    weight: str | None = "weight",
    flow: str | None = None,
    teleportation: float = 0.15,
    markov_time: float = 1.0,
    bipartite: int | None = None,
    physical: Any = None,
) -> float:
    """Bits per step of the walk for a given partition; other arguments are those of ``Network``.

    Args:
        modules: of the nodes: an array, a dict, a list of sets, a file; see ``Network.partition``.

    Raises:
        ValueError: as in ``infomap``; or if there is not one label or path per node.
    """
    network = Network(
        edges,
        weights,
        num_nodes=num_nodes,
        weight=weight,
        flow=flow,
        teleportation=teleportation,
        markov_time=markov_time,
        bipartite=bipartite,
        physical=physical,
    )
    return network.codelength(modules)
