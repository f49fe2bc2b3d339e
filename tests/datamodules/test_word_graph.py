"""Nearest neighbours against a loop over all pairs; words from files and from the sample."""

import math

import numpy as np
import pytest
import torch

from datamodules import DataError, WordVectorDataModule, word_graph
from tests.conftest import SHARED

VECTORS = SHARED / "word_vectors"


def links_by_loop(vectors, num_neighbors, min_cosine):
    links = []
    for i, one in enumerate(vectors):
        near = []
        for j, other in enumerate(vectors):
            lengths = math.sqrt(sum(x * x for x in one)) * math.sqrt(sum(y * y for y in other))
            cosine = sum(x * y for x, y in zip(one, other, strict=True)) / lengths if lengths else 0.0
            if i != j and cosine >= min_cosine:
                near.append((cosine, j))
        links += [(i, j, cosine) for cosine, j in sorted(near, reverse=True)[:num_neighbors]]
    return links


def save(path, vectors, words=None):
    words = [f"w{i}" for i in range(len(vectors))] if words is None else words
    np.savez(path, words=np.array(words), vectors=np.asarray(vectors, np.float32))
    return str(path)


@pytest.mark.parametrize(("num_neighbors", "min_cosine"), [(3, 0.6), (50, 0.0), (1, 0.2), (100, 0.5)])
@pytest.mark.parametrize("block_bytes", [1, 4 * 60 * 7, 1 << 26])
def test_neighbors_are_those_of_a_loop(tmp_path, monkeypatch, num_neighbors, min_cosine, block_bytes):
    monkeypatch.setattr(word_graph, "BLOCK_BYTES", block_bytes)
    vectors = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
    vectors[7] = 0
    data = WordVectorDataModule(save(tmp_path / "v.npz", vectors), num_neighbors=num_neighbors, min_cosine=min_cosine)
    graph = data.graph_batch
    expected = links_by_loop(vectors.tolist(), num_neighbors, min_cosine)
    if min_cosine == 0:  # the zero vector has the cosine 0 with all, in no order
        expected = [link for link in expected if 7 not in link[:2]]
    found = [(*ends, weight) for ends, weight in zip(graph.edges.tolist(), graph.weights.tolist(), strict=True)]
    found = [link for link in found if min_cosine > 0 or 7 not in link[:2]]
    assert [link[:2] for link in found] == [link[:2] for link in expected]
    assert [link[2] for link in found] == pytest.approx([link[2] for link in expected], abs=1e-5)
    assert graph.directed
    assert graph.num_nodes == 60
    lengths = graph.features.norm(dim=1)
    assert lengths[7] == 0
    assert torch.allclose(lengths[torch.arange(60) != 7], torch.ones(59))
    assert data.num_classes == 0
    assert data.num_features == 4


def test_equal_vectors_weigh_no_more_than_one(tmp_path):
    vectors = np.random.default_rng(0).standard_normal((1, 5)).repeat(9, 0)
    graph = WordVectorDataModule(save(tmp_path / "v.npz", vectors)).graph_batch
    assert len(graph.edges) == 9 * 8
    assert (graph.edges[:, 0] != graph.edges[:, 1]).all()
    assert graph.weights.max() <= 1
    assert graph.weights.min() > 1 - 1e-6


def test_words_are_those_of_the_pattern_among_the_first(tmp_path):
    words = ["</s>", "one", "two", "%", "three", "four"]
    path = save(tmp_path / "v.npz", np.ones((6, 2)), words)
    data = WordVectorDataModule(path, max_words=5, words_pattern="[a-z]+")
    assert data.graph_batch.names.tolist() == ["one", "two", "three"]
    assert WordVectorDataModule(path, max_words=5).num_nodes == 5
    (tmp_path / "v.txt").write_text("4 2\none 1 0\ntwo 1 0.1\nthree 0 1\nfour 1 0\n", encoding="utf-8")
    data = WordVectorDataModule(str(tmp_path / "v.txt"), max_words=3)
    assert data.graph_batch.edges.tolist() == [[0, 1], [1, 0]]


def test_links_come_from_the_cache(tmp_path, monkeypatch):
    path = save(tmp_path / "v.npz", np.random.default_rng(0).standard_normal((40, 3)))
    WordVectorDataModule(path).prepare_data()
    whole = WordVectorDataModule(path, num_neighbors=2).graph_batch

    def fail(*_):
        raise AssertionError("not found in the cache")

    monkeypatch.setattr(word_graph, "nearest_neighbors", fail)
    again = WordVectorDataModule(path, num_neighbors=2)
    assert torch.equal(again.graph_batch.edges, whole.edges)
    assert torch.equal(again.graph_batch.weights, whole.weights)
    with pytest.raises(AssertionError, match="not found in the cache"):
        WordVectorDataModule(path, num_neighbors=3).setup()
    save(tmp_path / "v.npz", np.random.default_rng(1).standard_normal((40, 4)))
    with pytest.raises(AssertionError, match="not found in the cache"):
        WordVectorDataModule(path, num_neighbors=2).setup()


def test_sample():
    data = WordVectorDataModule()
    graph = data.graph_batch
    assert (data.num_nodes, data.num_features, data.num_classes) == (1000, 50, 25)
    assert len(set(graph.names.tolist())) == 1000
    assert (
        len({(name[:2], label) for name, label in zip(graph.names.tolist(), graph.labels.tolist(), strict=True)}) == 25
    )
    described = data.describe()
    assert 0 < described["mixing"] < 0.1
    assert described["directed"]
    assert described == WordVectorDataModule().describe()
    assert described != WordVectorDataModule(seed=1).describe()
    many = WordVectorDataModule(sample_num_words=400, sample_num_clusters=150, sample_vector_size=20)
    assert len(set(many.graph_batch.names.tolist())) == 400
    assert many.num_classes == 150


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_words": 1}, r"max_words \(1\) must be at least 2"),
        ({"num_neighbors": 0}, "num_neighbors"),
        ({"min_cosine": -0.1}, r"min_cosine \(-0.1\) must be in \[0, 1\]"),
        ({"min_cosine": float("nan")}, "min_cosine"),
        ({"words_pattern": "["}, "words_pattern .* is not a regular expression"),
        ({"seed": -1}, "seed"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        WordVectorDataModule(**arguments)


def test_unavailable_words_are_reported(tmp_path):
    with pytest.raises(DataError, match="hub has no word vectors"):
        WordVectorDataModule("hub")
    with pytest.raises(DataError, match="cannot read"):
        WordVectorDataModule(str(tmp_path / "none.npz")).setup()
    path = save(tmp_path / "v.npz", [[1, 0], [0, 1]])
    with pytest.raises(DataError, match=r"no two of 2 words have a cosine of 0\.6 or more: lower data\."):
        WordVectorDataModule(path).setup()
    with pytest.raises(DataError, match=r"0 words are too few; see data\.words_pattern"):
        WordVectorDataModule(path, words_pattern="x").setup()


@pytest.mark.skipif(not VECTORS.exists(), reason="needs ../shared/data/word_vectors")
def test_neighbors_of_a_real_word():
    data = WordVectorDataModule(str(VECTORS / "glove6B_50d_top20000_fp16.npz"), max_words=3000, words_pattern="[a-z]+")
    graph = data.graph_batch
    names = graph.names.tolist()
    near = [names[target] for source, target in graph.edges.tolist() if names[source] == "father"]
    assert near[:3] == ["son", "brother", "friend"]
    assert graph.weights.min() >= 0.6
    assert torch.bincount(graph.edges[:, 0]).max() == 50
