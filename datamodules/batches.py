"""The batch types: the contract between the datamodules and the LightningModules."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from .formula_files import WrittenPair
    from .triple_encoding import TripleEncoder

IGNORED = -100  # a target that is not asked for: the default ignore_index of torch's cross-entropy

Triple = tuple[str, str, str]  # subject, predicate, object


class ImageBatch(NamedTuple):
    """A batch of images on the device, normalised, ready for an encoder.

    Shapes:
        images: (B, 3, H, W) float, values in the datamodule's ``pixel_range``; ``channels_last`` in memory.
        labels: (B,) int64, the class of each image; -1 where the data has no classes.
    """

    images: Tensor
    labels: Tensor

    @staticmethod
    def from_files(
        path: Path, image_size: int, pixel_range: tuple[float, float], batch_size: int
    ) -> "Iterator[tuple[list[str], ImageBatch]]":
        """Yields the images below a folder (or one image file) in batches, as the datamodule would prepare them.

        Args:
            path: folder or file.
            image_size: side in pixels that images are resized to.
            pixel_range: values of black and white.
            batch_size: images a batch.

        Yields:
            the names, relative to the folder, and the batch; labels are -1.

        Raises:
            DataError: if there is no image, or one can't be decoded.
        """
        # Imported here: what decodes images is of no use to those who only need the type.
        from .image_sources import find_images
        from .images import decode_images, scale_pixels

        path = Path(path)
        files = find_images(path)
        root = path if path.is_dir() else path.parent
        for start in range(0, len(files), batch_size):
            chunk = files[start : start + batch_size]
            pixels = decode_images([(str(file), file) for file in chunk], len(chunk), image_size)
            images = scale_pixels(torch.from_numpy(pixels), pixel_range)
            names = [file.relative_to(root).as_posix() for file in chunk]
            yield names, ImageBatch(images, torch.full((len(chunk),), -1))


class TokenBatch(NamedTuple):
    """A batch of token sequences on the device, for language models.

    Shapes:
        inputs: (B, T) int64, indices into the datamodule's ``vocabulary``.
        targets: (B, T) int64, what each position has to predict; -100 where nothing is asked.
    """

    inputs: Tensor
    targets: Tensor


class ParseBatch(NamedTuple):
    """A batch of sentences with their gold trees, for judging the trees that a language model finds.

    Shapes:
        inputs: (B, T) int64, ``<eos> w1 … wn <eos>``, filled up with ``<eos>``; indices into the datamodule's
            ``vocabulary``, ``<unk>`` for words that are not in it.
        lengths: (B,) int64, the number n of words of each sentence: word i is ``inputs[:, i]``, i from 1.
        words: the words of each sentence, as the treebank has them.
        spans: (start, end, label) of the constituents of each sentence, [start, end) in words counted from 0, of two
            words or more, the whole sentence included; joined labels (``S+VP``) for what covers the same words.
    """

    inputs: Tensor
    lengths: Tensor
    words: tuple[tuple[str, ...], ...]
    spans: tuple[tuple[tuple[int, int, str], ...], ...]

    @staticmethod
    def lines_from_file(path: Path) -> list[str]:
        """The lines of a UTF-8 text file, for parsing what a user wrote.

        Raises:
            DataError: if it can't be read, or isn't UTF-8; the message names the line.
        """
        from .corpus import read_lines

        lines = [line.removesuffix("\r") for line in read_lines(path)]
        return lines[:-1] if lines[-1] == "" else lines


class SentencePairBatch(NamedTuple):
    """A batch of pairs of sentences with the relation between them.

    Shapes:
        premise: (B, T) int64, indices into the datamodule's ``vocabulary``, filled up with ``<pad>``, which is 0.
        premise_lengths: (B,) int64, tokens of each premise.
        hypothesis: (B, U) int64, filled up likewise.
        hypothesis_lengths: (B,) int64.
        labels: (B,) int64, indices into the datamodule's ``classes``.
        operations: (B,) int64, logical operations of the pair: those of its longer sentence.
    """

    premise: Tensor
    premise_lengths: Tensor
    hypothesis: Tensor
    hypothesis_lengths: Tensor
    labels: Tensor
    operations: Tensor

    @staticmethod
    def pairs_from_file(path: Path, vocabulary: Sequence[str]) -> "list[WrittenPair]":
        """The pairs of a user's file: a formula, a TAB, a formula; a relation and a TAB may stand before them.

        Raises:
            DataError: if it can't be read, isn't UTF-8, or a line is something else; the message names the line.
        """
        from .formula_files import read_written_pairs

        return read_written_pairs(path, vocabulary)


class TripleBatch(NamedTuple):
    """A batch of sentences with the (subject, predicate, object) triples that they state.

    A row is a sentence, or a window of one that is longer than the datamodule's ``max_length``; the windows of a
    sentence lie in the same batch in evaluation. All ends of spans are inclusive, all positions count from the row's
    beginning.

    Shapes:
        characters: (B, L) int64, indices into the datamodule's ``characters``: 0 is padding, 1 an unknown character.
        words: (B, L) int64, rows of the datamodule's ``word_vectors``, the same for all characters of a word; 0 for
            none.
        subjects: (S, 3) int64, row, start, end of every labelled subject.
        spans: (B, 2) int64, start and end of the subject whose objects are asked for; -1 where the row has none. In
            training it may be no subject at all: then ``objects`` has none for the row.
        objects: (M, 4) int64, row, start, end, predicate of the objects of ``spans``.
        candidates: (Q, 6) int64, what distant supervision suggests: row, start and end of a subject, start and end of
            an object, predicate.
        sentences: (B,) int64, which of ``texts`` a row belongs to.
        offsets: (B,) int64, where in its text a row begins, in characters.
        texts: the sentences.
        triples: the different gold triples of each sentence; empty where they are not known.
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

    @staticmethod
    def encoder(
        characters: Sequence[str],
        predicates: Sequence[str],
        *,
        words: Sequence[str] = (),
        segmenter: str = "none",
        known_triples: Sequence[Triple] = (),
        max_length: int = 512,
    ) -> "TripleEncoder":
        """What turns texts into batches, from what a checkpoint keeps of the data; for texts that a user gives.

        Args: those of :class:`datamodules.triple_encoding.TripleEncoder`.
        """
        from .triple_encoding import TripleEncoder

        return TripleEncoder(
            characters,
            predicates,
            words=words,
            segmenter=segmenter,
            known_triples=known_triples,
            max_length=max_length,
        )

    @staticmethod
    def texts_from_file(path: Path) -> Iterator[str]:
        """Yields the texts of a user's file as it is read: JSON lines with ``text``, or plain text, one a line.

        Raises:
            DataError: if it can't be read, isn't UTF-8, or a line is broken; the message names the line.
        """
        from .ske_files import read_texts

        return read_texts(path)


