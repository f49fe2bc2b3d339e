"""Errors in graph files are reported in one line, with the file's name and the place."""

import bz2
import gzip
import lzma
import pickle

import numpy as np
import pytest
from test_graph_files import read, write

from readers.errors import DataError
from readers.graphs.files import read_graph

BAD_TEXT = [
    ("1 2\n3\n", "line 2: expected source, target and optionally a weight, found 1 field"),
    ("1 2\n\n# x\n1 2 3 4\n", "line 4: expected source, target and optionally a weight, found 4 fields"),
    ("1,2,3\n4,5\n", "line 2: expected 3 fields, found 2 fields"),
    ("1 2 3 4\n", "line 1: .* found 4 fields; name the columns in the first line"),
    ("a b c d\n1 2 3 4\n", "line 1: which of 4 columns"),
    ("1\n2\n", "line 1: .* found 1 field"),
    ("1 2 0.5\n2 3 -1\n", "line 2: the weight '-1' must be a finite number, 0 or more"),
    ("1 2 nan\n", "line 1: the weight 'nan'"),
    ("1 2 0.5\n1 2 inf\n", "line 2: the weight 'inf'"),
    ("1 2 1\n1 2 1e999\n", "line 2: the weight '1e999'"),
    ("1 2 1\n1 2 heavy\n", "line 2: the weight 'heavy'"),
    ("1,2,1\n1,2,\n", "line 2: the weight ''"),
    ("a,b\n,b\n", "line 2: a node without a name"),
    ('a,b\n"a,b\n', "line 2: a double quote isn't closed"),
    ("", "is an empty graph"),
    ("# nothing\n\n", "is an empty graph"),
    ("source target\n", "is an empty graph"),
    ("a b\n\xe9 b\n".encode("latin-1"), "line 2: the byte 0xe9 is not UTF-8"),
    ("*Vertices 2\n*Edges\n1 x\n", "line 3: 'x' is not an integer"),
    ("*Vertices 2\na b\n", "line 2: 'a' is not an integer"),
    ("*Vertices 2\n\u3000\n*Edges\n1 2\n", "line 2: '' is not an integer"),
    ("*Vertices 2\n*Edges\n1 3\n", "names the node 3, which is not among the 2"),
    ("*Vertices 2\n*Edges\n1\n", "line 3: expected two ids"),
    ("*Vertices 2\n*Arcs\n1 2 -2\n", "line 3: the weight '-2'"),
    ("*Vertices 2\n1 a\n1 b\n*Arcs\n1 2\n", "line 3: the node 1 is listed twice"),
    ("*Vertices 2\n0 a\n", "2 vertices are declared, 1 are given"),
    ("*Vertices 0\n", "is an empty graph"),
    ("*Vertices 2\n*Matrix\n0 1\n", r"line 2: the section \*matrix is not supported, only \*Vertices"),
    ("*Bipartite\n1 2\n", "line 1: expected"),
    ("1 " + "9" * 5000 + "\n2 4 2\n3 4 -1\n", "line 3: the weight '-1'"),  # a list of neighbours has no such number
]


