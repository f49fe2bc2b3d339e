"""The map equation from its formulas, in plain Python and NumPy with dense matrices."""

from math import log2

import numpy as np


def entropy_term(x: float) -> float:
    return x * log2(x) if x > 0 else 0.0


def adjacency(edges, weights, n: int, undirected: bool) -> np.ndarray:
    matrix = np.zeros((n, n))
    for (a, b), weight in zip(edges, weights, strict=True):
        matrix[a, b] += weight
        if undirected and a != b:
            matrix[b, a] += weight
    return matrix


def dense_flow(matrix: np.ndarray, model: str, tau: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """Visit rates (n,) and link flow (n, n), which sums to 1 and includes recorded teleportation."""
    n = len(matrix)
    if model == "undirected":
        flow = matrix / matrix.sum()
        return flow.sum(1), flow
    out, into = matrix.sum(1), matrix.sum(0)
    land = {"directed": out, "directed_recorded": into}.get(model, np.ones(n))
    land = land / land.sum()
    dangling = out == 0
    steps = matrix / np.where(dangling, 1, out)[:, None]
    p = np.full(n, 1 / n)
    for _ in range(2000):
        p = (1 - tau) * p @ steps + (tau + (1 - tau) * p[dangling].sum()) * land
    if "recorded" in model:
        leave = np.where(dangling, 1, tau) * p
        return p, (1 - tau) * p[:, None] * steps + np.outer(leave, land)
    flow = p[:, None] * steps
    flow /= flow.sum()
    return flow.sum(0), flow


def hierarchical_codelength(p: np.ndarray, flow: np.ndarray, paths: list[tuple], physical: list | None = None) -> float:
    """Sum over all modules, identified by their paths; the root is (). States of a physical node share a code word."""
    physical = range(len(p)) if physical is None else physical

    def rates(module: tuple) -> tuple[float, float]:
        members = np.array([path[: len(module)] == module for path in paths])
        return flow[members][:, ~members].sum(), flow[~members][:, members].sum()

    modules = {path[:depth] for path in paths for depth in range(len(path) + 1)}
    total = 0.0
    for module in modules:
        children = [child for child in modules if len(child) == len(module) + 1 and child[:-1] == module]
        book = [rates(child)[1] for child in children]
        words = {}
        for rate, path, node in zip(p, paths, physical, strict=True):
            if path == module:
                words[node] = words.get(node, 0.0) + rate
        book += words.values()
        if module:
            book.append(rates(module)[0])
        total += entropy_term(sum(book)) - sum(map(entropy_term, book))
    return total
