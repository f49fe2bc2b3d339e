"""A graph with its flow, ready to be searched and scored any number of times."""

import functools
from typing import Any

import numpy as np
import scipy.sparse

from .canonical import canonical_order, reorder
from .codelength import book_costs, codelength, one_level_codelength, read_modules, read_physical
from .flow import RECORDED, Flow, compute_flow, kind_of
from .graph import read_graph
from .partition import Partition, number_modules, top_modules
from .search import num_starts, search


class Network:
    """The random walk of one flow model on a graph: its rates, its searches, code lengths of given partitions.

    Args:
        edges: ``(E, 2)`` integers, node ids from 0; or a torch ``edge_index (2, E)``, a scipy sparse matrix (row ->
            column), a networkx or igraph graph (edge attribute ``weight``, else 1). Links of an undirected graph
            object count in both directions in directed flow.
        weights: ``(E,)``, not negative; only with an array of edges.
        num_nodes: only with an array of edges; else the highest id + 1.
        flow: ``undirected``; ``directed`` (unrecorded teleportation to the sources of links), ``directed_recorded`` (to
            the targets of links, part of the code), ``directed_to_nodes`` and ``directed_recorded_to_nodes`` (to all
            nodes alike); ``uniform_recorded``, the article's: recorded, to all nodes alike, links taken both ways.
        teleportation: probability per step; without effect on ``undirected``.
        markov_time: steps per code word; above 1 modules are larger, below 1 smaller.
        bipartite: the first id of the second kind of nodes, whose visits are not coded (undirected flow only).
        physical: ``(n,)`` the physical node (any value) of each node, where nodes are states of one: a memory of where
            the walk came from, or a layer. States of one physical node that lie in one module have one code word there.
            Such a network is scored, not searched.

    Attributes:
        num_nodes: n.
        names: the nodes of a graph object in its order, or None.
        flow_model: the argument ``flow``.
        flow: ``(n,)`` visit rate of each node, of sum 1.
        one_level_codelength: bits per step with no modules, the entropy of ``flow`` (of the physical nodes).

    Raises:
        ValueError: wrong shape, id out of range, negative or non-finite weight, no link, unknown flow model.

    Source of ``physical``: Rosvall et al. 2014 (memory); De Domenico et al. 2015 (layers).
    """

    def __init__(
        self,
        edges: Any,
        weights: Any = None,
        *,
        num_nodes: int | None = None,
        flow: str = "undirected",
        teleportation: float = 0.15,
        markov_time: float = 1.0,
        bipartite: int | None = None,
        physical: Any = None,
    ):
        graph, self.names = read_graph(edges, weights, num_nodes, flow)
        self._flow, self._loops = compute_flow(graph, flow, teleportation, markov_time, bipartite)
        self.flow_model = flow
        self.flow = self._flow.flow
        self.num_nodes = len(self.flow)
        self._physical = None if physical is None else read_physical(physical, self.num_nodes)
        self.one_level_codelength = one_level_codelength(self._flow, self._physical)

    def search(self, *, seed: int = 1, trial: int = 0, two_level: bool = False, initial: Any = None) -> Partition:
        """One trial. The same seed and trial give the same partition in whatever order the edges came.

        On a small graph, of up to some thousand links, a trial is several searches and the shortest of them, and
        as a rule it finds the same modules however the nodes are numbered.

        Args:
            two_level: a flat partition rather than a hierarchy.
            initial: labels or paths as in ``partition``: the search starts from the bottom modules, and its result
                is never longer than this partition (for ``two_level``: than its bottom modules).

        Raises:
            ValueError: a negative seed or trial, states of physical nodes; what ``partition`` raises.
        """
        if self._physical is not None:
            raise ValueError(
                "a network with states of physical nodes is scored, not searched: give its modules to codelength or "
                "partition, or leave physical out for modules in which every state has a code word of its own"
            )
        if seed < 0 or trial < 0:
            raise ValueError(f"seed and trial must not be negative: {seed}, {trial}")
        start = None
        if initial is not None:
            start = self._read(initial)
            if two_level:
                start = number_modules(start, self.flow)[1].reshape(-1, 1)
        flow, order = self._searched
        table, passes = search(flow, (seed, trial), two_level, start if start is None else start[order])
        placed = np.empty_like(table)
        placed[order] = table
        return self._describe(placed, passes)

    @functools.cached_property
    def _searched(self) -> tuple[Flow, np.ndarray]:
        """What a search works on: a small graph in an order that does not depend on the nodes' numbers.

        Chance plays a larger part there, and the order costs next to nothing.
        """
        if num_starts(self._flow) == 1:
            return self._flow, np.arange(self.num_nodes)
        order = canonical_order(self._flow)
        return reorder(self._flow, order), order

    def partition(self, modules: Any) -> Partition:
        """A given partition with its code length.

        Args:
            modules: one label per node (any values); or one path per node: a tuple of labels from the top to the
                bottom module, of any length, where ``()`` puts a node directly under the root; or the paths as
                ``(n, depth)`` integers with -1 below the bottom module. Nodes of a graph object in its order.

        Raises:
            ValueError: not one label or path per node.
        """
        return self._describe(self._read(modules), [])

    def codelength(self, modules: Any) -> float:
        """Bits per step of the walk for a given partition; see ``partition``."""
        return codelength(self._flow, self._read(modules), self._physical)

    def link_flow(self) -> scipy.sparse.csr_array:
        """F ``(n, n)``, row -> column: the rate at which each link is walked in a step, self-loops included.

        Teleportation is not in it, see ``teleportation_rates``. Where none is recorded F sums to 1. ``flow`` is F's
        column sums, plus the landings where teleportation is recorded. F is multiplied by ``markov_time``, which
        leaves the visit rates as they are; with ``bipartite`` it is twice the rate of a step between the two kinds.
        """
        flow, n = self._flow, self.num_nodes
        links = scipy.sparse.csr_array((flow.out, flow.neighbour, flow.indptr), (n, n))
        links = (links + scipy.sparse.dia_array((self._loops[None], [0]), (n, n))).tocsr()
        links.eliminate_zeros()
        return links

    def teleportation_rates(self) -> tuple[np.ndarray, np.ndarray] | None:
        """``leave (n,)``, ``land (n,)``: F + leave (x) land is the whole flow, of sum 1; None where none is recorded.

        ``land`` sums to 1. ``markov_time`` has no part in them.
        """
        if kind_of(self._flow) != RECORDED:
            return None
        return self._flow.leave.copy(), self._flow.land.copy()

    def _read(self, modules: Any) -> np.ndarray:
        return read_modules(modules, self.num_nodes)

    def _describe(self, table: np.ndarray, passes: list[float]) -> Partition:
        costs = book_costs(self._flow, table, self._physical)
        length, index = sum(float(cost.sum()) for cost in costs), float(costs[0][0])
        numbers, bottom = number_modules(table, self.flow)
        return Partition(
            codelength=length,
            index_codelength=index,
            module_codelength=length - index,
            one_level_codelength=self.one_level_codelength,
            modules=bottom,
            top_modules=top_modules(numbers, bottom),
            num_modules=int(bottom.max()) + 1,
            num_levels=numbers.shape[1] + 1,
            flow=self.flow,
            flow_model=self.flow_model,
            table=numbers,
            links=self._flow,
            names=self.names,
            passes=[*np.maximum(passes[:-1], length).tolist(), length],
        )