@pytest.mark.parametrize(("text", "message"), BAD_TEXT)
def test_bad_text(tmp_path, text, message):
    path = write(tmp_path / "bad.txt", text)
    with pytest.raises(DataError, match=message) as error:
        read_graph(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.gml", "graph [ node [ id 1", "is not GML that networkx can read"),
        (
            "bad.gml",
            "graph [ node [ id 1 ] node [ id 2 ] edge [ source 1 target 2 weight -1 ] ]",
            "link 1 2: the weight '-1'",
        ),
        ("bad.gml", "graph [ ]", "is an empty graph"),
        ("bad.metis", "3\n2 3\n", "line 1: METIS begins with"),
        ("bad.metis", "3 3\n2 3\n1 3\n", "counts 3 nodes, but 2 lines follow"),
        ("bad.graph", "3 3\n2 3\n1\n1 2\n", "counts 3 links, but the lines have 5 / 2"),
        ("bad.graph", "2 1\n2\n3\n", "line 3: the neighbour 3 is not one of the 2 nodes"),
        ("bad.adjlist", "# nothing", "is an empty graph"),
        ("bad.adjlist", "1 1\n2 3 {}\n", "line 2: an adjacency list has no attributes"),
        ("k.gexf", "<?xml version='1.0'?>\n<gexf>\n", "is GEXF, which isn't read: save the graph as"),
        ("k.txt", "<?xml version='1.0'?>\n<gexf>\n", "is GEXF"),
        ("k.txt", "strict digraph {\n0 -> 1;\n}\n", "is Graphviz's dot"),
        ("k.gv", "0\n", "is Graphviz's dot"),
        ("k.dl", "dl n=2\n", "is UCINET's dl"),
        ("k.txt", ">>sparse6<<:a_O\n", "is graph6 or sparse6"),
        ("k.json.gz", '{"nodes": []}', "is JSON"),
        ("k.txt", "[[0, 1], [1, 2]]", "is JSON"),
        ("k.lgl", "# a\nb 1\n", "is igraph's LGL"),
        ("k.txt", b"PAR1\x15\x04\x15", "is Parquet, which isn't read"),
        ("k.mat", b"MATLAB 5.0 MAT-file, Platform: posix\0", "is MATLAB"),
        ("k.txt", pickle.dumps({"a": 1}), "is Python's pickle"),
        ("k", bz2.compress(b"1 2\n"), r"is packed with bzip2, .*, plain or gzipped"),
        ("k.txt.xz", lzma.compress(b"1 2\n"), "is packed with xz"),
        ("k.txt", "graph [\n", "is GML without .gml"),
        ("k.txt", "(0, 1)\n(1, 2)\n", r"line 1: write a link as source and target alone, not as '\(0, 1\)'"),
        ("k.txt", "[0, 1],\n[1, 2]\n", "line 1: write a link as source and target alone"),
        ("k.txt", "0 7\n2 {'weight': 1}\n", "line 2: expected source, target .* found 1 field"),
        ("k.npy", "x", "is not an npy file"),
        ("bad.txt", "%%MatrixMarket matrix coordinate real general\n2 3 1\n1 2 1\n", r"square, .* shape \(2, 3\)"),
        ("bad.mtx", "%%MatrixMarket matrix coordinate real general\n2 2 1\n1 2 -1\n", "row 1, column 2 is -1"),
        ("bad.mtx", "%%MatrixMarket matrix coordinate real general\n2 2 9\n1 2 1\n", "is not a MatrixMarket file"),
        ("bad.graphml", "<graphml><graph>", "is not GraphML"),
        ("bad.graphml", "1 2", "is not GraphML"),
        ("bad.npz", b"PK", "is not an npz of plain arrays"),
        ("bad.txt.gz", gzip.compress(b"1 2\n" * 1000, mtime=0)[:-20], "is broken: gzip cannot unpack it"),
        ("bad.txt", gzip.compress(b"1 2\n", mtime=0)[:8] + b"xxxxxxxxxxxxxxxx", "is broken: gzip cannot unpack it"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path, content, name)
    assert "\n" not in str(error.value)


# A link and its return, as ``scipy.sparse.save_npz`` has them.
SPARSE = {
    "format": b"csr",
    "shape": np.array([2, 2]),
    "data": np.ones(2),
    "indices": np.array([1, 0]),
    "indptr": np.array([0, 1, 2]),
}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"edges": np.zeros((2, 3), int)}, "must be integers"),
        ({"edges": np.zeros((2, 2))}, "edges .float64, .2, 2.. must be integers"),
        ({"edges": np.zeros((0, 2), int)}, "is an empty graph"),
        ({"edges": np.array([[0, 1], [-1, 0]])}, r"row 1 of edges is \[-1, 0\]"),
        ({"edges": np.array([[0, 1]]), "names": np.array(["a"])}, r"row 0 of edges is \[0, 1\], but nodes are 0 to 0"),
        ({"edges": np.array([[0, 1]]), "weights": np.ones(2)}, "2 weights for 1 edges"),
        ({"edges": np.array([[0, 1]]), "weights": np.array([-1.0])}, "must not be negative, but row 0 is -1"),
        ({"edges": np.array([[0, 1]]), "weights": np.array([np.nan])}, "weights must be finite"),
        ({"edges": np.array([[0, 1]]), "weights": np.array(["a"])}, "weights .* must be numbers"),
        ({"edges": np.array([[0, 1]]), "names": np.array([1, 2])}, "names .* must be strings"),
        ({"edges": np.array([[0, 1]]), "names": np.array(["a", "b"]), "labels": np.zeros(3, int)}, "labels has 3 rows"),
        ({"edges": np.array([[0, 1]]), "names": np.array(["a", None])}, "not objects"),
        ({"links": np.array([[0, 1]])}, "has the arrays links; expected edges"),
        ({**SPARSE, "format": b"coo"}, "is not a sparse matrix that SciPy can read"),
        ({**SPARSE, "indices": np.array([0, 2])}, "is not a sparse matrix that SciPy can read: indices must be < 2"),
        ({**SPARSE, "shape": np.array([2, 3])}, "an adjacency matrix is square"),
        ({**SPARSE, "data": np.array([1.0, -1])}, "row 1, column 0 is -1"),
        (
            {"format": b"coo", "shape": np.array([10**9] * 2), "data": [1.0], "row": [0], "col": [0]},
            "declares 1,000,000,000 nodes",
        ),
    ],
)
def test_bad_npz(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read_graph(tmp_path / "bad.npz")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 a\n9 b\n", "line 2: the graph has no node 9"),
        ("1 a\n1 b\n", "line 2: the node 1 already has the label a"),
        ("1 a\n2\n", "line 2: expected a node and its label, found 1 field"),
        ("# nothing", "has no labels"),
    ],
)
def test_bad_labels(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, "1 2\n", labels_file=write(tmp_path / "labels.txt", text))


def test_missing_files(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*none\.txt: No such file"):
        read_graph(tmp_path / "none.txt")
    with pytest.raises(DataError, match="Is a directory"):
        read_graph(tmp_path)
