"""Images of other than 8 bits a value, scaled to 8 bits.

Which values are black and white: what the file says, else what its values need. Each file is scaled for itself, so that
an image gives the same pixels in training and in prediction, whatever lies beside it.
"""

import re
import struct
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

DEPTHS = (8, 10, 12, 14, 16)  # bits of cameras and scanners
FEWEST_LEVELS = 32  # of 256: values that would fill fewer are stretched
# TIFF tags: the largest and smallest value, in two spellings; ImageJ writes them into the description.
SMALLEST, LARGEST, BITS, DESCRIPTION, ORIENTATION = (340, 280), (341, 281), 258, 270, 274
PHOTOMETRIC, SAMPLE_FORMAT = 262, 339
WHITE_IS_ZERO, UNSIGNED, SIGNED = 0, 1, 2  # values of these tags
IMAGEJ = re.compile(r"^(min|max)=(\S+)\s*$", re.MULTILINE)
# Pillow keeps one byte of two of a colour, the upper one of this order; with the other order, the lower one.
OTHER_BYTE = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}

BY_FILE, BY_BITS, BY_VALUES = "what the file says", "the bits that its values need", "its smallest and largest value"


def to_eight_bits(image: "Image", reopen: Callable[[], "Image"]) -> tuple["Image", str | None]:
    """The image with 8 bits a value, and what decided its range: ``BY_…``; None if it had 8 bits or all of 16.

    Args:
        image: just opened, not loaded.
        reopen: opens it again.
    """
    from PIL import Image

    significant = _png_significant_bits(image)
    values = _deep_values(image, reopen)
    if values is None:
        return image, None
    smallest, largest, by = _range(values[..., : _colours(values)] if values.ndim == 3 else values, image, significant)
    pixels = _scale(values, smallest, largest)
    tags: Any = getattr(image, "tag_v2", {})
    if values.ndim == 2 and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow heeds it with 8 bits only
        pixels = 255 - pixels
    scaled = Image.fromarray(pixels)
    orientation = image.getexif().get(ORIENTATION)
    if orientation:  # applied later
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        scaled.info["exif"] = exif.tobytes()
    return scaled, None if (smallest, largest) == (0, 65535) else by


def _deep_values(image: "Image", reopen: Callable[[], "Image"]) -> NDArray[Any] | None:
    """(H, W), or (H, W, C) of colours, of an image that is to be scaled; None if Pillow's 8 bits are right."""
    tags: Any = getattr(image, "tag_v2", {})
    sample_format = max(tags.get(SAMPLE_FORMAT, (UNSIGNED,)))
    if image.mode == "I" and sample_format == UNSIGNED and max(tags.get(BITS, (0,))) == 32:
        return np.asarray(image).view(np.uint32)  # Pillow has a mode for signed ones only
    if image.mode == "L" and sample_format == SIGNED:
        return np.asarray(image).view(np.int8)  # nor one for these
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return np.asarray(image)
    return _dark_colours(image, reopen)


def _colours(values: NDArray[Any]) -> int:
    """How many of the last dimension's values are colours; the other one is the opacity."""
    return values.shape[-1] - (values.shape[-1] % 2 == 0)


def _dark_colours(image: "Image", reopen: Callable[[], "Image"]) -> NDArray[np.uint16] | None:
    """(H, W, 2 to 4) of an image with 16 bits a colour whose upper bits are empty; None for others."""
    if not _rawmode(image).startswith(("LA;16", "RGB;16", "RGBA;16")):
        return None
    upper = np.asarray(image)
    if upper[..., : _colours(upper)].max() >= 1 << (DEPTHS[-2] - 8):  # Pillow's upper bytes are right
        return None
    with reopen() as again:
        rawmode = _rawmode(again)
        if rawmode == "LA;16B":  # the two bytes of grey and those of opacity, read as four values
            again.tile = [tile._replace(args="RGBA") for tile in again.tile]  # type: ignore[attr-defined]
            return np.asarray(again).view(">u2").astype(np.uint16)
        kind, _, order = rawmode.partition(";")
        other = f"{kind};{OTHER_BYTE[order]}"
        again.tile = [  # type: ignore[attr-defined]
            tile._replace(args=other if isinstance(tile.args, str) else (other, *tile.args[1:]))
            for tile in again.tile  # type: ignore[attr-defined]
        ]
        return upper.astype(np.uint16) << 8 | np.asarray(again)


