"""Graphs that InfoMap is judged on: of many kinds, sparse and dense, made from a seed and a size."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import networkx as nx
import numpy as np
import scipy.sparse.csgraph
import scipy.spatial

Random = np.random.Generator
Made = np.ndarray | tuple[np.ndarray, np.ndarray]


class Edges(NamedTuple):
    """A graph as both programs take it: node ids ``(E, 2)`` from 0 and weights ``(E,)`` or None."""

    name: str
    edges: np.ndarray
    weights: np.ndarray | None


class Kind(NamedTuple):
    """Makes a graph of about so many nodes: edges ``(E, 2)``, or edges and weights.

    Args:
        sparse: has few cycles, or is a lattice: what its levels are decides most of the code length.
    """

    make: Callable[[Random, int], Made]
    sizes: tuple[int, ...]
    sparse: bool = False


def made_graphs(seed: int, scale: float = 1.0) -> Iterator[tuple[Edges, bool]]:
    """Every kind in its sizes, times ``scale``, and whether it is sparse."""
    for name, kind in KINDS.items():
        for place, size in enumerate(kind.sizes):
            random = np.random.default_rng([seed, place, *name.encode()])
            made = kind.make(random, round(size * scale))
            edges, weights = made if isinstance(made, tuple) else (made, None)
            edges = np.unique(edges, return_inverse=True)[1].reshape(edges.shape)
            yield Edges(f"{name} {edges.max() + 1}", edges, weights), kind.sparse


def recursive_tree(random: Random, n: int) -> np.ndarray:
    """Each node is linked to any earlier one."""
    return np.array([(i, random.integers(0, i)) for i in range(1, n)])


def preferential_tree(random: Random, n: int) -> np.ndarray:
    """Each node is linked to an earlier one in proportion to its degree."""
    ends = [0, 1]
    for i in range(2, n):
        ends += [i, ends[random.integers(0, len(ends))]]
    return np.array(ends).reshape(-1, 2)


def binary_tree(random: Random, n: int) -> np.ndarray:
    """Complete, each node with two children."""
    return np.array([(i, (i - 1) // 2) for i in range(1, n)])


def caterpillar(random: Random, n: int) -> np.ndarray:
    """A path of a quarter of the nodes, the others hanging on it."""
    spine = max(n // 4, 2)
    path = np.stack([np.arange(spine - 1), np.arange(1, spine)], 1)
    return np.concatenate([path, np.stack([np.arange(spine, n), random.integers(0, spine, n - spine)], 1)])


def grid(random: Random, n: int) -> np.ndarray:
    """A square lattice."""
    side = round(n**0.5)
    number = np.arange(side * side).reshape(side, side)
    across = np.stack([number[:, :-1].ravel(), number[:, 1:].ravel()], 1)
    return np.concatenate([across, np.stack([number[:-1].ravel(), number[1:].ravel()], 1)])


def long_grid(random: Random, n: int) -> np.ndarray:
    """A lattice of eight rows, a tenth of its links missing."""
    number = np.arange(8 * (n // 8)).reshape(8, -1)
    edges = np.concatenate([np.stack([number[:, :-1].ravel(), number[:, 1:].ravel()], 1)])
    edges = np.concatenate([edges, np.stack([number[:-1].ravel(), number[1:].ravel()], 1)])
    return edges[random.random(len(edges)) > 0.1]


def delaunay(random: Random, n: int) -> np.ndarray:
    """The triangulation of points in the plane."""
    return triangulation(random.random((n, 2)))


def geometric(random: Random, n: int) -> np.ndarray:
    """Points in the plane linked up to a distance, just above that at which a giant component appears."""
    pairs = scipy.spatial.cKDTree(random.random((n, 2))).query_pairs((4.8 / (np.pi * n)) ** 0.5, output_type="ndarray")
    return pairs


def roads(random: Random, n: int) -> np.ndarray:
    """The shortest spanning tree of points in the plane and a tenth of the other links of their triangulation."""
    points = random.random((n, 2))
    edges = triangulation(points)
    length = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
    tree = scipy.sparse.csgraph.minimum_spanning_tree(
        scipy.sparse.coo_array((length, (edges[:, 0], edges[:, 1])), (n, n))
    ).tocoo()
    others = edges[random.random(len(edges)) < 0.1]
    edges = np.concatenate([np.stack([tree.row, tree.col], 1), others])
    return np.unique(np.sort(edges, 1), axis=0)


def triangulation(points: np.ndarray) -> np.ndarray:
    """The links of Delaunay's triangles."""
    corners = scipy.spatial.Delaunay(points).simplices
    edges = np.sort(np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [0, 2]]]), 1)
    return np.unique(edges, axis=0)


def ring(random: Random, n: int, neighbours: int = 2, share: float = 0.05) -> np.ndarray:
    """Each node is linked to the next ones; a share of the links leads anywhere (Watts and Strogatz)."""
    edges = np.concatenate([np.stack([np.arange(n), (np.arange(n) + k) % n], 1) for k in range(1, neighbours + 1)])
    away = random.random(len(edges)) < share
    edges[away, 1] = random.integers(0, n, away.sum())
    return edges[edges[:, 0] != edges[:, 1]]


def gnm(random: Random, n: int, degree: float) -> np.ndarray:
    """Links between random nodes (Erdős and Rényi)."""
    edges = random.integers(0, n, (round(n * degree / 2), 2))
    return np.unique(np.sort(edges[edges[:, 0] != edges[:, 1]], 1), axis=0)


