"""A picture of the codelength over the passes of each trial."""

from typing import Any

import pytorch_lightning as pl

from .base import FAINT, INK, PALETTE, has_entries, log_figure, new_figure, plain_axes, wants_pictures


class CodelengthPasses(pl.Callback):
    """Draws the codelength after each pass of each trial of a search, the best trial in colour.

    ``training_step`` returns ``{"loss", "passes": [(trial, [bits after each pass]), ...]}``; other outputs are ignored.
    The passes are part of the checkpoint. The picture, drawn when training ends, is ``codelength_passes``.

    Example:
        trainer:
          callbacks+:
            - class_path: CodelengthPasses
    """

    def __init__(self) -> None:
        self.passes: dict[int, list[float]] = {}

    def state_dict(self) -> dict[str, Any]:
        """The passes so far."""
        return {"passes": dict(self.passes)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the passes of a checkpoint."""
        self.passes = dict(state_dict["passes"])

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        if has_entries(outputs, "passes"):
            self.passes.update(dict(outputs["passes"]))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.passes or not wants_pictures(trainer):
            return
        best = min(self.passes, key=lambda trial: (self.passes[trial][-1], trial))
        figure = new_figure(7, 4)
        axes = figure.add_subplot()
        for trial, lengths in self.passes.items():
            if trial != best:
                axes.plot(range(1, len(lengths) + 1), lengths, color=FAINT, alpha=0.5, linewidth=1)
        lengths = self.passes[best]
        text = f"trial {best + 1} of {len(self.passes)}: {lengths[-1]:.4f} bits"
        axes.plot(range(1, len(lengths) + 1), lengths, color=PALETTE[0], marker="o", markersize=4, label=text)
        axes.set_xlabel("passes (moves, tuning, levels)", color=INK)
        axes.set_ylabel("codelength, bits per step", color=INK)
        axes.locator_params(axis="x", integer=True)
        axes.legend(frameon=False)
        plain_axes(axes)
        log_figure(trainer, "codelength_passes", figure)
