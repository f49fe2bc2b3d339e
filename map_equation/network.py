"""A graph with its flow, to be searched and scored any number of times."""

import dataclasses
import functools
from bisect import bisect_left
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np

from .codelength import book_costs, read_modules
from .flow import RECORDED, Flow, compute_flow, kind_of
from .graph import one_way, read_graph
from .inputs import read_links
from .labels import by_node
from .links import Links, is_sorted_ids
from .partition import Partition, number_modules, top_modules
from .search import num_starts, search
from .search.canonical import canonical_order, reorder
from .states import read_states

if TYPE_CHECKING:
    import scipy.sparse

Sorted = tuple[Flow, slice | np.ndarray]  # rates of the nodes in another order, and their places in that of the names


class Network:
    """The random walk of one flow model on a graph: its rates, searches, and code lengths of given partitions.

    Args:
        edges: an array ``(E, 2)`` of node ids, or ``(E, 3)`` with weights; a torch ``edge_index (2, E)``; a list of
            pairs, or of triples with weights, of any names; a networkx or igraph graph; torch_geometric's ``Data``; a
            table (pandas) with columns source, target and perhaps weight, or a matrix with the same names as columns
            and index; a matrix ``(n, n)``, sparse (scipy, torch) or dense, row -> column (not taken for directed
            unless ``flow`` says so); the path of a file (``readers.graphs.read_graph``). An array ``(3, 3)`` is a
            matrix, a list of three triples has three links with weights. In directed flow links are walked from the
            first node to the second; those of an undirected graph object, GML, GraphML, METIS or symmetric
            MatrixMarket file, which have no direction, both ways.
        weights: ``(E,)``, non-negative; only with pairs.
        num_nodes: only with ids: these are 0 to num_nodes - 1. Else the nodes are the ids that occur.
        weight: the attribute or column with the weights; a link without it has weight 1. None: all have.
        flow: None: ``directed`` if a graph object or file is, else ``undirected``. The walks: ``undirected``;
            ``directed`` (unrecorded teleportation to the sources of links), ``directed_recorded`` (to
            the targets of links, part of the code), ``directed_to_nodes`` and ``directed_recorded_to_nodes`` (to all
            nodes alike); ``uniform_recorded``, the article's: recorded, to all nodes alike, links taken both ways.
        teleportation: probability per step; ignored by ``undirected``.
        markov_time: steps per code word; above 1 gives larger modules, below 1 smaller ones.
        bipartite: the first id of the second kind of nodes, whose visits are not encoded (undirected flow only).
        physical: ``(n,)`` the physical node (any value) of each node, if nodes are states: a memory of where the walk
            came from, or a layer. States of a physical node in one module share a code word there. Files with states
            and a ``readers.graphs.StateNetwork`` have their own.

    Attributes:
        num_nodes: n.
        names: of the nodes, in the order of all results.
        ids: ``(n,)`` the numbers of the nodes in a file beside their names, or None.
        flow_model: the flow model.
        flow: ``(n,)`` visit rate of each node; they sum to 1.
        one_level_codelength: bits per step without modules, the entropy of ``flow`` (of the physical nodes).

    Raises:
        ValueError: for a wrong shape, an id out of range, a negative or non-finite weight, no node, or an unknown flow
            model.
        DataError: for a file that can't be read.

    Source of ``physical``: Rosvall et al. 2014 (memory); De Domenico et al. 2015 (layers).
    """

    def __init__(
        self,
        edges: Any,
        weights: Any = None,
        *,
        num_nodes: int | None = None,
        weight: str | None = "weight",
        flow: str | None = None,
        teleportation: float = 0.15,
        markov_time: float = 1.0,
        bipartite: int | None = None,
        physical: Any = None,
    ):
        direction = one_way(flow)
        links = edges if isinstance(edges, Links) else read_links(edges, weights, num_nodes, weight, direction)
        self.flow_model = flow or ("directed" if links.directed else "undirected")
        if bipartite is None:
            bipartite = links.bipartite
        elif not isinstance(bipartite, Integral):
            raise ValueError(f"bipartite is the first id of the second kind, a whole number, not {bipartite!r}")
        elif not isinstance(links.names, range) and is_sorted_ids(links.names):
            bipartite = bisect_left(links.names, bipartite)  # an id; the places of ids that occur have no gaps
        physical = links.states if physical is None else physical
        walk = walk_of(self.flow_model, physical)
        if walk != self.flow_model:  # links are arcs already
            links = links._replace(directed=True)
        # The first node of the second kind is told by its place.
        order = links.order() if bipartite is None else None
        place = None if order is None else np.argsort(order)
        graph = read_graph(links if place is None else links._replace(edges=place[links.edges]), walk)
        alone = (np.diff(graph.indptr) == 0) & (graph.loops == 0)
        rates, loops = compute_flow(graph, walk, teleportation, markov_time, bipartite)
        # What lengths and searches are computed from, and the places of its nodes among all that is given out.
        self._sorted: Sorted = rates, slice(None) if order is None else order
        if place is not None:
            rates, loops, alone = reorder(rates, place), loops[place], alone[place]
        self._flow, self._loops, self._isolated = rates, loops, np.flatnonzero(alone)
        self._names, self.ids = links.names, links.ids
        self.flow = self._flow.flow
        self.num_nodes = len(self.flow)
        self._states = None if physical is None else read_states(physical, self.num_nodes)
        self._physical = None if self._states is None else self._states.place
        self.one_level_codelength = float(self._costs(np.empty((self.num_nodes, 0), np.int64))[0][0])

    @functools.cached_property
    def names(self) -> list[Any]:
        """The names of the nodes, in the order of all results."""
        return list(self._names)

    def search(self, *, seed: int = 1, trial: int = 0, two_level: bool = False, initial: Any = None) -> Partition:
        """One trial. The same seed and trial give the same partition for any order of the edges and nodes.

        Nodes are searched in the order of their ids in a file, else of their names, unless these have no order (are
        neither numbers, strings nor tuples of such) or ``bipartite`` counts on another one.

        On a graph of less than 1,000 links, a trial is the shortest of several searches, and usually finds the
        same modules however the nodes are numbered.

        Args:
            two_level: a flat partition rather than a hierarchy.
            initial: labels or paths as in ``partition``: the search starts from the bottom modules, and its result
                is never longer than this partition (for ``two_level``: than its bottom modules).

        Raises:
            ValueError: for a negative seed or trial; what ``partition`` raises.
        """
        check_whole("seed", seed, 0)
        check_whole("trial", trial, 0)
        start = None
        if initial is not None:
            start = self._read(initial)
            if two_level:
                start = number_modules(start, self.flow)[1].reshape(-1, 1)
        if len(self._isolated) == self.num_nodes:
            return self._describe(np.arange(self.num_nodes).reshape(-1, 1), [])
        flow, order = self._searched
        physical = None if self._physical is None else self._physical[order]
        table, passes = search(flow, (seed, trial), two_level, start if start is None else start[order], physical)
        placed = np.empty_like(table)
        placed[order] = table
        # Without visits one place costs as much as any other; with those of teleportation, their own is still theirs.
        placed[self._isolated] = -1
        placed[self._isolated, 0] = placed[:, 0].max(initial=-1) + 1 + np.arange(len(self._isolated))
        found = self._describe(placed, passes)
        return dataclasses.replace(found, codelengths=[found.codelength])

    @functools.cached_property
    def _searched(self) -> Sorted:
        """What a search works on: a small graph is reordered independently of the nodes' numbers.

        Results vary more on small graphs, and there the order costs next to nothing.
        """
        flow, order = self._sorted
        if num_starts(flow) == 1:
            return flow, order
        finer = canonical_order(flow)
        return reorder(flow, finer), np.arange(self.num_nodes)[order][finer]

    def partition(self, modules: Any) -> Partition:
        """A given partition with its code length.

        Args:
            modules: one label per node (any values), in the order of ``names``; or one path per node: a tuple of
                labels from the top to the bottom module, of any length, where ``()`` puts a node directly under the
                root; or the paths as ``(n, depth)`` integers with -1 below the bottom module. Or labels or paths by
                name, as a dict, pandas series or table (``Partition.to_dataframe``); or a list of sets of names; or a
                ``Partition``; or a ``.tree`` or ``.clu`` file, of ours or Infomap's.

        Raises:
            ValueError: if there is not one label or path per node.
            DataError: for a file that can't be read.
        """
        return self._describe(self._read(modules), [])

    def codelength(self, modules: Any) -> float:
        """Bits per step of the walk for a given partition; see ``partition``."""
        return sum(float(cost.sum()) for cost in self._costs(self._read(modules)))

    def link_flow(self) -> "scipy.sparse.csr_array":
        """F ``(n, n)``, row -> column: the rate per step of each link, self-loops included.

        It leaves out teleportation, see ``teleportation_rates``. If none is recorded, F sums to 1. ``flow`` is F's
        column sums, plus the landings of recorded teleportation. F is multiplied by ``markov_time``, which doesn't
        change the visit rates; with ``bipartite`` it is twice the rate of a step between the two kinds.
        """
        import scipy.sparse

        flow, n = self._flow, self.num_nodes
        links = scipy.sparse.csr_array((flow.out, flow.neighbour, flow.indptr), (n, n))
        links = (links + scipy.sparse.dia_array((self._loops[None], [0]), (n, n))).tocsr()
        links.eliminate_zeros()
        return links

    def teleportation_rates(self) -> tuple[np.ndarray, np.ndarray] | None:
        """``leave (n,)``, ``land (n,)``: F + leave (x) land is the whole flow and sums to 1; None if none is recorded.

        ``land`` sums to 1. Independent of ``markov_time``.
        """
        if kind_of(self._flow) != RECORDED:
            return None
        return self._flow.leave.copy(), self._flow.land.copy()

    def _read(self, modules: Any) -> np.ndarray:
        return read_modules(by_node(modules, self._names, self.ids), self.num_nodes)

    def _costs(self, table: np.ndarray) -> list[np.ndarray]:
        flow, order = self._sorted
        return book_costs(flow, table[order], None if self._physical is None else self._physical[order])

    def _describe(self, table: np.ndarray, passes: list[float]) -> Partition:
        costs = self._costs(table)
        length, index = sum(float(cost.sum()) for cost in costs), float(costs[0][0])
        numbers, bottom = number_modules(table, self.flow)
        return Partition(
            codelength=length,
            index_codelength=index,
            module_codelength=length - index,
            one_level_codelength=self.one_level_codelength,
            modules=read_only(bottom),
            top_modules=read_only(top_modules(numbers, bottom)),
            flow=read_only(self.flow),
            flow_model=self.flow_model,
            table=read_only(numbers),
            links=self._flow,
            names=list(self._names),
            ids=self.ids,
            states=self._states,
            passes=[*np.maximum(passes[:-1], length).tolist(), length],
            codelengths=[],
        )


def walk_of(flow: str, physical: Any) -> str:
    """The walk between states that is called ``flow``: undirected layers are read as arcs in both directions.

    Raises:
        ValueError: if layers were read for a walk of the other kind.
    """
    layers = getattr(physical, "directed", None)
    if layers is None:
        return flow
    if layers != one_way(flow):
        was = "directed" if layers else "undirected"
        wanted = str(not layers).lower()
        raise ValueError(f"the layers were read as {was}: read them with directed {wanted} for flow {flow}")
    return "directed" if flow == "undirected" else flow


def check_whole(name: str, value: Any, least: int) -> None:
    """Raises ValueError unless the value is a whole number of at least ``least``."""
    if not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be at least {least}, a whole number, not {value!r}")


def read_only(array: np.ndarray) -> np.ndarray:
    """A view of an array that refuses to be changed."""
    view = array.view()
    view.flags.writeable = False
    return view
