"""Scores of partitions against networkx and cases by hand."""

import networkx as nx
import numpy as np
import pytest

import map_equation
from metrics.partition import modularity, partition_scores


def arrays(graph: nx.Graph) -> tuple[np.ndarray, np.ndarray]:
    edges = np.array(list(graph.edges), np.int64)
    return edges, np.array([graph.edges[tuple(edge)].get("weight", 1.0) for edge in edges.tolist()])


@pytest.mark.parametrize("directed", [False, True])
def test_modularity_equals_that_of_networkx(directed: bool) -> None:
    random = np.random.default_rng(0)
    graph = nx.gnp_random_graph(40, 0.2, seed=1, directed=directed)
    for edge in graph.edges:
        graph.edges[edge]["weight"] = random.random()
    graph.add_edge(3, 3, weight=0.7)
    modules = random.integers(0, 5, 40)
    groups = [set(np.flatnonzero(modules == module).tolist()) for module in range(5)]
    edges, weights = arrays(graph)
    assert modularity(modules, edges, weights, directed) == pytest.approx(nx.community.modularity(graph, groups))


def test_scores_of_two_triangles() -> None:
    edges = np.array([(0, 1), (1, 2), (0, 2), (2, 3), (3, 4), (4, 5), (3, 5)])
    partition = map_equation.infomap(edges, two_level=True)
    scores = partition_scores(partition, edges, np.ones(7), False, np.array([7, 7, 7, 2, 2, 2]))
    assert scores["codelength"] == pytest.approx(2.320730357, abs=1e-9)
    assert scores["one_level_codelength"] == pytest.approx(2.556656707, abs=1e-9)
    assert (scores["num_modules"], scores["num_top_modules"], scores["num_levels"]) == (2, 2, 2)
    assert scores["ami"] == pytest.approx(1)
    assert scores["nmi"] == pytest.approx(1)
    assert "top_ami" not in scores


def test_nodes_without_a_label_are_ignored() -> None:
    edges = np.array([(0, 1), (1, 2), (0, 2), (2, 3), (3, 4), (4, 5), (3, 5)])
    partition = map_equation.infomap(edges, two_level=True)
    assert partition_scores(partition, edges, np.ones(7), False, np.array([0, 0, -1, -1, 1, 1]))["ami"] == 1
    assert "ami" not in partition_scores(partition, edges, np.ones(7), False, np.full(6, -1))


def test_both_ends_of_a_hierarchy_are_compared() -> None:
    graph = nx.ring_of_cliques(16, 4)
    edges, weights = arrays(graph)
    partition = map_equation.infomap(edges)
    assert partition.num_levels == 3
    scores = partition_scores(partition, edges, weights, False, np.arange(64) // 4)
    assert scores["ami"] == pytest.approx(1)
    assert scores["top_ami"] < 1
