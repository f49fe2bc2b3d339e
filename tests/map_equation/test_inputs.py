"""Graphs in any form, and bad input."""

from decimal import Decimal
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pandas
import pyarrow
import pytest
import scipy.io
import scipy.sparse
import torch

from map_equation import Network, codelength, infomap
from map_equation.graph import FLOWS

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
    assert codelength(EDGES, HALVES, weights=torch.from_numpy(weights).bfloat16()) == expected


def test_a_symmetric_matrix_counts_its_loops_once():
    looped = np.vstack([EDGES, [[0, 0]]])
    matrix = nx.to_scipy_sparse_array(nx.Graph(looped.tolist()), nodelist=range(6))
    assert codelength(matrix, HALVES) == pytest.approx(codelength(looped, HALVES), abs=1e-14)


@pytest.mark.parametrize(("dtype", "error"), [(np.float64, 1e-15), (np.float32, 2e-7)])
def test_a_matrix_that_is_symmetric_up_to_rounding(tmp_path, dtype, error):
    matrix = nx.to_numpy_array(nx.Graph([*EDGES.tolist(), (0, 0), (3, 3)]), nodelist=range(6), dtype=dtype)
    expected = codelength(matrix, HALVES)
    assert expected != pytest.approx(codelength(np.triu(matrix, 1), HALVES), abs=1e-3)  # loops count
    matrix[2, 3] *= 1 + dtype(error)
    assert (matrix != matrix.T).any()
    sparse = scipy.sparse.csr_array(matrix)
    np.save(tmp_path / "g.npy", matrix)
    scipy.sparse.save_npz(tmp_path / "g.npz", sparse)
    given = [matrix, sparse, pandas.DataFrame(matrix), tmp_path / "g.npy", tmp_path / "g.npz"]
    if dtype == np.float64:
        scipy.io.mmwrite(tmp_path / "g.mtx", sparse, symmetry="general")
        given.append(tmp_path / "g.mtx")
        assert infomap(tmp_path / "g.mtx").flow_model == "undirected"
    for graph in given:
        assert codelength(graph, HALVES) == pytest.approx(expected, abs=1e-9 if dtype == np.float64 else 1e-6)
    matrix[2, 3] *= dtype(1.001)
    assert codelength(matrix, HALVES) != pytest.approx(expected, abs=1e-3)


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
        ({"edges": EDGES.T}, r"shape \(E, 2\), .* not \(2, 7\); transpose it"),
        ({"edges": EDGES + 0.5}, "must be integers"),
        ({"edges": EDGES - 1}, "negative: -1"),
        ({"edges": np.empty((0, 2), int)}, "empty"),
        ({"edges": nx.Graph()}, "empty"),
        ({"edges": torch.from_numpy(EDGES)}, r"edge_index has shape \(2, E\), not \(7, 2\); transpose it"),
        ({"edges": torch.eye(3)}, r"not \(3, 3\); a matrix is given .to_sparse"),
        ({"edges": {frozenset({0, 1})}}, r"pairs and weights; not frozenset\({0, 1}\)"),
        ({"edges": [{0, 1}, {1, 2}]}, "pairs and weights; not {0, 1}"),
        ({"edges": [{"source": 0, "target": 1}]}, "pairs and weights; not {'source'"),
        ({"edges": [(0, 1, None)]}, "weight of a link is a number, not None"),
        ({"edges": [([0], [1])]}, "key of a dict: unhashable"),
        ({"edges": pandas.DataFrame([(0, 1, 2)], columns=["source", "source", "target"])}, "several columns 'source'"),
        ({"edges": pandas.DataFrame([(0, 1)], columns=["x", "x"])}, "several columns 'x'"),
        ({"edges": scipy.sparse.eye_array(2, 3)}, "square"),
        ({"edges": nx.Graph([(0, 1)]), "weights": [1]}, "its own weights"),
        ({"num_nodes": 5}, "node id 5 is out of range"),
        ({"flow": "recorded"}, "flow must be one of undirected"),
        ({"teleportation": 1.5, "flow": "directed"}, "teleportation must be in"),
        ({"markov_time": 0}, "markov_time"),
        ({"num_trials": 0}, "num_trials"),
        ({"num_trials": 2.0}, "num_trials must be at least 1, a whole number, not 2.0"),
        ({"seed": -1}, "seed"),
        ({"bipartite": "E1"}, "bipartite is the first id of the second kind, a whole number, not 'E1'"),
        ({"seed": None}, "seed must be at least 0, a whole number, not None"),
    ],
)
def test_bad_input_is_named_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        infomap(**{"edges": EDGES, **arguments})
    assert "\n" not in str(caught.value)


