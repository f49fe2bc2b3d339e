"""Code length of a given partition, flat or hierarchical.

With ``plogp(x) = x log2 x``, every module, the root included, has a code book of its exit rate, the enter rates of
its sub-modules and the visit rates of the nodes directly inside it, and costs
``plogp(sum of the book) - sum of plogp(entries)``. The code length is the sum over all modules, in bits per step.
For two levels this is the map equation of Rosvall and Bergstrom (2008), for more that of 2011.
"""

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np

from .flow import RECORDED, Flow, kind_of
from .links import to_numpy


@numba.njit(cache=True, nogil=True)
def plogp(x):
    """``x log2 x`` of a number, 0 for 0."""
    return x * np.log2(x) if x > 0 else 0.0


@numba.njit(cache=True, nogil=True)
def crossing(indptr, neighbour, out, into, label, count):
    """Rates of the links that leave and enter each label; nodes labelled -1 belong to none."""
    exits = np.zeros(count)
    enters = np.zeros(count)
    for u in range(len(indptr) - 1):
        a = label[u]
        if a < 0:
            continue
        for k in range(indptr[u], indptr[u + 1]):
            if label[neighbour[k]] != a:
                exits[a] += out[k]
                enters[a] += into[k]
    return exits, enters


@numba.njit(cache=True, nogil=True)
def sums_by(label, values, count):
    """Sum of the values of the nodes with each label; nodes labelled -1 belong to none."""
    sums = np.zeros(count)
    for u in range(len(label)):
        if label[u] >= 0:
            sums[label[u]] += values[u]
    return sums


