"""Words and their neighbours: a graph of word vectors, for clustering words."""

import re
import sys
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from readers.errors import DataError
from readers.files import user_path
from readers.graphs.graph import name_array
from readers.word_vectors import read_word_vectors

from .arguments import check_at_least, check_seed
from .batches import GraphBatch
from .cache import ArrayCache
from .graph_data import GraphDataModule

CACHE_VERSION = 1  # to be raised when the same vectors would give other links
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
BLOCK_BYTES = 1 << 26  # of the cosines that are looked at together


class WordVectorDataModule(GraphDataModule):
    """The directed graph of each word's nearest neighbours by cosine.

    A link leads from a word to each of its ``num_neighbors`` nearest others whose cosine with it is ``min_cosine`` or
    more, and weighs that cosine. Training, validation and test each have one batch an epoch, the whole graph
    (``GraphBatch``), on every rank; the features of a node are its vector, of length 1. The
    links of a file are kept in the user's cache folder.

    Args:
        source: ``sample`` (made-up words, whose labels are the clusters they were made in), or a file of word vectors:
            ``.npz`` with ``words`` and ``vectors``, or the text of word2vec or GloVe.
        max_words: read so many words from the beginning; files commonly begin with the frequent ones.
        words_pattern: a regular expression; words that it doesn't fit as a whole are left out, e.g. ``[a-z]+`` for
            English and ``[一-龥]+`` for Chinese without punctuation and mark-up. None: all words.
        num_neighbors: the most links that lead from a word.
        min_cosine: the least weight of a link, in [0, 1].
        seed: of ``sample``.
        sample_num_words: words of ``sample``.
        sample_num_clusters: its clusters.
        sample_vector_size: the length of its vectors.

    Attributes:
        graph_batch: the graph; names of nodes are the words.
        num_nodes: words.
        num_features: numbers of a vector.
        num_classes: clusters of ``sample``; 0 for a file.

    Raises:
        ValueError: an argument is out of its range.
        DataError: the source is ``hub``, or can't be read, or no two words are near enough.

    Source: Su 2019, https://kexue.fm/archives/7006: 10,000 words, at most 50 neighbours, cosine 0.6. Difference: a word
    is no neighbour of itself.
    """

    def __init__(
        self,
        source: str = "sample",
        max_words: int = 10000,
        words_pattern: str | None = None,
        num_neighbors: int = 50,
        min_cosine: float = 0.6,
        seed: int = 0,
        sample_num_words: int = 1000,
        sample_num_clusters: int = 25,
        sample_vector_size: int = 50,
    ) -> None:
        super().__init__()
        check_at_least(2, max_words=max_words, sample_num_words=sample_num_words, sample_vector_size=sample_vector_size)
        check_at_least(1, num_neighbors=num_neighbors, sample_num_clusters=sample_num_clusters)
        if not 0 <= min_cosine <= 1:
            raise ValueError(f"min_cosine ({min_cosine}) must lie in [0, 1]: it is the least weight of a link")
        check_seed(seed)
        try:
            re.compile(words_pattern or "")
        except re.error as error:
            raise ValueError(f"words_pattern ({words_pattern}) is no regular expression: {error}") from error
        if source == "hub":
            raise DataError("data.source: the hub has no word vectors for this; give your file of them, or sample")
        self.source = source
        self.max_words = max_words
        self.words_pattern = words_pattern
        self.num_neighbors = num_neighbors
        self.min_cosine = min_cosine
        self.seed = seed
        self.sample_num_words = sample_num_words
        self.sample_num_clusters = sample_num_clusters
        self.sample_vector_size = sample_vector_size

    def prepare_data(self) -> None:
        """Find the neighbours in one process, for the others to find them in the cache."""
        self.setup()

    @cached_property
    def graph_batch(self) -> GraphBatch:
        words, vectors, labels = self._words()
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors / np.where(lengths > 0, lengths, 1)
        if self.source == "sample":
            edges, weights = nearest_neighbors(torch.from_numpy(vectors), self.num_neighbors, self.min_cosine)
        else:
            edges, weights = self._cached_neighbors(vectors)
        if not len(edges):
            raise DataError(
                f"{self.source}: no two of {len(words)} words have a cosine of {self.min_cosine} or more: lower "
                "data.min_cosine"
            )
        return GraphBatch.from_arrays(edges, name_array(words), weights, True, labels=labels, features=vectors)

    def _words(self) -> tuple[list[str], NDArray[np.float32], NDArray[np.int64] | None]:
        """Words, vectors and clusters."""
        if self.source == "sample":
            return make_words(self.sample_num_words, self.sample_num_clusters, self.sample_vector_size, self.seed)
        words, vectors = read_word_vectors(Path(self.source), self.max_words)
        if self.words_pattern is not None:
            pattern = re.compile(self.words_pattern)
            kept = [place for place, word in enumerate(words) if pattern.fullmatch(word)]
            words, vectors = [words[place] for place in kept], vectors[kept]
        if len(words) < 2:
            raise DataError(f"{self.source}: {len(words)} words are too few; see data.words_pattern and data.max_words")
        return words, vectors, None

    def _cached_neighbors(self, vectors: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        path = user_path(self.source).resolve()
        status = path.stat()
        key = {
            "file": [str(path), status.st_mtime_ns, status.st_size],
            "words": [self.max_words, self.words_pattern],
            "links": [self.num_neighbors, self.min_cosine],
        }

        def build():
            edges, weights = nearest_neighbors(torch.from_numpy(vectors), self.num_neighbors, self.min_cosine)
            return {"edges": edges, "weights": weights}, {}

        arrays, _ = ArrayCache("word_graphs", CACHE_VERSION, key).load_or_build(build)
        return arrays["edges"], arrays["weights"]

    def describe(self) -> dict[str, Any]:
        """What the run was trained on, as plain values."""
        settings = {"num_neighbors": self.num_neighbors, "min_cosine": self.min_cosine}
        return {"source": self.source, **settings, **super().describe()}


def nearest_neighbors(
    vectors: Tensor, num_neighbors: int, min_cosine: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Links from each vector to its nearest others by cosine, in memory of O(block · N).

    Args:
        vectors: (N, D) float32, of length 1 (or 0).
        num_neighbors: the most links from each.
        min_cosine: the least cosine of a link.

    Returns:
        (E, 2) source and target, sources ascending and targets of each by falling cosine; (E,) cosines, at most 1.
    """
    nodes = len(vectors)
    size = max(1, BLOCK_BYTES // (4 * nodes))
    most = min(num_neighbors, nodes - 1)
    edges, weights = [], []
    for start in _with_progress(range(0, nodes, size)):
        cosines = vectors[start : start + size] @ vectors.T
        cosines.diagonal(start).fill_(-1)
        values, targets = cosines.topk(most)
        sources, columns = (values >= min_cosine).nonzero(as_tuple=True)
        edges.append(torch.stack([sources + start, targets[sources, columns]], 1))
        weights.append(values[sources, columns].double().clamp(max=1))
    return torch.cat(edges).numpy(), torch.cat(weights).numpy()


def _with_progress(blocks: range) -> Iterable[int]:
    """The blocks, with a bar on the terminal where there are several."""
    if len(blocks) < 5 or not sys.stderr.isatty():
        return blocks
    from rich.console import Console
    from rich.progress import track

    return track(blocks, "finding neighbours", console=Console(stderr=True), transient=True)


def make_words(
    num_words: int, num_clusters: int, vector_size: int, seed: int
) -> tuple[list[str], NDArray[np.float32], NDArray[np.int64]]:
    """Made-up words in clusters, in random order.

    The words of a cluster begin with the same syllable, and their vectors have its direction with more or less noise:
    some have near neighbours of their own cluster, some hardly any. A fifth of the words lie between two clusters.
    Lengths differ.

    Returns:
        different words, (num_words, vector_size) float32 vectors, (num_words,) clusters from 0.
    """
    random = np.random.default_rng([seed, 9])
    labels = random.permutation(np.arange(num_words) % num_clusters)
    centers = _unit(random.standard_normal((num_clusters, vector_size)))
    noise = random.uniform(0.3, 1.3, (num_words, 1)) * _unit(random.standard_normal((num_words, vector_size)))
    other = centers[(labels + random.integers(1, max(2, num_clusters), num_words)) % num_clusters]
    between = np.where(random.random((num_words, 1)) < 0.2, 0.8, 0.0)
    vectors = (centers[labels] + between * other + noise) * random.uniform(1, 3, (num_words, 1))
    words, counts = [], [0] * num_clusters
    for label in labels.tolist():
        words.append(_spell(label, num_clusters) + _spell(counts[label], num_words))
        counts[label] += 1
    return words, vectors.astype(np.float32), labels


def _spell(number: int, count: int) -> str:
    """One of ``count`` syllables or, where there are too few of these, longer beginnings or ends of words."""
    spelt = SYLLABLES[number % len(SYLLABLES)]
    return spelt if count <= len(SYLLABLES) else _spell(number // len(SYLLABLES), -(-count // len(SYLLABLES))) + spelt


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
