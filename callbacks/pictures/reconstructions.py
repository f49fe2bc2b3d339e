"""A picture of test images, their reconstructions and images that the model sampled."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from .base import INK, PictureOfSample, log_figure, new_figure, pixel_range_of, thumbnails


class Reconstructions(PictureOfSample):
    """Draws random test images above their reconstructions and, for a generative model, images sampled from it.

    ``test_step`` returns ``{"reconstruction": (B, 3, S, S)}`` for a batch of images (``ImageBatch``), and the module
    has a hyperparameter ``pixel_range``. A generative model has ``variational`` true and ``sample_images(count,
    seed)``. With several processes the picture shows rank zero's share. The global random state is not changed. The
    picture is ``reconstructions``.

    Args:
        num_images: columns of the picture.
        num_sample_rows: rows of sampled images.
        seed: of the choice of test images and of the sampled ones.

    Raises:
        ValueError: if a number is out of range; in the test, if the module has no ``pixel_range``.

    Example:
        trainer:
          callbacks+:
            - class_path: Reconstructions
              init_args: {num_images: 8}
    """

    needs = ("reconstruction",)

    def __init__(self, num_images: int = 12, num_sample_rows: int = 3, seed: int = 0) -> None:
        if num_images < 1 or num_sample_rows < 0:
            raise ValueError(
                f"num_images ({num_images}) must be at least 1, num_sample_rows ({num_sample_rows}) at least 0"
            )
        super().__init__(num_images, seed)
        self.num_sample_rows = num_sample_rows

    def rows(self, outputs: Mapping[str, Any], batch: Any, dataloader_idx: int) -> tuple[Tensor, ...]:
        return batch.images, outputs["reconstruction"]

    def draw(self, trainer: pl.Trainer, *rows: Tensor) -> None:
        module: Any = trainer.lightning_module
        count, titles, parts = len(rows[0]), ["image", "reconstruction"], [*rows]
        if self.num_sample_rows and getattr(module, "variational", False):
            titles += ["sampled", *[""] * (self.num_sample_rows - 1)]
            parts += module.sample_images(self.num_sample_rows * count, self.seed).cpu().split(count)
        log_figure(trainer, "reconstructions", _grid(titles, parts, pixel_range_of(module)))


def _grid(titles: list[str], rows: list[Tensor], pixel_range: tuple[float, float]) -> Any:
    """A figure of rows of images (N, 3, S, S), with a title left of each and a gap before the third."""
    columns, left, dpi = len(rows[0]), 140, 150
    tiles = [thumbnails(row, pixel_range) for row in rows]
    side = tiles[0].shape[1]
    enlarge, gap = max(1, round(72 / side)), 6
    step = side * enlarge + gap
    tops = [row * step + (3 * gap if row > 1 else 0) for row in range(len(rows))]
    canvas = torch.full((tops[-1] + step, columns * step, 3), 255, dtype=torch.uint8)
    for top, row in zip(tops, tiles, strict=True):
        for column, tile in enumerate(row.repeat_interleave(enlarge, 1).repeat_interleave(enlarge, 2)):
            place = slice(column * step, column * step + side * enlarge)
            canvas[top : top + side * enlarge, place] = tile
    height, width = canvas.shape[0] + 2 * gap, left + canvas.shape[1] + gap
    figure = new_figure(width / dpi, height / dpi, dpi)
    figure.set_layout_engine("none")
    # Pixel for pixel: an axes would resample the images.
    figure.figimage(canvas.numpy(), left, gap)
    for top, title in zip(tops, titles, strict=True):
        middle = 1 - (gap + top + side * enlarge / 2) / height
        figure.text((left - 10) / width, middle, title, ha="right", va="center", color=INK, fontsize=7.5)
    return figure
