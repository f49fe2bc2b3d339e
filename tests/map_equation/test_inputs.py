"""Input formats, bad input, and the files of a partition."""

import networkx as nx
import numpy as np
import pytest
import scipy.sparse
import torch

from map_equation import Network, codelength, infomap

EDGES = np.array([[0, 1], [0, 2], [1, 2], [2, 3], [3, 4], [3, 5], [4, 5]])
HALVES = [0, 0, 0, 1, 1, 1]


def test_all_formats_give_one_graph():
    weights = np.arange(1.0, 8)
    weighted = nx.Graph()
    weighted.add_nodes_from(range(6))
    weighted.add_weighted_edges_from([(a, b, w) for (a, b), w in zip(EDGES.tolist(), weights, strict=True)])
    upper = scipy.sparse.coo_array((weights, EDGES.T), (6, 6))
    expected = codelength(EDGES, HALVES, weights=weights)
    assert codelength(torch.from_numpy(EDGES.T.copy()), HALVES, weights=torch.from_numpy(weights)) == expected
    assert codelength(weighted, HALVES) == expected
    assert codelength(upper, HALVES) == expected
    assert codelength((upper + upper.T).tocsr(), HALVES) == pytest.approx(expected, abs=1e-14)
    assert codelength(EDGES.tolist(), HALVES, weights=weights.tolist()) == expected
    for dtype in (np.int32, np.uint8, np.uint64, ">i8"):
        assert codelength(EDGES.astype(dtype), HALVES, weights=weights.astype(np.float32)) == expected


def test_a_symmetric_matrix_counts_its_loops_once():
    looped = np.vstack([EDGES, [[0, 0]]])
    matrix = nx.to_scipy_sparse_array(nx.Graph(looped.tolist()), nodelist=range(6))
    assert codelength(matrix, HALVES) == pytest.approx(codelength(looped, HALVES), abs=1e-14)


def test_an_undirected_graph_object_is_walked_both_ways():
    both = np.vstack([EDGES, EDGES[:, ::-1]])
    graph = nx.Graph(EDGES.tolist())
    assert codelength(graph, HALVES, flow="directed") == codelength(both, HALVES, flow="directed")
    assert codelength(nx.DiGraph(EDGES.tolist()), HALVES, flow="directed") == codelength(EDGES, HALVES, flow="directed")


