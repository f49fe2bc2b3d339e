"""The search: node moves and aggregation, fine- and coarse-tuning, then levels above and below.

The scheme is Infomap's (Rosvall, Axelsson, Bergstrom 2009; Rosvall and Bergstrom 2011), written for arrays: the
insides of all modules are split in one pass over the graph, as blocks of one problem.
"""

from typing import NamedTuple

import numpy as np

from .codelength import book_costs, codelength, one_level_codelength, plogps
from .flow import RECORDED, Flow, kind_of
from .moves import block_costs, dissolve, move_nodes
from .walk_graph import WalkGraph, aggregate, module_exits, renumber, restrict, walk_graph

# Tuning continues while a round gains at least this share of the one-level code length.
LEAST_TUNING_GAIN = 1e-3
MOST_ROUNDS = 1000  # of tuning
# A trial on a small graph restarts until it has processed this many links, counted both ways.
LINKS_PER_TRIAL, MAX_STARTS = 12_000, 20

# Visits per node in a search from singletons: in parts without structure, nodes keep moving to little avail.
SWEEPS, SPLITTING_SWEEPS = 30, 3


class Problem(NamedTuple):
    """Nodes to be partitioned, block by block (see ``moves``).

    Args:
        kind: of the flow, see ``flow.kind_of``.
        graph: n nodes with the links inside blocks.
        block: ``(n,)`` int32, numbered from 0.
        outside: ``(blocks,)`` exit rate of each block.
        least_gain: bits that a round of tuning must gain for another one to follow.
    """

    kind: int
    graph: WalkGraph
    block: np.ndarray
    outside: np.ndarray
    least_gain: float

    def costs(self, module: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bits of each block with these modules, and undivided."""
        return block_costs(self.kind, self.graph, self.block, self.outside, module, self.graph.leave.sum())


def search(
    flow: Flow, seed: tuple[int, int], two_level: bool, initial: np.ndarray | None = None
) -> tuple[np.ndarray, list[float]]:
    """One trial.

    Args:
        initial: ``(n, depth)``, like the result; the search starts from the bottom modules, and returns this if it
            finds nothing shorter.

    Returns:
        ``(n, depth)`` module numbers from the top, -1 below the bottom module, numbered from 0 in each level; the
        code length in bits at the start and after each pass, never increasing.
    """
    random = np.random.default_rng(seed)
    n = len(flow.flow)
    one_level = one_level_codelength(flow)
    problem = Problem(
        kind_of(flow), walk_graph(flow), np.zeros(n, np.int32), np.zeros(1), LEAST_TUNING_GAIN * one_level
    )
    start = None if initial is None else bottom_modules(initial)
    nodes = plogps(flow.flow).sum()  # the part of the code length that is the same for all partitions
    best = np.zeros((n, 1), np.int64) if initial is None else initial
    best_length = codelength(flow, best)
    passes = [best_length]
    for _ in range(num_starts(flow)):
        found: list[float] = []
        table = search_once(flow, problem, random, two_level, start, found)
        length = codelength(flow, table)
        if length < best_length - 1e-12:
            best, best_length = table, length
        passes += [*(pass_length - nodes for pass_length in found), best_length]
    return best, np.minimum.accumulate(passes).tolist()


def num_starts(flow: Flow) -> int:
    """Number of searches in a trial."""
    return int(np.clip(LINKS_PER_TRIAL // (len(flow.neighbour) + 1), 1, MAX_STARTS))


def search_once(
    flow: Flow,
    problem: Problem,
    random: np.random.Generator,
    two_level: bool,
    start: np.ndarray | None,
    passes: list[float],
) -> np.ndarray:
    """One search of a trial, from singletons or from the modules ``start``; the result is as in ``search``.

    The bits after each pass, without the nodes' own terms, are appended to ``passes``.
    """
    module = partition(problem, random, start, passes)
    if two_level or module.max() == 0:
        return module.reshape(-1, 1).astype(np.int64)
    return add_levels(flow, problem, module, random)


def bottom_modules(table: np.ndarray) -> np.ndarray:
    """``(n,)`` int32, the bottom module of each node; a node directly under the root is a module of its own."""
    width = int(table.max(initial=0)) + 1
    depth = (table >= 0).sum(1)
    nodes = np.arange(len(table))
    label = np.where(depth > 0, table[nodes, depth - 1] + width * depth, nodes - len(table) - 1)
    return np.unique(label, return_inverse=True)[1].astype(np.int32)


def optimise(
    problem: Problem, random: np.random.Generator, start: np.ndarray | None = None, sweeps: int = SWEEPS
) -> np.ndarray:
    """Moves nodes, then the resulting modules, and so on until nothing moves; from singletons or from ``start``."""
    kind, graph, block, outside, _ = problem
    module = np.arange(len(block), dtype=np.int32) if start is None else start.copy()
    result = None
    while True:
        order = random.permutation(len(block)).astype(np.int32)
        gain = move_nodes(kind, graph, block, outside, module, order, sweeps)
        count = renumber(module)
        result = module if result is None else module[result]
        if not gain > 0 or count == len(block):
            return result
        graph = aggregate(kind, graph, module, count)
        block = blocks_of(module, block, count)
        module = np.arange(count, dtype=np.int32)


def partition(
    problem: Problem,
    random: np.random.Generator,
    start: np.ndarray | None = None,
    passes: list[float] | None = None,
) -> np.ndarray:
    """A tuned two-level partition of each block; a block that no modules shorten stays one module.

    The bits of all blocks after each pass are appended to ``passes``.
    """
    passes = [] if passes is None else passes
    module = optimise(problem, random, start)
    costs, whole = problem.costs(module)
    cost = costs.sum()
    passes.append(cost)
    for round_number in range(MOST_ROUNDS):
        coarse = round_number % 2 == 1
        new = coarse_tune(problem, module, random) if coarse else optimise(problem, random, module)
        new_costs, _ = problem.costs(new)
        gain = cost - new_costs.sum()
        if gain > 0:
            module, costs, cost = new, new_costs, new_costs.sum()
        passes.append(cost)
        if not gain > max(problem.least_gain, 1e-10) and round_number:
            break
    return keep_whole(problem, module, costs < whole - 1e-12)


def keep_whole(problem: Problem, module: np.ndarray, split: np.ndarray) -> np.ndarray:
    """Turns blocks that are not ``split`` into one module each."""
    if not split.all():
        module = np.where(split[problem.block], module, len(module) + problem.block).astype(np.int32)
    renumber(module)
    return module


def coarse_tune(problem: Problem, module: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Splits every module separately, then moves the parts, starting from the given modules."""
    kind, graph, block = problem.kind, problem.graph, problem.block
    part = optimise(inside(problem, np.arange(len(module)), module), random, sweeps=SPLITTING_SWEEPS)
    count = int(part.max()) + 1
    parts = aggregate(kind, graph, part, count)
    module_of_part = np.zeros(count, np.int32)
    module_of_part[part] = module
    parts_problem = problem._replace(graph=parts, block=blocks_of(part, block, count))
    return optimise(parts_problem, random, module_of_part)[part]


def blocks_of(module: np.ndarray, block: np.ndarray, count: int) -> np.ndarray:
    """``(count,)`` int32, the block of each module, from the blocks of the nodes."""
    result = np.zeros(count, np.int32)
    result[module] = block
    return result


def inside(problem: Problem, nodes: np.ndarray, module: np.ndarray) -> Problem:
    """The problem of splitting modules ``module (len(nodes),)``, of which these nodes are all members."""
    graph = restrict(problem.graph, nodes, module)
    outside = module_exits(problem.kind, graph, module, int(module.max()) + 1)
    return problem._replace(graph=graph, block=module, outside=outside)


def group(problem: Problem, module: np.ndarray) -> Problem:
    """The problem of grouping modules: their enter rates take the place of the nodes' visit rates."""
    count = int(module.max()) + 1
    graph = aggregate(problem.kind, problem.graph, module, count)
    blocks = blocks_of(module, problem.block, count)
    enters = graph.enters
    if problem.kind == RECORDED:
        enters = enters + np.maximum(graph.leave.sum() - graph.leave, 0) * graph.land
    return problem._replace(graph=graph._replace(flow=enters, parts=np.ones(count)), block=blocks)


def add_levels(flow: Flow, problem: Problem, module: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The hierarchy above and below a two-level partition.

    Levels are first added on top. Then each top module is split again from above, and the shorter of its two
    descriptions is kept.
    """
    supers = super_modules(problem, module, random)
    if not supers:
        return compact(np.stack([module, *split_down(problem, module, random)], 1))
    kept = compact(np.stack([*supers[::-1], module], 1))
    top = kept[:, 0].astype(np.int32)
    fresh = compact(np.stack([top, *split_down(problem, top, random)], 1))
    shorter = costs_by_top(flow, fresh) < costs_by_top(flow, kept) - 1e-12
    depth = max(kept.shape[1], fresh.shape[1])
    kept, fresh = (np.pad(table, ((0, 0), (0, depth - table.shape[1])), constant_values=-1) for table in (kept, fresh))
    # Keeps the numbers of a level distinct where both tables meet.
    fresh[:, 1:] = np.where(fresh[:, 1:] >= 0, fresh[:, 1:] + len(top), -1)
    return compact(np.where(shorter[top][:, None], fresh, kept))


def super_modules(problem: Problem, module: np.ndarray, random: np.random.Generator) -> list[np.ndarray]:
    """Levels above the modules inside each block, from the bottom up; -1 if a level adds nothing for a module."""
    levels: list[np.ndarray] = []
    group_of = module
    level = group(problem, module)
    while True:
        above = group_modules(level, random)
        sizes = np.bincount(above)
        per_block = modules_per_block(level, above)
        children = np.bincount(level.block, minlength=len(level.outside))
        useful = (per_block > 1) & (per_block < children)
        if not useful.any():
            return levels
        column = np.where(useful[level.block], above, -1)
        column[sizes[above] == 1] = -1
        levels.append(column[group_of])
        # Blocks without a new level skip the next round: their modules are passed on unchanged.
        merged = np.where(useful[level.block], above, above.max() + 1 + np.arange(len(above))).astype(np.int32)
        renumber(merged)
        level = group(level, merged)
        group_of = merged[group_of]


def group_modules(level: Problem, random: np.random.Generator) -> np.ndarray:
    """One level above modules. A group of one costs nothing, which hinders the first merges: the search starts once
    as if it had a cost and once without, and each block keeps the better result."""
    found = []
    for start in (partition(level._replace(graph=level.graph._replace(parts=np.empty(0))), random), None):
        module = optimise(level, random, start)
        renumber(module)
        dissolve(level.kind, level.graph, level.block, level.outside, module, int(module.max()) + 1)
        renumber(module)
        found.append(partition(level, random, module))
    first, second = found
    better = level.costs(first)[0] <= level.costs(second)[0] + 1e-12
    module = np.where(better[level.block], first, second + len(first)).astype(np.int32)
    renumber(module)
    return module


def split_down(problem: Problem, top: np.ndarray, random: np.random.Generator) -> list[np.ndarray]:
    """Levels below the top modules, from the top down, by recursive splitting; -1 below a node's bottom module."""
    columns: list[np.ndarray] = []
    nodes, current = np.arange(len(top)), top
    while True:
        inner = inside(problem, nodes, current)
        module = optimise(inner, random, sweeps=SPLITTING_SWEEPS)
        costs, whole = inner.costs(module)
        hopeful = (costs < whole - 1e-12)[current]
        if not hopeful.any():
            return columns
        nodes, current, module = nodes[hopeful], current[hopeful], module[hopeful]
        renumber(current)
        renumber(module)
        inner = inside(problem, nodes, current)
        module = partition(inner, random, module)
        split = (modules_per_block(inner, module) > 1)[current]
        if not split.any():
            return columns
        above = super_modules(inner, module, random)
        nodes = nodes[split]
        for column in (*above[::-1], module):
            columns.append(np.full(len(top), -1))
            columns[-1][nodes] = column[split]
        current = module[split]
        renumber(current)


def modules_per_block(problem: Problem, module: np.ndarray) -> np.ndarray:
    """Number of modules in each block; they must be numbered from 0 without gaps."""
    return np.bincount(blocks_of(module, problem.block, int(module.max()) + 1), minlength=len(problem.outside))


def costs_by_top(flow: Flow, table: np.ndarray) -> np.ndarray:
    """Bits of all code books in and below each top module."""
    total = np.zeros(int(table[:, 0].max()) + 1)
    for level, costs in enumerate(book_costs(flow, table)[1:]):
        label = table[:, level]
        top = np.zeros(len(costs), np.int64)
        top[label[label >= 0]] = table[label >= 0, 0]
        total += np.bincount(top, costs, len(total))
    return total


def compact(table: np.ndarray) -> np.ndarray:
    """Moves the -1 of each row to its end and renumbers the modules of each level."""
    order = np.argsort(table < 0, axis=1, kind="stable")
    table = np.take_along_axis(table, order, 1)
    width = int(table.max()) + 1
    columns = []
    for level in range(int((table >= 0).any(0).sum())):
        # A level may have got the same number from two columns.
        label = np.where(table[:, level] >= 0, order[:, level] * width + table[:, level], -1).astype(np.int32)
        renumber(label)
        columns.append(label.astype(np.int64))
    return np.stack(columns, 1)
