"""InfoMap: time and memory from an array of edges to a partition, one trial and one thread, against infomap."""

import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import map_equation
from benchmarks._processes import in_a_process, knows_its_memory
from benchmarks.infomap_quality import GRAPHS, official_codelength, read_edges

REAL = ("CA-CondMat", "email-Enron")


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Medians of interleaved rounds in CPU seconds, compiled code warm.

    ``codelength_ratio`` is ours over the peer's, the mean over the same seeds: below 1 is shorter. Memory is what a
    process needs beyond its imports and the array of edges. Growth rows compare a graph with one of more edges: 1 is
    linear. Without infomap they are the only ones, with the cold starts.
    """
    num_nodes, num_edges, rounds = (1_000, 10_000, 2) if quick else (50_000, 1_000_000, 5)
    edges = planted(num_nodes, num_edges)
    for two_level in (True, False):  # compiles, or loads what was compiled
        map_equation.infomap(edges[:100], two_level=two_level)
    rows = [growth_row(edges, num_nodes, 2, rounds)]
    if not quick:
        rows += [growth_row(edges, num_nodes, 10, 1), *cold_rows()]
    try:
        import infomap as official
    except ImportError:
        print("infomap is not installed, so there is no peer: pip install '.[bench]'")
        return rows
    graphs = {f"planted, {num_edges} edges": edges}
    if not quick:
        if GRAPHS.is_dir():
            graphs = {name: read_edges(GRAPHS / f"{name}.txt.gz") for name in REAL} | graphs
        else:
            print("the shared graphs are not here: the planted graph only")
        if knows_its_memory():
            rows.append(memory_row(num_nodes, num_edges, official.__version__))
    for name, links in graphs.items():
        rows += [speed_row(official, name, links, two_level, rounds) for two_level in (True, False)]
    return rows


def speed_row(official: Any, name: str, edges: np.ndarray, two_level: bool, rounds: int) -> dict[str, Any]:
    """Time and code length of one trial of each on a graph."""
    cases = {
        "ours": lambda seed: ours(edges, seed, two_level),
        "peer": lambda seed: official_codelength(official, edges, None, "undirected", two_level, seed),
    }
    seconds, lengths = measure(cases, rounds)
    return {
        "benchmark": "infomap",
        "case": f"{name}, {'two-level' if two_level else 'multilevel'}",
        "peer": f"infomap {official.__version__}",
        "ratio": seconds["peer"] / seconds["ours"],
        "ours_ms": seconds["ours"] * 1e3,
        "peer_ms": seconds["peer"] * 1e3,
        "codelength_ratio": lengths["ours"] / lengths["peer"],
    }


def growth_row(edges: np.ndarray, num_nodes: int, times: int, rounds: int) -> dict[str, Any]:
    """Two levels on a planted graph of so many times the nodes, edges and modules."""
    many = planted(times * num_nodes, times * len(edges))
    seconds, _ = measure(
        {"once": lambda seed: ours(edges, seed, True), "many": lambda seed: ours(many, seed, True)}, rounds
    )
    return {
        "benchmark": "infomap",
        "case": f"planted, {len(edges)} edges, per edge",
        "peer": f"ours, {len(many)} edges",
        "ratio": seconds["many"] / seconds["once"] / times,
        "ours_ms": seconds["once"] * 1e3,
        "peer_ms": seconds["many"] * 1e3,
    }


def measure(cases: dict[str, Callable[[int], float]], rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median CPU seconds and mean code length of each case, a seed a round."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    lengths: dict[str, list[float]] = {name: [] for name in cases}
    for seed in range(1, rounds + 1):
        for name, search in cases.items():
            started = time.process_time()
            lengths[name].append(search(seed))
            seconds[name].append(time.process_time() - started)
    return (
        {name: statistics.median(values) for name, values in seconds.items()},
        {name: statistics.fmean(values) for name, values in lengths.items()},
    )


def ours(edges: np.ndarray, seed: int, two_level: bool) -> float:
    """The code length in bits that one trial of ours finds."""
    return map_equation.infomap(edges, two_level=two_level, seed=seed).codelength


# What a process of its own does; it prints a number.
PEAK = """
from pathlib import Path
from benchmarks._processes import own_bytes
from benchmarks.infomap import ours, planted
from benchmarks.infomap_quality import official_codelength
import infomap
{search_small}
edges = planted({num_nodes}, {num_edges})
Path("/proc/self/clear_refs").write_text("5")
before = own_bytes("VmRSS")
{search}
print((own_bytes("VmHWM") - before) / 2**20)
"""
FIRST = """
import time
import map_equation
started = time.perf_counter()
map_equation.infomap([[0, 1], [0, 2], [1, 2], [2, 3], [3, 4], [3, 5], [4, 5]])
print(time.perf_counter() - started)
"""


def memory_row(num_nodes: int, num_edges: int, version: str) -> dict[str, Any]:
    """Peak MiB of a two-level search, each in a process of its own (Linux)."""
    searches = {
        "ours": "ours({edges}, 1, True)",
        "peer": "official_codelength(infomap, {edges}, None, 'undirected', True, 1)",
    }
    peak = {}
    for name, search in searches.items():
        small, large = search.format(edges="planted(1000, 5000)"), search.format(edges="edges")
        peak[name] = in_a_process(
            PEAK.format(search_small=small, search=large, num_nodes=num_nodes, num_edges=num_edges)
        )
    return {
        "benchmark": "infomap",
        "case": f"planted, {num_edges} edges, memory",
        "peer": f"infomap {version}",
        "ratio": peak["peer"] / peak["ours"],
        "ours_mib": peak["ours"],
        "peer_mib": peak["peer"],
    }


def cold_rows() -> list[dict[str, Any]]:
    """The first call in a process: when nothing is compiled yet, and when the compiled code lies on disk."""
    with tempfile.TemporaryDirectory() as folder:
        compiling, loading = (in_a_process(FIRST, NUMBA_CACHE_DIR=folder) for _ in range(2))
    return [
        {
            "benchmark": "infomap",
            "case": "first call of a process, compiled before",
            "peer": "first call ever, compiles",
            "ratio": compiling / loading,
            "ours_seconds": loading,
            "peer_seconds": compiling,
        }
    ]


def planted(num_nodes: int, num_edges: int, mixing: float = 0.3) -> np.ndarray:
    """Edges ``(E, 2)``: a share ``mixing`` of them anywhere, the others inside a module of about 100 nodes."""
    random = np.random.default_rng(0)
    modules = num_nodes // 100
    label = random.integers(0, modules, num_nodes)
    member = np.argsort(label, kind="stable")
    start = np.searchsorted(label[member], np.arange(modules + 1))
    source = random.integers(0, num_nodes, num_edges)
    size = np.diff(start)[label[source]]
    target = member[start[label[source]] + (random.random(num_edges) * size).astype(np.int64)]
    free = random.random(num_edges) < mixing
    target[free] = random.integers(0, num_nodes, int(free.sum()))
    return np.stack([source, target], 1)
