"""The graph that the search works on, and partitions of its nodes.

Indices in compiled loops are unsigned, as signed ones are tested for negative values at each access.
"""

from typing import NamedTuple

import numpy as np

from ..compiled import inner, part, prefetch
from ..flow import RECORDED, UNDIRECTED, Flow, kind_of

EXITS, ENTERS, FLOW, LEAVE, LAND, SIZE = range(6)  # columns of the rates


class WalkGraph(NamedTuple):
    """A graph, or its modules as nodes, as the search sees it.

    The gain of a move depends only on the sum of a link's rates in both directions, so one rate per link is enough.

    Args:
        indptr: ``(n + 1,)`` int64, first entry of each row.
        neighbour: ``(entries,)`` int32.
        link: ``(entries,)`` mean of the rates row -> neighbour and neighbour -> row.
        rates: ``(n, 6)``, a row for each node:
            EXITS, the rate of all links that leave it, including those out of this graph;
            ENTERS, likewise of those that enter it;
            FLOW, the rate at which its own code word is used;
            LEAVE, the rate of teleportation from it, 0 if that is not recorded;
            LAND, the probability that a teleportation lands on it, 0 if that is not recorded;
            SIZE, the number of the graph's nodes in it, or of modules if ``grouping``.
        grouping: are the nodes modules to be grouped? Then a group of one adds no level and has no code book.
        all_leave: rate of teleportation from all nodes, including those out of this graph.
        first_word: ``(n + 1,)`` int64, the first of each node's code words. Of length 0 if each node has its own; else
            nodes are states of physical nodes, and those in one module share the word of their physical node.
        word: the physical nodes, int32, of each node.
        use: the rates at which they are used.
        num_words: number of physical nodes.
    """

    indptr: np.ndarray
    neighbour: np.ndarray
    link: np.ndarray
    rates: np.ndarray
    grouping: bool
    all_leave: float
    first_word: np.ndarray
    word: np.ndarray
    use: np.ndarray
    num_words: int


def walk_graph(flow: Flow, physical: np.ndarray | None = None) -> WalkGraph:
    """The flow as a ``WalkGraph``, without links of rate 0; no copy of the links if the flow is undirected.

    ``physical`` ``(n,)``, from 0: the physical node of each state.
    """
    link = flow.out if kind_of(flow) == UNDIRECTED else (flow.out + flow.into) / 2
    indptr, neighbour = flow.indptr, flow.neighbour
    if not link.all():  # from a node without visits, or too small a number: the search takes 0 for "not yet seen"
        kept = link > 0
        indptr = np.concatenate([[0], np.cumsum(kept)])[indptr]
        neighbour, link = neighbour[kept], link[kept]
    rates = np.zeros((len(flow.flow), 6))
    for column, rate in ((EXITS, flow.exits), (ENTERS, flow.enters), (FLOW, flow.flow), (SIZE, 1)):
        rates[:, column] = rate
    if kind_of(flow) == RECORDED:
        rates[:, LEAVE], rates[:, LAND] = flow.leave, flow.land
    return WalkGraph(
        indptr,
        neighbour,
        link,
        rates,
        False,
        float(flow.leave.sum()),
        np.arange(0 if physical is None else len(physical) + 1),
        np.empty(0, np.int32) if physical is None else physical.astype(np.int32),
        np.empty(0) if physical is None else flow.flow.copy(),
        0 if physical is None else int(physical.max()) + 1,
    )


@part
def prefetch_row(graph, u):
    """Asks for the beginning of a node's row."""
    place = graph.indptr[u]
    prefetch(graph.neighbour, place)
    prefetch(graph.link, place)
    prefetch(graph.link, place + 8)


@part
def rate_inside(graph, module, u):
    """Half the rate of the links between the node and its module; both ends together give the whole."""
    inside = 0.0
    a = module[u]
    for k in range(np.uint64(graph.indptr[u]), np.uint64(graph.indptr[u + 1])):
        if module[np.uint32(graph.neighbour[k])] == a:
            inside += graph.link[k]
    return inside


@inner
def zeros(n):
    """``(n,)`` of 0."""
    values = np.empty(n)
    for i in range(n):
        values[i] = 0.0
    return values


@inner
def identity(n):
    """``(n,)`` int32, every node a module of its own."""
    module = np.empty(n, np.int32)
    for u in range(n):
        module[u] = u
    return module


@inner
def same(n):
    """``(n,)`` int32, all nodes in one module."""
    module = np.empty(n, np.int32)
    for u in range(n):
        module[u] = 0
    return module


@inner
def renumber(label):
    """Renumbers labels from 0 by first appearance, in place. Returns their number."""
    highest = -1
    for u in range(len(label)):
        highest = max(highest, label[u])
    number = np.empty(highest + 1, np.int32)
    for a in range(highest + 1):
        number[a] = -1
    count = 0
    for u in range(len(label)):
        a = label[u]
        if number[a] < 0:
            number[a] = count
            count += 1
        label[u] = number[a]
    return count


@inner
def members_of(label, count):
    """Nodes sorted by label: ``start (count + 1,)``, ``member (n,)``."""
    start = np.empty(count + 1, np.int64)
    for a in range(count + 1):
        start[a] = 0
    for u in range(len(label)):
        start[label[u]] += 1
    total = 0
    for a in range(count + 1):
        total += start[a]
        start[a] = total
    member = np.empty(len(label), np.int32)
    for u in range(len(label) - 1, -1, -1):
        start[label[u]] -= 1
        member[start[label[u]]] = u
    return start, member


@inner
def changed_modules(module, count, earlier):
    """``(count,)`` bool: the modules that are none of the ``earlier`` ones, all without these; numbered from 0."""
    n = len(earlier)
    size, before = np.empty(count, np.int32), np.empty(n, np.int32)
    was = np.empty(count, np.int32)
    changed = np.empty(count, np.bool_)
    for a in range(count):
        size[a], was[a], changed[a] = 0, -1, n == 0
    for u in range(n):
        before[u] = 0
    for u in range(n):
        a = module[u]
        before[earlier[u]] += 1
        size[a] += 1
        if was[a] < 0:
            was[a] = earlier[u]
        changed[a] |= was[a] != earlier[u]
    for a in range(count if n else 0):
        changed[a] |= size[a] != before[was[a]]
    return changed


@inner
def touched(graph, module, changed):
    """The nodes in the changed modules and their neighbours, int32."""
    n = len(module)
    seen = np.empty(n, np.bool_)
    for u in range(n):
        seen[u] = changed[module[u]]
    for u in range(n):
        if changed[module[u]]:
            for k in range(np.uint64(graph.indptr[u]), np.uint64(graph.indptr[u + 1])):
                seen[np.uint32(graph.neighbour[k])] = True
    nodes = np.empty(n, np.int32)
    count = 0
    for u in range(n):
        nodes[count] = u
        count += seen[u]
    return nodes[:count]


@inner
def module_exits(kind, graph, module, count):
    """Exit rates of the modules, including recorded teleportation."""
    exits, leave, land = zeros(count), zeros(count), zeros(count)
    for u in range(len(module)):
        a = module[u]
        exits[a] += graph.rates[u, EXITS] - rate_inside(graph, module, u)
        if kind == RECORDED:
            leave[a] += graph.rates[u, LEAVE]
            land[a] += graph.rates[u, LAND]
    for a in range(count):
        exits[a] = max(exits[a], 0.0) + leave[a] * max(1 - land[a], 0.0)
    return exits
