"""The procedural sample: small colour images of ten shapes, made at load time without files or network.

Each image has several copies of one shape. Colour, size, position and rotation differ between copies and the
background varies within the image, so the shape is what the patches of an image have in common. Raw pixels are
therefore poor features (two images of a class share hardly any), while self-supervised methods, which look for what
the parts of an image tell about each other, have something to find.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
CHUNK = 500  # images rendered at once: keeps the working set small


def _box(x: Field, y: Field, half_width: float, half_height: float) -> Field:
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def _disc(x: Field, y: Field, radius: float = 0.95) -> Field:
    return np.hypot(x, y) - np.float32(radius)


def _ring(x: Field, y: Field) -> Field:
    return np.abs(np.hypot(x, y) - np.float32(0.75)) - np.float32(0.2)


def _square(x: Field, y: Field) -> Field:
    return _box(x, y, 0.8, 0.8)


def _triangle(x: Field, y: Field) -> Field:
    half = np.float32(np.sqrt(3) / 2)
    return np.maximum(half * np.abs(x) - y / 2, y) - np.float32(0.5)


def _cross(x: Field, y: Field) -> Field:
    return np.minimum(_box(x, y, 1.0, 0.27), _box(x, y, 0.27, 1.0))


def _star(x: Field, y: Field) -> Field:
    """Five points, folded into one tenth of the plane, where a single line is the outline."""
    radius = np.hypot(x, y)
    angle = np.abs(np.mod(np.arctan2(x, -y), 2 * np.pi / 5) - np.pi / 5)
    tip, notch = 1.15, 0.45
    # The line from the tip (angle pi/5 after folding) to the notch (angle 0).
    tip_x, tip_y = tip * np.cos(np.pi / 5), tip * np.sin(np.pi / 5)
    edge_x, edge_y = tip_x - notch, tip_y
    length = np.hypot(edge_x, edge_y)
    distance = (radius * np.cos(angle) - notch) * (edge_y / length) - radius * np.sin(angle) * (edge_x / length)
    return distance.astype(np.float32)


def _crescent(x: Field, y: Field) -> Field:
    return np.maximum(_disc(x, y, 1.0), -_disc(x - np.float32(0.5), y, 0.85))


def _bars(x: Field, y: Field) -> Field:
    nearest = np.clip(np.round(x / np.float32(0.72)), -1, 1) * np.float32(0.72)
    return _box(x - nearest, y, 0.2, 0.95)


def _arrow(x: Field, y: Field) -> Field:
    half = np.float32(np.sqrt(0.5))
    head = np.maximum(half * (np.abs(x) - y) - half, y)
    return np.minimum(head + np.float32(0.05), _box(x, y - np.float32(0.5), 0.22, 0.6))


def _heart(x: Field, y: Field) -> Field:
    half = np.float32(np.sqrt(0.5))
    # A square on its corner and a disc on each of its upper edges.
    square = np.maximum(np.abs(x + y - np.float32(0.15)), np.abs(x - y + np.float32(0.15))) * half - np.float32(0.55)
    lobes = _disc(np.abs(x) - np.float32(0.39), y + np.float32(0.24), 0.55)
    return np.minimum(square, lobes)


# Signed distance to each outline (negative inside); shapes are centred at the origin, of radius about 1.
SHAPES: dict[str, Callable[[Field, Field], Field]] = {
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
    "crescent": _crescent,
    "bars": _bars,
    "arrow": _arrow,
    "heart": _heart,
}
CLASS_NAMES = tuple(SHAPES)
MAX_ROTATION = np.pi / 8  # squares stay recognisable, bars upright


def render_shapes(num_images: int, image_size: int, seed: int | tuple[int, ...]) -> tuple[NDArray, NDArray]:
    """Render ``num_images`` images of the ten classes, equally often, in random order.

    Args:
        num_images: number of images N.
        image_size: height and width S in pixels.
        seed: the same seed gives the same images.

    Returns:
        images (N, S, S, 3) uint8 and labels (N,) int64, indices into ``CLASS_NAMES``.
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(num_images) % len(CLASS_NAMES))
    images = np.empty((num_images, image_size, image_size, 3), np.uint8)
    for start in range(0, num_images, CHUNK):
        images[start : start + CHUNK] = _render(labels[start : start + CHUNK], image_size, rng)
    return images, labels


def _render(labels: NDArray, size: int, rng: np.random.Generator) -> NDArray:
    """One image (S, S, 3) uint8 per label."""
    count = len(labels)
    canvas = _background(count, size, rng)
    for cell_y, cell_x in ((-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)):
        alpha = _coverage(labels, size, (cell_x, cell_y), rng)
        colour = _colour(count, np.where(rng.random(count) < 0.5, 0.2, 0.8), rng)
        canvas += alpha[..., None] * (colour[:, None, None, :] - canvas)
    canvas += rng.normal(0, 0.03, canvas.shape).astype(np.float32)
    return (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)


def _coverage(labels: NDArray, size: int, centre: tuple[float, float], rng: np.random.Generator) -> Field:
    """Share of each pixel (N, S, S) in [0, 1] covered by the shape, anti-aliased by the distance to its outline."""
    count = len(labels)
    scale = rng.uniform(0.3, 0.46, (count, 1, 1)).astype(np.float32)
    shift = rng.uniform(-0.2, 0.2, (2, count, 1, 1)).astype(np.float32)
    angle = rng.uniform(-MAX_ROTATION, MAX_ROTATION, (count, 1, 1)).astype(np.float32)
    axis = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size) - 1
    x = axis[None, None, :] - np.float32(centre[0]) - shift[0]
    y = axis[None, :, None] - np.float32(centre[1]) - shift[1]
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    x, y = cos * x + sin * y, cos * y - sin * x
    pixels = scale * np.float32(size / 2)  # pixels in one unit of the shape
    alpha = np.empty((count, size, size), np.float32)
    for label, shape in enumerate(SHAPES.values()):
        rows = np.flatnonzero(labels == label)
        alpha[rows] = np.clip(np.float32(0.5) - shape(x[rows], y[rows]) * pixels[rows], 0, 1)
    return alpha


def _colour(count: int, level: NDArray | float, rng: np.random.Generator) -> Field:
    """Colours (N, 3) in [0, 1] of random hue around a given lightness ``level`` (N,)."""
    hue = rng.uniform(-1, 1, (count, 3))
    hue -= hue.mean(axis=1, keepdims=True)
    hue *= 0.2 / np.abs(hue).max(axis=1, keepdims=True)
    level = level + rng.uniform(-0.07, 0.07, count)
    return (level[:, None] + hue).astype(np.float32)


def _background(count: int, size: int, rng: np.random.Generator) -> Field:
    """Smoothly varying colours of medium lightness (N, S, S, 3) in [0, 1]."""
    knots = 3
    colours = _colour(count * knots * knots, 0.5, rng).reshape(count, knots, knots, 3)
    position = np.linspace(0, knots - 1, size, dtype=np.float32)
    weight = np.clip(1 - np.abs(position[:, None] - np.arange(knots, dtype=np.float32)), 0, None)  # (S, knots)
    return np.einsum("yi,xj,nijc->nyxc", weight, weight, colours, optimize=True)