NAMED = [(a, b) for a, b in np.array(list("ABCDEF"))[EDGES].tolist()]
LETTERS, NUMBERS = list("ABCDEF"), list(range(6))
DENSE = nx.to_numpy_array(nx.Graph(EDGES.tolist()), nodelist=range(6))
GEPHI = ["Source", "Target", "Type", "Weight"]
ANY = [((0, "x"), None), ((0, "x"), 2.5), (None, 2.5), (2.5, "d"), ("d", 4), ("d", 5), (4, 5)]
FORMS = {
    "list": (EDGES.tolist(), NUMBERS),
    "tuples": (tuple(map(tuple, EDGES.tolist())), NUMBERS),
    "generator": ((pair for pair in EDGES.tolist()), NUMBERS),
    "floats": (EDGES.astype(float), NUMBERS),
    "weights in the array": (np.column_stack([EDGES, np.full(7, 2.0)]), NUMBERS),
    "columns": (np.asfortranarray(EDGES), NUMBERS),
    "dense": (DENSE, NUMBERS),
    "booleans": (DENSE > 0, NUMBERS),
    "torch": (torch.from_numpy(DENSE).to_sparse(), NUMBERS),
    "triangular": (scipy.sparse.coo_array((np.ones(7), EDGES.T), (6, 6)), NUMBERS),
    "from 1": (EDGES + 1, list(range(1, 7))),
    "far apart": (10**12 * EDGES, [10**12 * i for i in range(6)]),
    "names": (NAMED, LETTERS),
    "names with weights": ([(a, b, 3) for a, b in NAMED], LETTERS),
    "attributes": (nx.Graph(NAMED).edges(data=True), LETTERS),
    "name array": (np.array(NAMED), LETTERS),
    "objects": (np.array([(a, b, 1.5) for a, b in NAMED], object), LETTERS),
    "multigraph": (nx.MultiGraph(NAMED), LETTERS),
    "links of a multigraph": (nx.MultiGraph(NAMED).edges, LETTERS),
    "any names": (ANY, [(0, "x"), None, 2.5, "d", 4, 5]),
    "table": (pandas.DataFrame(NAMED, columns=["From", "TO"]), LETTERS),
    "table of ids": (pandas.DataFrame({"w": [1.0] * 7, "target": EDGES[:, 1], "source": EDGES[:, 0]}), NUMBERS),
    "Gephi": (pandas.DataFrame([(a, b, "Undirected", 1.5) for a, b in NAMED], columns=GEPHI), LETTERS),
    "arrow": (pyarrow.table(pandas.DataFrame(NAMED, columns=["source", "target"])), LETTERS),
    "named matrix": (pandas.DataFrame(DENSE, LETTERS, LETTERS), LETTERS),
    "table of floats": (pandas.DataFrame(EDGES.astype(float), columns=["u", "v"]), NUMBERS),
    "huge ids": (EDGES.astype(np.uint64) + np.uint64(2**63), [2**63 + i for i in range(6)]),
    "larger ids": ((EDGES.astype(object) + 2**64).tolist(), [2**64 + i for i in range(6)]),
    "three columns": (pandas.DataFrame([(a, b, 4) for a, b in NAMED], columns=["x", "y", "z"]), LETTERS),
}


