"""The graph that the search works on, and its derived graphs: modules as nodes, or the insides of modules.

Indices in compiled loops are unsigned, as signed ones are tested for negative values at each access.
"""

from typing import NamedTuple

import numba
import numpy as np

from .flow import RECORDED, UNDIRECTED, Flow, kind_of


class WalkGraph(NamedTuple):
    """A graph, or its modules as nodes, as the search sees it.

    The gain of a move depends only on the sum of a link's rates in both directions, so one rate per link is enough.

    Args:
        indptr: ``(n + 1,)`` int64, first entry of each row.
        neighbour: ``(entries,)`` int32.
        link: ``(entries,)`` mean of the rates row -> neighbour and neighbour -> row.
        flow: ``(n,)`` rate at which the node's own code word is used.
        exits: ``(n,)`` rate of all links that leave the node, including those out of this graph.
        enters: ``(n,)`` likewise of those that enter it.
        leave: ``(n,)`` rate of teleportation from the node; of length 0 if it is not recorded.
        land: ``(n,)`` probability that a teleportation lands on the node; of length 0 if it is not recorded.
        parts: ``(n,)`` number of modules in the node, when grouping modules: a group of one adds no level and has no
            code book. Of length 0 if the nodes are the graph's.
    """

    indptr: np.ndarray
    neighbour: np.ndarray
    link: np.ndarray
    flow: np.ndarray
    exits: np.ndarray
    enters: np.ndarray
    leave: np.ndarray
    land: np.ndarray
    parts: np.ndarray


def walk_graph(flow: Flow) -> WalkGraph:
    """The flow as a ``WalkGraph``, without links of rate 0; no copy if the flow is undirected."""
    link = flow.out if kind_of(flow) == UNDIRECTED else (flow.out + flow.into) / 2
    indptr, neighbour = flow.indptr, flow.neighbour
    if not link.all():  # from a node without visits, or too small a number: the search takes 0 for "not yet seen"
        kept = link > 0
        indptr = np.concatenate([[0], np.cumsum(kept)])[indptr]
        neighbour, link = neighbour[kept], link[kept]
    return WalkGraph(
        indptr,
        neighbour,
        link,
        flow.flow,
        flow.exits,
        flow.enters,
        flow.leave,
        flow.land,
        np.empty(0),
    )


@numba.njit(cache=True, nogil=True, inline="always")
def rate_inside(graph, module, u):
    """Half the rate of the links between the node and its module; both ends together give the whole."""
    inside = 0.0
    a = module[u]
    for k in range(np.uint64(graph.indptr[u]), np.uint64(graph.indptr[u + 1])):
        if module[np.uint32(graph.neighbour[k])] == a:
            inside += graph.link[k]
    return inside


@numba.njit(cache=True, nogil=True)
def renumber(label):
    """Renumbers labels by first appearance, in place; -1 stays. Returns their number."""
    highest = -1
    for u in range(len(label)):
        highest = max(highest, label[u])
    number = np.full(highest + 1, -1, np.int32)
    count = 0
    for u in range(len(label)):
        a = label[u]
        if a < 0:
            continue
        if number[a] < 0:
            number[a] = count
            count += 1
        label[u] = number[a]
    return count


@numba.njit(cache=True, nogil=True)
def members_of(label, count):
    """Nodes sorted by label: ``start (count + 1,)``, ``member (n,)``."""
    start = np.zeros(count + 1, np.int64)
    for u in range(len(label)):
        start[label[u] + 1] += 1
    for a in range(count):
        start[a + 1] += start[a]
    place = start[:-1].copy()
    member = np.empty(len(label), np.int32)
    for u in range(len(label)):
        member[place[label[u]]] = u
        place[label[u]] += 1
    return start, member


