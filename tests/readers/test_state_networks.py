"""Files of states and layers: what is read, how layers become links, their code lengths, what is rejected."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

import map_equation
from readers.errors import DataError
from readers.graphs.state_networks import StateNetwork, read_state_network
from tests.conftest import SHARED

EXAMPLES = SHARED / "graphs" / "infomap_examples"
needs_examples = pytest.mark.skipif(not EXAMPLES.exists(), reason="needs ../shared/data/graphs")

INTRA = "*Intra\n1 1 2 1\n1 2 3 2\n1 3 1 4\n1 3 3 2\n2 1 4 3\n2 4 1\n2 4 2 0.5\n2 9 4 0\n3 5 1 1\n3 5 1 1\n"
INTER = "*Inter\n1 1 2 2\n2 4 1 3\n2 1 3 5\n3 5 2\n1 2 2 7\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "network.net"
    path.write_text(text)
    return path


def network_of(links: StateNetwork) -> map_equation.Network:
    return map_equation.Network(
        links.edges,
        links.weights,
        num_nodes=len(links.physical),
        physical=links.physical,
        flow="directed" if links.directed else "undirected",
    )


def matrix_of(links: StateNetwork) -> dict[tuple, float]:
    """Weights between states, by their ids in the file."""
    states = [tuple(np.atleast_1d(state).tolist()) for state in links.states]
    matrix: dict[tuple, float] = defaultdict(float)
    for (a, b), weight in zip(links.edges.tolist(), links.weights.tolist(), strict=True):
        matrix[states[a], states[b]] += weight
    return {pair: weight for pair, weight in matrix.items() if weight}


# Two triangles that share the physical node i; infomap 2.16.
@needs_examples
@pytest.mark.parametrize(
    ("name", "directed", "expected", "one_level"),
    [
        ("states", None, 2.011405238, 2.251629167),
        ("states", True, 2.011405238, 2.251629167),
        ("multilayer", None, 2.011405238, 2.251629167),
        ("multilayer_intra", None, 1.779525211, 2.251629167),
        ("multilayer_intra_inter", None, 1.973448787, 2.265166543),
        ("multilayer_intra_inter", True, 2.011405238, 2.251629167),
    ],
)
def test_known_values(name, directed, expected, one_level):
    links = read_state_network(EXAMPLES / f"{name}.net", directed=directed)
    assert links.names.tolist() == list("ijklm")
    network = network_of(links)
    assert network.codelength([0, 0, 0, 1, 1, 1]) == pytest.approx(expected, abs=1e-9)
    assert network.one_level_codelength == pytest.approx(one_level, abs=1e-9)


def test_states_are_read(tmp_path):
    text = '# x\n*Vertices 3\n2 "b c"\n*States\n20 1 "a state"\n10 2\n30 1\n*Arcs\n10 20 0.5\n20 10\n20 30 0\n'
    links = read_state_network(write(tmp_path, text))
    assert links.states.tolist() == [10, 20, 30]
    assert links.names.tolist() == ["1", "b c", "3"]
    assert links.physical.tolist() == [1, 0, 0]
    assert links.edges.tolist() == [[0, 1], [1, 0]]
    assert links.weights.tolist() == [0.5, 1]
    assert links.directed
    assert not read_state_network(write(tmp_path, text), directed=False).directed
    links = read_state_network(write(tmp_path, text.replace("*Vertices 3\n2", "# ").replace("Arcs", "Links")))
    assert links.names.tolist() == ["1", "2"]
    assert not links.directed


def layers_by_a_loop(directed: bool, rate: float | None) -> dict[tuple, float]:
    """Links between (layer, node) from the formulas: relaxed, or switched if there is no rate."""
    layers: dict[int, dict] = defaultdict(lambda: defaultdict(lambda: defaultdict(float)))
    present = set()
    for line in INTRA.splitlines()[1:]:
        layer, source, target, *weight = line.split()
        weight = float(weight[0]) if weight else 1.0
        if not weight:
            continue
        layer, source, target = int(layer), int(source), int(target)
        layers[layer][source][target] += weight
        if not directed and source != target:
            layers[layer][target][source] += weight
        present |= {(layer, source), (layer, target)}
    links: dict[tuple, float] = defaultdict(float)
    if rate is None:
        for layer, of_node in layers.items():
            for source, of_target in of_node.items():
                for target, weight in of_target.items():
                    links[(layer, source), (layer, target)] += weight
        for line in INTER.splitlines()[1:]:
            one, node, other, *weight = line.split()
            one, node, other, weight = int(one), int(node), int(other), float(weight[0]) if weight else 1.0
            for a, b in [(one, other)] if directed else [(one, other), (other, one)]:
                out = dict(layers[b].get(node, {}))
                for target, w in out.items():
                    links[(a, node), (b, target)] += weight * w / sum(out.values())
        return links
    for layer, node in present:
        everywhere = sum(sum(layers[other].get(node, {}).values()) for other in list(layers))
        for other in list(layers):
            out = layers[other].get(node, {})
            for target, w in out.items():
                stay = (1 - rate) * w / sum(out.values()) if other == layer else 0
                if stay + rate:
                    links[(layer, node), (other, target)] += stay + rate * w / everywhere
    return {pair: weight for pair, weight in links.items() if weight}


@pytest.mark.parametrize("directed", [True, False])
@pytest.mark.parametrize("rate", [0.15, 0.5, 0.0, 1.0, None])
def test_layers_against_a_loop(tmp_path, directed, rate):
    path = write(tmp_path, INTRA + INTER if rate is None else INTRA)
    options = {} if rate is None else {"relax_rate": rate}
    links = read_state_network(path, directed=directed, **options)
    assert links.directed
    assert links.states.tolist() == sorted(links.states.tolist())
    assert links.names[links.physical].tolist() == [str(node) for _, node in links.states.tolist()]
    expected = layers_by_a_loop(directed, rate)
    found = matrix_of(links)
    assert found.keys() == expected.keys()
    assert all(found[pair] == pytest.approx(weight, abs=1e-12) for pair, weight in expected.items())
    if rate == 0.15 and not directed:  # every state has links in its layer
        sums = np.bincount(links.edges[:, 0], links.weights)
        np.testing.assert_allclose(sums, 1, atol=1e-12)


MULTILAYER = "*Multilayer\n1 1 1 2 1\n1 2 2 1 0.5\n2 1 2 3 3\n2 3 1 1\n1 1 2 1 2\n"


@pytest.mark.parametrize("text", [INTRA, INTRA + INTER, MULTILAYER], ids=["intra", "inter", "multilayer"])
@pytest.mark.parametrize("directed", [True, False])
def test_infomap_scores_the_same(tmp_path, text, directed):
    peer = pytest.importorskip("infomap")
    path = write(tmp_path, text)
    network = network_of(links := read_state_network(path, directed=directed))
    found = peer.run(path, no_infomap=True, directed=directed)
    ids = {(node.layer_id, node.node_id): node.state_id for node in found.nodes(states=True)}
    assert set(ids) == set(map(tuple, links.states.tolist()))
    for labels in np.random.default_rng(0).integers(0, 3, (4, len(links.states))):
        given = {ids[tuple(state)]: int(label) for state, label in zip(links.states.tolist(), labels, strict=True)}
        theirs = peer.run(path, no_infomap=True, two_level=True, directed=directed, initial_partition=given)
        assert network.codelength(labels) == pytest.approx(theirs.codelength, abs=1e-9)
        assert network.one_level_codelength == pytest.approx(theirs.one_level_codelength, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2\n", r"is not a network of states or layers: it must begin with one of \*Vertices"),
        ("*Vertices 2\n*Edges\n1 2\n", r"\*vertices and \*edges do not make a network of states or layers"),
        ("*States\n1 1\n2 2\n", r"\*states do not make a network"),
        ("*States\n1 1\n2 2\n*Links\n1 2\n*Intra\n1 1 2\n", "one kind per file"),
        ("*Inter\n1 1 2\n", r"\*inter do not make a network"),
        ("*States\n1 1\n*Contexts\n", r"line 3: the section \*contexts is not supported"),
        ("*Intra\n1 1 2\n*Intra\n1 1 2\n", r"line 3: a second \*intra"),
        ("*States\n1\n*Links\n1 1\n", "line 2: expected the ids of a state and its node"),
        ("*States\n1 1\n1 2\n*Links\n1 1\n", "line 3: the state 1 is listed twice"),
        ("*States\n1 1\n2 2\n*Links\n1 3\n", r"line 4: the state 3 is not among the 2 of \*States"),
        ("*Vertices 1\n*States\n1 1\n2 2\n*Links\n1 2\n", r"the node 2 is not among the 1 of \*Vertices"),
        ("*States\n1 1\n2 2\n*Links\n1 2 -1\n", "line 5: the weight '-1'"),
        ("*States\n1 1\n2 2\n*Links\n1 2 0\n", r"line 4: \*links is empty"),
        ("*Intra\n1 1\n", "line 2: expected layer, node, node and optionally a weight, found 2 fields"),
        ("*Multilayer\n1 1 x 1\n", "line 2: 'x' is not an integer"),
        ("*Intra\n1 1 2\n*Inter\n1 1 1\n", "line 3: a link of the node 1 leads from layer 1 to itself"),
    ],
)
def test_errors_are_reported_in_one_line(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(DataError, match=message) as caught:
        read_state_network(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_relax_rate_is_a_probability(tmp_path):
    with pytest.raises(ValueError, match="relax_rate"):
        read_state_network(write(tmp_path, INTRA), relax_rate=1.5)
