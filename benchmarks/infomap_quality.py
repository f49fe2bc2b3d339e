"""InfoMap: code lengths on real and synthetic graphs, one trial per seed, against the official infomap."""

import gzip
import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import networkx
import numpy as np

import map_equation
from benchmarks._infomap_graphs import Edges, made_graphs

GRAPHS = Path(__file__).resolve().parents[2] / "shared" / "data" / "graphs"
GML = ("dolphins", "football", "lesmis", "polbooks", "celegansneural")
PAJEK = ("karate", "jazz", "modular_w", "modular_wd", "ninetriangles", "twotriangles")
LISTS = ("email-Eu-core", "ca-GrQc", "facebook_combined", "CA-CondMat", "email-Enron")


class Case(NamedTuple):
    """A graph, whether it is sparse (see ``_infomap_graphs.Kind``), and the seeds it is searched with."""

    graph: Edges
    sparse: bool
    seeds: range


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Mean code length, one trial a seed, of every graph, flow and depth, then of kinds of graphs.

    Real graphs with ten seeds, made ones (``_infomap_graphs``) with five; ``quick``: two seeds of three small graphs.
    ``ratio`` is infomap's mean over ours: above 1 ours is shorter; of kinds the geometric mean. ``speed`` is infomap's
    processor time over ours. Without infomap it is the code length with no modules over ours.
    """
    try:
        import infomap as official
    except ImportError:
        official = None
        print("infomap is not installed, so there is no peer: pip install '.[bench]'")
    if quick:
        cases = [Case(graph, False, range(1, 3)) for graph in small_graphs()[:3]]
    else:
        cases = [Case(graph, False, range(1, 11)) for graph in [*small_graphs(), *large_graphs()]]
        cases += [Case(graph, sparse, range(1, 6)) for graph, sparse in made_graphs(1)]
    for flow in ("undirected", "directed"):  # compiles, or loads what was compiled
        map_equation.infomap(np.array([(0, 1), (1, 2)]), flow=flow)
    rows, kinds = [], defaultdict(list)
    for case, flow, two_level in itertools.product(cases, ("undirected", "directed"), (True, False)):
        row = compare(official, case, flow, two_level)
        rows.append(row)
        depth = "two-level" if two_level else "multilevel"
        for kind in ("all graphs", "sparse graphs") if case.sparse else ("all graphs",):
            kinds[f"{kind}, {flow}, {depth}"].append(row)
    return rows + [summary(name, members) for name, members in kinds.items()]


def compare(official: Any, case: Case, flow: str, two_level: bool) -> dict[str, Any]:
    """The row of one graph; ``official`` is infomap's module or None."""
    graph = case.graph
    ours, seconds = measure(
        lambda seed: map_equation.infomap(graph.edges, graph.weights, flow=flow, two_level=two_level, seed=seed), case
    )
    row = {
        "benchmark": "infomap_quality",
        "case": f"{graph.name}, {flow}, {'two-level' if two_level else 'multilevel'}",
        "peer": f"infomap {official.__version__}" if official else "no modules",
    }
    lengths = [found.codelength for found in ours]
    peer = [ours[0].one_level_codelength]
    if official:
        peer, peer_seconds = measure(
            lambda seed: official_codelength(official, *graph[1:], flow, two_level, seed), case
        )
        row["speed"] = peer_seconds / seconds
    bits = {"ours_bits": statistics.fmean(lengths), "peer_bits": statistics.fmean(peer)}
    return row | {"ratio": bits["peer_bits"] / bits["ours_bits"]} | bits


def measure(search: Callable[[int], Any], case: Case) -> tuple[list[Any], float]:
    """The results of all seeds, and the median processor time of one."""
    found, seconds = [], []
    for seed in case.seeds:
        started = time.process_time()
        found.append(search(seed))
        seconds.append(time.process_time() - started)
    return found, statistics.median(seconds)


def summary(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The geometric means over graphs, and the worst ratio."""
    row = {
        "benchmark": "infomap_quality",
        "case": name,
        "peer": rows[0]["peer"],
        "ratio": statistics.geometric_mean([row["ratio"] for row in rows]),
        "worst_ratio": min(row["ratio"] for row in rows),
    }
    if "speed" in rows[0]:
        row["speed"] = statistics.geometric_mean([row["speed"] for row in rows])
    return row


def official_codelength(
    official: Any, edges: np.ndarray, weights: np.ndarray | None, flow: str, two_level: bool, seed: int
) -> float:
    """The code length in bits that one trial of infomap finds; ``official`` is its module."""
    search = official.Infomap(silent=True, two_level=two_level, directed=flow == "directed", seed=seed, num_trials=1)
    search.add_links(np.column_stack([edges, np.ones(len(edges)) if weights is None else weights]))
    search.run()
    return search.codelength


def small_graphs() -> list[Edges]:
    """Those of some hundred nodes; graphs that networkx makes where the shared data is not there."""
    if not GRAPHS.is_dir():
        print("the shared graphs are not here: graphs of networkx instead")
        made = {"karate": networkx.karate_club_graph(), "lesmis": networkx.les_miserables_graph()}
        return [from_networkx(name, graph, "weight") for name, graph in made.items()]
    graphs = []
    for name in GML:
        path = next(GRAPHS.glob(f"{name}.gml*"))
        graphs.append(from_networkx(name, networkx.read_gml(path, label="id"), "value"))
    return graphs + [Edges(name, *read_pajek(GRAPHS / "infomap_examples" / f"{name}.net")) for name in PAJEK]


def large_graphs() -> list[Edges]:
    """Those of a thousand nodes and more; none where the shared data is not there."""
    if not GRAPHS.is_dir():
        return []
    lists = {name: GRAPHS / f"{name}.txt.gz" for name in LISTS}
    lists["lfr"] = GRAPHS / "lfr" / "lfr_n1000_mu0.3.edges.gz"
    return [Edges(name, read_edges(path), None) for name, path in lists.items()]


def from_networkx(name: str, graph: networkx.Graph, weight: str) -> Edges:
    """The links of a graph, with the attribute ``weight`` of each (1 where it has none)."""
    index = {node: number for number, node in enumerate(graph)}
    links = list(graph.edges(data=weight, default=1))
    edges = np.array([(index[a], index[b]) for a, b, _ in links])
    return Edges(name, edges, np.array([weight for *_, weight in links], np.float64))


def read_pajek(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Links of a Pajek file or of a link list."""
    rows, in_nodes = [], False
    for line in path.read_text().splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("*"):
            in_nodes = line.lower().startswith("*vertices")
        elif line and not in_nodes:
            rows.append([float(field) for field in [*line.split(), "1"][:3]])
    table = np.array(rows)
    edges = table[:, :2].astype(int)
    return edges - edges.min(), table[:, 2]


def read_edges(path: Path) -> np.ndarray:
    """Links of a gzipped edge list, its node ids made contiguous."""
    with gzip.open(path, "rt") as file:
        edges = np.loadtxt(file, dtype=np.int64, comments="#", usecols=(0, 1))
    return np.unique(edges, return_inverse=True)[1].reshape(edges.shape)
