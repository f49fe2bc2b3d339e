"""Image files to one array of uint8."""

import hashlib
import io
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, one_line

if TYPE_CHECKING:
    from PIL.Image import Image

DECODE_CHUNK = 256  # images per task of the thread pool
# Not all that Pillow opens: for some formats it starts an external program.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


@dataclass(frozen=True)
class ImageArrays:
    """All images of a source. The first ``num_train`` are its training split, the others its test split.

    Args:
        images: (N, S, S, 3) uint8.
        labels: (N,) int64, indices into ``class_names``; -1 if the source has no classes.
        num_train: number of training images.
        class_names: the classes; empty if there are none.
        fingerprint: a digest of all this, or empty.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    num_train: int
    class_names: tuple[str, ...]
    fingerprint: str = ""

    def with_fingerprint(self) -> "ImageArrays":
        """The same, with a digest of the images and labels, whatever their source."""
        digest = hashlib.sha256(json.dumps([self.num_train, self.class_names]).encode())
        for array in (self.images, self.labels):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
        return ImageArrays(self.images, self.labels, self.num_train, self.class_names, digest.hexdigest()[:16])


# One image to decode: what messages call it, and its encoded bytes or their file.
EncodedImage = tuple[str, bytes | Path]


def decode_images(encoded: Iterable[EncodedImage], count: int, size: int) -> NDArray[np.uint8]:
    """Decode ``count`` images to (count, size, size, 3) uint8 on all cores.

    Raises:
        DataError: an image cannot be read; the message names it.
    """
    images = np.empty((count, size, size, 3), np.uint8)

    def decode_chunk(start: int, chunk: list[EncodedImage]) -> None:
        for index, (name, data) in enumerate(chunk, start):
            images[index] = decode_image(name, data, size)

    with ThreadPoolExecutor(max_workers=_cores()) as pool:
        tasks, chunk, start = [], [], 0
        for item in encoded:
            chunk.append(item)
            if len(chunk) == DECODE_CHUNK:
                tasks.append(pool.submit(decode_chunk, start, chunk))
                start, chunk = start + len(chunk), []
        tasks.append(pool.submit(decode_chunk, start, chunk))
        try:
            for task in tasks:
                task.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return images


def _cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decode_image(name: str, data: bytes | Path, size: int) -> NDArray[np.uint8]:
    """One image as (size, size, 3) uint8: upright, RGB on white, cropped to the central square.

    Raises:
        DataError: the image cannot be read.
    """
    from PIL import Image

    try:
        if isinstance(data, Path) and data.exists() and not data.is_file():
            raise OSError("it is not a file")
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=FORMATS) as image:
            return np.asarray(_to_rgb(image, size), np.uint8)
    except Exception as error:  # Pillow's plugins raise nearly everything on broken files
        raise DataError(f"cannot read the image {name}: {one_line(error)}; repair or remove it") from error


def _to_rgb(image: "Image", size: int) -> "Image":
    from PIL import Image, ImageOps

    # JPEG can be decoded at 1/2, 1/4 or 1/8 of its size: much faster, and still at least twice `size`.
    image.draft(None, (2 * size, 2 * size))
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return image


def resize_images(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Decoded images (N, H, W, 3) uint8, resized to (N, size, size, 3) like in ``decode_image``."""
    from PIL import Image, ImageOps

    return np.stack(
        [np.asarray(ImageOps.fit(Image.fromarray(image), (size, size), Image.Resampling.BICUBIC)) for image in images]
    )
