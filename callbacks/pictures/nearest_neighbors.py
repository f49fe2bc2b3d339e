"""A picture of random test images and their nearest neighbours."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torch.nn import functional as F

from .base import (
    FAINT,
    INK,
    RIGHT,
    WRONG,
    PictureOfTest,
    RandomSample,
    class_names_of,
    log_figure,
    new_figure,
    pixel_range_of,
    thumbnails,
    wants_pictures,
)

RIGHT_PIXEL, WRONG_PIXEL = (tuple(bytes.fromhex(colour[1:])) for colour in (RIGHT, WRONG))
FRAME, GAP, ROW_GAP = 4, 6, 8


class NearestNeighbors(PictureOfTest):
    """Draws random test images beside their nearest neighbours, by the cosine of their codes.

    During the test, ``test_step`` returns ``{"code": (B, d)}`` for batches of images (``ImageBatch``); other outputs
    are ignored. Data loader 0 has the queries, data loader 1 the memory that is searched. Only the best neighbours so
    far and their thumbnails are kept. If the images have classes, a neighbour's frame is green (the query's class) or
    orange (another class). Pixels are shown as before the preprocessing, which the module's hyperparameter
    ``pixel_range`` describes. With several processes the picture shows rank zero's share of queries and memory. The
    global random state is not changed. The picture is ``nearest_neighbors``.

    Args:
        num_queries: rows of the picture.
        num_neighbors: neighbours in each row.
        seed: of the choice of queries.

    Raises:
        ValueError: for numbers below 1; in the test, if the module has no ``pixel_range``.

    Example:
        trainer:
          callbacks+:
            - class_path: NearestNeighbors
              init_args: {num_queries: 8, num_neighbors: 6}
    """

    needs = ("code",)

    def __init__(self, num_queries: int = 10, num_neighbors: int = 10, seed: int = 0) -> None:
        if num_queries < 1 or num_neighbors < 1:
            raise ValueError(f"num_queries and num_neighbors must be at least 1, got {num_queries}, {num_neighbors}")
        self.num_queries, self.num_neighbors, self.seed = num_queries, num_neighbors, seed
        self.forget()

    def forget(self) -> None:
        self._queries = RandomSample(self.num_queries, self.seed)
        self._best: tuple[Tensor, ...] = ()  # similarities, images and labels of the nearest so far

    def collect(self, trainer: pl.Trainer, outputs: Mapping[str, Any], batch: Any, dataloader_idx: int) -> None:
        if not wants_pictures(trainer):
            return
        codes = F.normalize(outputs["code"].detach().float())
        if dataloader_idx == 0:
            self._queries.add(codes, batch.images, batch.labels)
        elif dataloader_idx == 1 and len(self._queries):
            self._search(codes, batch, pixel_range_of(trainer.lightning_module))

    def _search(self, codes: Tensor, batch: Any, pixel_range: tuple[float, float]) -> None:
        """Merge the best neighbours in a batch of the memory with the best so far."""
        queries = self._queries.rows[0]
        similarities, places = (codes @ queries.to(codes.device).T).T.topk(min(self.num_neighbors, len(codes)))
        images = thumbnails(batch.images[places.flatten()], pixel_range)
        found: tuple[Tensor, ...] = similarities.cpu(), images.unflatten(0, places.shape), batch.labels[places].cpu()
        if self._best:
            found = tuple(torch.cat(pair, dim=1) for pair in zip(self._best, found, strict=True))
        similarities, order = found[0].topk(min(self.num_neighbors, found[0].shape[1]))
        rows = torch.arange(len(order))[:, None]
        self._best = (similarities, *(part[rows, order] for part in found[1:]))

    def finish(self, trainer: pl.Trainer) -> None:
        if self._best:
            self._draw(trainer)
        elif len(self._queries):
            rank_zero_warn("NearestNeighbors: no picture, the test has no second data loader to search")

    def _draw(self, trainer: pl.Trainer) -> None:
        _, images, labels = self._queries.rows
        _, neighbors, neighbor_labels = self._best
        queries = thumbnails(images, pixel_range_of(trainer.lightning_module))
        canvas, row_height, query_width = _grid(queries, neighbors, labels, neighbor_labels)
        height, width = canvas.shape[:2]
        known = bool((labels >= 0).any())
        names = class_names_of(trainer, labels)
        dpi, top, margin = 150, 44, 16
        left = (
            26 + 11 * max((len(names[label]) for label in labels.tolist() if label >= 0), default=0)
            if known
            else margin
        )
        bottom = 48 if known else margin
        full_width, full_height = left + width + margin, top + height + bottom
        figure = new_figure(full_width / dpi, full_height / dpi, dpi)
        figure.set_layout_engine("none")
        # Pixel for pixel: an axes would resample the images.
        figure.figimage(canvas.numpy(), left, bottom)

        def text(x: float, y: float, words: str, **style: Any) -> None:
            figure.text(x / full_width, y / full_height, words, **{"color": INK, "fontsize": 8.5, **style})

        text(left, bottom + height + 12, "query")
        text(left + query_width, bottom + height + 12, "nearest neighbours, by cosine")
        for row, label in enumerate(labels.tolist()):
            if label >= 0:
                middle = bottom + height - row * row_height - (row_height - ROW_GAP) / 2
                text(left - 12, middle, names[label], ha="right", va="center")
        if known:
            text(left + query_width, 18, "■ same class", color=RIGHT)
            text(left + query_width + 150, 18, "■ another class", color=WRONG)
            same = (neighbor_labels == labels[:, None])[labels >= 0].double().mean()
            text(left + width, 18, f"{same:.0%} same", ha="right", color=FAINT)
        log_figure(trainer, "nearest_neighbors", figure)


def _grid(queries: Tensor, neighbors: Tensor, labels: Tensor, neighbor_labels: Tensor) -> tuple[Tensor, int, int]:
    """Lay out the images, each query left of its neighbours, with frames that tell the same class from another.

    Args:
        queries: (Q, H, W, 3) uint8.
        neighbors: (Q, K, H, W, 3) uint8.
        labels, neighbor_labels: (Q,), (Q, K) int64, -1 for no class.

    Returns:
        The picture (height, width, 3) uint8, every image enlarged by an integer factor; the height of a row; and the
        left edge of the neighbours, in pixels.
    """
    num_queries, num_neighbors, height, width, _ = neighbors.shape
    enlarge = max(1, round(72 / max(height, width)))

    def framed(images: Tensor, colours: Tensor) -> Tensor:
        """(N, H, W, 3) -> (N, H', W', 3), each image enlarged and in a frame of its colour (N, 3)."""
        images = images.repeat_interleave(enlarge, dim=1).repeat_interleave(enlarge, dim=2)
        n, h, w, _ = images.shape
        tiles = colours[:, None, None].expand(n, h + 2 * FRAME, w + 2 * FRAME, 3).clone()
        tiles[:, FRAME:-FRAME, FRAME:-FRAME] = images
        return tiles

    white = torch.full((3,), 255, dtype=torch.uint8)
    right, wrong = (torch.tensor(colour, dtype=torch.uint8) for colour in (RIGHT_PIXEL, WRONG_PIXEL))
    colours = torch.where((neighbor_labels == labels[:, None])[..., None], right, wrong)
    colours = torch.where(((neighbor_labels < 0) | (labels[:, None] < 0))[..., None], white, colours)
    left = framed(queries, white.expand(num_queries, 3))
    tiles = framed(neighbors.flatten(0, 1), colours.flatten(0, 1)).unflatten(0, (num_queries, num_neighbors))

    tile_height, tile_width = left.shape[1:3]
    query_width = tile_width + 3 * GAP
    row_height = tile_height + ROW_GAP
    canvas = torch.full(
        (num_queries * row_height - ROW_GAP, query_width + num_neighbors * (tile_width + GAP) - GAP, 3),
        255,
        dtype=torch.uint8,
    )
    for row in range(num_queries):
        down = slice(row * row_height, row * row_height + tile_height)
        canvas[down, :tile_width] = left[row]
        for column in range(num_neighbors):
            start = query_width + column * (tile_width + GAP)
            canvas[down, start : start + tile_width] = tiles[row, column]
    return canvas, row_height, query_width
