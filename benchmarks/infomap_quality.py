"""InfoMap: code lengths on real graphs, one trial a seed, against the official infomap."""

import gzip
import itertools
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import networkx
import numpy as np

import map_equation

GRAPHS = Path(__file__).resolve().parents[2] / "shared" / "data" / "graphs"
GML = ("dolphins", "football", "lesmis", "polbooks", "celegansneural")
PAJEK = ("karate", "jazz", "modular_w", "modular_wd", "ninetriangles", "twotriangles")
LISTS = ("email-Eu-core", "ca-GrQc", "facebook_combined", "CA-CondMat", "email-Enron")


class Edges(NamedTuple):
    """A graph as both programs take it: node ids ``(E, 2)`` from 0 and weights ``(E,)`` or None."""

    name: str
    edges: np.ndarray
    weights: np.ndarray | None


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Mean code length over ten seeds (``quick``: two seeds of three small graphs) of every graph, flow and depth.

    ``ratio`` is infomap's mean over ours: above 1 ours is shorter. Without infomap it is the code length with no
    modules over ours.
    """
    try:
        import infomap as official
    except ImportError:
        official = None
        print("infomap is not installed, so there is no peer: pip install '.[bench]'")
    graphs = small_graphs()[:3] if quick else [*small_graphs(), *large_graphs()]
    seeds = range(1, 3 if quick else 11)
    rows = []
    for graph, flow, two_level in itertools.product(graphs, ("undirected", "directed"), (True, False)):
        network = map_equation.Network(graph.edges, graph.weights, flow=flow)
        ours = [network.search(seed=seed, two_level=two_level).codelength for seed in seeds]
        peer = [network.one_level_codelength]
        if official:
            peer = [official_codelength(official, *graph[1:], flow, two_level, seed) for seed in seeds]
        rows.append(
            {
                "benchmark": "infomap_quality",
                "case": f"{graph.name}, {flow}, {'two-level' if two_level else 'multilevel'}",
                "peer": f"infomap {official.__version__}" if official else "no modules",
                "ratio": statistics.fmean(peer) / statistics.fmean(ours),
                "ours_bits": statistics.fmean(ours),
                "peer_bits": statistics.fmean(peer),
            }
        )
    return rows


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
