"""Gradient accumulation: one optimizer step per n batches, with a schedule of n in optimizer steps."""

from bisect import bisect_right
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import GradientAccumulationScheduler
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.optim import LBFGS

from .update_chain.chain import Phase, UpdateChain, check_argument, local
from .update_chain.rule import UpdateRule


class _Window(int):
    """Lightning's ``accumulate_grad_batches`` for one window: its length, with a modulo from its first batch on.

    Lightning zeroes the gradients if ``batch_idx % n == 0`` and steps if ``(batch_idx + 1) % n == 0``. Counting from
    the window's own first batch lets n change at any step, not only between epochs, with nothing but Lightning's
    public attribute.

    Lightning estimates the steps of the whole run as ``ceil(batches / n)`` for each epoch: right for a constant n, and
    refused for a schedule.
    """

    first_batch: int = 0
    schedule: dict[int, int] | None = None

    def __rmod__(self, batches: int) -> int:
        return (batches - self.first_batch) % int(self)

    def __rtruediv__(self, batches: float) -> float:
        if self.schedule is not None:
            raise MisconfigurationException(
                f"trainer.estimated_stepping_batches is not known with GradientAccumulation(steps={self.schedule}), "
                "whose windows change: give the number of steps yourself, or a single number as steps (a search for a "
                "learning rate asks for it too: leave the callback out there)"
            )
        return batches / int(self)


class GradientAccumulation(UpdateRule):
    """Gradient accumulation: one optimizer step per n batches, with a schedule of n in optimizer steps.

    ``g = (g_1 + … + g_n) / n``: if the loss is a mean over samples, batches have equal size and nothing couples the
    samples of a batch (as batch normalisation and InfoNCE do), the step equals that of one n times larger batch. A
    window ends with its epoch; the last, shorter one is divided by its number of batches, where
    ``Trainer(accumulate_grad_batches=n)`` still divides by n.

    ``trainer.estimated_stepping_batches`` counts windows, so schedulers made from it fit; a schedule of several n is
    refused there, as its number of steps is not known in advance.

    Args:
        steps: n, or ``{optimizer step: n}``: n applies from that step on; 1 before the first key.

    Raises:
        ValueError: if an n or a key is out of range.
        MisconfigurationException: at the start, together with another accumulation, with manual optimization (where
            the module owns the window) or with LBFGS.

    Source: kexue.fm/archives/6794 and 7094 section 4. The author's versions make one update with a zero gradient at
    the very start; this one doesn't.

    Example:
        trainer:
          callbacks+:
            - class_path: GradientAccumulation
              init_args: {steps: {0: 1, 1000: 4}}
    """

    phase = Phase.GRADIENT
    works_on_shards = True

    def __init__(self, steps: int | dict[int, int] = 2) -> None:
        super().__init__()
        schedule = steps if isinstance(steps, dict) else {0: steps}
        check_argument("GradientAccumulation", "steps", steps, "an integer or {optimizer step: n}", bool(schedule))
        for key, n in schedule.items():
            ok = isinstance(key, int) and key >= 0
            check_argument("GradientAccumulation", "a key of steps", key, "an integer of at least 0", ok)
            ok = isinstance(n, int) and not isinstance(n, bool) and n >= 1
            check_argument("GradientAccumulation", "steps", n, "an integer of at least 1", ok)
        self.steps = {0: 1} | {key: schedule[key] for key in sorted(schedule)}
        self._keys = list(self.steps)
        self._schedule = self.steps if len(set(self.steps.values())) > 1 else None
        self._chain: UpdateChain | None = None
        self.forget()

    def forget(self) -> None:
        self._window = {"first_batch": 0, "length": 1, "backwards": 0}
        self._restored = False

    def settings(self) -> dict[str, Any]:
        return {"steps": self.steps[0] if len(self.steps) == 1 else self.steps}

    def check(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not pl_module.automatic_optimization:
            raise MisconfigurationException(
                f"GradientAccumulation can't work with {type(pl_module).__name__}, which steps its optimizers itself "
                "(manual optimization); accumulate in its training_step, or remove the callback"
            )
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, GradientAccumulationScheduler):
                raise MisconfigurationException(
                    "GradientAccumulation and GradientAccumulationScheduler both set the window; "
                    "remove one of them from trainer.callbacks"
                )
        if isinstance(trainer.accumulate_grad_batches, _Window):  # left by a run that ended in an exception
            trainer.accumulate_grad_batches = 1
        if trainer.accumulate_grad_batches != 1:
            raise MisconfigurationException(
                f"GradientAccumulation and Trainer(accumulate_grad_batches={trainer.accumulate_grad_batches}) both "
                "set the window; remove accumulate_grad_batches or the callback"
            )

    def attach(self, chain: UpdateChain, trainer: pl.Trainer) -> None:
        if isinstance(chain.optimizer, LBFGS):
            raise MisconfigurationException(
                "GradientAccumulation can't work with LBFGS, which re-evaluates only the window's last batch; "
                "raise the batch size instead"
            )
        self._chain = chain
        if self._restored:
            self._apply(trainer)  # without the schedule: to warn of loaders, Lightning divides by it when it resumes

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            # Before the module makes its schedulers, which may ask for the number of steps.
            trainer.accumulate_grad_batches = _Window(self.window_length(0))
            trainer.accumulate_grad_batches.schedule = self._schedule

    def detach(self, chain: UpdateChain, trainer: pl.Trainer) -> None:
        trainer.accumulate_grad_batches = 1

    def window_length(self, step: int) -> int:
        """n at this optimizer step, counted from 0."""
        return self.steps[self._keys[bisect_right(self._keys, step) - 1]]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        window = self._window
        inside = window["first_batch"] < batch_idx < window["first_batch"] + window["length"]
        if inside:
            return
        assert self._chain is not None
        self._window = {"first_batch": batch_idx, "length": self.window_length(self._chain.steps), "backwards": 0}
        self._apply(trainer).schedule = self._schedule

    def _apply(self, trainer: pl.Trainer) -> _Window:
        window = _Window(self._window["length"])
        window.first_batch = self._window["first_batch"]
        trainer.accumulate_grad_batches = window
        return window

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_after_backward(trainer, pl_module)
        self._window["backwards"] += 1

    def before_step(self, chain: UpdateChain) -> None:
        # Fewer batches than the loss was divided by: the epoch ended or training_step returned None.
        length, backwards = self._window["length"], self._window["backwards"]
        if 0 < backwards < length:
            gradients = [local(parameter.grad) for parameter in chain.params if parameter.grad is not None]
            torch._foreach_mul_(gradients, length / backwards)

    def state_dict(self) -> dict[str, Any]:
        return dict(self._window)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._window = dict(state_dict)
        self._restored = True
