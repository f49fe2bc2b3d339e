"""Images of five patterns, whose colours, sizes, places, turns and backgrounds say nothing about the class."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PATTERNS = ("stripes", "checks", "dots", "rings", "crosses")


def draw_patterns(count: int, size: int, seed: int) -> tuple[NDArray, NDArray]:
    """Images (count, size, size, 3) uint8 and their patterns (count,), as often each."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(count) % len(PATTERNS))
    return np.stack([_draw(label, size, random) for label in labels]), labels


def write_folder(folder: Path, train: int, test: int, size: int = 32, seed: int = 0) -> Path:
    """PNG files in ``folder/{train,test}/PATTERN/``."""
    for number, (split, count) in enumerate((("train", train), ("test", test))):
        images, labels = draw_patterns(count, size, 2 * seed + number)
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = folder / split / PATTERNS[label] / f"{index:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return folder


def _draw(label: int, size: int, random: np.random.Generator) -> NDArray:
    y, x = np.mgrid[:size, :size] / size
    first, second, ink = random.uniform(0, 1, (3, 3))
    while np.abs(ink - (first + second) / 2).max() < 0.4:
        ink = random.uniform(0, 1, 3)
    slope = random.uniform(0, 2 * np.pi)
    share = np.clip(0.5 + (x - 0.5) * np.cos(slope) + (y - 0.5) * np.sin(slope), 0, 1)[..., None]
    period, turn = random.uniform(0.19, 0.38), random.uniform(-np.pi / 8, np.pi / 8)
    u = (x * np.cos(turn) + y * np.sin(turn)) / period + random.uniform()
    v = (y * np.cos(turn) - x * np.sin(turn)) / period + random.uniform()
    # Distances below 0 are inside; an edge is as wide as a pixel.
    inside = np.clip(0.5 - _distance(PATTERNS[label], u, v) * period * size, 0, 1)[..., None]
    image = (1 - inside) * ((1 - share) * first + share * second) + inside * ink
    return (255 * np.clip(image + random.normal(0, 0.03, image.shape), 0, 1) + 0.5).astype(np.uint8)


def _distance(pattern: str, u: NDArray, v: NDArray) -> NDArray:
    a, b = np.abs(u % 1 - 0.5), np.abs(v % 1 - 0.5)
    radius = np.hypot(a, b)
    return {
        "stripes": a - 0.25,
        "checks": np.sin(2 * np.pi * u) * np.sin(2 * np.pi * v) / (2 * np.pi),
        "dots": radius - 0.3,
        "rings": np.abs(radius - 0.33) - 0.11,
        "crosses": np.minimum(np.maximum(a - 0.42, b - 0.13), np.maximum(a - 0.13, b - 0.42)),
    }[pattern]
