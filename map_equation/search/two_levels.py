"""Modules of one graph: moves and aggregation, then fine- and coarse-tuning. All of it is compiled."""

import numpy as np

from ..compiled import inner, part
from .derived import aggregate, only_inside
from .moves import cost_of, move_nodes
from .walk_graph import changed_modules, identity, module_exits, renumber, same, touched

# Visits per node in a search from singletons: in parts without structure, nodes keep moving to little avail.
SWEEPS, SPLITTING_SWEEPS = 30, 3
MAX_ROUNDS = 60


@part
def random_below(random, high):
    """A random integer from 0; ``random`` ``(1,)`` uint64 is the state (xorshift)."""
    x = random[0]
    x ^= x << np.uint64(13)
    x ^= x >> np.uint64(7)
    x ^= x << np.uint64(17)
    random[0] = x
    return np.int64(((x >> np.uint64(32)) * np.uint64(high)) >> np.uint64(32))


@inner
def shuffled(order, random):
    """The array, permuted in place."""
    for i in range(len(order) - 1, 0, -1):
        j = random_below(random, i + 1)
        order[i], order[j] = order[j], order[i]
    return order


@inner
def improve(kind, graph, block, outside, start, order, sweeps, random):
    """Moves nodes, then the resulting modules, and so on until nothing moves, from the modules ``start``.

    Works on many separate blocks of nodes at once, see ``moves``.

    Args:
        order: the nodes to begin with.

    Returns:
        ``(n,)`` int32 modules numbered from 0, their number, the bits gained.
    """
    result = start.copy()
    module = result
    gained = 0.0
    while True:
        n = len(module)
        gain = move_nodes(kind, graph, block, outside, module, order, sweeps)
        gained += gain
        count = renumber(module)
        if n < len(result):
            for u in range(len(result)):
                result[u] = module[result[u]]
        if not gain > 0 or count == n:
            return result, count, gained
        graph = aggregate(graph, module, count)
        block = blocks_of(module, block, count)
        module = identity(count)
        order = shuffled(identity(count), random)


@part
def optimise(kind, graph, block, outside, start, sweeps, random):
    """``improve`` that begins with all nodes in random order."""
    return improve(kind, graph, block, outside, start, shuffled(identity(len(start)), random), sweeps, random)


@part
def blocks_of(module, block, count):
    """``(count,)`` int32, the block of each module, from the blocks of the nodes."""
    result = np.empty(count, np.int32)
    for u in range(len(module)):
        result[module[u]] = block[u]
    return result


@part
def fine_tune(kind, graph, block, outside, module, count, tried, random):
    """Moves single nodes, then modules; begins with the nodes in and next to modules that ``tried`` does not have."""
    order = shuffled(touched(graph, module, changed_modules(module, count, tried)), random)
    return improve(kind, graph, block, outside, module, order, np.int64(SWEEPS), random)


@part
def coarse_tune(kind, graph, outside, module, count, tried, random):
    """Splits modules that ``tried`` does not have, each by itself, then moves the parts, from the given modules."""
    changed = changed_modules(module, count, tried)
    inside, order, start = only_inside(graph, module, changed)
    first = 0
    for last in range(1, len(order) + 1):  # module after module, as what is near in memory is read faster
        if last == len(order) or module[order[last]] != module[order[first]]:
            shuffled(order[first:last], random)
            first = last
    exits = module_exits(kind, inside, module, count)
    part, num_parts, _ = improve(kind, inside, module, exits, start, order, np.int64(SPLITTING_SWEEPS), random)
    parts = aggregate(graph, part, num_parts)
    start = blocks_of(part, module, num_parts)
    moved, count, gain = optimise(kind, parts, same(num_parts), outside, start, np.int64(SWEEPS), random)
    for u in range(len(part)):
        part[u] = moved[part[u]]
    return part, count, gain


@part
def note(passes, cost):
    """Appends to ``passes``, see ``partition``."""
    place = int(passes[0]) + 1
    if place < len(passes):
        passes[0], passes[place] = place, cost


@inner
def partition(kind, graph, outside, start, least_gain, random, passes):
    """Improves the modules ``start``, then in turns of fine- and coarse-tuning while a round gains so many bits.

    Rounds look only at modules that are new since the last coarse-tuning; when that gains too little, they begin once
    more with the coarse-tuning of all modules.

    Args:
        outside: ``(1,)`` rate at which the walk leaves this graph.
        passes: takes the bits after each pass as long as there is room; entry 0 is their number.

    Returns:
        Modules, their number, their bits; one module if that is not longer.
    """
    block = same(len(start))
    module, count, _ = optimise(kind, graph, block, outside, start, np.int64(SWEEPS), random)
    cost, _ = cost_of(kind, graph, outside[0], module)
    note(passes, cost)
    tried = module[:0]  # the modules of the last coarse-tuning
    fine, again = True, False
    for number in range(MAX_ROUNDS):
        if fine:
            new, new_count, gain = fine_tune(kind, graph, block, outside, module, count, tried, random)
        else:
            new, new_count, gain = coarse_tune(kind, graph, outside, module, count, tried, random)
            tried = module
        if gain > 0:
            module, count = new, new_count
            cost -= gain
        note(passes, cost)
        fine = not fine
        if number and not gain > least_gain:
            if number == 1 or again:
                break
            fine, again, tried = False, True, module[:0]
    cost, whole = cost_of(kind, graph, outside[0], module)
    if cost < whole - 1e-12:
        return module, count, cost
    return block, 1, whole
