"""Community detection by the map equation: the shortest description of a random walk on a graph.

A walk is coded with a code book per module and one above them that names the modules (more levels in a hierarchy).
With ``plogp(x) = x log2 x``, visit rates p and exit and enter rates of the modules, a flat partition M costs

    L(M) =   plogp(sum_i enter_i) - sum_i plogp(enter_i)
           + sum_i plogp(exit_i + sum_{a in i} p_a) - sum_i plogp(exit_i) - sum_a plogp(p_a)      bits per step.

``infomap`` searches the partition of least L, ``codelength`` scores a given one. NumPy and Numba only; compiled code
is cached on disk at the first use.

Source: Rosvall and Bergstrom (2008, 2011); kexue.fm 7006. Reimplemented from the formulas.
"""

from typing import Any

from .codelength import book_costs, one_level_codelength, read_modules
from .flow import compute_flow
from .graph import read_graph
from .partition import Partition, number_modules
from .search import search

__all__ = ["Partition", "codelength", "infomap"]


def infomap(
    edges: Any,
    weights: Any = None,
    *,
    num_nodes: int | None = None,
    flow: str = "undirected",
    two_level: bool = False,
    teleportation: float = 0.15,
    num_trials: int = 1,
    seed: int = 1,
    markov_time: float = 1.0,
    bipartite: int | None = None,
) -> Partition:
    """The partition of a graph, flat or hierarchical, with the least code length found.

    The same seed gives the same partition in whatever order the edges come. Multi-edges are summed, links of weight 0
    dropped; a node without links is a module of its own and costs nothing where no teleportation is recorded.

    Args:
        edges: ``(E, 2)`` integers, node ids from 0; or a torch ``edge_index (2, E)``, a scipy sparse matrix (row ->
            column), a networkx or igraph graph (edge attribute ``weight``, else 1). Links of an undirected graph
            object count in both directions in directed flow.
        weights: ``(E,)``, not negative; only with an array of edges.
        num_nodes: only with an array of edges; else the highest id + 1.
        flow: ``undirected``; ``directed`` (unrecorded teleportation to the sources of links), ``directed_recorded`` (to
            the targets of links, part of the code), ``directed_to_nodes`` and ``directed_recorded_to_nodes`` (to all
            nodes alike); ``uniform_recorded``, the article's: recorded, to all nodes alike, links taken both ways.
        two_level: a flat partition rather than a hierarchy.
        teleportation: probability per step; without effect on ``undirected``.
        num_trials: independent searches, of which the best is kept.
        seed: of the first trial; those of more trials are derived from it.
        markov_time: steps per code word; above 1 modules are larger, below 1 smaller.
        bipartite: the first id of the second kind of nodes, whose visits are not coded (undirected flow only).

    Raises:
        ValueError: wrong shape, id out of range, negative or non-finite weight, no link, unknown flow model.
    """
    if num_trials < 1:
        raise ValueError(f"num_trials must be at least 1, not {num_trials}")
    if seed < 0:
        raise ValueError(f"seed must not be negative: {seed}")
    graph, names = read_graph(edges, weights, num_nodes, flow)
    rates = compute_flow(graph, flow, teleportation, markov_time, bipartite)
    best, best_length = None, float("inf")
    for trial in range(num_trials):
        table = search(rates, (seed, trial), two_level)
        costs = book_costs(rates, table)
        length = sum(float(cost.sum()) for cost in costs)
        if length < best_length - 1e-12:
            best, best_length, index = table, length, float(costs[0][0])
    one_level = one_level_codelength(rates)
    if best_length > one_level - 1e-12:
        best = best[:, :1] * 0
        best_length, index = one_level, 0.0
    numbers, bottom = number_modules(best, rates.flow)
    return Partition(
        codelength=best_length,
        index_codelength=index,
        module_codelength=best_length - index,
        one_level_codelength=one_level,
        modules=bottom,
        top_modules=numbers[:, 0].copy(),
        num_modules=int(bottom.max()) + 1,
        num_levels=numbers.shape[1] + 1,
        flow=rates.flow,
        flow_model=flow,
        table=numbers,
        links=rates,
        names=names,
    )


def codelength(
    edges: Any,
    modules: Any,
    *,
    weights: Any = None,
    num_nodes: int | None = None,
    flow: str = "undirected",
    teleportation: float = 0.15,
    markov_time: float = 1.0,
    bipartite: int | None = None,
) -> float:
    """Bits per step of the walk for a given partition; see ``infomap`` for the other arguments.

    Args:
        modules: one label per node (any values), or one path per node: a tuple of labels from the top to the bottom
            module, of any length. ``()`` puts a node directly under the root. Nodes of a graph object in its order.

    Raises:
        ValueError: as ``infomap``; not one label or path per node.
    """
    graph, _ = read_graph(edges, weights, num_nodes, flow)
    rates = compute_flow(graph, flow, teleportation, markov_time, bipartite)
    table = read_modules(modules, len(rates.flow))
    return sum(float(cost.sum()) for cost in book_costs(rates, table))
