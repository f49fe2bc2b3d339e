"""Flow of the random walk: visit rates of the nodes and rates of the links, each summing to 1."""

from typing import NamedTuple

import numba
import numpy as np

from .graph import Graph

UNDIRECTED, DIRECTED, RECORDED = 0, 1, 2  # what makes up the exit rate of a module
TOLERANCE, ROUNDING, MAX_ITERATIONS = 1e-15, 1e-11, 2000


class Flow(NamedTuple):
    """Rates per step of the walk on a graph of n nodes.

    Args:
        indptr: ``(n + 1,)``, first entry of each row.
        neighbour: ``(entries,)`` int32.
        out: ``(entries,)`` rate row -> neighbour.
        into: ``(entries,)`` rate neighbour -> row; the same array as ``out`` for undirected flow.
        flow: ``(n,)`` rate at which the node's own code word is used.
        exits: ``(n,)`` rate of all links that leave the node.
        enters: ``(n,)`` rate of all links that enter it.
        leave: ``(n,)`` rate of teleportation from the node; of length 0 if it is not recorded.
        land: ``(n,)`` probability that a teleportation lands on the node; of length 0 if it is not recorded.
    """

    indptr: np.ndarray
    neighbour: np.ndarray
    out: np.ndarray
    into: np.ndarray
    flow: np.ndarray
    exits: np.ndarray
    enters: np.ndarray
    leave: np.ndarray
    land: np.ndarray


def kind_of(flow: Flow) -> int:
    """``UNDIRECTED``, ``DIRECTED``, or ``RECORDED`` if teleportation is part of the code."""
    return RECORDED if len(flow.leave) else UNDIRECTED if flow.out is flow.into else DIRECTED


def compute_flow(
    graph: Graph, model: str, teleportation: float, markov_time: float, bipartite: int | None
) -> tuple[Flow, np.ndarray]:
    """The flow of one of the six models, and the rates of self-loops ``(n,)``. Overwrites the arrays of ``graph``.

    ``undirected`` needs no teleportation: ``p = strength / sum A``, ``F = A / sum A``, with self-loops once in A.
    All others iterate ``p = (1 - tau) p T + (tau + dangling) e``. Recorded teleportation is part of F; unrecorded is
    not: ``F = diag(p) T`` is scaled to sum 1, and the visit rate is the inflow of F. e is proportional to
    out-strength (``directed``), to in-strength (``directed_recorded``) or uniform (the rest).

    ``bipartite`` is the id of the first node of the second kind: flow is recorded on nodes of the first kind only.
    ``markov_time`` scales the rates of the links between nodes, not the visit rates.

    Raises:
        ValueError: if a number is out of range, or ``bipartite`` is given for another model or a graph that isn't.
    """
    if not 0 <= teleportation <= 1:
        raise ValueError(f"teleportation must be in [0, 1], not {teleportation}")
    if not (markov_time > 0 and np.isfinite(markov_time)):
        raise ValueError(f"markov_time must be positive, not {markov_time}")
    none = np.empty(0)
    if not len(graph.neighbour) and not graph.loops.any():  # no step to encode
        zeros = np.zeros(len(graph.loops))
        flow = Flow(graph.indptr, graph.neighbour, graph.out, graph.out, zeros, zeros, zeros, none, none)
        return flow, zeros
    if model == "undirected":
        strength = row_sums(graph.indptr, graph.out)
        total = strength.sum() + graph.loops.sum()
        graph.out[:] *= markov_time / total
        rate = (strength + graph.loops) / total
        strength *= markov_time / total
        flow = Flow(graph.indptr, graph.neighbour, graph.out, graph.out, rate, strength, strength, none, none)
        loops = graph.loops * (markov_time / total)
    else:
        flow, loops = directed_flow(graph, model, teleportation, markov_time)
    if bipartite is None:
        return flow, loops
    return project(flow, loops, bipartite, model), loops


