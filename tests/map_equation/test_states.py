"""Code lengths of states of physical nodes: against a reference, identities, and Infomap."""

import numpy as np
import pytest
from dense_map_equation import adjacency, dense_flow, hierarchical_codelength

from map_equation import Network, codelength
from map_equation.graph import FLOWS

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


def test_states_are_not_searched():
    edges, weights, physical = random_states(0)
    with pytest.raises(ValueError, match="scored, not searched") as caught:
        Network(edges, weights, num_nodes=NUM_STATES, physical=physical).search()
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"each of the 24 states, not \(9,\)"):
        Network(edges, weights, num_nodes=NUM_STATES, physical=np.arange(9))
