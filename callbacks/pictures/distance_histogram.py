"""A picture of the distribution of each layer's syntactic distances, with a warning when a gate is stuck."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from .base import INK, PALETTE, PictureOfTest, log_figure, new_figure, plain_axes, wants_pictures

BINS = 50
NEAR_ONE, NEARLY_ALL = 0.95, 0.95


class DistanceHistogram(PictureOfTest):
    """Draws a histogram of each layer's distances, and warns when nearly all are close to 1.

    The distance of a word is 1 - mean of the master forget gate, in [0, 1]: the level up to which the word closes open
    constituents. If 95 % of a layer's distances are above 0.95, its gate is stuck and its trees mean little; one line
    warns of this (a known failure of the first implementations).

    During the test, ``test_step`` returns ``{"distances": (L, B, T)}``, NaN where there is no word; other outputs are
    ignored. With several processes the picture shows rank zero's share. The picture is ``distance_histogram``.

    Example:
        trainer:
          callbacks+:
            - class_path: DistanceHistogram
    """

    needs = ("distances",)

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._counts: Tensor | None = None

    def collect(self, trainer: pl.Trainer, outputs: Mapping[str, Any], batch: Any, dataloader_idx: int) -> None:
        if not trainer.is_global_zero:
            return
        distances = outputs["distances"].detach().float().cpu().flatten(1)
        # For each layer: the counts in bins, the number close to 1 and the total.
        counts = torch.zeros(len(distances), BINS + 2, dtype=torch.int64)
        for row, values in zip(counts, distances, strict=True):
            values = values[~values.isnan()]
            places = (values * BINS).long().clamp(0, BINS - 1)
            row[:BINS] = places.bincount(minlength=BINS)
            row[BINS], row[BINS + 1] = (values > NEAR_ONE).sum(), len(values)
        self._counts = counts if self._counts is None else self._counts + counts

    def finish(self, trainer: pl.Trainer) -> None:
        counts = self._counts
        if counts is None:
            return
        stuck = [
            str(layer)
            for layer, (near, total) in enumerate(counts[:, BINS:].tolist(), 1)
            if near > NEARLY_ALL * total > 0
        ]
        if stuck:
            rank_zero_warn(
                f"nearly all distances of layer {', '.join(stuck)} are near 1: its forget gate is stuck and its trees "
                "mean little; train longer, or change model.lr, the dropouts or model.chunk_size"
            )
        if wants_pictures(trainer):
            self._draw(trainer, counts[:, :BINS])

    def _draw(self, trainer: pl.Trainer, counts: Tensor) -> None:
        figure = new_figure(6, 0.6 + 1.3 * len(counts))
        shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
        edges = [place / BINS for place in range(BINS)]
        rows = figure.subplots(len(counts), 1, sharex=True, squeeze=False)[:, 0]
        for layer, (axes, row) in enumerate(zip(rows, shares.tolist(), strict=True), 1):
            axes.bar(edges, row, width=1 / BINS, align="edge", color=PALETTE[(layer - 1) % len(PALETTE)])
            axes.set_ylabel(f"layer {layer}\nshare of words", color=INK, fontsize=8)
            axes.set_axisbelow(True)
            plain_axes(axes)
            axes.tick_params(labelsize=8)
        rows[-1].set_xlim(0, 1)
        rows[-1].set_xlabel("distance, 1 - mean of the master forget gate", color=INK)
        log_figure(trainer, "distance_histogram", figure)
