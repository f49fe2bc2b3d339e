"""A picture of random test images and their nearest neighbours."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torch.nn import functional as F

from .base import (
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
KINDS = {"learned": "code", "untrained": "untrained_code"}


class NearestNeighbors(PictureOfTest):
    """Draws random test images beside their nearest neighbours, by the cosine of their codes.

    During the test, ``test_step`` returns ``{"code": (B, d)}`` for batches of images (``ImageBatch``), and
    ``"untrained_code"`` too where the module has an untrained copy, whose neighbours are then drawn beside; other
    outputs are ignored. Data loader 0 has the queries, data loader 1 the memory that is searched. Only the best
    neighbours so far and their thumbnails are kept. If the images have classes, a neighbour's frame is green (the
    query's class) or orange (another class). Images are shown in their original colours; the module's hyperparameter
    ``pixel_range`` says how they were scaled. With several processes the picture shows rank zero's share of queries and
    memory. The global random state is not changed. The picture is ``nearest_neighbors``.

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
              init_args: {num_queries: 10, num_neighbors: 10}
    """

    needs = ("code",)

    def __init__(self, num_queries: int = 8, num_neighbors: int = 6, seed: int = 0) -> None:
        if num_queries < 1 or num_neighbors < 1:
            raise ValueError(f"num_queries and num_neighbors must be at least 1, got {num_queries}, {num_neighbors}")
        self.num_queries, self.num_neighbors, self.seed = num_queries, num_neighbors, seed
        self.forget()

    def forget(self) -> None:
        self._queries = RandomSample(self.num_queries, self.seed)
        # For each kind of code the similarities, images and labels of the nearest so far.
        self._best: dict[str, tuple[Tensor, ...]] = {}

    def collect(self, trainer: pl.Trainer, outputs: Mapping[str, Any], batch: Any, dataloader_idx: int) -> None:
        if not wants_pictures(trainer):
            return
        codes = {name: F.normalize(outputs[key].detach().float()) for name, key in KINDS.items() if key in outputs}
        if dataloader_idx == 0:
            self._queries.add(batch.images, batch.labels, *codes.values())
        elif dataloader_idx == 1 and len(self._queries):
            pixel_range = pixel_range_of(trainer.lightning_module)
            for (name, found), queries in zip(codes.items(), self._queries.rows[2:], strict=True):
                self._best[name] = self._search(queries, found, batch, pixel_range, self._best.get(name, ()))

    def _search(
        self, queries: Tensor, codes: Tensor, batch: Any, pixel_range: tuple[float, float], best: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """The best neighbours in a batch of the memory merged with the best so far."""
        similarities, places = (codes @ queries.to(codes.device).T).T.topk(min(self.num_neighbors, len(codes)))
        images = thumbnails(batch.images[places.flatten()], pixel_range)
        found: tuple[Tensor, ...] = similarities.cpu(), images.unflatten(0, places.shape), batch.labels[places].cpu()
        if best:
            found = tuple(torch.cat(pair, dim=1) for pair in zip(best, found, strict=True))
        similarities, order = found[0].topk(min(self.num_neighbors, found[0].shape[1]))
        rows = torch.arange(len(order))[:, None]
        return (similarities, *(part[rows, order] for part in found[1:]))

    def finish(self, trainer: pl.Trainer) -> None:
        if self._best:
            self._draw(trainer)
        elif len(self._queries):
            rank_zero_warn("NearestNeighbors: no picture, the test has no second data loader to search")

    def _draw(self, trainer: pl.Trainer) -> None:
        images, labels = self._queries.rows[:2]
        queries = thumbnails(images, pixel_range_of(trainer.lightning_module))
        canvas, row_height, lefts = _grid(queries, labels, [found[1:] for found in self._best.values()])
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
        for start, (name, (*_, neighbor_labels)) in zip(lefts, self._best.items(), strict=True):
            what = "nearest neighbours, by cosine" if len(self._best) == 1 else f"nearest by the {name} code"
            if known:
                same = (neighbor_labels == labels[:, None])[labels >= 0].double().mean()
                what += f": {same:.0%} same"
            text(left + start, bottom + height + 12, what)
        for row, label in enumerate(labels.tolist()):
            if label >= 0:
                middle = bottom + height - row * row_height - (row_height - ROW_GAP) / 2
                text(left - 12, middle, names[label], ha="right", va="center")
        if known:
            text(left + lefts[0], 18, "■ same class", color=RIGHT)
            text(left + lefts[0] + 150, 18, "■ another class", color=WRONG)
        log_figure(trainer, "nearest_neighbors", figure)


def _grid(queries: Tensor, labels: Tensor, found: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, int, list[int]]:
    """Lay out the images, each query left of its neighbours, with frames that tell the same class from another.

    Args:
        queries: (Q, H, W, 3) uint8.
        labels: (Q,) int64, -1 for no class.
        found: blocks of neighbours (Q, K, H, W, 3) uint8 with their labels (Q, K) int64, from left to right.

    Returns:
        The picture (height, width, 3) uint8, every image enlarged by an integer factor; the height of a row; and the
        left edge of each block, in pixels.
    """
    enlarge = max(1, round(72 / max(queries.shape[1:3])))

    def framed(images: Tensor, colours: Tensor) -> Tensor:
        """(N, H, W, 3) -> (N, H', W', 3), each image enlarged and in a frame of its colour (N, 3)."""
        images = images.repeat_interleave(enlarge, dim=1).repeat_interleave(enlarge, dim=2)
        n, h, w, _ = images.shape
        tiles = colours[:, None, None].expand(n, h + 2 * FRAME, w + 2 * FRAME, 3).clone()
        tiles[:, FRAME:-FRAME, FRAME:-FRAME] = images
        return tiles

    def column(tiles: Tensor) -> Tensor:
        """(Q, h, w, 3) -> one below the other, with white between."""
        return F.pad(tiles, (0, 0, 0, 0, 0, ROW_GAP), value=255).flatten(0, 1)[:-ROW_GAP]

    white = torch.full((3,), 255, dtype=torch.uint8)
    right, wrong = (torch.tensor(colour, dtype=torch.uint8) for colour in (RIGHT_PIXEL, WRONG_PIXEL))
    parts = [column(framed(queries, white.expand(len(queries), 3)))]
    height = len(parts[0])
    gap, wide_gap = (white.expand(height, pixels, 3) for pixels in (GAP, 3 * GAP))
    lefts = []
    for neighbors, neighbor_labels in found:
        colours = torch.where((neighbor_labels == labels[:, None])[..., None], right, wrong)
        colours = torch.where(((neighbor_labels < 0) | (labels[:, None] < 0))[..., None], white, colours)
        parts.append(wide_gap)
        lefts.append(sum(part.shape[1] for part in parts))
        for rank in range(neighbors.shape[1]):
            parts += [gap] * (rank > 0) + [column(framed(neighbors[:, rank], colours[:, rank]))]
    return torch.cat(parts, dim=1), (height + ROW_GAP) // len(queries), lefts