def _rawmode(image: "Image") -> str:
    """How Pillow's decoder calls the order of the bytes in the file."""
    tiles = getattr(image, "tile", ())
    arguments: Any = tiles[0].args if tiles else ""
    return str(arguments if isinstance(arguments, str) else (arguments or [""])[0])


def _range(values: NDArray[Any], image: "Image", significant: int | None) -> tuple[float, float, str]:
    """The values of black and white, and what decided."""
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not finite.size:
        return 0, 1, BY_VALUES
    smallest, largest = float(finite.min()), float(finite.max())
    stated = _stated_range(image, largest, significant)
    if stated is not None:
        return *stated, BY_FILE
    if values.dtype.kind == "f" and smallest >= 0 and largest <= 1:
        return 0, 1, BY_VALUES
    if smallest < 0 or largest >= 1 << DEPTHS[-1] or values.dtype.kind == "f":
        return smallest, largest, BY_VALUES
    white = next((1 << bits) - 1 for bits in DEPTHS if largest < 1 << bits)
    if 0 < largest - smallest < FEWEST_LEVELS / 256 * white:
        return smallest, largest, BY_VALUES
    return 0, white, BY_BITS


def _stated_range(image: "Image", largest: float, significant: int | None) -> tuple[float, float] | None:
    """Black and white as the file says them, if it does and they can be."""
    if image.format == "PPM":
        return (0, 65535) if image.mode == "I" else None  # Pillow has scaled them by the header
    tags: Any = getattr(image, "tag_v2", {})
    description = str(tags.get(DESCRIPTION, ""))
    if "ImageJ" in description:
        shown = {name: _number(value) for name, value in IMAGEJ.findall(description)}
        low, high = shown.get("min"), shown.get("max")
        if low is not None and high is not None and low < high and largest > low:
            return low, high
    low = _number(next((tags[tag] for tag in SMALLEST if tag in tags), 0))
    high = _number(next((tags[tag] for tag in LARGEST if tag in tags), None))
    if low is not None and high is not None and low < largest <= high:
        return low, high
    # PNG: values of fewer bits should be written scaled to 16; if they are not, this says how many bits they have.
    bits = significant or max(tags.get(BITS, (0,)))
    return (0, (1 << bits) - 1) if 8 < bits < 16 and largest < 1 << bits else None


def _number(value: Any) -> float | None:
    """A finite number, or the largest of several; None for anything else."""
    try:
        number = float(max(value) if isinstance(value, tuple) else value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _png_significant_bits(image: "Image") -> int | None:
    """The chunk sBIT of a PNG file that is not loaded: the significant bits of a value, if it has one."""
    file: Any = getattr(image, "fp", None)
    if image.format != "PNG" or file is None:
        return None
    position = file.tell()
    try:
        file.seek(len(b"\x89PNG\r\n\x1a\n"))
        while len(header := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", header)
            if kind == b"sBIT":
                return max(file.read(length)[:3], default=None)
            if kind in (b"IDAT", b"PLTE"):
                break
            file.seek(length + 4, 1)  # its content and its checksum
        return None
    finally:
        file.seek(position)


def _scale(values: NDArray[Any], smallest: float, largest: float) -> NDArray[np.uint8]:
    """Values to 0 … 255: those of black and white, and what lies beyond them, to the ends."""
    bits = int(largest + 1).bit_length() - 1
    if smallest == 0 and values.dtype.kind in "iu" and largest + 1 == 1 << bits and bits >= 8:
        return (values.clip(0, int(largest)) >> (bits - 8)).astype(np.uint8)
    if largest <= smallest:
        return np.zeros(values.shape, np.uint8)
    shares = (np.nan_to_num(values.astype(np.float64), nan=smallest) - smallest) / (largest - smallest)
    return (shares.clip(0, 1) * 255).round().astype(np.uint8)
