"""Gradients are clipped where an epoch has few steps: a recipe made for much data needs that on little."""

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from .update_chain.chain import check_argument
from .update_chain.run_length import steps_per_epoch


class SmallDataClipping(pl.Callback):
    """Clips the gradient's norm where an epoch has fewer optimizer steps than ``min_epoch_steps``; else does nothing.

        g <- g min(1, norm / ||g||)

    On little data the learning rate is large after few steps. In the triple extractor some gradients then had norms of
    up to a hundred, where most had one to ten, and some data sets were learned only with clipping. The likely cause:
    Adam's second moment remembers such a gradient for a thousand steps. A ``gradient_clip_val`` of the Trainer takes
    precedence.

    Args:
        norm: the largest norm of all gradients together.
        min_epoch_steps: an epoch with at least so many steps is not little data.

    Raises:
        ValueError: if an argument is not positive.

    Example:
        trainer:
          callbacks+:
            - class_path: SmallDataClipping
              init_args: {norm: 1.0, min_epoch_steps: 160}
    """

    def __init__(self, norm: float = 1.0, min_epoch_steps: int = 160) -> None:
        check_argument("SmallDataClipping", "norm", norm, "positive", norm > 0)
        check_argument("SmallDataClipping", "min_epoch_steps", min_epoch_steps, "positive", min_epoch_steps > 0)
        self.norm, self.min_epoch_steps = norm, min_epoch_steps
        self._clips = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        try:
            steps = steps_per_epoch(trainer)
        except MisconfigurationException:  # no length: not little
            return
        if trainer.gradient_clip_val is None and pl_module.automatic_optimization and steps < self.min_epoch_steps:
            trainer.gradient_clip_val, self._clips = self.norm, True
            if trainer.is_global_zero:
                print(
                    f"SmallDataClipping: an epoch has {steps:,} steps: gradients are clipped to norm {self.norm:g}",
                    flush=True,
                )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._clips:
            trainer.gradient_clip_val, self._clips = None, False