def star_of_cliques(random: Random, n: int) -> np.ndarray:
    """Cliques of 3 to 9 nodes, one node of each linked to a hub."""
    links, node = [], 1
    while node < n:
        size = int(random.integers(3, 10))
        links += [(node + a, node + b) for a in range(size) for b in range(a)] + [(0, node)]
        node += size
    return np.array(links)


def ring_of_cliques(random: Random, n: int) -> np.ndarray:
    """Cliques of five nodes in a ring."""
    return np.array(nx.ring_of_cliques(n // 5, 5).edges)


def lfr(random: Random, n: int, mixing: float) -> np.ndarray:
    """Planted modules with power laws of degrees and sizes."""
    for seed in random.integers(0, 2**31, 50).tolist():
        try:
            graph = nx.LFR_benchmark_graph(
                n, 2.5, 1.5, mixing, average_degree=8, max_degree=50, min_community=10, seed=seed
            )
        except nx.ExceededMaxIterations:
            continue
        return np.array([edge for edge in graph.edges if edge[0] != edge[1]])
    raise RuntimeError(f"no LFR graph of {n} nodes")


def nested(random: Random, n: int) -> np.ndarray:
    """Planted modules of modules of modules: most links stay inside the smallest."""
    sizes, shares = np.array([10, 60, 360, n]), [0.6, 0.2, 0.12, 0.08]
    source = random.integers(0, n, 4 * n)
    size = sizes[random.choice(4, len(source), p=shares)]
    target = source // size * size + random.integers(0, size)
    edges = np.stack([source, np.minimum(target, n - 1)], 1)
    return edges[edges[:, 0] != edges[:, 1]]


def attached(random: Random, n: int, links: int) -> np.ndarray:
    """Preferential attachment with so many links of each node (Barabási and Albert)."""
    return np.array(nx.barabasi_albert_graph(n, links, seed=int(random.integers(2**31))).edges)


def internet(random: Random, n: int) -> np.ndarray:
    """Like the autonomous systems of the internet."""
    return np.array(nx.random_internet_as_graph(n, seed=int(random.integers(2**31))).edges)


def bipartite(random: Random, n: int) -> np.ndarray:
    """Three links of each node to one of the other kind, more to the first of these; half of them in groups."""
    few = n // 4
    source = np.repeat(np.arange(few, n), 3)
    near = (source * 7919 % max(few // 12, 1)) * 12 + random.integers(0, 12, len(source))
    anywhere = (few * random.random(len(source)) ** 2).astype(int)
    target = np.where(random.random(len(source)) < 0.5, near % few, anywhere)
    return np.unique(np.stack([source, target], 1), axis=0)


def weighted(make: Callable[[Random, int], np.ndarray]) -> Callable[[Random, int], Made]:
    """With weights over some orders of magnitude."""

    def weigh(random: Random, n: int) -> Made:
        edges = make(random, n)
        return edges, random.lognormal(0, 1, len(edges))

    return weigh


def forest(random: Random, n: int) -> np.ndarray:
    """Each node cites one or two of the latest earlier ones, or none."""
    links = [
        (i, max(i - 1 - int(random.exponential(30)), 0)) for i in range(1, n) for _ in range(int(random.integers(0, 3)))
    ]
    return np.unique(np.array(links), axis=0)


KINDS = {
    "recursive tree": Kind(recursive_tree, (200, 1000, 5000), True),
    "preferential tree": Kind(preferential_tree, (300, 3000), True),
    "binary tree": Kind(binary_tree, (511, 4095), True),
    "caterpillar": Kind(caterpillar, (300, 2000), True),
    "grid": Kind(grid, (400, 2500), True),
    "long grid": Kind(long_grid, (1600,), True),
    "delaunay": Kind(delaunay, (300, 2000)),
    "geometric": Kind(geometric, (500, 3000), True),
    "roads": Kind(roads, (500, 4000), True),
    "ring": Kind(ring, (500, 3000), True),
    "ring of degree 2": Kind(lambda random, n: ring(random, n, 1, 0.1), (1500,), True),
    "ring of degree 10": Kind(lambda random, n: ring(random, n, 5, 0.1), (1000,)),
    "random, degree 1": Kind(lambda random, n: gnm(random, n, 1), (3000,), True),
    "random, degree 2": Kind(lambda random, n: gnm(random, n, 2), (500, 3000), True),
    "random, degree 3": Kind(lambda random, n: gnm(random, n, 3), (500, 3000), True),
    "random, degree 8": Kind(lambda random, n: gnm(random, n, 8), (100, 1500)),
    "star of cliques": Kind(star_of_cliques, (150, 1500)),
    "ring of cliques": Kind(ring_of_cliques, (100, 1500)),
    "LFR, mixing .2": Kind(lambda random, n: lfr(random, n, 0.2), (1000,)),
    "LFR, mixing .5": Kind(lambda random, n: lfr(random, n, 0.5), (1000,)),
    "nested": Kind(nested, (720, 3600)),
    "attached, 2": Kind(lambda random, n: attached(random, n, 2), (120, 2000)),
    "attached, 5": Kind(lambda random, n: attached(random, n, 5), (1500,)),
    "internet": Kind(internet, (1500,)),
    "bipartite": Kind(bipartite, (400, 3000)),
    "citations": Kind(forest, (2000,), True),
    "weighted tree": Kind(weighted(recursive_tree), (1500,), True),
    "weighted grid": Kind(weighted(grid), (900,), True),
    "weighted random": Kind(weighted(lambda random, n: gnm(random, n, 6)), (600,)),
    "weighted nested": Kind(weighted(nested), (1080,)),
}
