"""Node positions that show a graph's modules: nested discs, each module inside the disc of its parent."""

import numpy as np
from numpy.typing import NDArray

SPACING = 1.0  # distance between neighbouring nodes of a module
LARGEST_SPRING = 400  # nodes for which a spring layout takes about a second


def module_layout(
    edges: NDArray[np.int64], table: NDArray[np.int64], seed: int = 0
) -> tuple[NDArray[np.float64], float]:
    """Positions of n nodes, module by module: the submodules of a module are discs that do not overlap.

    Args:
        edges: (E, 2) int64, nodes from 0.
        table: (n, depth) int64, module numbers among siblings from the top, -1 below the bottom module.
        seed: of the spring layouts.

    Returns:
        (n, 2) positions around (0, 0), and the radius of the disc that contains them.
    """
    return _arrange(np.arange(len(table)), edges, table, 0, seed)


def _arrange(
    nodes: NDArray[np.int64], edges: NDArray[np.int64], table: NDArray[np.int64], level: int, seed: int
) -> tuple[NDArray[np.float64], float]:
    """Positions of ``nodes``, which share a module down to ``level``; ``edges`` number them from 0."""
    groups = _groups(table[nodes, level]) if level < table.shape[1] else np.arange(len(nodes))
    count = int(groups.max()) + 1
    if count == len(nodes):
        return _arrange_nodes(count, edges, seed)
    local, radii = np.zeros((len(nodes), 2)), np.empty(count)
    place = np.empty(len(nodes), np.int64)
    for group in range(count):
        members = np.flatnonzero(groups == group)
        place[members] = np.arange(len(members))
        inside = (groups[edges] == group).all(1)
        local[members], radii[group] = _arrange(nodes[members], place[edges[inside]], table, level + 1, seed)
    between = groups[edges]
    centres = spring(count, between[between[:, 0] != between[:, 1]], seed) * np.sqrt((radii**2).sum())
    centres = close_up(centres, radii + SPACING / 2)
    centres -= (radii**2 @ centres) / (radii**2).sum()
    return local + centres[groups], float((np.hypot(*centres.T) + radii).max())


def _groups(label: NDArray[np.int64]) -> NDArray[np.int64]:
    """Group numbers from 0; each node without a module on this level is its own group."""
    alone = label < 0
    unique = np.where(alone, label.max() + 1 + np.arange(len(label)), label)
    return np.unique(unique, return_inverse=True)[1]


def _arrange_nodes(count: int, edges: NDArray[np.int64], seed: int) -> tuple[NDArray[np.float64], float]:
    radius = SPACING * np.sqrt(count) * 0.6
    if count == 1:
        return np.zeros((1, 2)), 0.6 * SPACING
    if count > LARGEST_SPRING:  # a sunflower's seeds: even and fast
        angle, distance = np.arange(count) * 2.39996, np.sqrt(np.arange(count) / count)
        return radius * np.stack([distance * np.cos(angle), distance * np.sin(angle)], 1), radius
    positions = push_apart(spring(count, edges, seed) * radius, np.full(count, SPACING * 0.35))
    return positions, float(np.hypot(*positions.T).max()) + 0.3 * SPACING


def spring(count: int, edges: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """networkx's spring layout (count, 2) around (0, 0), the farthest node at distance 1; parallel links add up."""
    import networkx

    graph = networkx.Graph()
    graph.add_nodes_from(range(count))
    pairs, weights = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
    graph.add_weighted_edges_from((a, b, w) for (a, b), w in zip(pairs.tolist(), np.sqrt(weights), strict=True))
    layout = networkx.spring_layout(graph, seed=seed, iterations=60)
    positions = np.array([layout[node] for node in range(count)])
    positions -= positions.mean(0)
    return positions / max(np.hypot(*positions.T).max(), 1e-12)


def close_up(centres: NDArray[np.float64], radii: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moves discs (count, 2) to where they hardly overlap, and a few of them towards their middle while it helps."""
    centres = push_apart(centres, radii)
    for _ in range(min(30, 10_000 // len(radii) ** 2)):  # of many discs each round takes long
        middle = (radii**2 @ centres) / (radii**2).sum()
        closer = push_apart(middle + 0.9 * (centres - middle), radii)
        if extent(closer, radii) > 0.995 * extent(centres, radii):
            break
        centres = closer
    return centres


def extent(centres: NDArray[np.float64], radii: NDArray[np.float64]) -> float:
    """The area of the box around discs."""
    return float(np.prod((centres + radii[:, None]).max(0) - (centres - radii[:, None]).min(0)))


def push_apart(centres: NDArray[np.float64], radii: NDArray[np.float64], rounds: int = 200) -> NDArray[np.float64]:
    """Moves discs (count, 2) until they hardly overlap, each pair by its overlap along the line of its centres."""
    centres = centres.copy()
    for _ in range(rounds):
        step = centres[:, None] - centres[None]
        distance = np.hypot(step[..., 0], step[..., 1])
        overlap = np.maximum(radii[:, None] + radii[None] - distance, 0)
        np.fill_diagonal(overlap, 0)
        if overlap.max(initial=0) < 1e-2 * radii.min():
            break
        # Equal centres: any direction will do, as long as the two differ.
        angle = np.arange(len(radii)) * 2.39996
        apart = np.stack([np.cos(angle), np.sin(angle)], 1)
        direction = np.where(distance[..., None] > 1e-9, step / np.maximum(distance, 1e-9)[..., None], apart[:, None])
        centres += 0.5 * (overlap[..., None] * direction).sum(1)
    return centres
