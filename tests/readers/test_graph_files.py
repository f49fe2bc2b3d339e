"""Graphs written in every format are read back unchanged; errors are located."""

import csv
import gzip
import io
from fractions import Fraction

import networkx
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from datamodules.batches import GraphBatch
from readers.errors import DataError
from readers.graphs import edge_list as edge_text
from readers.graphs import read_graph as read_arrays
from readers.graphs.compiled_links import number_ids, parse_links, parse_names
from readers.graphs.compiled_text import divide
from tests.conftest import SHARED

GRAPHS = SHARED / "graphs"
needs_graphs = pytest.mark.skipif(not GRAPHS.exists(), reason="needs ../shared/data/graphs")
few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

names = st.one_of(
    st.integers(-(10**17), 10**17).map(str),
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=5),
)
weights = st.one_of(st.floats(0, 1e300), st.floats(0, 1), st.integers(0, 10**6).map(float))


@st.composite
def link_lists(draw, names=names):
    """(source, target, weight) with names, the weights all 1 or any."""
    nodes = draw(st.lists(names, min_size=1, max_size=6, unique=True))
    weight = draw(st.sampled_from([st.just(1.0), weights]))
    node = st.sampled_from(nodes)
    return draw(
        st.lists(st.tuples(node, node, weight), min_size=1, max_size=12).filter(lambda x: any(w for *_, w in x))
    )


def links_of(graph):
    """The links of a graph, by the names of its nodes."""
    assert graph.edges.dtype == torch.int64
    assert graph.weights.dtype == torch.float64
    assert graph.features.dtype == torch.float32
    assert len(graph.names) == len(graph.labels) == len(graph.features) == graph.num_nodes
    ends = graph.names[graph.edges.numpy()]
    return [(str(a), str(b), w) for (a, b), w in zip(ends, graph.weights.tolist(), strict=True)]


def read_graph(path, **options):
    return GraphBatch.from_arrays(*read_arrays(path, **options))


def write(path, text, zipped=False):
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if zipped else data)
    return path


def read(tmp_path, text, name="graph.txt", **options):
    return read_graph(write(tmp_path / name, text), **options)


def as_blanks(links):
    def quoted(name):
        return '"' + name.replace('"', '""') + '"' if set(name) & set('",;#%*') else name

    return "# a comment\n\n" + "".join(f"{quoted(a)}  {quoted(b)} {w!r}\r\n" for a, b, w in links)