class GraphBatch(NamedTuple):
    """One graph, with what is known of its nodes.

    Shapes:
        edges: (E, 2) int64, source and target of each link; nodes are counted from 0. A link may come again, or lead
            from a node to itself. Of an undirected graph a link stands once, in either direction.
        weights: (E,) float64, not negative.
        num_nodes: the number n of nodes, those without links included.
        directed: whether the links have a direction.
        bipartite: the first node of the second kind where there are two kinds and links lead from one to the other,
            else 0.
        labels: (n,) int64, the known class of each node, -1 where it is not known.
        features: (n, F) float32, F = 0 where nodes have none.
        names: (n,) array of strings, what the user calls the nodes.
    """

    edges: Tensor
    weights: Tensor
    num_nodes: int
    directed: bool
    bipartite: int
    labels: Tensor
    features: Tensor
    names: np.ndarray

    @staticmethod
    def from_file(
        path: Path | str,
        *,
        directed: bool | None = None,
        labels_file: Path | str | None = None,
        min_weight: float = 0.0,
    ) -> "GraphBatch":
        """The graph of a user's file: edge list, Pajek, GML, GraphML, ``npz``.

        Args: those of :func:`datamodules.graph_files.read_graph_file`.

        Raises:
            DataError: a file can't be read; the message names the line.
        """
        from .graph_files import read_graph_file

        return read_graph_file(path, directed=directed, labels_file=labels_file, min_weight=min_weight)
