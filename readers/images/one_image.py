"""One image file to pixels of uint8."""

import io
import warnings
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, one_line
from .ranges import to_eight_bits

if TYPE_CHECKING:
    from PIL.Image import Image

# Not all that Pillow opens: for some formats it starts an external program.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # Pillow's mode for each number of channels


# One image to decode: what messages call it, and its encoded bytes or their file; None: it is missing.
EncodedImage = tuple[str, bytes | Path | str | None]


class Chunk(NamedTuple):
    """Decoded images.

    Args:
        pixels: (n, S, S, C) uint8; 0 where an image can't be decoded.
        unreadable: index and reason of each such image.
        scaled: how many images were scaled to 8 bits, by what decided their range.
    """

    pixels: NDArray[np.uint8]
    unreadable: list[tuple[int, str]]
    scaled: Counter[str]


def decode_chunk(encoded: list[EncodedImage], size: int, channels: int) -> Chunk:
    """Decode a few images; those that can't be decoded are named in the result."""
    chunk = Chunk(np.zeros((len(encoded), size, size, channels), np.uint8), [], Counter())
    for index, (name, data) in enumerate(encoded):
        try:
            chunk.pixels[index], range_by = _decode(name, data, size, channels)
        except DataError as error:
            chunk.unreadable.append((index, str(error)))
        else:
            if range_by:
                chunk.scaled[range_by] += 1
    return chunk


def check_readable(reasons: list[str], way_out: str = "") -> None:
    """Raises DataError for images that can't be decoded.

    Args:
        reasons: the message of each one's error.
        way_out: what else can be done.
    """
    if len(reasons) == 1:
        raise DataError(reasons[0] + way_out)
    if reasons:
        text = f"cannot read {len(reasons)} images; repair or remove them{way_out}: {_names(reasons)}"
        raise DataError(text, LONGEST_LIST)


def describe_skipped(reasons: list[str]) -> str:
    """The number of images that can't be decoded, and the names and reasons of some."""
    rest = "; …" if len(reasons) > NAMED else ""
    return f"{len(reasons)} can't be decoded: {_names(reasons[:NAMED])}{rest}"


def _names(reasons: list[str]) -> str:
    return "; ".join(reason.removeprefix(PREFIX).removesuffix(SUFFIX) for reason in reasons)


PREFIX, SUFFIX, LONGEST_LIST = "cannot read the image ", "; repair or remove it", 20_000
NAMED = 20  # skipped images


def decode_image(name: str, data: bytes | Path | str, size: int, channels: int = 3) -> NDArray[np.uint8]:
    """One image as (size, size, channels) uint8: upright, cropped to the central square; the first of an animation.

    Args:
        name: what messages call it.
        data: its encoded bytes, or their file.
        size: height and width in pixels.
        channels: 1: grey, 2: grey and opacity, 3: RGB, 4: RGB and opacity. With 1 and 3 it is laid on white.

    Raises:
        DataError: the image cannot be read.
    """
    return _decode(name, data, size, channels)[0]


def _decode(
    name: str, data: bytes | Path | str | None, size: int, channels: int
) -> tuple[NDArray[np.uint8], str | None]:
    """The pixels, and what decided the range that was scaled to 8 bits, if any."""
    from PIL import Image, UnidentifiedImageError

    if data is None:
        raise DataError(f"{PREFIX}{name}: it is missing{SUFFIX}")
    try:
        if not isinstance(data, bytes) and Path(data).exists() and not Path(data).is_file():
            raise OSError("it is not a file")

        def open_image() -> "Image.Image":
            return Image.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=_formats())

        with open_image() as image:
            # JPEG can be decoded at 1/2, 1/4 or 1/8 of its size: much faster, and still at least twice `size`.
            image.draft(None, (2 * size, 2 * size))
            eight_bits, range_by = to_eight_bits(image, open_image)
            pixels = np.asarray(_fit(eight_bits, size, channels), np.uint8)
            return pixels.reshape(size, size, channels), range_by
    except UnidentifiedImageError as error:  # its message has an address in memory
        raise DataError(f"{PREFIX}{name}: {_unknown(data)}{SUFFIX}") from error
    except Exception as error:  # Pillow's plugins raise nearly everything on broken files
        raise DataError(f"{PREFIX}{name}: {one_line(error)}{SUFFIX}") from error


def _unknown(data: bytes | Path | str) -> str:
    """What an image is that Pillow does not know."""
    if isinstance(data, bytes):
        start = data[:4]
    else:
        with open(data, "rb") as file:
            start = file.read(4)
    if not start:
        return "it is empty"
    if start in (b"II*\0", b"MM\0*"):
        return "Pillow does not read this kind of TIFF (such as floats of 64 bits, or more bands)"
    return "cannot identify the format of the file"


@cache
def _formats() -> tuple[str, ...]:
    """Those of ``FORMATS`` that this Pillow knows."""
    from PIL import Image

    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # of images that are merely large
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _fit(image: "Image", size: int, channels: int) -> "Image":
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode == "LAB":  # Pillow converts it to these alone
        image = image.convert("RGB")
    if channels % 2 and image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode != MODES[channels]:
        image = image.convert(MODES[channels])
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return image


def refit_images(images: NDArray[np.uint8], size: int, channels: int) -> NDArray[np.uint8]:
    """Decoded images (N, H, W, C) uint8 as (N, size, size, channels), like in ``decode_image``."""
    from PIL import Image

    if images.shape[1:] == (size, size, channels):
        return images
    fitted = np.empty((len(images), size, size, channels), np.uint8)
    for row, image in enumerate(images):
        fitted[row] = np.asarray(_fit(Image.fromarray(image), size, channels)).reshape(size, size, channels)
    return fitted
