"""Graph files as users have them: blanks, comments and attributes, neighbours, matrices, quotes, no links."""

import networkx as nx
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from test_graph_files import links_of, read, read_graph, write

from datamodules import EdgeListDataModule
from readers.errors import DataError
from readers.graphs import read_graph as read_arrays
from readers.graphs.edge_list import SMALL_TEXT

THREE = [("1", "2", 1.0), ("2", "3", 1.0), ("3", "1", 1.0)]
HEAVY = [("1", "2", 3.0), ("2", "3", 1.0), ("3", "1", 1.0)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1\t2\t\n2\t3\t\n3\t1\t\n", THREE),
        ("1 2 1.0 \t\n2 3 1.0 \t\n3 1\n", THREE),
        ("1\t2 1\n2 3\t1\n3 1 1\n", THREE),
        ("1\t2\n2  3\n 3 1\n", THREE),
        ("1 2 {}\n2 3 {}\n3 1 {}\n", THREE),
        ("1 2 {'weight': 3.0, 'color': 'red green'}\n2 3 {}\n3 1 {}\n", HEAVY),
        ("1,2,{'weight': 3, 'x': 1}\n2,3,{'weight': 1}\n3,1,{'weight': 1}\n", HEAVY),
        ("1\t2\t{}\n2\t3\t{}\n3\t1\t{}\n", THREE),
        ("1 2 # note\n2 3  % another one\n3 1\t# third\n", THREE),
        ("1 2 3.0 # heavy\n2 3\n3 1\n", HEAVY),
        ("1,2 # note\n2,3\n3,1 # x, y\n", THREE),
        ("source\ttarget\n1\t2\t\n2\t3\n3\t1\n", THREE),
        ("1\t2\nNew York\t2\n", [("1", "2", 1.0), ("New York", "2", 1.0)]),
        ("a\tb {x}\n", [("a", "b {x}", 1.0)]),
        ("a,b #3\n", [("a", "b #3", 1.0)]),
        ("source target kind\na b #1\nb c #2\n", [("a", "b", 1.0), ("b", "c", 1.0)]),
    ],
)
def test_blanks_comments_and_attributes(tmp_path, text, expected):
    """As infomap reads them, and as networkx writes them."""
    for longer in ("", "# " + "x" * SMALL_TEXT + "\n"):  # short and long texts take different ways
        assert sorted(links_of(read(tmp_path, longer + text))) == sorted(expected)


def test_what_networkx_writes_is_read(tmp_path):
    graph = nx.les_miserables_graph()
    graph = nx.relabel_nodes(graph, {name: name.replace(" ", "_") for name in graph})
    expected = sorted((*sorted((a, b)), float(w)) for a, b, w in graph.edges(data="weight"))
    for write_file, ending in ((nx.write_edgelist, "txt"), (nx.write_adjlist, "adjlist"), (nx.write_pajek, "net")):
        write_file(graph, tmp_path / f"g.{ending}")
        found = sorted((*sorted((a, b)), w) for a, b, w in links_of(read_graph(tmp_path / f"g.{ending}")))
        assert found == ([(*link[:2], 1.0) for link in expected] if ending == "adjlist" else expected)


@pytest.mark.parametrize("kind", [nx.Graph, nx.MultiDiGraph])
@pytest.mark.parametrize("ending", ["adjlist", "txt"])
def test_multiline_adjacency_lists(tmp_path, kind, ending):
    links = [("a", "b"), ("b", "c"), ("c", "c"), ("a", "c"), ("c", "d")]
    graph = kind([(*link, {"weight": place + 1, "x": "y z"}) for place, link in enumerate(links)])
    graph.add_node("alone")
    nx.write_multiline_adjlist(graph, tmp_path / f"g.{ending}")
    found = read_graph(tmp_path / f"g.{ending}")
    assert sorted((*sorted((a, b)), w) for a, b, w in links_of(found)) == sorted(
        (*sorted(link), place + 1.0) for place, link in enumerate(links)
    )
    assert "alone" in found.names


def test_arrays_in_a_file(tmp_path):
    edges = np.array([[1, 2], [2, 3], [3, 1], [3, 9]])
    np.save(tmp_path / "two.npy", edges)
    np.save(tmp_path / "three.npy", np.column_stack([edges, [3.0, 1, 1, 1]]))
    np.savez(tmp_path / "edges.npz", edges=edges)
    more = [("3", "9", 1.0)]
    assert sorted(links_of(read_graph(tmp_path / "two.npy"))) == sorted(THREE + more)
    assert sorted(links_of(read_graph(tmp_path / "three.npy"))) == sorted(HEAVY + more)
    assert read_arrays(tmp_path / "edges.npz").names.tolist() == ["1", "2", "3", "9"]
    np.save(tmp_path / "flat.npy", edges.ravel())
    with pytest.raises(DataError, match=r"flat.npy .* must be numbers \(E, 2\)"):
        read_graph(tmp_path / "flat.npy")


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr", "dia"])
@pytest.mark.parametrize("kind", [scipy.sparse.coo_array, scipy.sparse.coo_matrix])
def test_a_sparse_matrix_as_scipy_saves_it(tmp_path, kind, form, symmetric):
    places = np.random.default_rng(0).choice(81, 16, replace=False)
    matrix = kind((np.arange(1.0, 17), divmod(places, 9)), (9, 9))
    matrix = matrix + matrix.T if symmetric else matrix
    scipy.sparse.save_npz(tmp_path / "g.npz", matrix.asformat(form))
    graph = read_arrays(tmp_path / "g.npz")
    assert graph.names.tolist() == [str(number) for number in range(9)]
    assert graph.directed is (False if symmetric else None)
    found = np.zeros((9, 9))
    np.add.at(found, tuple(graph.edges.T), graph.weights)
    assert (found == (np.triu(matrix.toarray()) if symmetric else matrix.toarray())).all()


