"""What a source of images gives."""

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .one_image import check_readable

LeftOut = dict[str, tuple[int, str]]  # files that are no images: number and first name of each ending


@dataclass(frozen=True)
class ImageArrays:
    """All images of a source: first its training split, then its validation split, then its test split.

    Args:
        images: (N, S, S, C) uint8; C: see ``decode_image``.
        labels: (N,) int64, indices into ``class_names``; -1 for an image without a class.
        num_train: number of training images.
        class_names: the classes; empty if there are none.
        fingerprint: a digest of all this, or empty.
        num_val: number of images of its own validation split.
        unreadable: row and reason of each image that can't be decoded; its pixels are 0.
        scaled: how many images of other than 8 bits were scaled, by what decided their range.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    num_train: int
    class_names: tuple[str, ...]
    fingerprint: str = ""
    num_val: int = 0
    unreadable: tuple[tuple[int, str], ...] = ()
    scaled: dict[str, int] = field(default_factory=dict)

    def with_fingerprint(self) -> "ImageArrays":
        """The same, with a digest of the images and labels, whatever their source."""
        about = [self.num_train, self.class_names, *([self.num_val] if self.num_val else [])]
        digest = hashlib.sha256(json.dumps(about).encode())
        for array in (self.images, self.labels):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
        return replace(self, fingerprint=digest.hexdigest()[:16])

    def check_readable(self) -> None:
        """Raises DataError if images can't be decoded; the message names them, up to a few hundred."""
        check_readable([reason for _, reason in self.unreadable], ", or set data.on_error=skip")


class ImageSource(ABC):
    """A source of images.

    Attributes:
        left_out: files beside the images that can't be read.
        remarks: sentences about what may not be as it was meant.
    """

    left_out: LeftOut = {}
    remarks: tuple[str, ...] = ()

    @abstractmethod
    def key(self) -> dict[str, Any]:
        """Plain values that differ if the images may have changed."""

    @abstractmethod
    def _read(self, image_size: int, channels: int, folder: Path | None) -> ImageArrays: ...

    def read(
        self,
        image_size: int,
        channels: int = 3,
        folder: Path | None = None,
        on_error: Literal["stop", "skip"] = "stop",
    ) -> ImageArrays:
        """All images, decoded and resized.

        Args:
            image_size: height and width in pixels.
            channels: see ``decode_image``.
            folder: where they are written while they are decoded (``decode_all``); None: into memory.
            on_error: with ``skip`` images that can't be decoded are named in the result.

        Raises:
            DataError: the data is wrong; or images can't be decoded: all of them are named.
            OSError: the folder can't be written.
        """
        arrays = self._read(image_size, channels, folder)
        if on_error == "stop":
            arrays.check_readable()
        return arrays
