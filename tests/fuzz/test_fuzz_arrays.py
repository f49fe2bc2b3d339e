"""Readers of arrays: word vectors (text and npz), graphs as npz, the caches."""

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import example, given
from hypothesis import strategies as st

from datamodules.batches import GraphBatch
from datamodules.cache import ArrayCache
from readers.errors import DataError
from readers.graphs.files import read_graph
from readers.word_vectors import read_word_vectors
from tests.fuzz.fuzzing import Boom, broken, fuzz, outcome
from tests.fuzz.test_fuzz_texts import make_no_file

# ------------------------------------------------------------------------------------------------------------- text

VALUES = st.sampled_from(["0", "1", "-0.5", "3e2", "+.25", "1e-50"])
ROWS = st.lists(
    st.tuples(st.sampled_from(["the", "cat", "New York", "中"]), VALUES, VALUES).map(" ".join), min_size=1, max_size=4
)
VECTORS = st.tuples(st.sampled_from(["", "4 2\n", "1000000000000 2\n", "4 1000000000000\n"]), ROWS).map(
    lambda parts: (parts[0] + "\n".join(parts[1])).encode()
)


def parse_vectors(data: bytes) -> tuple[list[str], list[list[float]]] | None:
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    header = lines[0].split()
    width = None
    if len(header) == 2 and all(part.isdigit() and len(part) < 19 for part in header) and int(header[1]):
        width = int(header[1])
        lines = lines[1:]
    found: dict[str, list[float]] = {}
    for line in lines:
        parts = line.split()
        if not parts:
            continue
        width = width or len(parts) - 1
        if not 0 < width < len(parts):
            return None
        try:
            values = [float(part) for part in parts[-width:]]
            word = line.strip().rsplit(maxsplit=width)[0].decode()
        except ValueError:
            return None
        if not all(abs(value) < 3.4e38 for value in values):
            return None
        found.setdefault(word, values)
    return (list(found), list(found.values())) if found else None