@numba.njit(cache=True, nogil=True)
def aggregate_links(graph, module, count):
    """CSR of the modules; links inside a module are dropped."""
    start, member = members_of(module, count)
    indptr = np.zeros(count + 1, np.int64)
    neighbour = np.empty(len(graph.neighbour), np.int32)
    link = np.empty(len(graph.neighbour))
    to = np.zeros(count)
    done = np.uint64(0)
    for a in range(count):
        row_start = done
        for i in range(start[a], start[a + 1]):
            u = member[i]
            for k in range(np.uint64(graph.indptr[u]), np.uint64(graph.indptr[u + 1])):
                b = np.uint32(module[np.uint32(graph.neighbour[k])])
                rate = to[b]
                if b != a:
                    neighbour[done] = b
                    done += np.uint64(rate == 0)
                    to[b] = rate + graph.link[k]
        for k in range(row_start, done):
            b = np.uint32(neighbour[k])
            link[k] = to[b]
            to[b] = 0
        indptr[a + 1] = done
    return indptr, neighbour[:done].copy(), link[:done].copy()


@numba.njit(cache=True, nogil=True)
def restrict_links(graph, nodes, block):
    """CSR of these nodes with only the links inside blocks."""
    number = np.full(len(graph.flow), -1, np.int32)
    for i in range(len(nodes)):
        number[nodes[i]] = i
    indptr = np.zeros(len(nodes) + 1, np.int64)
    done = 0
    for i in range(len(nodes)):
        u = nodes[i]
        for k in range(np.uint64(graph.indptr[u]), np.uint64(graph.indptr[u + 1])):
            j = number[np.uint32(graph.neighbour[k])]
            done += j >= 0 and block[j] == block[i]
        indptr[i + 1] = done
    neighbour = np.empty(done, np.int32)
    link = np.empty(done)
    place = np.uint64(0)
    for i in range(len(nodes)):
        u = nodes[i]
        for k in range(np.uint64(graph.indptr[u]), np.uint64(graph.indptr[u + 1])):
            j = number[np.uint32(graph.neighbour[k])]
            if j >= 0 and block[j] == block[i]:
                neighbour[place] = j
                link[place] = graph.link[k]
                place += np.uint64(1)
    return indptr, neighbour, link


@numba.njit(cache=True, nogil=True)
def module_sums(kind, graph, module, count):
    """Flow, exits, enters, leave, land, parts of each module as a node of the aggregated graph."""
    flow, exits, enters = np.zeros(count), np.zeros(count), np.zeros(count)
    recorded = count if kind == RECORDED else 0
    leave, land = np.zeros(recorded), np.zeros(recorded)
    parts = np.zeros(count if len(graph.parts) else 0)
    for u in range(len(module)):
        a = module[u]
        flow[a] += graph.flow[u]
        inside = rate_inside(graph, module, u)
        exits[a] += graph.exits[u] - inside
        enters[a] += graph.enters[u] - inside
        if kind == RECORDED:
            leave[a] += graph.leave[u]
            land[a] += graph.land[u]
        if len(parts):
            parts[a] += graph.parts[u]
    return flow, np.maximum(exits, 0), np.maximum(enters, 0), leave, land, parts


def aggregate(kind: int, graph: WalkGraph, module: np.ndarray, count: int) -> WalkGraph:
    """Modules as nodes."""
    return WalkGraph(*aggregate_links(graph, module, count), *module_sums(kind, graph, module, count))


def restrict(graph: WalkGraph, nodes: np.ndarray, block: np.ndarray) -> WalkGraph:
    """These nodes (ascending) with only the links inside blocks; ``block`` has one number per node."""
    parts = (part[nodes] if len(part) else part for part in graph[3:])
    return WalkGraph(*restrict_links(graph, nodes, block), *parts)


def module_exits(kind: int, graph: WalkGraph, module: np.ndarray, count: int) -> np.ndarray:
    """Exit rates of the modules, including recorded teleportation."""
    _, exits, _, leave, land, _ = module_sums(kind, graph, module, count)
    return exits + leave * np.maximum(1 - land, 0) if kind == RECORDED else exits
