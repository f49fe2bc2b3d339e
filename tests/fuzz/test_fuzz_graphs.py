"""Readers of graphs as text: edge lists, Pajek, GML, GraphML, labels; gzipped or not."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from datamodules.batches import GraphBatch
from readers.graphs.files import read_graph
from readers.graphs.labels import read_labels
from readers.graphs.state_networks import read_state_network
from tests.fuzz.fuzzing import broken, fuzz, outcome

TEXTS = {
    ".txt": [b"# a comment\n1 2\n2 3 0.5\n3 1\n", b'a,b,1\n"b, c",a,2.5\n', b"source\ttarget\tweight\nx\ty\t1\n"],
    ".net": [b'*Vertices 3\n1 "a"\n2 "b b"\n3 "c"\n*Edges\n1 2 0.5\n*Arcs\n2 3\n', b"*Bipartite 3\n1 3\n2 4 2\n"],
    ".gml": [b'graph [ directed 1 node [ id 1 label "a" value 2 ] node [ id 2 ] edge [ source 1 target 2 weight 2 ] ]'],
    ".graphml": [
        b'<?xml version="1.0" encoding="UTF-8"?><graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
        b'<graph edgedefault="directed"><node id="a"/><node id="b"/><edge source="a" target="b"/></graph></graphml>'
    ],
}

STATES = [
    b'*Vertices 2\n1 "a"\n2 "b"\n*States\n1 1\n2 1\n3 2\n*Links\n1 3 0.5\n2 3\n3 1\n',
    b"*Multilayer\n1 1 1 2\n1 2 2 1 0.5\n2 1 2 2\n",
    b"*Intra\n1 1 2\n2 1 2 0.5\n*Inter\n1 1 2\n2 2 1 0.5\n",
]
NAMES = np.array(["a", "b b", "1", "2"])
LABELS = {
    ".txt": [b"# a comment\nnode label\na x\n1 y\n", b'a,1\n"b b",2\n', b"1\t0\n2\t0\n"],
    ".gml": TEXTS[".gml"],
}


@pytest.mark.parametrize("suffix", TEXTS)
@fuzz(40)
@given(broke=st.data(), zipped=st.booleans())
def test_graph(tmp_path_factory: pytest.TempPathFactory, suffix: str, broke: st.DataObject, zipped: bool):
    data = broke.draw(broken(st.sampled_from(TEXTS[suffix])))
    check_graph(tmp_path_factory.mktemp("graph") / f"it{suffix}", gzip.compress(data) if zipped else data)


@fuzz(30)
@given(packed=broken(st.just(gzip.compress(TEXTS[".txt"][0]))))
@example(packed=b"\x1f\x8b")
def test_broken_gzip(tmp_path_factory: pytest.TempPathFactory, packed: bytes):
    check_graph(tmp_path_factory.mktemp("graph") / "it.txt.gz", packed)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("it.net", b"*Vertices 1000000000000\n*Edges\n1 2\n"),
        ("it.net", b'*Vertices 2\n\t1 "a"\n*Edges\n1 9\n'),
        ("it.net", b"\r*"),
        ("it.gml", b"graph [ " * 20_000),
        ("it.graphml", b"<a>" * 20_000),
        ("it.graphml", b"<?xml version='1.0' encoding='nothing'?><graphml/>"),
        ("it.txt", "1 2\n".encode("utf-16-le")),
    ],
    ids=["vertices", "unknown", "return", "deep", "deep-xml", "encoding", "utf-16"],
)
def test_rejected(tmp_path: Path, name: str, data: bytes):
    (tmp_path / name).write_bytes(data)
    assert outcome(lambda: read_graph(tmp_path / name), tmp_path / name) is None


def test_gzip_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("readers.files.LARGEST_UNPACKED", 1 << 20)
    path = tmp_path / "it.txt"
    path.write_bytes(gzip.compress(b"1 2\n" * (1 << 20)))
    assert outcome(lambda: read_graph(path), path) is None


@fuzz(60)
@given(data=broken(st.sampled_from(STATES)))
def test_states_and_layers(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    path = tmp_path_factory.mktemp("states") / "it.net"
    path.write_bytes(data)
    links = outcome(lambda: read_state_network(path), path)
    if links is not None:
        assert ((links.edges >= 0) & (links.edges < len(links.states))).all()  # states may stand without a link
        assert len(links.physical) == len(links.states) > 0
        assert 0 <= links.physical.min() <= links.physical.max() < len(links.names)
        assert np.isfinite(links.weights).all()
        assert (links.weights >= 0).all()


@pytest.mark.parametrize("suffix", LABELS)
@fuzz(40)
@given(broke=st.data(), zipped=st.booleans())
def test_labels(tmp_path_factory: pytest.TempPathFactory, suffix: str, broke: st.DataObject, zipped: bool):
    data = broke.draw(broken(st.sampled_from(LABELS[suffix])))
    path = tmp_path_factory.mktemp("labels") / f"it{suffix}"
    path.write_bytes(gzip.compress(data) if zipped else data)
    numbers = outcome(lambda: read_labels(path, NAMES), path)
    if numbers is not None:
        assert numbers.shape == NAMES.shape
        assert set(numbers.tolist()) - {-1} == set(range(numbers.max() + 1))


def check_graph(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    graph = outcome(lambda: GraphBatch.from_arrays(*read_graph(path)), path)
    if graph is not None:
        assert ((graph.edges >= 0) & (graph.edges < graph.num_nodes)).all()  # nodes may stand without a link
        assert graph.num_nodes == len(graph.names) > 0
        assert (graph.weights >= 0).all()
        assert graph.weights.isfinite().all()