@pytest.mark.parametrize(("graph", "names"), FORMS.values(), ids=FORMS)
def test_a_graph_in_any_form(graph, names):
    found = infomap(graph)
    assert found.codelength == pytest.approx(2.320730356834, abs=1e-9)
    assert found.names == names
    assert found.communities == [set(names[:3]), set(names[3:])]


def test_weights_of_an_attribute_or_column():
    expected = codelength(EDGES, HALVES, weights=range(1, 8))
    graph = nx.Graph()
    graph.add_nodes_from(range(6))
    graph.add_weighted_edges_from([(*pair, w + 1) for w, pair in enumerate(EDGES.tolist())], weight="strength")
    table = pandas.DataFrame({"source": EDGES[:, 0], "target": EDGES[:, 1], "strength": range(1, 8), "weight": 9})
    assert codelength(graph, HALVES, weight="strength") == codelength(table, HALVES, weight="strength") == expected
    assert codelength(graph, HALVES) == codelength(table, HALVES, weight=None) == codelength(EDGES, HALVES)
    index, halves = torch.from_numpy(EDGES.T), [*HALVES, 2]  # what torch_geometric's Data has; one node without links
    data = SimpleNamespace(edge_index=index, num_nodes=7, edge_weight=torch.arange(1, 8), strength=torch.ones(7))
    assert codelength(data, halves) == pytest.approx(expected, abs=1e-14)
    assert codelength(data, halves, weight="strength") == codelength(data, halves, weight=None)
    assert codelength(data, halves, weight=None) == pytest.approx(codelength(EDGES, HALVES), abs=1e-14)
    for wrong in (graph, table, data):
        with pytest.raises(ValueError, match="'strong'"):
            infomap(wrong, weight="strong")


@pytest.mark.parametrize(
    ("third", "weighted"),
    [
        ({"count": range(1, 8)}, True),
        ({"Id": 7, "Weight": range(1, 8)}, True),
        ({"Id": 7, "count": range(1, 8)}, False),
        ({"count": ["1", "2", "3", "4", "5", "6", "7"]}, True),
        ({"count": [Decimal(w) for w in range(1, 8)]}, True),
        ({"number": range(1, 8)}, True),
        ({"link number": range(7)}, False),
        ({"same": [True, False] * 3 + [True]}, False),
        ({"same": np.array([True, False] * 3 + [True], object)}, False),
        ({"Unnamed: 0": range(7)}, False),
        ({"edge id": range(7)}, False),
        ({"timestamp": range(1, 8)}, False),
        ({"type": ["a", "b", "c", "d", "e", "f", "7"]}, False),
    ],
)
@pytest.mark.parametrize("separator", [",", " "])
def test_the_weights_of_a_table_are_found_as_in_a_file(tmp_path, third, weighted, separator):
    table = pandas.DataFrame({"Source": EDGES[:, 0], **third, "Target": EDGES[:, 1]})
    table.to_csv(tmp_path / "g.csv", sep=separator, index=False)
    expected = codelength(EDGES, HALVES, weights=range(1, 8) if weighted else None)
    assert codelength(table, HALVES) == codelength(tmp_path / "g.csv", HALVES) == expected


def test_the_index_of_a_table_that_was_written_is_no_column(tmp_path):
    for names in (["source", "target"], ["x", "y"]):
        pandas.DataFrame(EDGES, columns=names).to_csv(tmp_path / "g.csv")
        assert codelength(pandas.read_csv(tmp_path / "g.csv"), HALVES) == codelength(EDGES, HALVES)
    table = pandas.DataFrame(EDGES, columns=["source", "target"])
    table.to_csv(tmp_path / "g.csv")
    assert codelength(tmp_path / "g.csv", HALVES) == codelength(EDGES, HALVES)
    indexed = table.assign(weight=range(1, 8)).set_index("source")
    assert codelength(indexed, HALVES) == codelength(EDGES, HALVES, weights=range(1, 8))
    with pytest.raises(ValueError, match="the same names for rows and columns"):
        infomap(pandas.crosstab(table.source, table.target))


