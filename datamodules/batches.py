"""The batch types: the contract between the datamodules and the LightningModules."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor


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

        files = find_images(Path(path))
        root = Path(path) if Path(path).is_dir() else Path(path).parent
        for start in range(0, len(files), batch_size):
            chunk = files[start : start + batch_size]
            pixels = decode_images([(str(file), file) for file in chunk], len(chunk), image_size)
            images = scale_pixels(torch.from_numpy(pixels), tuple(pixel_range))
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

        lines = read_lines(path)
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
