"""One network searched and scored repeatedly: initial partitions, trials, threads, passes, the flow as a matrix."""

from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest
from dense_map_equation import adjacency, dense_flow, hierarchical_codelength

from map_equation import Network, codelength, infomap
from map_equation.graph import FLOWS


def random_graph(seed: int, n: int = 40):
    """Two halves with more links inside than between; multi-edges, self-loops and dangling nodes."""
    random = np.random.default_rng(seed)
    edges = random.integers(0, n, (4 * n, 2))
    same = (edges[:, 0] < n // 2) == (edges[:, 1] < n // 2)
    edges = edges[(same | (random.random(len(edges)) < 0.3)) & (edges[:, 0] > 2)]
    return edges, random.random(len(edges)) + 0.5


@pytest.mark.parametrize("model", FLOWS)
def test_the_flow_as_a_matrix_against_the_dense_reference(model):
    edges, weights = random_graph(0)
    network = Network(edges, weights, num_nodes=40, flow=model)
    p, flow = dense_flow(adjacency(edges, weights, 40, model in ("undirected", "uniform_recorded")), model)
    whole = network.link_flow().toarray()
    rates = network.teleportation_rates()
    assert (rates is None) == ("recorded" not in model)
    if rates is not None:
        whole += np.outer(*rates)
    np.testing.assert_allclose(whole, flow, atol=1e-14)
    np.testing.assert_allclose(network.flow, p, atol=1e-14)
    assert whole.sum() == pytest.approx(1, abs=1e-13)
    found = network.search()
    assert found.codelength == pytest.approx(hierarchical_codelength(p, whole, found.paths), abs=1e-11)


@pytest.mark.parametrize("teleportation", [0.01, 0.5, 1.0])
def test_the_flow_of_another_teleportation_where_walks_mix_slowly(teleportation):
    edges = np.random.default_rng(0).integers(0, 300, (330, 2))
    network = Network(edges, num_nodes=300, flow="directed_recorded", teleportation=teleportation)
    p, flow = dense_flow(adjacency(edges, np.ones(330), 300, False), "directed_recorded", teleportation)
    np.testing.assert_allclose(network.flow, p, atol=1e-8)
    np.testing.assert_allclose(
        network.link_flow().toarray() + np.outer(*network.teleportation_rates()), flow, atol=1e-8
    )


def test_markov_time_multiplies_the_links():
    edges, weights = random_graph(1)
    for model in ("undirected", "directed"):
        once, twice = (Network(edges, weights, flow=model, markov_time=time) for time in (1, 2))
        np.testing.assert_allclose(twice.link_flow().toarray(), 2 * once.link_flow().toarray(), atol=1e-15)
        np.testing.assert_allclose(twice.flow, once.flow, atol=1e-14)


@pytest.mark.parametrize("model", FLOWS)
@pytest.mark.parametrize("two_level", [True, False])
def test_passes_decrease_to_the_code_length(model, two_level):
    network = Network(*random_graph(2), flow=model)
    for seed in range(3):
        found = network.search(seed=seed, two_level=two_level)
        assert found.passes == sorted(found.passes, reverse=True)
        assert found.passes[-1] == found.codelength <= network.one_level_codelength + 1e-12
        for form in (found.paths, found.table):
            assert network.codelength(form) == pytest.approx(found.codelength, abs=1e-12)


def test_a_search_from_a_partition_is_not_longer():
    edges, weights = random_graph(3)
    random = np.random.default_rng(0)
    for model in ("undirected", "directed", "directed_recorded"):
        network = Network(edges, weights, num_nodes=40, flow=model)
        best = min((network.search(trial=trial) for trial in range(3)), key=lambda found: found.codelength)
        labels = random.integers(0, 6, 40)
        paths = [() if a == 0 else (a % 2, a) for a in labels.tolist()]
        for initial in (best.paths, best.table, labels, paths):
            given = network.codelength(initial)
            assert network.search(initial=initial).codelength <= given + 1e-12
        flat = network.search(initial=best.modules, two_level=True)
        assert flat.codelength <= network.codelength(best.modules) + 1e-12
        assert flat.num_levels == 2


def test_a_search_from_the_optimum_stays_there():
    graph = nx.ring_of_cliques(16, 4)
    best = infomap(graph, num_trials=5, two_level=True)
    again = infomap(graph, two_level=True, initial=best.modules)
    assert (again.modules == best.modules).all()
    assert again.passes[0] == pytest.approx(best.codelength, abs=1e-12)


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        ([0, 1], "each of the 6 nodes, not 2"),
        (np.full((6, 2), 0.5), "must be integers"),
        (np.array([[0, 0], [0, 1], [-1, 0], [1, 0], [1, 0], [1, 0]]), "not as for node 2"),
    ],
)
def test_bad_partitions(initial, message):
    with pytest.raises(ValueError, match=message):
        infomap([[0, 1], [0, 2], [1, 2], [2, 3], [3, 4], [3, 5], [4, 5]], initial=initial)