def module_rates(flow: Flow, label: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Exit and enter rates of the modules, including recorded teleportation."""
    exits, enters = crossing(flow.indptr, flow.neighbour, flow.out, flow.into, label, count)
    if kind_of(flow) == RECORDED:
        leave, land = sums_by(label, flow.leave, count), sums_by(label, flow.land, count)
        exits += leave * np.maximum(flow.land.sum() - land, 0)
        enters += np.maximum(flow.leave.sum() - leave, 0) * land
    return exits, enters


def plogps(x: np.ndarray) -> np.ndarray:
    """``x log2 x`` of each number ``(n,)``, 0 for 0."""
    return x * np.log2(x, out=np.zeros(len(x)), where=x > 0)


def book_costs(flow: Flow, paths: np.ndarray, physical: np.ndarray | None = None) -> list[np.ndarray]:
    """Cost in bits of every code book: ``[root (1,), modules of the first level, of the second, ...]``.

    Args:
        paths: ``(n, depth)``, from the top; in each column numbers from 0, -1 below the bottom module.
        physical: ``(n,)`` from 0, the physical node of each state: its states share a code word in each book.
    """
    n, depth = paths.shape
    counts = [1] + [int(paths[:, level].max(initial=-1)) + 1 for level in range(depth)]
    sums, logs = [np.zeros(count) for count in counts], [np.zeros(count) for count in counts]
    above = np.zeros(n, np.int64)  # the module one level up
    level_of = (paths >= 0).sum(1)
    for level in range(1, depth + 1):
        label = np.ascontiguousarray(paths[:, level - 1])
        exits, enters = module_rates(flow, label, counts[level])
        up = np.zeros(counts[level], np.int64)
        up[label[label >= 0]] = above[label >= 0]
        sums[level] += exits
        logs[level] += plogps(exits)
        sums[level - 1] += np.bincount(up, enters, counts[level - 1])
        logs[level - 1] += np.bincount(up, plogps(enters), counts[level - 1])
        above = np.where(label >= 0, label, above)
    for level in range(depth + 1):
        here = level_of == level
        if here.any():
            label = np.zeros(n, np.int64) if level == 0 else paths[:, level - 1]
            book, rates = label[here], flow.flow[here]
            if physical is not None:
                book, rates = share_words(book, physical[here], rates)
            sums[level] += np.bincount(book, rates, counts[level])
            logs[level] += np.bincount(book, plogps(rates), counts[level])
    return [plogps(total) - log for total, log in zip(sums, logs, strict=True)]


def share_words(book: np.ndarray, physical: np.ndarray, rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Book and rate of each code word, shared by the states of one physical node in one book."""
    words, word = np.unique(np.stack([book, physical], 1), axis=0, return_inverse=True)
    return words[:, 0], np.bincount(word.ravel(), rates)


def codelength(flow: Flow, paths: np.ndarray, physical: np.ndarray | None = None) -> float:
    """Bits per step of the walk; the arguments are those of ``book_costs``."""
    return sum(float(costs.sum()) for costs in book_costs(flow, paths, physical))


def read_modules(modules: Any, n: int) -> np.ndarray:
    """Flat labels or paths of the nodes as ``(n, depth)`` of module numbers, -1 below the bottom module.

    Two nodes share a module of a level if their paths agree down to it. Without any module, all nodes form one.

    Raises:
        ValueError: if there is not one label or path per node, or a table has non-integers or -1 above a module.
    """
    if not isinstance(modules, np.ndarray):
        modules = to_numpy(modules) if hasattr(modules, "detach") else list(modules)
    if len(modules) != n:
        grouped = len(modules) and all(isinstance(group, list | tuple) for group in modules)
        hint = ": groups of nodes must be sets, [set(group) for group in groups]" if grouped else ""
        raise ValueError(f"modules must name one module or path for each of the {n} nodes, not {len(modules)}{hint}")
    if isinstance(modules, np.ndarray) and (modules.ndim > 1 or modules.dtype != object):
        if modules.ndim > 2:
            raise ValueError(f"an array of modules has shape (n,) or (n, depth), not {modules.shape}")
        return read_table(modules) if modules.ndim == 2 else number_labels(modules)
    if not any(isinstance(label, Sequence | np.ndarray) and not isinstance(label, str) for label in modules):
        if len(set(map(type, modules))) == 1 and (labels := np.asarray(modules)).dtype != object:
            return number_labels(labels)
        modules = [(label,) for label in modules]  # as an array, 1 and "1" would be the same label
    table = np.full((n, max(1, *map(len, modules))), -1, np.int64)
    seen: dict[Any, int] = {}
    for node, path in enumerate(modules):
        for level, label in enumerate(path):
            table[node, level] = seen.setdefault(label, len(seen))
    return read_table(table)


def number_labels(labels: np.ndarray) -> np.ndarray:
    """Module numbers ``(n, 1)`` from labels ``(n,)`` of one type."""
    return np.unique(labels, return_inverse=True)[1].reshape(-1, 1)


def read_table(table: np.ndarray) -> np.ndarray:
    """Module numbers ``(n, depth)`` that are unique in each level, from numbers that are unique among siblings.

    Raises:
        ValueError: for non-integers, or -1 above a module.
    """
    if not np.issubdtype(table.dtype, np.integer):
        raise ValueError(f"a table of modules (n, depth) must be integers, not {table.dtype}")
    inside = table >= 0
    if (inside[:, 1:] & ~inside[:, :-1]).any():
        node = int(np.flatnonzero((inside[:, 1:] & ~inside[:, :-1]).any(1))[0])
        raise ValueError(f"a table of modules has -1 only below the bottom module, not as for node {node}")
    if not inside.any():
        return np.zeros((len(table), 1), np.int64)
    result = np.full(table.shape, -1, np.int64)
    above = np.zeros(len(table), np.int64)
    for level in range(int(inside.any(0).sum())):
        here = inside[:, level]
        pairs = np.stack([above[here], table[here, level]], 1)
        result[here, level] = above[here] = np.unique(pairs, axis=0, return_inverse=True)[1].ravel()
    return result[:, : int(inside.any(0).sum())]