def test_multi_edges_are_summed():
    twice = np.vstack([EDGES, EDGES[:1], EDGES[:1, ::-1]])
    assert codelength(twice, HALVES) == codelength(EDGES, HALVES, weights=[3, 1, 1, 1, 1, 1, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": [1, 1, 1, -2, 1, 1, 1]}, "weight 3 is -2"),
        ({"weights": [1, np.nan, 1, 1, 1, 1, 1]}, "weight 1 is nan"),
        ({"weights": [1, 1]}, r"shape \(7,\)"),
        ({"weights": [0] * 7}, "empty"),
        ({"edges": EDGES.T}, r"shape \(E, 2\), not \(2, 7\)"),
        ({"edges": EDGES + 0.5}, "must be integers"),
        ({"edges": EDGES - 1}, "negative: -1"),
        ({"edges": np.empty((0, 2), int)}, "empty"),
        ({"edges": nx.Graph()}, "empty"),
        ({"edges": torch.from_numpy(EDGES)}, "edge_index has shape"),
        ({"edges": scipy.sparse.eye_array(2, 3)}, "square"),
        ({"edges": nx.Graph([(0, 1)]), "weights": [1]}, "its own weights"),
        ({"num_nodes": 5}, "node id 5 is out of range"),
        ({"flow": "recorded"}, "flow must be one of undirected"),
        ({"teleportation": 1.5, "flow": "directed"}, "teleportation must be in"),
        ({"markov_time": 0}, "markov_time"),
        ({"num_trials": 0}, "num_trials"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_input_is_named_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        infomap(**{"edges": EDGES, **arguments})
    assert "\n" not in str(caught.value)


def test_one_label_per_node():
    with pytest.raises(ValueError, match="each of the 6 nodes, not 2"):
        codelength(EDGES, [0, 1])


def test_labels_of_any_kind():
    assert codelength(EDGES, list("aaabbb")) == codelength(EDGES, HALVES)
    assert codelength(EDGES, torch.tensor(HALVES)) == codelength(EDGES, HALVES)
    assert codelength(EDGES, [1, 1, 1, "1", "1", "1"]) == codelength(EDGES, HALVES)
    assert codelength(EDGES, [None, None, None, 2**80, 2**80, 2**80]) == codelength(EDGES, HALVES)
    for wrong in (np.zeros((6, 1, 1), int), np.zeros((6, 2))):
        with pytest.raises(ValueError, match=r"modules .*\(n, depth\)"):
            codelength(EDGES, wrong)


def test_files_and_graph(tmp_path):
    graph = nx.relabel_nodes(nx.Graph(EDGES.tolist()), dict(enumerate("ABCDEF")))
    found = infomap(graph)
    found.to_tree(tmp_path / "graph.tree")
    found.to_clu(tmp_path / "graph.clu")
    rows = [line for line in (tmp_path / "graph.tree").read_text().splitlines() if line[0] != "#"]
    # C and D have the largest flow of their modules.
    assert rows[0] == '1:1 0.214285714286 "C" 2'
    assert [row.split()[0] for row in rows] == ["1:1", "1:2", "1:3", "2:1", "2:2", "2:3"]
    clusters = [line.split()[:2] for line in (tmp_path / "graph.clu").read_text().splitlines() if line[0] != "#"]
    assert sorted(clusters) == [[f'"{name}"', str(number // 3 + 1)] for number, name in enumerate("ABCDEF")]
    drawn = found.to_networkx()
    assert set(drawn.edges) == set(graph.edges)
    assert drawn.nodes["A"]["module"] == 0
    assert sum(flow for *_, flow in drawn.edges(data="flow")) == pytest.approx(1)
    with pytest.raises(AttributeError):
        found.codelength = 1.0


def tree_of(partition, path) -> dict[int, tuple[int, ...]]:
    """Path of each node in a written ``.tree``."""
    partition.to_tree(path)
    rows = [line.split() for line in path.read_text().splitlines() if line[0] != "#"]
    return {int(row[-1]): tuple(map(int, row[0].split(":"))) for row in rows}


def test_paths_of_siblings_of_modules_are_unique(tmp_path):
    network = Network(EDGES)
    mixed = network.partition([(0, 0), (0, 1), (0,), (0,), (0, 1), (0, 0)])
    found = tree_of(mixed, tmp_path / "mixed.tree")
    # C and D, the nodes with the largest flow, come after their two sibling modules.
    assert found == {0: (1, 1, 1), 5: (1, 1, 2), 1: (1, 2, 1), 4: (1, 2, 2), 2: (1, 3), 3: (1, 4)}
    assert mixed.modules.tolist() == [0, 1, 2, 2, 1, 0]
    ragged = network.partition([(0, 0), (0, 0), (), (), (1,), (0, 1)])
    found = tree_of(ragged, tmp_path / "ragged.tree")
    assert found == {0: (1, 1, 1), 1: (1, 1, 2), 5: (1, 2, 1), 4: (2, 1), 2: (3,), 3: (4,)}
    assert ragged.top_modules.tolist() == [0, 0, 2, 3, 1, 0]


def test_infomap_reads_nodes_under_the_root_as_we_do(tmp_path):
    peer = pytest.importorskip("infomap")
    found = Network(EDGES).partition([(0, 0), (0, 0), (), (), (1,), (0, 1)])
    found.to_tree(tmp_path / "ragged.tree")
    result = peer.run(EDGES.tolist(), no_infomap=True, cluster_data=str(tmp_path / "ragged.tree"))
    assert result.num_top_modules == len(set(found.top_modules)) == 4
    theirs = result.modules()
    pairs = {(theirs[node], int(top)) for node, top in enumerate(found.top_modules)}
    assert len(pairs) == 4


def test_directed_flow_gives_a_directed_graph():
    drawn = infomap([[0, 1], [1, 2], [2, 0]], flow="directed").to_networkx()
    assert drawn.is_directed()
    assert set(drawn.edges) == {(0, 1), (1, 2), (2, 0)}


def test_csv_has_names_and_paths(tmp_path):
    partition = infomap(nx.ring_of_cliques(16, 4))
    partition.write(tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "name,module,top_module,path,flow"
    rows = [line.split(",") for line in lines[1:]]
    assert sorted(int(row[0]) for row in rows) == list(range(64))
    for name, module, top, place, rate in rows:
        node = int(name)
        assert int(module) == partition.modules[node] + 1
        assert int(top) == partition.top_modules[node] + 1
        assert place == ":".join(str(number + 1) for number in partition.paths[node])
        assert float(rate) == pytest.approx(partition.flow[node])
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_another_extension_is_refused(tmp_path):
    partition = infomap(nx.ring_of_cliques(4, 4))
    with pytest.raises(ValueError, match=r"must end in .tree, .clu, .csv"):
        partition.write(tmp_path / "out.txt")
