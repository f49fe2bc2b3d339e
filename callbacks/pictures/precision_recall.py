"""A picture of precision and recall over a model's thresholds."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from layers.processes import gather_objects

from .base import FAINT, INK, PALETTE, PictureOfTest, log_figure, new_figure, plain_axes, wants_pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class PrecisionRecallCurve(PictureOfTest):
    """Draws precision against recall over thresholds, and both with F1 against the threshold; the best F1 is marked.

        precision = correct / predicted,   recall = correct / gold,   F1 = 2 correct / (predicted + gold)

    During the test, ``test_step`` returns ``{"thresholds": (K,) float, "threshold_counts": (K, 3) int64}``: correct,
    predicted and gold items of the batch at each threshold; other outputs are ignored. Counts are summed over the test
    and all processes. Thresholds at which nothing is predicted have no precision and are left out. The picture is
    ``precision_recall``.

    Example:
        trainer:
          callbacks+:
            - class_path: PrecisionRecallCurve
    """

    needs = ("thresholds", "threshold_counts")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._thresholds: Tensor | None = None
        self._counts: Tensor | None = None

    def collect(self, trainer: pl.Trainer, outputs: Mapping[str, Any], batch: Any, dataloader_idx: int) -> None:
        counts = outputs["threshold_counts"].detach().cpu()
        self._counts = counts if self._counts is None else self._counts + counts
        self._thresholds = outputs["thresholds"].detach().float().cpu()

    def finish(self, trainer: pl.Trainer) -> None:
        # Objects, since a process whose share was empty doesn't know how many thresholds there are.
        shares = [
            (thresholds, counts)
            for thresholds, counts in gather_objects((self._thresholds, self._counts))
            if thresholds is not None and counts is not None
        ]
        if shares and wants_pictures(trainer):
            self._draw(trainer, shares[0][0], torch.stack([counts for _, counts in shares]).sum(0))

    def _draw(self, trainer: pl.Trainer, thresholds: Tensor, counts: Tensor) -> None:
        order = thresholds.argsort()
        thresholds, counts = thresholds[order].double(), counts[order].double()
        some = counts[:, 1] > 0
        thresholds, (correct, predicted, gold) = thresholds[some], counts[some].unbind(1)
        if not len(thresholds) or not gold.max() > 0:
            return
        precision, recall, f1 = correct / predicted, correct / gold, 2 * correct / (predicted + gold)
        best = int(f1.argmax())
        figure = new_figure(9, 4)
        left, right = figure.subplots(1, 2)
        _draw_iso_f1(left)
        left.plot(recall, precision, color=PALETTE[0], marker="o", markersize=3.5, linewidth=1.8)
        text = f"best F1 {f1[best]:.3f} at threshold {thresholds[best]:.2f}"
        left.plot(recall[best], precision[best], "*", color=PALETTE[1], markersize=13, label=text, linestyle="")
        left.set_xlabel("recall", color=INK)
        left.set_ylabel("precision", color=INK)
        left.set_aspect("equal")
        styles = (("precision", precision, "-."), ("recall", recall, "--"), ("F1", f1, "-"))
        for number, (name, values, style) in enumerate(styles):
            right.plot(thresholds, values, color=PALETTE[(2, 4, 0)[number]], linestyle=style, linewidth=1.8, label=name)
        right.plot(thresholds[best], f1[best], "*", color=PALETTE[1], markersize=13)
        right.set_xlabel("threshold", color=INK)
        for axes in (left, right):
            axes.set_ylim(0, 1.02)
            axes.set_xlim(0, 1.02)
            plain_axes(axes)
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=8)
        log_figure(trainer, "precision_recall", figure)


def _draw_iso_f1(axes: "Axes") -> None:
    """Faint lines of equal F1: precision = F1 * recall / (2 recall - F1)."""
    for f1 in (0.2, 0.4, 0.6, 0.8, 0.9):
        recall = torch.linspace(f1 / (2 - f1), 1, 100)
        axes.plot(recall, f1 * recall / (2 * recall - f1), color=FAINT, linewidth=0.7, linestyle=":")
        axes.text(1.01, f1 / (2 - f1), f"F1 {f1}", fontsize=6.5, color=FAINT, va="center", ha="left")