def test_partitions_in_three_formats():
    network = Network(nx.karate_club_graph())
    labels = np.arange(34) % 4
    paths = [(int(a) % 2, int(a)) if a else () for a in labels]
    table = np.stack([np.where(labels > 0, labels % 2, -1), np.where(labels > 0, labels, -1)], 1)
    given = network.partition(paths)
    assert given.codelength == network.codelength(table) == network.partition(table).codelength
    assert given.paths[0] == ()
    assert given.passes == [given.codelength]
    assert network.codelength(given.table) == pytest.approx(given.codelength, abs=1e-13)
    assert network.partition([()] * 34).codelength == pytest.approx(network.one_level_codelength, abs=1e-13)
    assert network.partition(labels).num_modules == 4
    # Labels 1 and 3 are in one top module, 2 in another; each of the nine nodes of label 0 is alone.
    assert given.num_modules == 3 + 9 == len(set(given.modules))
    assert sorted(set(given.top_modules)) == list(range(2 + 9))
    alone = np.flatnonzero(labels == 0)
    assert alone[np.argsort(given.top_modules[alone])].tolist() == sorted(alone, key=lambda a: (-given.flow[a], a))


def test_threads_change_nothing():
    edges, weights = random_graph(4, n=200)
    alone = infomap(edges, weights, num_trials=6, flow="directed")
    together = infomap(edges, weights, num_trials=6, flow="directed", num_threads=3)
    assert alone.codelength == together.codelength
    assert (alone.table == together.table).all()
    assert alone.passes == together.passes
    with pytest.raises(ValueError, match="num_threads must be at least 1"):
        infomap(edges, num_threads=0)


def test_the_best_trial_is_the_first_of_the_shortest():
    network = Network(*random_graph(5, n=200))
    trials = [network.search(trial=trial) for trial in range(4)]
    best = min(range(4), key=lambda trial: (trials[trial].codelength, trial))
    found = infomap(*random_graph(5, n=200), num_trials=4)
    assert (found.table == trials[best].table).all()


def test_progress_is_a_line_per_trial_on_stderr(capsys):
    infomap(nx.karate_club_graph(), num_trials=2)
    assert capsys.readouterr() == ("", "")
    infomap(nx.karate_club_graph(), num_trials=2, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(":")[0] for line in err.splitlines()] == ["trial 1/2", "trial 2/2"]


def test_an_igraph_graph():
    igraph = pytest.importorskip("igraph")
    graph = igraph.Graph([(0, 1), (0, 2), (1, 2), (2, 3), (3, 4), (3, 5), (4, 5)])
    assert codelength(graph, [0, 0, 0, 1, 1, 1]) == pytest.approx(2.320730356834, abs=1e-9)


def test_what_igraph_offers_is_read():
    """A stand-in with the attributes of ``igraph.Graph`` that are read, as igraph may not be installed."""
    links = [(0, 1), (0, 2), (1, 2), (2, 3), (3, 4), (3, 5), (4, 5)]
    weights = [1.0, None, 3, 4, 5, 6, 7]  # None where a link lacks the attribute: 1

    class Sequence(dict):
        def attributes(self):
            return list(self)

    stand_in = type("Graph", (SimpleNamespace,), {"__module__": "igraph"})
    for directed, flow in ((False, "undirected"), (True, "directed")):
        graph = stand_in(
            get_edgelist=lambda: links,
            es=Sequence(weight=weights),
            vs=Sequence(name=list("ABCDEF")),
            vcount=lambda: 6,
            is_directed=lambda directed=directed: directed,
        )
        network = Network(graph, flow=flow)
        assert network.names == list("ABCDEF")
        halves = [0, 0, 0, 1, 1, 1]
        assert network.codelength(halves) == codelength(links, halves, weights=[1, 1, 3, 4, 5, 6, 7], flow=flow)


def test_relabelled_nodes_are_searched_as_well():
    edges, weights = random_graph(6, n=300)
    order = np.random.default_rng(1).permutation(300)
    lengths = [
        np.mean([network.search(seed=seed).codelength for seed in range(10)])
        for network in (Network(links, weights, num_nodes=300) for links in (edges, order[edges]))
    ]
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-3)


def test_only_self_loops():
    found = infomap([[0, 0], [1, 1]])
    assert found.codelength == pytest.approx(0, abs=1e-12)
    assert found.num_modules == 2


@pytest.mark.parametrize("model", ["undirected", "directed", "directed_recorded"])
def test_a_small_graph_is_searched_alike_however_its_nodes_are_numbered(model):
    edges, weights = random_graph(7)
    order = np.random.default_rng(2).permutation(40)
    for two_level in (True, False):
        first, second = (
            Network(links, weights, num_nodes=40, flow=model).search(two_level=two_level)
            for links in (edges, order[edges])
        )
        assert second.codelength == pytest.approx(first.codelength, abs=1e-12)
        assert len(set(zip(first.modules, second.modules[order], strict=True))) == first.num_modules


@pytest.mark.parametrize("flow", ["undirected", "directed"])
@pytest.mark.parametrize("mixed", [False, True])
def test_a_large_graph_object_is_searched_alike_in_any_order_of_its_nodes(tmp_path, flow, mixed):
    edges, weights = random_graph(8, n=600)
    names = [(node, "x") if mixed and node % 3 else node if mixed else f"n{node}" for node in range(600)]
    found = []
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(len(edges))
        graph = nx.MultiDiGraph() if flow == "directed" else nx.MultiGraph()
        graph.add_weighted_edges_from((names[a], names[b], w) for (a, b), w in zip(edges[order], weights[order]))  # noqa: B905
        found.append([infomap(graph, num_trials=2)])
        assert found[-1][0].names == list(graph)
        if not mixed:
            nx.write_graphml(graph, tmp_path / "g.graphml")
            found[-1].append(infomap(tmp_path / "g.graphml", num_trials=2))
    for first, second in zip(*found, strict=True):
        assert first == second
        assert first.codelengths == second.codelengths
        assert first.to_dict().keys() == second.to_dict().keys()
        assert [second.flow[second.names.index(name)] for name in first.names] == first.flow.tolist()
