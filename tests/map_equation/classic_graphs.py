"""Small graphs from the literature."""

from pathlib import Path

import networkx as nx
import numpy as np


def nine_triangles(bridge: float = 1.0) -> nx.Graph:
    """Three groups of three triangles; three bridges of the given weight connect the groups."""
    graph = nx.Graph()
    for group in range(3):
        first = 9 * group
        triangles = [
            (first, first + 1, first + 2),
            (first + 3, first + 4, first + 5),
            (first + 6, first + 7, first + 8),
        ]
        for a, b, c in triangles:
            graph.add_edges_from([(a, b), (a, c), (b, c)])
        graph.add_edges_from([(first + 1, first + 3), (first + 2, first + 6), (first + 5, first + 7)])
    graph.add_weighted_edges_from([(4, 9, bridge), (8, 18, bridge), (17, 22, bridge)])
    return nx.relabel_nodes(graph, {name: number for number, name in enumerate(sorted(graph))})


def read_net(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Links of a Pajek file or link list, with ids shifted to start at 0."""
    rows, section = [], ""
    for line in path.read_text().splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("*"):
            section = line.lower()
        elif line and not section.startswith("*vertices"):
            fields = line.split()
            rows.append([float(field) for field in (fields if len(fields) > 2 else [*fields, "1"])])
    table = np.array(rows)
    edges = table[:, :2].astype(int)
    return edges - edges.min(), table[:, 2]