def as_table(separator):
    def to_text(links):
        file = io.StringIO()
        writer = csv.writer(file, delimiter=separator, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writerow(["Source", "Target", "Weight"])
        writer.writerows(links)
        return file.getvalue()

    return to_text


def as_gephi(links):
    """Weights before targets, and further columns."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(["Id", "Source", "weight", "Type", "Target"])
    writer.writerows([i, a, w, "Undirected", b] for i, (a, b, w) in enumerate(links))
    return file.getvalue()


@few
@given(links=link_lists(), zipped=st.booleans())
@pytest.mark.parametrize("form", [as_blanks, as_table(","), as_table("\t"), as_table(";"), as_gephi])
def test_text_is_read_back(tmp_path, form, links, zipped):
    graph = read_graph(write(tmp_path / "graph.txt", form(links), zipped))
    assert links_of(graph) == links
    named = graph.names.tolist()
    try:
        assert [str(int(name)) for name in named] == named
        assert named == sorted(named, key=int)
    except (ValueError, AssertionError):
        assert named == sorted(named)
    assert not graph.directed


@few
@given(links=link_lists(), directed=st.booleans())
def test_gml_and_graphml_are_read_back(tmp_path, links, directed):
    graph = networkx.MultiDiGraph() if directed else networkx.MultiGraph()
    graph.add_nodes_from(dict.fromkeys(name for a, b, _ in links for name in (a, b)), group=3)
    graph.add_weighted_edges_from(links)
    # Undirected links have no first end.
    expected = sorted((*((a, b) if directed else sorted((a, b))), w) for a, b, w in links)
    for suffix, to_lines in ((".gml", networkx.generate_gml), (".graphml", networkx.generate_graphml)):
        found = read_graph(write(tmp_path / f"graph{suffix}.gz", "\n".join(to_lines(graph)), zipped=True))
        ends = [(*((a, b) if directed else sorted((a, b))), w) for a, b, w in links_of(found)]
        assert sorted(ends) == expected
        assert found.directed == directed
        assert found.labels.tolist() == [0] * found.num_nodes


@few
@given(links=link_lists(), directed=st.booleans(), with_more=st.booleans())
def test_npz_is_read_back(tmp_path, links, directed, with_more):
    called = sorted({name for a, b, _ in links for name in (a, b)})
    arrays = {
        "edges": np.array([(called.index(a), called.index(b)) for a, b, _ in links], np.int32),
        "weights": np.array([w for *_, w in links]),
        "names": np.array([*called, "alone"]),
    }
    if with_more:
        arrays["labels"] = np.array(["x", "y"] * 5)[: len(called) + 1]
        arrays["features"] = np.arange(2.0 * len(called) + 2).reshape(-1, 2)
        arrays["directed"] = np.array(directed)
    np.savez(tmp_path / "graph.npz", **arrays)
    graph = read_graph(tmp_path / "graph.npz")
    assert links_of(graph) == links
    assert graph.num_nodes == len(called) + 1
    assert graph.directed is (directed if with_more else None)
    if with_more:
        assert graph.labels.tolist() == [i % 2 for i in range(graph.num_nodes)]
        assert graph.features.tolist() == arrays["features"].tolist()


def test_gml_as_people_write_it(tmp_path):
    """Non-ASCII and repeated names, repeated links in a graph that isn't declared a multigraph, ids with gaps."""
    nodes = "".join(
        f'node [ id {i} label "{name}" value "{c}" ]' for i, name, c in ((7, "é", "n"), (3, "李", "l"), (5, "é", "n"))
    )
    links = "edge [ source 7 target 3 value 2 ] edge [ source 3 target 7 ] edge [ source 5 target 5 value 0.5 ]"
    graph = read(tmp_path, f'Creator "x"\ngraph\n[\n  directed 1\n{nodes}\n{links}\n]\n', "graph.gml")
    assert links_of(graph) == [("é", "李", 2), ("李", "é", 1), ("é", "é", 0.5)]
    assert graph.edges.tolist() == [[0, 1], [1, 0], [2, 2]]
    assert graph.labels.tolist() == [1, 0, 1]
    assert graph.directed


def test_npz_without_names_counts_to_the_highest_id(tmp_path):
    np.savez(tmp_path / "graph.npz", edges=np.array([[0, 5], [2, 0]]), labels=np.array([7, -1, 3, 3, 7, -9]))
    graph = read_graph(tmp_path / "graph.npz")
    assert graph.names.tolist() == list("012345")
    assert graph.labels.tolist() == [1, -1, 0, 0, 1, -1]


# The compiled readers against the one that goes line by line: if they return a result, it is the same.

lines = st.lists(
    st.one_of(
        st.sampled_from(
            ["", "# x", "% 1 2", " 1 2 ", "1 2 0.5", "3 4\r", "10\t5", "1 2 3 4", "a b", "007 1", "-3 0", "-0 1"]
        ),
        st.tuples(st.integers(-5, 12), st.integers(0, 10**18)).map(lambda x: f"{x[0]} {x[1]}"),
        st.tuples(st.integers(0, 3), st.integers(0, 3), weights).map(lambda x: f"{x[0]} {x[1]} {x[2]!r}"),
        st.tuples(names, names).map(" ".join),
        st.text("01 .-+e\t#nai_,", max_size=9),
        st.tuples(st.integers(0, 3), st.text("0123456789.e+-_", min_size=1, max_size=24)).map(
            lambda x: f"1 {x[0]} {x[1]}"
        ),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=500, deadline=None)
@given(lines=lines, separator=st.sampled_from(" ,\t"), width=st.sampled_from([2, 3, None]))
@example(["1 2 9007199254740993", "1 2 0.30000000000000004", "1 1 123456789012345678e-18"], " ", None)
@example(['0 0"'], " ", None)
@example(["0 #"], "\t", None)
def test_compiled_readers_agree_with_plain_python(lines, separator, width):
    data = "\n".join(lines if separator == " " else [line.replace(" ", separator) for line in lines]).encode()
    fewest, most = (2, 3) if width is None else (width, width)
    columns = (0, 1) if width == 2 else (0, 1, 2)
    try:
        plain = edge_text.read_named_links(data, edge_text.LineFormat(0, separator, columns, width), "x")
    except DataError:
        plain = None
    named = parse_names(data, 0, separator, fewest, most, columns)
    # The compiled reader gives up at quotes, at lines that begin or end with a separating TAB, and at comments in them.
    rows = [row.strip(b" \r") for row in data.split(b"\n")]
    gives_up = b'"' in data or any(row[:1] == b"\t" or row[-1:] == b"\t" or b"#" in row or b"%" in row for row in rows)
    if plain is not None and len(plain[0]) and not gives_up:
        assert named is not None
    if named is not None:
        assert_same(named, plain)
    integers = parse_links(data, 0, len(data), separator, fewest, most)
    if integers is not None:
        ordered, called = edge_text.in_order(*plain[:2])
        edges, found_weights = integers
        ids = number_ids(edges)
        assert_same((edges, ids.astype(str).tolist(), found_weights), (ordered, called.tolist(), plain[2]))


def assert_same(one, other):
    assert one[0].tolist() == other[0].tolist()
    assert one[1] == other[1]
    assert (one[2] is None) == (other[2] is None)
    assert one[2] is None or one[2].tolist() == other[2].tolist()


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 2**60 - 1), st.integers(0, 18).map(lambda power: 10**power))
@example(2**53 + 1, 1)  # between two doubles: the even one
@example(2**53 + 3, 1)
@example(1, 3)
def test_division_is_correctly_rounded(numerator, denominator):
    assert divide(numerator, denominator) == float(Fraction(numerator, denominator))


