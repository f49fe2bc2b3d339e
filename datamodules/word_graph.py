"""The nearest-neighbour graph of word vectors, for clustering words."""

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
from .samples.words import make_words

CACHE_VERSION = 1  # raise it when the same vectors would give other links
BLOCK_BYTES = 1 << 26  # of the cosines computed at once


class WordVectorDataModule(GraphDataModule):
    """The directed graph of each word's nearest neighbours by cosine.

    Each word has a link to each of its ``num_neighbors`` nearest others whose cosine with it is at least
    ``min_cosine``; the cosine is the link's weight. Training, validation and test each have one batch per epoch, the
    whole graph (``GraphBatch``), on every rank; a node's features are its vector, normalised to length 1. The links of
    a file are kept in the user's cache folder.

    Args:
        source: ``sample`` (made-up words, labelled with the cluster that they were drawn from), or a file of word
            vectors (``readers.word_vectors``).
        max_words: how many words to read; files commonly list frequent words first.
        words_pattern: a regular expression; words that don't match as a whole are left out, e.g. ``[a-z]+`` for
            English and ``[一-龥]+`` for Chinese without punctuation and mark-up. None: all words.
        num_neighbors: maximum number of links from a word.
        min_cosine: minimum weight of a link, in [0, 1].
        seed: of ``sample``.
        sample_num_words: number of words of ``sample``.
        sample_num_clusters: number of its clusters.
        sample_vector_size: dimension of its vectors.

    Attributes:
        graph_batch: the graph; the words are the names of the nodes.
        num_nodes: number of words.
        num_features: dimension of the vectors.
        num_classes: number of clusters of ``sample``; 0 for a file.

    Raises:
        ValueError: an argument is out of range.
        DataError: the source is ``hub`` or can't be read, or no two words are near enough.

    Source: Su 2019, https://kexue.fm/archives/7006: 10,000 words, at most 50 neighbours, cosine 0.6. Difference: a word
    is not its own neighbour.

    Example:
        data:
          class_path: WordVectorDataModule
          init_args: {source: vectors.txt, words_pattern: "[a-z]+", num_neighbors: 20}
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
            raise ValueError(f"min_cosine ({min_cosine}) must be in [0, 1]: it is the minimum weight of a link")
        check_seed(seed)
        try:
            re.compile(words_pattern or "")
        except re.error as error:
            raise ValueError(f"words_pattern ({words_pattern}) is not a regular expression: {error}") from error
        if source == "hub":
            raise DataError("data.source: the hub has no word vectors; give a file of them, or sample")
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
        """Fill the cache, in one process."""
        self.setup()

    @cached_property
    def graph_batch(self) -> GraphBatch:
        words, vectors, labels = self._words()
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32, copy=False)
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
        """Words, their vectors and, for ``sample``, their clusters."""
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
    """Links from each vector to its nearest others by cosine, in O(block · N) memory.

    Args:
        vectors: (N, D) float32, of length 1 (or 0).
        num_neighbors: maximum number of links from each.
        min_cosine: minimum cosine of a link.

    Returns:
        (E, 2) source and target, sources ascending and the targets of each by descending cosine; (E,) cosines, at
        most 1.
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
    """The blocks, with a progress bar on a terminal if there are several."""
    if len(blocks) < 5 or not sys.stderr.isatty():
        return blocks
    from rich.console import Console
    from rich.progress import track

    return track(blocks, "finding neighbours", console=Console(stderr=True), transient=True)
