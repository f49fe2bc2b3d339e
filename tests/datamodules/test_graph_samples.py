"""Sample graphs against networkx, known code lengths, and their own parameters."""

import networkx
import numpy as np
import pytest
import torch

import map_equation
from datamodules.batches import GraphBatch
from datamodules.graph_data import mixing
from datamodules.samples import graphs as samples
from datamodules.samples.graphs import CLASSICS
from readers.errors import DataError


def batch_of(make):
    return lambda *arguments, **options: GraphBatch.from_arrays(*make(*arguments, **options))


classic_graph = batch_of(samples.classic_graph)
lfr_graph = batch_of(samples.lfr_graph)
planted_partition = batch_of(samples.planted_partition)


def to_networkx(graph):
    result = networkx.Graph()
    result.add_nodes_from(range(graph.num_nodes))
    result.add_weighted_edges_from(
        [(a, b, w) for (a, b), w in zip(graph.edges.tolist(), graph.weights.tolist(), strict=True)]
    )
    return result


def shortest(graph, two_level):
    partition = map_equation.infomap(
        graph.edges.numpy(), graph.weights.numpy(), num_nodes=graph.num_nodes, num_trials=10, two_level=two_level
    )
    return partition.codelength


def test_rings_and_caves_are_those_of_networkx():
    for name, other in (
        ("ring_of_cliques", networkx.ring_of_cliques(16, 4)),
        ("caveman", networkx.connected_caveman_graph(10, 5)),
    ):
        assert networkx.is_isomorphic(to_networkx(classic_graph(name)), other)


@pytest.mark.parametrize(
    ("name", "two_level", "codelength"),
    [  # computed with infomap 2.16.0
        ("two_triangles", True, 2.320730357),
        ("nine_triangles", True, 3.517754809),
        ("nine_triangles", False, 3.371875026),
        ("ring_of_cliques", True, 3.177873214),
        ("ring_of_cliques", False, 3.090719919),
        ("caveman", True, 3.119341191),
        ("karate", True, 4.087423159),
        ("les_miserables", True, 4.204714637),
        ("florentine_families", True, 3.446961727),
    ],
)
def test_classics_have_the_published_codelength(name, two_level, codelength):
    assert shortest(classic_graph(name), two_level) == pytest.approx(codelength, abs=1e-9)


@pytest.mark.parametrize("name", CLASSICS)
def test_labels_of_classics_are_connected_groups(name):
    graph = classic_graph(name)
    if graph.labels.max() < 0:
        assert name in ("les_miserables", "florentine_families")
        return
    whole = to_networkx(graph)
    for label in range(int(graph.labels.max()) + 1):
        assert networkx.is_connected(whole.subgraph((graph.labels == label).nonzero().ravel().tolist()))
    assert mixing(graph) < 0.3
    assert graph.names.dtype.kind == "U"


def test_mixing_is_counted_by_hand():
    graph = classic_graph("two_triangles")
    assert mixing(graph) == 1 / 7
    edges = torch.cat([graph.edges, torch.tensor([[0, 0], [5, 0]])])
    heavy = graph._replace(edges=edges, weights=torch.arange(9.0).double(), labels=torch.tensor([0, 0, 0, 1, 1, -1]))
    # Links: 01 02 12 34 35 45 23 00 50 with weights 0 to 8; the label of node 5 is unknown, 00 is a self-loop.
    assert mixing(heavy) == 6 / (0 + 1 + 2 + 3 + 6)


def planted(**changes):
    return planted_partition(
        **{
            "num_nodes": 400,
            "num_communities": 8,
            "mean_degree": 14,
            "mixing": 0.3,
            "num_features": 32,
            "directed": False,
            "seed": 0,
            **changes,
        }
    )