@pytest.mark.parametrize("spread", [1, 10**12])
def test_ids_are_numbered_in_order(spread):
    ids = np.random.default_rng(0).integers(-500, 500, (300, 2)) * spread
    edges = ids.copy()
    different = number_ids(edges)
    assert different.tolist() == sorted(set(ids.ravel().tolist()))
    assert (different[edges] == ids).all()


# Layouts of lines.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 2\n2 3 0.5\n", [("1", "2", 1), ("2", "3", 0.5)]),  # Infomap's own examples mix them
        ("\ufeff10,9\n2,10\n", [("10", "9", 1), ("2", "10", 1)]),
        ("# a\n% b\nname1 name2 0.5\n", [("name1", "name2", 0.5)]),
        ("a,b,weight\n1,2,3\n", [("1", "2", 3)]),
        ("one two strength\n1 2 3\n", [("1", "2", 3)]),
        ("first second\n1 2\n", [("1", "2", 1)]),
        ("Ann,Bob\n1,2\n", [("1", "2", 1)]),  # ambiguous, read as names of columns
        ("Ann,Bob\nBob,3\n", [("Ann", "Bob", 1), ("Bob", "3", 1)]),
        ("node_1;node_2\nx y;z\n", [("x y", "z", 1)]),
        ("New York\tLos Angeles\t2\n", [("New York", "Los Angeles", 2)]),
        ('"New York" "Los ""A"""  2\n', [("New York", 'Los "A"', 2)]),
        ('"#1",b\n', [("#1", "b", 1)]),
        ("1 2\t0.5\n3\t4\n", [("1", "2", 0.5), ("3", "4", 1)]),
        ('a "b c" 2\n"x"\t y\n', [("a", "b c", 2), ("x", "y", 1)]),
        ("007 7\n", [("007", "7", 1)]),
        ("0\t1\r\r\n1\t2\r\r\n", [("0", "1", 1), ("1", "2", 1)]),
        ("a\u00a0b c\n", [("a\u00a0b", "c", 1)]),
        ("1 1\n1 2\n2 1\n1 2\n", [("1", "1", 1), ("1", "2", 1), ("2", "1", 1), ("1", "2", 1)]),
    ],
)
def test_layouts_of_lines(tmp_path, text, expected):
    assert links_of(read(tmp_path, text)) == expected


def test_order_of_lines_does_not_matter_to_the_nodes(tmp_path):
    lines = ["c 10", "a 9", "10 9"]
    first = read(tmp_path, "\n".join(lines))
    second = read(tmp_path, "\n".join(reversed(lines)))
    assert first.names.tolist() == second.names.tolist() == ["10", "9", "a", "c"]
    assert first.edges.tolist() == second.edges.tolist()[::-1]


def test_threshold_drops_links_and_keeps_nodes(tmp_path):
    graph = read(tmp_path, "1 2 0.5\n2 3 0.4\n4 3 0.5\n", min_weight=0.5)
    assert links_of(graph) == [("1", "2", 0.5), ("4", "3", 0.5)]
    assert graph.num_nodes == 4
    with pytest.raises(DataError, match=r"no link that weighs 1 or more: lower min_weight to 0\.5 or less"):
        read(tmp_path, "1 2 0.5\n", min_weight=1)


@pytest.mark.parametrize("text", ["source,target,weight\na,b,2\nb,c,1\n", "*Vertices 2\n1 a\n2 b\n*Edges\n1 2 2\n"])
def test_lines_may_end_in_carriage_returns(tmp_path, text):
    labels = write(tmp_path / "labels", "a 1\rb 2\r")
    graph = read(tmp_path, text.replace("\n", "\r"), labels_file=labels)
    assert links_of(graph) == links_of(read(tmp_path, text))
    assert graph.labels.tolist()[:2] == [0, 1]


# Pajek.