def directed_flow(graph: Graph, model: str, teleportation: float, markov_time: float) -> tuple[Flow, np.ndarray]:
    """``compute_flow`` for the models that teleport."""
    n, none = len(graph.loops), np.empty(0)
    out_strength = row_sums(graph.indptr, graph.out) + graph.loops
    in_strength = row_sums(graph.indptr, graph.into) + graph.loops
    land = {"directed": out_strength, "directed_recorded": in_strength}.get(model, np.ones(n))
    land = land / land.sum()
    scale = np.divide(1.0, out_strength, out=np.zeros(n), where=out_strength > 0)
    rate = visit_rates(graph.indptr, graph.neighbour, graph.into, graph.loops, scale, land, teleportation)
    recorded = "recorded" in model
    link = rate * scale
    if recorded:
        link *= 1 - teleportation
    else:
        link /= link @ out_strength
    into = graph.into if graph.into is not graph.out else graph.out.copy()
    link_rates(graph.indptr, graph.neighbour, graph.out, into, link * markov_time)
    loops = link * markov_time * graph.loops
    exits, enters = row_sums(graph.indptr, graph.out), row_sums(graph.indptr, into)
    if not recorded:
        rate = enters / markov_time + link * graph.loops
        flow = Flow(graph.indptr, graph.neighbour, graph.out, into, rate, exits, enters, none, none)
        return flow, loops
    leave = np.where(out_strength > 0, teleportation, 1.0) * rate
    return Flow(graph.indptr, graph.neighbour, graph.out, into, rate, exits, enters, leave, land), loops


def project(flow: Flow, loops: np.ndarray, first: int, model: str) -> Flow:
    """A step goes from the first kind to the first kind: nodes of the second kind have no visits, all rates double."""
    n = len(flow.flow)
    if model != "undirected":
        raise ValueError(f"bipartite needs undirected flow, not {model!r}")
    if not 0 < first < n:
        raise ValueError(f"bipartite is the first id of the second kind, from 1 to {n - 1}, not {first}")
    if loops.any():
        raise ValueError(f"not bipartite at {first}: node {int(np.flatnonzero(loops)[0])} has a link to itself")
    second = np.arange(n) >= first
    inside = np.repeat(second, np.diff(flow.indptr)) == second[flow.neighbour]
    if inside.any():
        row = int(np.searchsorted(flow.indptr, np.flatnonzero(inside)[0], side="right")) - 1
        raise ValueError(f"not bipartite at {first}: node {row} has a link inside its own kind")
    flow.out[:] *= 2
    exits = 2 * flow.exits
    return flow._replace(flow=np.where(second, 0.0, 2 * flow.flow), exits=exits, enters=exits)


@numba.njit(cache=True, nogil=True)
def row_sums(indptr, values):
    """Sum of the entries of each row ``(n,)``."""
    n = len(indptr) - 1
    sums = np.zeros(n)
    for u in range(n):
        for k in range(indptr[u], indptr[u + 1]):
            sums[u] += values[k]
    return sums


@numba.njit(cache=True, nogil=True)
def link_rates(indptr, neighbour, out, into, link):
    """Turns weights into rates, in place."""
    for u in range(len(indptr) - 1):
        for k in range(indptr[u], indptr[u + 1]):
            out[k] *= link[u]
            into[k] *= link[neighbour[k]]


@numba.njit(cache=True, nogil=True)
def visit_rates(indptr, neighbour, into, loops, scale, land, teleportation):
    """Iteration until the visit rates change by less than TOLERANCE in sum, or by rounding errors alone.

    With teleportation there is one solution, and Gauss-Seidel's sweeps, which read the rates already renewed, reach it
    sooner. Without it the result is that of the power iteration from ``land``.
    """
    n = len(loops)
    rate = land.copy()
    link = np.empty(n)
    previous = np.inf
    for _ in range(MAX_ITERATIONS):
        dangling = 0.0
        for u in range(n):
            link[u] = rate[u] * scale[u]
            if scale[u] == 0:
                dangling += rate[u]
        jump = teleportation + (1 - teleportation) * dangling
        change = 0.0
        total = 0.0
        for u in range(n):
            inflow = loops[u] * link[u]
            for k in range(indptr[u], indptr[u + 1]):
                inflow += into[k] * link[neighbour[k]]
            new = (1 - teleportation) * inflow + jump * land[u]
            change += abs(new - rate[u])
            total += new
            rate[u] = new
            if teleportation > 0:
                link[u] = new * scale[u]
        for u in range(n):
            rate[u] /= total
        if change < TOLERANCE or previous <= change < ROUNDING:
            break
        previous = change
    return rate