def test_the_index_counts_only_for_an_end_that_the_columns_lack():
    expected = codelength(EDGES, HALVES, weights=range(1, 8))
    table = pandas.DataFrame({"source": EDGES[:, 0], "target": EDGES[:, 1], "weight": range(1, 8)})
    plain = table.set_axis(["a", "b", "c"], axis=1)
    for given in (
        table.set_axis(pandas.Index(range(7, 14), name="source_id")),
        table.set_index("source", drop=False),
        table.set_index(["source", "target"]),
        table.set_index(["source", "weight"]),
        table.set_index(["source", "weight"]).assign(weight=table.weight.to_numpy()),
        plain.set_axis(pandas.Index(range(7), name="from")),
        plain.rename_axis(columns="kind"),
    ):
        assert codelength(given, HALVES) == expected
    for nodes in (list("abc"), [1, 2, 3]):
        cross = pandas.crosstab(pandas.Series(nodes, name="source"), pandas.Series(nodes[::-1], name="target"))
        for given in (cross.iloc[:2], cross.iloc[:, :2], cross.iloc[:, :2].reset_index()):
            with pytest.raises(ValueError, match="the same names for rows and columns"):
                infomap(given)


@pytest.mark.parametrize("ends", [["a", None], [1, np.nan], pandas.array([1, None])])
def test_a_missing_node_in_a_table_is_refused(ends):
    with pytest.raises(ValueError, match="row 1 of the table has no node in the column 'to'"):
        infomap(pandas.DataFrame({"from": ["x", "y"], "to": ends}))


def test_a_matrix_that_is_not_symmetric_may_hold_each_link_once_or_be_directed(tmp_path):
    graph = nx.DiGraph([(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3), (2, 3)])
    matrix = nx.to_scipy_sparse_array(graph)
    np.save(tmp_path / "g.npy", matrix.toarray())
    for given in (matrix, matrix.toarray(), nx.to_pandas_adjacency(graph), tmp_path / "g.npy"):
        assert infomap(given).codelength == pytest.approx(2.320730, abs=1e-6)
        assert infomap(given, flow="directed").codelength == pytest.approx(1.773078845, abs=1e-9)
    scipy.io.mmwrite(tmp_path / "g.mtx", matrix)  # "general", where there is also "symmetric"
    assert infomap(tmp_path / "g.mtx").codelength == pytest.approx(1.773078845, abs=1e-9)


def test_nodes_of_equal_names_stay_apart(tmp_path):
    vertices = '*Vertices 4\n1 "John"\n2 "Ann"\n3 "John"\n4 "Bea"\n'
    (tmp_path / "g.net").write_text(f"{vertices}*Edges\n1 2\n3 4\n")
    (tmp_path / "s.net").write_text(f"{vertices}*States\n1 1\n2 2\n3 3\n4 4\n5 4\n*Links\n1 2\n2 1\n3 4\n4 5\n5 3\n")
    for name in ("g.net", "s.net"):
        found = infomap(tmp_path / name)
        assert sorted(map(sorted, found.communities)) == [["Ann", "John (1)"], ["Bea", "John (3)"]]
        assert set(found.to_dict()) == {"Ann", "John (1)", "Bea", "John (3)"}
    found = infomap(tmp_path / "g.net")
    assert codelength(tmp_path / "g.net", found.to_dict()) == codelength(tmp_path / "g.net", found.communities) == 1
    assert found.names == ["John", "Ann", "John", "Bea"]
    assert len(found.to_networkx()) == 4