@fuzz(120)
@given(data=broken(VECTORS))
@example(data=b"2 99999999999999999999\na 1\n")
@example(data=b"2 " + b"9" * 5000 + b"\na 1\n")
def test_vectors_as_text(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    path = tmp_path_factory.mktemp("vectors") / "vectors.txt"
    path.write_bytes(data)
    found = outcome(lambda: read_word_vectors(path), path)
    expected = parse_vectors(data)
    assert (found is None) == (expected is None)
    if found is not None:
        assert found[0] == expected[0]
        np.testing.assert_array_equal(found[1], np.array(expected[1], np.float32))


# -------------------------------------------------------------------------------------------------------------- npz


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def announce(descr: str, shape: str, content: bytes = b"") -> bytes:
    """An array with a complete header and hardly any content."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


STRANGE = st.sampled_from(
    [
        npy(np.array([Boom()], object)),
        npy(np.array(["a", 1], object)),
        npy(np.array(5)),
        npy(np.array("a")),
        npy(np.zeros((0, 2), np.int64)),
        npy(np.zeros((3, 0))),
        npy(np.array(["a", "b"], "S1")),
        npy(np.array([1, 2], "M8[s]")),
        npy(np.array([[1, 2]], complex)),
        npy(np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")])),
        npy(np.array([[0, 2**63]], np.uint64)),
        npy(np.array([[0, 10**12]])),
        npy(np.array([[0, -1]], ">i4")),
        npy(np.array([[1e300, np.nan]])),
        npy(np.array([1e300, 1.0, -1.0], np.longdouble)),
        npy(np.array([True, False, True])),
        npy(np.array([0x110000, 0xD800], np.uint32).view("U1")),
        npy(np.asfortranarray(np.ones((3, 2)))),
        announce("<f4", "(1000000000000, 300)"),
        announce("<i8", "(1000000000000, 2)", bytes(64)),
        announce("<U0", "(1000000000000,)"),
        announce("<f4", "(1000000000000, 0)"),
        announce("|V0", "(1000000000000,)"),
        announce("<f4", "(-1, 2)", bytes(64)),
        announce("<f4", "(" * 100 + ")" * 100),
        announce("|O", "(2,)", pickle.dumps([Boom(), 1])),
        b"no array",
        b"",
    ]
)  # fmt: skip


@st.composite
def npz(draw: st.DrawFn, arrays: dict[str, st.SearchStrategy[np.ndarray]]) -> bytes:
    """A zip of these arrays, some of which may be missing or strange."""
    file = io.BytesIO()
    method = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, arrays_of in arrays.items():
            which = draw(st.integers(0, 9))
            if which:
                content = draw(STRANGE) if which == 9 else npy(draw(arrays_of))
                archive.writestr(name + draw(st.sampled_from([".npy"] * 19 + [""])), content)
    return file.getvalue()


def array_of(values: st.SearchStrategy, dtypes: list[str], *shape: int) -> st.SearchStrategy[np.ndarray]:
    size = int(np.prod(shape))
    return st.tuples(st.lists(values, min_size=size, max_size=size), st.sampled_from(dtypes)).map(
        lambda drawn: np.array(drawn[0]).astype(drawn[1]).reshape(shape)
    )


WORD_ARRAYS = npz(
    {
        "words": array_of(st.sampled_from(["a", "b", "中", ""]), ["U1", ">U3"], 3),
        "vectors": array_of(st.sampled_from([0.0, 1.5, -2.0]), ["f2", "f4", ">f8", "i1"], 3, 2),
        "other": st.just(np.array([1])),
    }
)


@fuzz(100)
@given(data=broken(WORD_ARRAYS))
@example(data=npy(np.ones((2, 2))))
@example(data=b"")
@example(data=pickle.dumps(Boom()))
def test_vectors_as_npz(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    path = tmp_path_factory.mktemp("vectors") / "vectors.npz"
    path.write_bytes(data)
    found = outcome(lambda: read_word_vectors(path), path)
    if found is None:
        return
    words, vectors = found
    assert vectors.shape == (len(words), vectors.shape[1])
    assert np.isfinite(vectors).all()
    assert len(set(words)) == len(words) > 0
    with np.load(path) as arrays:
        first = arrays["words"].tolist().index(words[0])
        np.testing.assert_array_equal(vectors[0], arrays["vectors"][first].astype(np.float32))


def test_whole_npz_of_vectors_is_read(tmp_path: Path):
    path = tmp_path / "vectors.npz"
    np.savez_compressed(path, words=np.array(["a", "b", "a"]), vectors=np.arange(6.0).reshape(3, 2), more=np.ones(2))
    words, vectors = read_word_vectors(path)
    assert words == ["a", "b"]
    np.testing.assert_array_equal(vectors, [[0, 1], [2, 3]])


def zipped(edges: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("edges.npy", edges)
    return file.getvalue()


GRAPH_ARRAYS = npz(
    {
        "edges": array_of(st.integers(0, 3), ["i8", "u2", ">i4"], 5, 2),
        "weights": array_of(st.sampled_from([0, 1, 2.5]), ["f8", "f4", "i4"], 5),
        "names": array_of(st.sampled_from(["a", "b\n", "中"]), ["U2", ">U2"], 4),
        "labels": array_of(st.integers(-1, 2), ["i8", "U2"], 4),
        "features": array_of(st.integers(0, 2), ["f4", "f8", "?"], 4, 2),
        "directed": array_of(st.booleans(), ["?"]),
    }
)


@fuzz(150)
@given(data=broken(GRAPH_ARRAYS))
@example(data=npy(np.ones((2, 2))))
@example(data=b"\xef\xbb\xbf" + zipped(npy(np.array([[0, 1], [1, 2]]))))
def test_graph_as_npz(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    path = tmp_path_factory.mktemp("graph") / "graph.npz"
    path.write_bytes(data)
    graph = outcome(lambda: GraphBatch.from_arrays(*read_graph(path)), path)
    if graph is None:
        return
    with np.load(io.BytesIO(data.removeprefix(b"\xef\xbb\xbf"))) as arrays:  # a byte order mark is harmless
        np.testing.assert_array_equal(graph.edges.numpy(), arrays["edges"].astype(np.int64))
        if "weights" in arrays:
            np.testing.assert_array_equal(graph.weights.numpy(), arrays["weights"].astype(np.float64))
        if "names" in arrays:
            assert graph.names.tolist() == arrays["names"].tolist()
        if "features" in arrays:
            np.testing.assert_array_equal(graph.features.numpy(), arrays["features"].astype(np.float32))
        assert bool(graph.directed) == bool(arrays.get("directed", False))
    assert ((graph.edges >= 0) & (graph.edges < graph.num_nodes)).all()  # names or features may stand without a link
    assert graph.num_nodes == len(graph.names) > 0
    assert graph.labels.shape == (graph.num_nodes,)
    assert (graph.weights >= 0).all()
    assert graph.weights.isfinite().all()
    assert graph.features.isfinite().all()


FORMATS = ["csr", "csc", "coo", "bsr", "dia"]


@fuzz(100)
@given(
    form=st.sampled_from(FORMATS),
    array=st.sampled_from(["data", "shape", "indices", "indptr", "row", "col", "offsets", "format"]),
    content=st.one_of(
        st.none(), STRANGE, st.lists(st.integers(-2, 5), max_size=6).map(lambda values: npy(np.array(values)))
    ),
)
def test_sparse_matrix_as_npz(tmp_path_factory: pytest.TempPathFactory, form: str, array: str, content: bytes | None):
    """One array of it is left out, or another."""
    path = tmp_path_factory.mktemp("graph") / "graph.npz"
    scipy.sparse.save_npz(
        path, scipy.sparse.coo_array(([1.0, 2.0, 1.0], ([0, 1, 3], [1, 2, 3])), (4, 4)).asformat(form)
    )
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, whole in members.items():
            if name != f"{array}.npy":
                archive.writestr(name, whole)
            elif content is not None:
                archive.writestr(name, content)
    graph = outcome(lambda: GraphBatch.from_arrays(*read_graph(path)), path)
    if graph is not None:
        assert ((graph.edges >= 0) & (graph.edges < graph.num_nodes)).all()
        assert (graph.weights >= 0).all()
        assert graph.num_nodes == len(graph.names) > 0


def test_npz_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("readers.files.LARGEST_UNPACKED", 1 << 20)
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, words=np.array(["a"] * 10), vectors=np.zeros((10, 1 << 16)))
    assert outcome(lambda: read_word_vectors(path), path) is None
    np.savez_compressed(path, edges=np.zeros((1 << 20, 2), np.int64))
    assert outcome(lambda: read_graph(path), path) is None


@pytest.mark.parametrize("make", ["folder", "loop", "nothing", "dangling"])
@pytest.mark.parametrize("reader", [read_word_vectors, read_graph])
@pytest.mark.parametrize("name", ["it.npz", "it.txt"])
def test_paths_without_arrays(tmp_path: Path, make: str, reader: Any, name: str):
    path = tmp_path / name
    make_no_file(path, make)
    with pytest.raises(DataError, match=name):
        reader(path)


# ------------------------------------------------------------------------------------------------------------ caches


@fuzz(60)
@given(broke=st.data(), name=st.sampled_from(["about.json", "a.npy", "b.npy"]))
def test_a_damaged_cache_is_rebuilt(tmp_path_factory: pytest.TempPathFactory, broke: st.DataObject, name: str):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        cache = ArrayCache("things", 1, {"key": 1})
    stored = {"a": np.arange(4), "b": np.array([[1.5, 2.5]])}, {"names": ["x", "é"], "count": 3}
    cache.write(*stored)
    content = (cache.folder / name).read_bytes()
    damaged = broke.draw(st.one_of(broken(st.just(content)), st.just(b"[" * 200_000)))
    (cache.folder / name).write_bytes(damaged)
    for again in (
        outcome(cache.load, cache.folder),
        outcome(lambda: cache.load_or_build(lambda: stored), cache.folder),
    ):
        if again is not None:
            np.testing.assert_array_equal(again[0]["a"], stored[0]["a"])
            np.testing.assert_array_equal(again[0]["b"], stored[0]["b"])
            assert json.loads(json.dumps(again[1])) == stored[1]
    assert again is not None
