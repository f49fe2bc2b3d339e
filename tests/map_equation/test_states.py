"""Code lengths of states of physical nodes: against a reference, identities, and Infomap."""

import numpy as np
import pytest
from dense_map_equation import adjacency, dense_flow, hierarchical_codelength

from map_equation import Network, codelength, infomap
from map_equation.graph import FLOWS
from readers.graphs import read_state_network

NUM_STATES, NUM_NODES = 24, 9


def random_states(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Links, weights, physical nodes; with multi-edges, self-loops and dangling states."""
    random = np.random.default_rng(seed)
    edges = random.integers(0, NUM_STATES, (4 * NUM_STATES, 2))
    edges = edges[edges[:, 0] > 2]
    return edges, random.random(len(edges)) * 3, random.integers(0, NUM_NODES, NUM_STATES)


def random_paths(seed: int) -> dict[str, list[tuple[int, ...]]]:
    random = np.random.default_rng(seed)
    flat = [(int(label),) for label in random.integers(0, 4, NUM_STATES)]
    return {
        "flat": flat,
        "ragged": [(a, *path) if a % 2 else (a,) for (a,), path in zip(flat, flat[::-1], strict=True)],
        "beside": [(), *flat[1:-4], (0, 0), (0, 0), (0, 1), ()],
        "one": [()] * NUM_STATES,
    }


@pytest.mark.parametrize("model", FLOWS)
@pytest.mark.parametrize("seed", [0, 1])
def test_random_states_against_the_dense_reference(model, seed):
    edges, weights, physical = random_states(seed)
    matrix = adjacency(edges, weights, NUM_STATES, model in ("undirected", "uniform_recorded"))
    p, flow = dense_flow(matrix, model)
    for paths in random_paths(seed).values():
        ours = codelength(edges, paths, weights=weights, num_nodes=NUM_STATES, flow=model, physical=physical)
        assert ours == pytest.approx(hierarchical_codelength(p, flow, paths, physical.tolist()), abs=1e-11)


def test_one_level_is_the_entropy_of_the_physical_nodes():
    edges, weights, physical = random_states(2)
    network = Network(edges, weights, num_nodes=NUM_STATES, physical=physical)
    rates = np.bincount(physical, network.flow)
    entropy = -sum(rate * np.log2(rate) for rate in rates if rate > 0)
    assert network.one_level_codelength == pytest.approx(entropy, abs=1e-12)
    found = network.partition([0] * NUM_STATES)
    assert found.codelength == pytest.approx(entropy, abs=1e-12)
    assert found.one_level_codelength == network.one_level_codelength
    assert found.index_codelength == 0


def test_states_of_different_nodes_are_nodes():
    edges, weights, _ = random_states(3)
    options = {"weights": weights, "num_nodes": NUM_STATES, "flow": "directed"}
    for paths in random_paths(3).values():
        plain = codelength(edges, paths, **options)
        assert codelength(edges, paths, physical=np.arange(NUM_STATES), **options) == pytest.approx(plain, abs=1e-12)
        names = [f"node {number}" for number in range(NUM_STATES)]
        assert codelength(edges, paths, physical=names, **options) == pytest.approx(plain, abs=1e-12)


@pytest.mark.parametrize("model", ["undirected", "directed", "directed_recorded", "directed_to_nodes"])
def test_infomap_scores_the_same(tmp_path, model):
    peer = pytest.importorskip("infomap")
    edges, weights, physical = random_states(4)
    lines = ["*States", *(f"{state} {node}" for state, node in enumerate(physical)), "*Links"]
    lines += [f"{a} {b} {weight:.17g}" for (a, b), weight in zip(edges, weights, strict=True)]
    (tmp_path / "states.net").write_text("\n".join(lines))
    options = {"directed": model != "undirected", "recorded_teleportation": "recorded" in model}
    network = Network(edges, weights, num_nodes=NUM_STATES, flow=model, physical=physical)
    random = np.random.default_rng(4)
    for labels in random.integers(0, 5, (4, NUM_STATES)):
        result = peer.run(
            tmp_path / "states.net",
            no_infomap=True,
            two_level=True,
            initial_partition=dict(enumerate(labels.tolist())),
            to_nodes="to_nodes" in model,
            **options,
        )
        assert network.codelength(labels) == pytest.approx(result.codelength, abs=1e-9)
        assert network.one_level_codelength == pytest.approx(result.one_level_codelength, abs=1e-9)


@pytest.mark.parametrize("two_level", [True, False])
@pytest.mark.parametrize("model", ["undirected", "directed", "directed_recorded"])
def test_search_of_states(model, two_level):
    edges, weights, physical = random_states(5)
    network = Network(edges, weights, num_nodes=NUM_STATES, flow=model, physical=physical)
    found = network.search(seed=3, two_level=two_level)
    assert found.codelength == pytest.approx(network.codelength(found.paths), abs=1e-12)
    assert found.codelength <= network.one_level_codelength + 1e-12
    flat = network.search(seed=3, two_level=True)
    assert found.codelength <= flat.codelength + 1e-12
    # Moving any single state doesn't help a flat result.
    for state in range(NUM_STATES) if two_level else ():
        for module in range(found.num_modules):
            moved = found.modules.copy()
            moved[state] = module
            assert network.codelength(moved) >= found.codelength - 1e-10


def test_states_of_different_nodes_are_found_as_nodes_are():
    edges, weights, _ = random_states(6)
    plain = Network(edges, weights, num_nodes=NUM_STATES, flow="directed")
    states = Network(edges, weights, num_nodes=NUM_STATES, flow="directed", physical=np.arange(NUM_STATES))
    for two_level in (True, False):
        assert states.search(two_level=two_level).codelength == pytest.approx(
            plain.search(two_level=two_level).codelength, abs=1e-9
        )


def overlapping(tmp_path):
    """Two triangles that share the node "i", with a state in each."""
    lines = ["*Vertices 5", *(f'{node} "{name}"' for node, name in enumerate("ijklm", 1)), "*States"]
    lines += ["1 1", "2 2", "3 3", "4 1", "5 4", "6 5", "*Links"]
    lines += [f"{a} {b} 0.8" for a, b in ((1, 2), (2, 3), (3, 1), (4, 5), (5, 6), (6, 4))]
    lines += [f"{b} {a} 0.8" for a, b in ((1, 2), (2, 3), (3, 1), (4, 5), (5, 6), (6, 4))]
    lines += ["1 5 0.2", "4 2 0.2"]
    path = tmp_path / "overlapping.net"
    path.write_text("\n".join(lines))
    return path


def test_files_of_states_are_searched_and_overlap(tmp_path):
    path = overlapping(tmp_path)
    found = infomap(path)
    assert found == infomap(read_state_network(path))
    assert sorted(map(sorted, found.communities)) == [["i", "j", "k"], ["i", "l", "m"]]
    assert set(found.memberships()["i"]) == {0, 1}
    assert list(found.to_dataframe().columns) == ["node", "state", "module", "path", "flow"]
    found.write(tmp_path / "found.tree")
    lines = (tmp_path / "found.tree").read_text().splitlines()
    assert "# path flow name state_id node_id" in lines
    rows = {line.split()[3]: line.split()[2:] for line in lines if not line.startswith("#")}
    assert rows["1"] == ['"i"', "1", "1"]
    assert rows["4"] == ['"i"', "4", "1"]
    assert Network(path).codelength(tmp_path / "found.tree") == pytest.approx(found.codelength, abs=1e-9)


def test_search_of_states_is_as_short_as_that_of_infomap(tmp_path):
    peer = pytest.importorskip("infomap")
    path = overlapping(tmp_path)
    theirs = peer.run(path, silent=True, num_trials=5).codelength
    assert infomap(path, flow="undirected").codelength <= theirs + 1e-9


LAYERS = "*Intra\n1 1 2\n1 2 3\n1 3 1\n1 2 4\n2 1 4\n2 4 5\n2 5 1\n2 4 2\n"
INTER = LAYERS + "*Inter\n1 1 2\n2 1 1\n1 2 2 2\n"
STATES = "*States\n1 1\n2 2\n3 3\n4 1\n5 4\n*Links\n1 2 2\n2 3\n3 1\n4 5\n5 4 3\n1 5\n4 2\n"
LINKS = "*Vertices 4\n1 a\n2 b\n3 c\n4 d\n*Links\n1 2\n2 3\n3 1\n3 4 2\n"


@pytest.mark.parametrize("text", [LAYERS, INTER, STATES, LINKS, LINKS.replace("Links", "Edges")])
def test_a_flow_says_whether_the_links_of_a_file_are_directed(tmp_path, text):
    peer = pytest.importorskip("infomap")
    (tmp_path / "g.net").write_text(text)
    for flow in ("undirected", "directed", "directed_recorded"):
        network = Network(tmp_path / "g.net", flow=flow)
        options = {"flow_model": flow.removesuffix("_recorded"), "recorded_teleportation": "recorded" in flow}
        theirs = peer.run(tmp_path / "g.net", silent=True, num_trials=5, **options)
        assert network.one_level_codelength == pytest.approx(theirs.one_level_codelength, abs=1e-9)
        assert infomap(tmp_path / "g.net", flow=flow, num_trials=5).codelength <= theirs.codelength + 1e-9
    assert infomap(tmp_path / "g.net").flow_model == "undirected"
    assert infomap(tmp_path / "g.net") == infomap(tmp_path / "g.net", flow="undirected")


def test_layers_are_walked_as_they_were_read(tmp_path):
    (tmp_path / "g.net").write_text(INTER)
    links = read_state_network(tmp_path / "g.net", directed=True)
    assert infomap(links) == infomap(tmp_path / "g.net", flow="directed")
    with pytest.raises(ValueError, match="read as directed: read them with directed false for flow undirected"):
        infomap(links, flow="undirected")


def test_one_physical_node_for_each_state():
    edges, weights, _ = random_states(0)
    for wrong, message in (
        (np.arange(9), "each of the 24 states, not 9 labels"),
        (np.zeros((24, 2)), "can be the key of a dict"),
        (dict.fromkeys(range(24)), "a list of labels or an array, not dict"),
    ):
        with pytest.raises(ValueError, match=message):
            Network(edges, weights, num_nodes=NUM_STATES, physical=wrong)


def test_physical_nodes_of_any_kind():
    edges, weights, physical = random_states(0)
    expected = infomap(edges, weights, num_nodes=NUM_STATES, physical=physical)
    assert infomap(edges, weights, num_nodes=NUM_STATES).codelength != expected.codelength
    kinds = [("a", 1), "a", None, 1, (), 2.5, "b", 7, "7"]
    found = infomap(edges, weights, num_nodes=NUM_STATES, physical=[kinds[node % 9] for node in physical])
    assert found.codelength == pytest.approx(expected.codelength, abs=1e-12)
    assert found.memberships().keys() == {kinds[node % 9] for node in physical.tolist()}
