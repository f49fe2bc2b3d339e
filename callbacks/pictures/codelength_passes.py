"""A picture of the code length over the passes of each trial."""

from typing import Any

import pytorch_lightning as pl

from .base import FAINT, INK, PALETTE, has_entries, log_figure, new_figure, plain_axes, wants_pictures


class CodelengthPasses(pl.Callback):
    """Draws the code length after each pass of each trial of a search, the best trial in colour.

    ``training_step`` returns ``{"loss", "passes": [(trial, [bits after each pass]), ...]}``; other modules get no
    picture. What was seen is part of the checkpoint. The picture, drawn when training ends, is ``codelength_passes``.
    """

    def __init__(self) -> None:
        self.passes: dict[int, list[float]] = {}

    def state_dict(self) -> dict[str, Any]:
        """The passes so far."""
        return {"passes": dict(self.passes)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with the passes of a checkpoint."""
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
        axes.set_ylabel("code length, bits per step", color=INK)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False)
        plain_axes(axes)
        log_figure(trainer, "codelength_passes", figure)
