"""The search: node moves and aggregation, fine- and coarse-tuning, then levels above and below.

The scheme is Infomap's (Rosvall, Axelsson, Bergstrom 2009; Rosvall and Bergstrom 2011), written for arrays; of the
levels found above two, only the topmost is kept, and its modules are searched anew.
"""

from contextlib import nullcontext

import numpy as np

from ..codelength import codelength, plogps
from ..compiled import collection_paused
from ..flow import Flow, kind_of
from .levels import find
from .two_levels import MAX_ROUNDS
from .walk_graph import walk_graph

# Tuning continues while a round gains at least this share of the code length.
LEAST_TUNING_GAIN = 1e-5
# A trial on a small graph searches two levels until it has processed so many links, counted both ways; the best of
# every few of these is the start of a hierarchy, until hierarchies have processed so many links.
LINKS_PER_TRIAL, LINKS_OF_HIERARCHIES = 4_000, 3_000
MAX_STARTS, MAX_HIERARCHIES = 20, 4


def search(
    flow: Flow,
    seed: tuple[int, int],
    two_level: bool,
    initial: np.ndarray | None = None,
    physical: np.ndarray | None = None,
) -> tuple[np.ndarray, list[float]]:
    """One trial.

    Args:
        initial: ``(n, depth)``, like the result; the search starts from the bottom modules, and returns this if it
            finds nothing shorter.
        physical: ``(n,)`` from 0, if the nodes are states of physical nodes.

    Returns:
        ``(n, depth)`` module numbers from the top, -1 below the bottom module, numbered from 0 in each level; the
        code length in bits at the start and after each pass, never increasing.
    """
    n = len(flow.flow)
    kind, graph = kind_of(flow), walk_graph(flow, physical)
    # The part of the code length that is the same for all partitions, which costs leave out.
    nodes = plogps(flow.flow).sum() if physical is None else 0.0
    best = np.zeros((n, 1), np.int64) if initial is None else initial
    best_length = codelength(flow, best, physical)
    passes = [best_length]
    start = np.arange(n, dtype=np.int32) if initial is None else bottom_modules(initial)
    random = np.random.SeedSequence(seed).generate_state(1, np.uint64) | np.uint64(1)
    hierarchies = min(num_starts(flow), MAX_HIERARCHIES)
    links = 0
    for number in range(hierarchies):
        starts = (num_starts(flow) + number) // hierarchies
        costs = np.zeros(1 + starts * (MAX_ROUNDS + 1))
        flat = two_level or links > LINKS_OF_HIERARCHIES
        with nullcontext() if find.signatures else collection_paused():
            module, bottom, parent = find(kind, graph, start, starts, flat, LEAST_TUNING_GAIN, random, costs)
        passes += (costs[1 : int(costs[0]) + 1] - nodes).tolist()
        tables = [module.reshape(-1, 1).astype(np.int64)]
        if not flat:
            tables.append(table_of(bottom, parent))
            links += len(flow.neighbour) * (tables[1] >= 0).sum() // n  # each level has processed the links in it
        for table in tables:
            length = codelength(flow, table, physical)
            if length < best_length - 1e-12:
                best, best_length = table, length
        passes.append(best_length)
    return best, np.minimum.accumulate(passes).tolist()


def num_starts(flow: Flow) -> int:
    """Number of searches for two levels in a trial."""
    return int(np.clip(LINKS_PER_TRIAL // (len(flow.neighbour) + 1), 1, MAX_STARTS))


def bottom_modules(table: np.ndarray) -> np.ndarray:
    """``(n,)`` int32, the bottom module of each node; a node directly under the root is a module of its own."""
    width = int(table.max(initial=0)) + 1
    depth = (table >= 0).sum(1)
    nodes = np.arange(len(table))
    label = np.where(depth > 0, table[nodes, depth - 1] + width * depth, nodes - len(table) - 1)
    return np.unique(label, return_inverse=True)[1].astype(np.int32)


def table_of(bottom: np.ndarray, parent: np.ndarray) -> np.ndarray:
    """``(n, depth)`` from the bottom module of each node and the module above each module, which has a lower number."""
    count = len(parent)
    inside = np.zeros(count + 1, bool)  # modules one level up; the last entry stands for the root
    inside[-1] = True
    level, rank = np.zeros(count, np.int64), np.zeros(count, np.int64)
    depth = 0
    while len(here := np.flatnonzero(inside[parent])):
        level[here], rank[here] = depth, np.arange(len(here))
        inside[:] = False
        inside[here] = True
        depth += 1
    table = np.full((len(bottom), depth), -1, np.int64)
    module = bottom.astype(np.int64)
    for column in range(depth - 1, -1, -1):
        here = np.flatnonzero(level[module] == column)
        table[here, column] = rank[module[here]]
        module[here] = np.maximum(parent[module[here]], 0)
    return table