@pytest.mark.parametrize("symmetry", ["general", "symmetric"])
@pytest.mark.parametrize("field", ["real", "pattern", "integer"])
def test_matrix_market(tmp_path, symmetry, field):
    places = np.random.default_rng(0).choice(81, 16, replace=False)
    matrix = scipy.sparse.coo_array((np.arange(1, 17), divmod(places, 9)), (9, 9))
    matrix = matrix + matrix.T if symmetry == "symmetric" else matrix
    scipy.io.mmwrite(tmp_path / "g.mtx", matrix, field=field, symmetry=symmetry)
    graph = read_arrays(tmp_path / "g.mtx")
    assert graph.names.tolist() == [str(number) for number in range(1, 10)]
    assert graph.directed == (symmetry == "general")
    found = np.zeros((9, 9))
    np.add.at(found, tuple(graph.edges.T), graph.weights)
    expected = matrix.toarray() if field != "pattern" else (matrix.toarray() != 0).astype(float)
    assert (found == (expected if graph.directed else np.triu(expected))).all()


def test_a_dense_matrix_market_file_lists_symmetric_links_once(tmp_path):
    text = "%%MatrixMarket matrix array real general\n2 2\n1\n2\n2\n0\n"
    assert links_of(read(tmp_path, text, "g.txt")) == [("1", "1", 1.0), ("1", "2", 2.0)]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("g.graph", "3 3\n2 3\n1 3\n1 2\n", [("1", "2", 1.0), ("1", "3", 1.0), ("2", "3", 1.0)]),
        ("g.metis", "% x\n4 2 1\n2 5\n1 5 3 7\n2 7\n\n", [("1", "2", 5.0), ("2", "3", 7.0)]),
        ("g.metis", "2 1 011 2\n9 9 2 4\n9 9 1 4\n", [("1", "2", 4.0)]),
        ("g.metis", "2 1 111\n8 9 2 4\n8 9 1 4\n", [("1", "2", 4.0)]),
        ("g.graph", "1 2\n2 3\n", [("1", "2", 1.0), ("2", "3", 1.0)]),  # an edge list
        (
            "g.adjlist",
            "#x\n1 2 3\n2 3\n3 1 # y\n4\n",
            [("1", "2", 1.0), ("1", "3", 1.0), ("2", "3", 1.0), ("3", "1", 1.0)],
        ),
    ],
)
def test_lists_of_neighbours(tmp_path, name, text, expected):
    graph = read(tmp_path, text, name)
    assert sorted(links_of(graph)) == expected
    assert graph.num_nodes == (
        4 if "\n4" in text or "4 2" in text else len({end for link in expected for end in link[:2]})
    )


@pytest.mark.parametrize(
    ("name", "text", "nodes"),
    [
        ("g.net", "*Vertices 3\n*Edges\n", ["1", "2", "3"]),
        ("g.txt", "1 2 0\n", ["1", "2"]),
        ("g.gml", "graph [ node [ id 1 ] node [ id 5 ] ]", ["1", "5"]),
        ("g.adjlist", "a\nb\n", ["a", "b"]),
        ("g.metis", "2 0\n\n\n", ["1", "2"]),
        ("g.mtx", "%%MatrixMarket matrix coordinate real general\n2 2 0\n", ["1", "2"]),
    ],
)
def test_graphs_without_links(tmp_path, name, text, nodes):
    path = write(tmp_path / name, text)
    assert read_arrays(path).names.tolist() == nodes
    with pytest.raises(DataError, match="is an empty graph: it has no link with a positive weight"):
        EdgeListDataModule(source=str(path)).setup()


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ('1 "a \\"x\\" b"', 'a "x" b'),
        ('1 "a "x" b" 0.1 0.2 ellipse', 'a "x" b'),
        ('1 "a b" 0.1 0.2 "x"', "a b"),
        ('1 "c:\\d\\e"', "c:\\d\\e"),
        ("1 plain 0.5", "plain"),
        ("1", "1"),
    ],
)
def test_names_of_pajek(tmp_path, line, name):
    graph = read_arrays(write(tmp_path / "g.net", f"*Vertices 2\n{line}\n2 other\n*Edges\n1 2\n"))
    assert graph.names.tolist() == [name, "other"]
    assert graph.ids.tolist() == [1, 2]
