"""A loss that is not finite ends the training at once: what follows could only be lost time."""

import math

import pytorch_lightning as pl
import torch
from torch import Tensor

from .errors import UserError
from .private_api import metrics_to_log
from .run_folder import RunFolder


def first_bad(first: Tensor, loss: Tensor, step: int) -> Tensor:
    """The first step whose loss is not finite, -1 for none so far; nothing waits for the device."""
    return torch.where(~torch.isfinite(loss).all() & (first < 0), step, first)


class FiniteLoss(pl.Callback):
    """Raises UserError before a loss that is not finite changes the weights.

    On the CPU each loss is looked at. On other devices that would make every step wait for the device: there the first
    step with such a loss is kept on the device, and looked at when metrics are logged and before a checkpoint.

    Args:
        folder: the run folder, whose last checkpoint was written before such a loss.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._first: Tensor | None = None  # the first step with such a loss, -1 for none

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        step = trainer.global_step
        if loss.device.type == "cpu":
            if not math.isfinite(loss.detach()):
                raise self._error(trainer, step)
            return
        if self._first is None:
            self._first = torch.full((), -1, device=loss.device)
        self._first = first_bad(self._first, loss.detach(), step)
        if step % (trainer.log_every_n_steps or 50) == 0:  # type: ignore[attr-defined]
            self._look(trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        self._look(trainer)

    def _look(self, trainer: pl.Trainer) -> None:
        if self._first is not None and (step := int(self._first)) >= 0:
            raise self._error(trainer, step)

    def _error(self, trainer: pl.Trainer, step: int) -> UserError:
        values = {name: float(value) for name, value in metrics_to_log(trainer).items() if name.startswith("train/")}
        wrong = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
        terms = [term for term in wrong if not term.startswith("train/loss ")] or wrong
        kept = f"the last good checkpoint is {self.folder.last}" if self.folder.last.is_file() else "no checkpoint yet"
        return UserError(
            f"the loss is not finite at step {step} of epoch {trainer.current_epoch}"
            f"{' (' + ', '.join(terms) + ')' if terms else ''}: {kept}; lower the learning rate, clip the gradient "
            "(--trainer.gradient_clip_val=1), or train on regardless with --check_finite=false"
        )
