"""A hierarchy of modules: the topmost level that two levels lead to, then each of its modules anew. Compiled."""

from pathlib import Path
from typing import Any

import numba
import numpy as np

from ..codelength import plogp
from ..compiled import inner, part, sources
from .derived import group, subgraph
from .moves import cost_of, dissolve
from .two_levels import SPLITTING_SWEEPS, SWEEPS, optimise, partition
from .walk_graph import FLOW, WalkGraph, identity, members_of, module_exits, renumber, same, zeros

# A small module is searched several times, as its few nodes often are one module at the first try.
SPLITTING_STARTS, SMALL = 6, 18


@part
def group_modules(kind, level, outside, least_gain, random, passes):
    """One level above modules, given as nodes (see ``group``).

    A group of one costs nothing, which hinders the first merges: the search starts once as if it had a cost and once
    without, and the better result is kept.
    """
    n = len(level.rates)
    plain = WalkGraph(
        level.indptr,
        level.neighbour,
        level.link,
        level.rates,
        False,
        level.all_leave,
        level.first_word,
        level.word,
        level.use,
        level.num_words,
    )
    best, best_count, _ = partition(kind, plain, outside, identity(n), least_gain, random, passes)
    best_cost = np.inf
    start = best
    for _ in range(2):
        module, count, _ = optimise(kind, level, same(n), outside, start, np.int64(SWEEPS), random)
        dissolve(kind, level, outside[0], module, count)
        count = renumber(module)
        module, count, cost = partition(kind, level, outside, module, least_gain, random, passes)
        if cost < best_cost - 1e-12:
            best, best_count, best_cost = module, count, cost
        start = identity(n)
    return best, best_count


@part
def topmost(kind, graph, module, count, outside, least_gain, random, passes):
    """Groups modules, then the groups, and so on: ``(n,)`` the last level with more than one group, its number."""
    top = module.copy()
    level = graph
    while count > 2:
        level = group(kind, level, module, count)
        module, groups = group_modules(kind, level, outside, least_gain, random, passes)
        if groups < 2 or groups == count:
            break
        count = groups
        for u in range(len(top)):
            top[u] = module[top[u]]
    return top, count


@inner
def entropy(graph):
    """Bits of the nodes' own terms, which costs leave out if each node has a code word of its own."""
    total = 0.0
    for u in range(0 if len(graph.word) else len(graph.rates)):
        total -= plogp(graph.rates[u, FLOW])
    return total


@part
def split(kind, graph, outside, old, share, random, passes):
    """Modules of the inside of a module, searched anew and at least as good as the ``old`` ones.

    Returns:
        Modules, their number, the least gain of a round of tuning; one module if it is better not split.
    """
    n = len(old)
    block = same(n)
    if n < 3:
        return block, 1, 0.0
    module, count, cost, whole = block, 1, np.inf, np.inf
    for _ in range(max(min(SPLITTING_STARTS, SMALL // n), 1)):
        new, new_count, _ = optimise(kind, graph, block, outside, identity(n), np.int64(SPLITTING_SWEEPS), random)
        new_cost, whole = cost_of(kind, graph, outside[0], new)
        if new_cost < cost - 1e-12:
            module, count, cost = new, new_count, new_cost
    old_count = renumber(old)
    old_cost, _ = cost_of(kind, graph, outside[0], old)
    if old_cost < cost - 1e-12:
        module, count, cost = old, old_count, old_cost
    if not cost < whole - 1e-12:
        return block, 1, 0.0
    least_gain = share * (whole + entropy(graph))
    module, count, _ = partition(kind, graph, outside, module, least_gain, random, passes)
    return module, count, least_gain


@part
def divide(kind, graph, module, count, share, root_gain, random):
    """A hierarchy from the modules of the whole graph.

    In each module, beginning with the root, only the topmost level is kept; its modules are searched anew.

    Args:
        share: tuning stops below this share of the bits.
        root_gain: these bits in the root.

    Returns:
        ``bottom (n,)`` int32, the bottom module of each node; ``parent (modules,)`` int32, the module above each
        module, -1 at the top; a parent comes before its children.
    """
    n = len(module)
    passes = zeros(np.int64(1))  # takes none
    number, bottom = np.empty(n, np.int32), np.empty(n, np.int32)
    nodes, old = identity(n), module.copy()
    for u in range(n):
        number[u] = -1
    word_number = np.empty(graph.num_words, np.int32)
    for p in range(graph.num_words):
        word_number[p] = -1
    parent = np.empty(2 * n + 1, np.int32)
    parent[0] = -1
    stack = np.empty((n + 1, 3), np.int64)  # first node of a module, the one after its last, its number
    modules = 0
    stack[0, 0], stack[0, 1], stack[0, 2] = 0, n, -1
    height = 1
    outside = zeros(np.int64(1))
    while height:
        height -= 1
        first, last, name = stack[height, 0], stack[height, 1], stack[height, 2]
        own = nodes[first:last]
        if name < 0:
            inner, least_gain = graph, root_gain
        else:
            inner = subgraph(graph, own, number, word_number)
            outside = module_exits(kind, inner, same(last - first), np.int64(1))
            module, count, least_gain = split(kind, inner, outside, old[first:last].copy(), share, random, passes)
        if count == 1:
            for i in range(first, last):
                bottom[nodes[i]] = max(name, 0)
            continue
        top, groups = topmost(kind, inner, module, count, outside, least_gain, random, passes)
        start, member = members_of(top, groups)
        moved = own.copy()
        for i in range(len(member)):
            nodes[first + i] = moved[member[i]]
            old[first + i] = module[member[i]]
        for a in range(groups):
            parent[modules] = name
            stack[height, 0], stack[height, 1] = first + start[a], first + start[a + 1]
            stack[height, 2] = modules
            height += 1
            modules += 1
    return bottom, parent[: max(modules, 1)].copy()


def compiled_search(version: int) -> Any:
    """``find``, kept on disk for this version of the sources."""

    @numba.njit(cache=True, nogil=True, error_model="numpy")
    def find(kind, graph, start, starts, two_level, share, random, passes):
        """The best two levels of several searches, all from the modules ``start``, and a hierarchy from these.

        Args:
            share: tuning stops below this share of the bits.
            random: ``(1,)`` uint64, not 0.
            passes: see ``partition``.

        Returns:
            The modules ``(n,)`` of two levels; ``bottom`` and ``parent`` as of ``divide`` (if ``two_level`` of no use).
        """
        version  # noqa: B018 (see ``sources``)
        outside = zeros(np.int64(1))
        least_gain = share * (cost_of(kind, graph, outside[0], same(len(start)))[0] + entropy(graph))
        best, best_count, best_cost = start, 1, np.inf
        for _ in range(starts):
            module, count, cost = partition(kind, graph, outside, start, least_gain, random, passes)
            if cost < best_cost - 1e-12:
                best, best_count, best_cost = module, count, cost
        if two_level:
            return best, best, best
        # A state of its own: the next call finds the same two levels with and without a hierarchy.
        return best, *divide(kind, graph, best, best_count, share, least_gain, random.copy())

    return find


find = compiled_search(sources(Path(__file__).resolve().parents[1]))
