"""InfoMap: seconds from an array of edges to a partition, one trial and one thread, against the official infomap."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import map_equation


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Medians of interleaved rounds on planted graphs, two-level and multilevel, compiled code warm.

    ``codelength_ratio`` is ours over the peer's, the mean over the same seeds: below 1 is shorter. The growth row
    compares a graph with one of twice the edges: 1 is linear. Without infomap it is the only one.
    """
    num_nodes, num_edges, rounds = (1_000, 10_000, 2) if quick else (50_000, 1_000_000, 5)
    edges = planted(num_nodes, num_edges, num_nodes // 100)
    twice = planted(2 * num_nodes, 2 * num_edges, num_nodes // 50)
    for two_level in (True, False):  # compiles, or loads what was compiled
        map_equation.infomap(edges[:100], two_level=two_level)
    seconds, _ = measure(
        {"once": lambda seed: ours(edges, seed, True), "twice": lambda seed: ours(twice, seed, True)}, rounds
    )
    case = f"planted, {num_edges} edges"
    rows = [
        {
            "benchmark": "infomap",
            "case": f"{case}, two-level",
            "peer": "twice the edges, over 2",
            "ratio": seconds["twice"] / seconds["once"] / 2,
            "ours_ms": seconds["once"] * 1e3,
            "peer_ms": seconds["twice"] / 2 * 1e3,
        }
    ]
    try:
        import infomap as official
    except ImportError:
        print("infomap is not installed, so there is no peer: pip install '.[bench]'")
        return rows
    for two_level in (True, False):
        cases = {
            "ours": lambda seed, flat=two_level: ours(edges, seed, flat),
            "peer": lambda seed, flat=two_level: theirs(official, edges, seed, flat),
        }
        seconds, lengths = measure(cases, rounds)
        rows.append(
            {
                "benchmark": "infomap",
                "case": f"{case}, {'two-level' if two_level else 'multilevel'}",
                "peer": f"infomap {official.__version__}",
                "ratio": seconds["peer"] / seconds["ours"],
                "ours_ms": seconds["ours"] * 1e3,
                "peer_ms": seconds["peer"] * 1e3,
                "codelength_ratio": lengths["ours"] / lengths["peer"],
            }
        )
    return rows


def measure(cases: dict[str, Callable[[int], float]], rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds and mean code length of each case, a seed a round."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    lengths: dict[str, list[float]] = {name: [] for name in cases}
    for seed in range(1, rounds + 1):
        for name, search in cases.items():
            started = time.perf_counter()
            lengths[name].append(search(seed))
            seconds[name].append(time.perf_counter() - started)
    return (
        {name: statistics.median(values) for name, values in seconds.items()},
        {name: statistics.fmean(values) for name, values in lengths.items()},
    )


def ours(edges: np.ndarray, seed: int, two_level: bool) -> float:
    return map_equation.infomap(edges, two_level=two_level, seed=seed).codelength


def theirs(official: Any, edges: np.ndarray, seed: int, two_level: bool) -> float:
    search = official.Infomap(silent=True, two_level=two_level, seed=seed, num_trials=1)
    search.add_links(np.column_stack([edges, np.ones(len(edges))]))
    search.run()
    return search.codelength


def planted(num_nodes: int, num_edges: int, modules: int, mixing: float = 0.3) -> np.ndarray:
    """Edges ``(E, 2)``: a share ``mixing`` of them anywhere, the others inside a module."""
    random = np.random.default_rng(0)
    label = random.integers(0, modules, num_nodes)
    member = np.argsort(label, kind="stable")
    start = np.searchsorted(label[member], np.arange(modules + 1))
    source = random.integers(0, num_nodes, num_edges)
    size = np.diff(start)[label[source]]
    target = member[start[label[source]] + (random.random(num_edges) * size).astype(np.int64)]
    free = random.random(num_edges) < mixing
    target[free] = random.integers(0, num_nodes, int(free.sum()))
    return np.stack([source, target], 1)
