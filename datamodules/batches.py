"""The batch types: the contract between datamodules and LightningModules."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IGNORED = -100  # a target that does not count: the default ignore_index of torch's cross-entropy

Triple = tuple[str, str, str]  # subject, predicate, object


class ImageBatch(NamedTuple):
    """A batch of normalised images on the device, ready for an encoder.

    Shapes:
        images: (B, C, H, W) float, values in the datamodule's ``pixel_range``; ``channels_last`` in memory.
        labels: (B,) int64, the class of each image; -1 if the data has no classes.
        views: as ``images``, another random version of each image; None if the data makes one version only.
    """

    images: Tensor
    labels: Tensor
    views: Tensor | None = None

    @classmethod
    def from_pixels(cls, pixels: Tensor | NDArray[np.uint8], pixel_range: tuple[float, float]) -> "ImageBatch":
        """Decoded images as a batch, labelled -1; they are ``channels_last`` in memory already.

        Args:
            pixels: (B, H, W, C) uint8, or float32 between 0 and 255.
            pixel_range: the values that black and white are mapped to.
        """
        low, high = pixel_range
        pixels = torch.as_tensor(pixels)
        images = pixels.permute(0, 3, 1, 2).to(torch.float32, copy=True).div_(255 / (high - low)).add_(low)
        return cls(images, torch.full((len(images),), -1, device=images.device))


class TokenBatch(NamedTuple):
    """A batch of token sequences on the device, for language models.

    Shapes:
        inputs: (B, T) int64, indices into the datamodule's ``vocabulary``.
        targets: (B, T) int64, what each position has to predict; -100 for nothing.
    """

    inputs: Tensor
    targets: Tensor


class ParseBatch(NamedTuple):
    """A batch of sentences with their gold trees, to evaluate the trees that a language model finds.

    Shapes:
        inputs: (B, T) int64, ``<eos> w1 … wn <eos>``, padded with ``<eos>``; indices into the datamodule's
            ``vocabulary``, ``<unk>`` for words that are not in it.
        lengths: (B,) int64, the number n of words of each sentence: word i is ``inputs[:, i]``, i from 1.
        words: the words of each sentence, as in the treebank.
        spans: (start, end, label) of the constituents of each sentence, [start, end) in words numbered from 0, of two
            or more words, including the whole sentence; constituents of the same words are one (``S+VP``).
    """

    inputs: Tensor
    lengths: Tensor
    words: tuple[tuple[str, ...], ...]
    spans: tuple[tuple[tuple[int, int, str], ...], ...]


class SentencePairBatch(NamedTuple):
    """A batch of sentence pairs with the relation between the two.

    Shapes:
        premise: (B, T) int64, indices into the datamodule's ``vocabulary``, padded with ``<pad>``, which is 0.
        premise_lengths: (B,) int64, number of tokens of each premise.
        hypothesis: (B, U) int64, padded likewise.
        hypothesis_lengths: (B,) int64.
        labels: (B,) int64, indices into the datamodule's ``classes``.
        operations: (B,) int64, number of logical operations of the longer sentence.
    """

    premise: Tensor
    premise_lengths: Tensor
    hypothesis: Tensor
    hypothesis_lengths: Tensor
    labels: Tensor
    operations: Tensor


class TripleBatch(NamedTuple):
    """A batch of sentences with the (subject, predicate, object) triples that they state.

    A row is a sentence, or a window of one that is longer than the datamodule's ``max_length``; in evaluation all
    windows of a sentence are in the same batch. Ends of spans are inclusive, positions are relative to the row.

    Shapes:
        characters: (B, L) int64, indices into the datamodule's ``characters``: 0 is padding, 1 an unknown character.
        words: (B, L) int64, rows of the datamodule's ``word_vectors``, the same for all characters of a word; 0: none.
        subjects: (S, 3) int64, row, start, end of every labelled subject.
        spans: (B, 2) int64, start and end of the subject whose objects are to be predicted; -1 if the row has none. In
            training it may not be a subject: then ``objects`` has none for the row.
        objects: (M, 4) int64, row, start, end, predicate of the objects of ``spans``.
        candidates: (Q, 6) int64, the candidates of distant supervision: row, start and end of a subject, start and end
            of an object, predicate.
        sentences: (B,) int64, the index in ``texts`` of each row's text.
        offsets: (B,) int64, where in its text a row begins, in characters.
        texts: the sentences.
        triples: the distinct gold triples of each sentence; empty if unknown.
    """

    characters: Tensor
    words: Tensor
    subjects: Tensor
    spans: Tensor
    objects: Tensor
    candidates: Tensor
    sentences: Tensor
    offsets: Tensor
    texts: tuple[str, ...]
    triples: tuple[tuple[Triple, ...], ...]

    @classmethod
    def from_arrays(
        cls, arrays: Sequence[NDArray[Any]], texts: Sequence[str], triples: Sequence[tuple[Triple, ...]]
    ) -> "TripleBatch":
        """A batch from NumPy arrays: ``characters`` to ``offsets`` in order, of any integer type."""
        characters, words, subjects, spans, objects, candidates, sentences, offsets = (
            torch.from_numpy(array.astype(np.int64, copy=False)) for array in arrays
        )
        numbers = (characters, words, subjects, spans, objects, candidates, sentences, offsets)
        return cls(*numbers, tuple(texts), tuple(triples))

    def row_texts(self) -> list[str]:
        """The text of each row."""
        lengths = (self.characters > 0).sum(1).tolist()
        places = zip(self.sentences.tolist(), self.offsets.tolist(), lengths, strict=True)
        return [self.texts[sentence][offset : offset + length] for sentence, offset, length in places]


class GraphBatch(NamedTuple):
    """One graph, with the names, labels and features of its nodes.

    Shapes:
        edges: (E, 2) int64, source and target of each link; nodes are numbered from 0. There may be repeated links and
            self-links. An undirected link is listed once, in either direction.
        weights: (E,) float64, not negative.
        num_nodes: the number n of nodes, including those without links.
        directed: whether links are directed; None if nothing says so. A directed walk follows links that are undirected
            (False) both ways, all others from source to target.
        bipartite: the first node of the second kind if there are two kinds and each link joins both, else 0.
        labels: (n,) int64, the class of each node, -1 if unknown.
        features: (n, F) float32; F = 0 if there are none.
        names: (n,) strings, the user's names of the nodes.
        ids: (n,) int64, the numbers that the user's file has for them beside their names; None if there are none.
        states: the physical nodes, if the nodes are states of such: a ``readers.graphs.graph.States``.
    """

    edges: Tensor
    weights: Tensor
    num_nodes: int
    directed: bool | None
    bipartite: int
    labels: Tensor
    features: Tensor
    names: np.ndarray
    ids: np.ndarray | None = None
    states: Any = None

    @classmethod
    def from_arrays(
        cls,
        edges: NDArray[np.int64],
        names: np.ndarray,
        weights: NDArray[np.float64] | None = None,
        directed: bool | None = None,
        bipartite: int = 0,
        labels: NDArray[np.int64] | None = None,
        features: NDArray[np.float32] | None = None,
        ids: NDArray[np.int64] | None = None,
        states: Any = None,
    ) -> "GraphBatch":
        """A batch from NumPy arrays, in the order of a ``readers.graphs.Graph``.

        By default weights are 1, labels unknown, and there are no features.
        """
        nodes = len(names)
        weights = np.ones(len(edges)) if weights is None else weights
        labels = np.full(nodes, -1) if labels is None else labels
        features = np.zeros((nodes, 0), np.float32) if features is None else features
        return cls(
            edges=torch.from_numpy(np.ascontiguousarray(edges, np.int64)),
            weights=torch.from_numpy(np.ascontiguousarray(weights, np.float64)),
            num_nodes=nodes,
            directed=directed,
            bipartite=bipartite,
            labels=torch.from_numpy(np.ascontiguousarray(labels, np.int64)),
            features=torch.from_numpy(np.ascontiguousarray(features, np.float32)),
            names=names,
            ids=ids,
            states=states,
        )