@pytest.mark.parametrize("directed", [False, True])
def test_planted_partition_keeps_to_its_parameters(directed):
    graph = planted(num_nodes=3000, mixing=0.4, directed=directed)
    assert graph.directed == directed
    assert graph.edges.shape == (21000, 2)
    source, target = graph.edges.T.numpy()
    assert (source != target).all()
    ends = graph.edges.numpy() if directed else np.sort(graph.edges.numpy(), 1)
    assert len(np.unique(ends, axis=0)) == 21000
    assert mixing(graph) == pytest.approx(0.4, abs=0.03)
    sizes = np.bincount(graph.labels)
    assert len(sizes) == 8
    assert 1.2 < sizes.max() / sizes.min() < 3.2
    degrees = np.bincount(graph.edges.numpy().ravel(), minlength=3000)
    assert degrees.max() > 4 * degrees.mean()
    if directed:
        assert (source > target).mean() == pytest.approx(0.5, abs=0.02)
    # A quarter of the features is typical of each community.
    shares = torch.stack([graph.features[graph.labels == label].mean(0) for label in range(8)])
    assert ((shares > 0.225).sum(1) == 8).all()
    assert shares[shares > 0.225].mean() == pytest.approx(0.35, abs=0.02)
    assert shares[shares < 0.225].mean() == pytest.approx(0.1, abs=0.01)
    assert len({tuple(row) for row in (shares > 0.225).tolist()}) == 8


def test_planted_partition_is_a_function_of_its_seed():
    one, same, other = planted(), planted(), planted(seed=1)
    assert all(torch.equal(a, b) for a, b in zip(one[:2], same[:2], strict=True))
    assert torch.equal(one.features, same.features)
    assert not torch.equal(one.edges, other.edges)
    assert not torch.equal(one.labels, other.labels)


def test_planted_partition_is_found_from_links_but_not_from_features_alone():
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_mutual_info_score

    graph = planted()
    partition = map_equation.infomap(graph.edges.numpy(), num_nodes=400)
    assert 0.9 < adjusted_mutual_info_score(graph.labels, partition.top_modules) < 1
    means = KMeans(8, n_init=3, random_state=0).fit_predict(graph.features.numpy())
    assert adjusted_mutual_info_score(graph.labels, means) < 0.5


@pytest.mark.parametrize(
    ("changes", "links"), [({"num_communities": 1, "mean_degree": 2}, 400), ({"num_features": 0}, 2800)]
)
def test_planted_partition_at_the_edges(changes, links):
    graph = planted(**changes)
    assert len(graph.edges) == links
    assert graph.features.shape == (400, changes.get("num_features", 32))


def test_too_many_links_are_refused():
    assert len(planted(num_nodes=8, num_communities=2, mean_degree=6, mixing=0.5).edges) == 24
    with pytest.raises(ValueError, match="8 nodes are too few for 40 distinct links"):
        planted(num_nodes=8, num_communities=2, mean_degree=10)


def test_too_many_communities_are_refused():
    assert np.bincount(planted(num_nodes=8, num_communities=8, mean_degree=2, mixing=1).labels).tolist() == [1] * 8
    for communities in (9, 100):
        with pytest.raises(ValueError, match=f"8 nodes are too few for {communities} communities: lower sample_num"):
            planted(num_nodes=8, num_communities=communities, mean_degree=2, mixing=1)


def test_lfr_graph():
    graph = lfr_graph(1000, 14, 0.3, 0)
    assert graph.num_nodes == 1000
    again = lfr_graph(1000, 14, 0.3, 0)
    assert torch.equal(graph.edges, again.edges)
    assert torch.equal(graph.labels, again.labels)
    assert not torch.equal(graph.edges, lfr_graph(1000, 14, 0.3, 1).edges)
    assert 0.3 < mixing(graph) < 0.5
    assert np.bincount(graph.labels).min() >= 20
    assert (graph.edges[:, 0] != graph.edges[:, 1]).all()
    with pytest.raises(DataError, match="networkx finds no LFR graph of 10 nodes"):
        lfr_graph(10, 9, 0.1, 0)