def test_a_directed_graph_object_is_walked_as_directed():
    links = [(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3), (2, 3)]
    found = infomap(nx.DiGraph(links))
    assert found.flow_model == "directed"
    assert found.codelength == pytest.approx(1.773078845, abs=1e-9)  # infomap 2.16
    assert infomap(nx.DiGraph(links), flow="undirected").codelength == pytest.approx(2.320730357, abs=1e-9)
    assert infomap(links).flow_model == infomap(nx.Graph(links)).flow_model == "undirected"


def test_a_file_as_a_graph(tmp_path):
    (tmp_path / "g.net").write_text('*Vertices 4\n1 "a"\n2 "b"\n3 "c"\n4 "alone"\n*Arcs\n1 2\n2 3\n3 1\n')
    found = infomap(tmp_path / "g.net")
    assert found.flow_model == "directed"
    assert found.names == ["a", "b", "c", "alone"]
    assert found.communities == [{"a", "b", "c"}, {"alone"}]
    (tmp_path / "g.txt").write_text("3 1\n1 2\n2 3\n")
    assert infomap(str(tmp_path / "g.txt")).names == [1, 2, 3]
    (tmp_path / "two.net").write_text("*Vertices 4\n*Bipartite 3\n1 3\n2 3\n2 4\n")
    assert Network(tmp_path / "two.net").flow[2:].tolist() == [0, 0]
    with pytest.raises(ValueError, match="its own weights"):
        infomap(tmp_path / "g.txt", weights=[1, 1, 1])


@pytest.mark.parametrize("flow", FLOWS)
def test_nodes_without_links_are_modules_of_their_own(flow):
    clique = nx.complete_graph(4)
    clique.add_nodes_from(["x", "y"])
    halves = nx.Graph(EDGES.tolist())
    halves.add_nodes_from([7, 8])
    for graph in (clique, halves):
        for two_level in (True, False):
            found = infomap(graph, flow=flow, two_level=two_level)
            groups = found.communities
            assert all({name} in groups for name in nx.isolates(graph))
            assert found.codelength == pytest.approx(codelength(graph, found.paths, flow=flow), abs=1e-12)
    assert len(infomap(halves)) == 4


@pytest.mark.parametrize("flow", FLOWS)
def test_a_graph_without_links_costs_nothing(flow):
    given = [
        nx.empty_graph(3),
        scipy.sparse.csr_array((3, 3)),
        np.zeros((3, 3)),
        [(0, 1, 0), (1, 2, 0)],
    ]
    for graph in given:
        found = infomap(graph, flow=flow, num_trials=2)
        assert found.codelength == found.one_level == found.relative_savings == 0
        assert found.communities == [{0}, {1}, {2}]
        assert found.codelengths == [0, 0]
    assert len(infomap(np.empty((0, 2), int), num_nodes=2, flow=flow)) == 2


@pytest.mark.parametrize("flow", FLOWS)
def test_weights_of_any_size(flow):
    weights = np.array([3.0, 1, 2, 1, 1, 2, 4])
    expected = infomap(EDGES, weights, flow=flow)
    for scale in (2.0**1020, 2.0**-1074, 2.0**-600):
        found = infomap(EDGES, weights * scale, flow=flow)
        assert found == expected
        assert found.codelength == pytest.approx(expected.codelength, abs=1e-12)
    # So light a link that its rate is no number: as if it were not there.
    light = infomap(EDGES, np.where(np.arange(7) == 3, 1e-320, 1e300 * weights), flow="undirected")
    without = infomap(np.delete(EDGES, 3, 0), np.delete(weights, 3))
    assert light.codelength == pytest.approx(without.codelength, abs=1e-12)


def test_links_from_nodes_without_visits():
    """Their rate is 0, which the search takes for "not seen yet": it must not see them."""
    random = np.random.default_rng(0)
    for _ in range(20):
        n = int(random.integers(3, 40))
        edges = random.integers(0, n, (int(random.integers(2, 150)), 2))
        for flow in ("directed_recorded", "directed"):
            found = infomap(edges, flow=flow)
            assert found.flow.sum() == pytest.approx(1)
            assert found.codelength <= found.one_level_codelength + 1e-9