def test_pajek_mixes_edges_and_arcs(tmp_path):
    text = '*Network a title\n*vertices 4\n1 "one node" 0.5 0.5\n3 three\n*Edges\n1 2 2\n3 3\n*Arcs 1\n3 1 0.25 c Red\n'
    graph = read(tmp_path, text)
    one = ("one node", "2", "three", "4")
    assert graph.names.tolist() == list(one)
    assert graph.directed
    assert sorted(links_of(graph)) == sorted(
        [("one node", "2", 2), ("2", "one node", 2), ("three", "three", 1), ("three", "one node", 0.25)]
    )
    graph = read(tmp_path, text, directed=False)
    assert not graph.directed
    assert len(graph.edges) == 3
    assert links_of(read(tmp_path, "*Edges\n5 7\n", directed=True)) == [("5", "7", 1)]


@pytest.mark.parametrize(
    "text", ["*Vertices 5 3\n*Edges\n1 4\n5 2 2\n3 5\n", "*Vertices 5\n1 a\n*Bipartite 4\n1 4\n5 2 2\n3 5\n"]
)
def test_pajek_has_two_kinds_of_nodes(tmp_path, text):
    graph = read(tmp_path, text)
    assert graph.bipartite == 3
    assert graph.edges.tolist() == [[0, 3], [4, 1], [2, 4]]
    with pytest.raises(DataError, match="doesn't join the two kinds"):
        read(tmp_path, text + "5 4\n")
    with pytest.raises(DataError, match="are undirected here"):
        read(tmp_path, text, directed=True)


# Labels.


@pytest.mark.parametrize(
    "text",
    ["# x\n3 b\n1\ta\n2 a", "node,label\n3,b\n1,a\n2,a\n", '3;"b"\n1;a\n"2";a\n', "3\tb\r\n3\tb\r\n1\ta\r\n2\ta\r\n"],
)
def test_labels_file(tmp_path, text):
    labels = write(tmp_path / "labels.gz", text, zipped=True)
    graph = read(tmp_path, "1 2\n2 3\n3 4\n", labels_file=labels)
    assert graph.labels.tolist() == [0, 0, 1, -1]


def test_labels_that_are_integers_keep_their_order(tmp_path):
    graph = read(tmp_path, "1 2\n2 3\n", labels_file=write(tmp_path / "labels", "1 10\n2 9\n3 -1\n"))
    assert graph.labels.tolist() == [2, 1, 0]


def test_labels_of_a_markup_file(tmp_path):
    other = networkx.Graph()
    other.add_node("n1", label="a b", club="x")
    other.add_node("c", club="w")
    other.add_node("nobody")
    networkx.write_graphml(other, tmp_path / "labels.graphml")
    graph = read(tmp_path, "a b,c\nc,d\n", labels_file=tmp_path / "labels.graphml")
    assert graph.labels.tolist() == [1, 0, -1]


# Real files.


@needs_graphs
@pytest.mark.parametrize(
    ("name", "nodes", "links", "directed"),
    [
        ("ca-GrQc.txt.gz", 5242, 28980, None),  # the links as the files themselves say
        ("CA-CondMat.txt.gz", 23133, 186936, None),
        ("email-Enron.txt.gz", 36692, 367662, None),
        ("email-Eu-core.txt.gz", 1005, 25571, None),
        ("football.gml", 115, 613, False),
        ("celegansneural.gml.gz", 297, 2345, True),
        ("infomap_examples/jazz.net", 198, 2742, None),
        ("infomap_examples/modular_w.net", 25, 43, None),
        ("infomap_examples/modular_wd.net", 25, 48, True),
        ("infomap_examples/ninetriangles.net", 27, 39, None),
        ("lfr/lfr_n1000_mu0.3.edges.gz", 1000, 9199, None),
    ],
)
def test_real_graphs(name, nodes, links, directed):
    graph = read_graph(GRAPHS / name)
    assert (graph.num_nodes, len(graph.edges), graph.directed) == (nodes, links, directed)


@needs_graphs
@pytest.mark.parametrize(
    ("name", "labels", "classes"),
    [
        ("football.gml", None, 12),
        ("polbooks.gml", None, 3),
        ("ground_truth/karate_groundTruth.gml", None, 2),
        ("dolphins.gml", "ground_truth/dolphins_group.gml", 2),
        ("email-Eu-core.txt.gz", "ground_truth/email-Eu-core-department-labels.txt", 42),
        ("lfr/lfr_n1000_mu0.3.edges.gz", "lfr/lfr_n1000_mu0.3.communities.gz", 23),
    ],
)
def test_real_labels(name, labels, classes):
    graph = read_graph(GRAPHS / name, labels_file=None if labels is None else GRAPHS / labels)
    assert sorted(set(graph.labels.tolist())) == list(range(classes))


@needs_graphs
def test_bipartite_example():
    graph = read_graph(GRAPHS / "infomap_examples/bipartite.net")
    assert graph.bipartite == 3
    assert links_of(graph)[2] == ("Node 2", "Feature 2", 0.25)
