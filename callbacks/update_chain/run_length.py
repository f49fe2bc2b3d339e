"""Lengths of a run in optimizer steps: what ``unit: step | epoch | share`` of a callback stands for."""

import math
from typing import Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import GradientAccumulationScheduler
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from .chain import check_argument

Unit = Literal["step", "epoch", "share"]
UNITS = ("step", "epoch", "share")


def check_unit(owner: str, unit: str) -> None:
    """Refuses what is no unit.

    Raises:
        ValueError: names the callback.
    """
    check_argument(owner, "unit", unit, f"one of {', '.join(UNITS)}", unit in UNITS)


def steps_per_epoch(trainer: pl.Trainer) -> int:
    """Optimizer steps of one epoch; known once the data is set up (from ``on_train_start`` on).

    Raises:
        MisconfigurationException: the accumulation window changes, or the data has no length.
    """
    _refuse_scheduled_windows(trainer)
    steps = trainer.num_training_batches / trainer.accumulate_grad_batches
    if not math.isfinite(steps):
        raise MisconfigurationException(
            "the data has no length, so epochs and shares of the run are not known: count in steps (unit: step)"
        )
    return max(1, math.ceil(steps))


def planned_steps(trainer: pl.Trainer) -> float:
    """Steps of each optimizer in the whole run, by ``max_epochs`` and ``max_steps``; infinite where they are unknown.

    That is, without either, or with ``max_epochs`` of data without a length.

    Raises:
        MisconfigurationException: the accumulation window changes.
    """
    if trainer.max_epochs != -1:
        _refuse_scheduled_windows(trainer)
    steps = trainer.estimated_stepping_batches
    if trainer.max_steps == -1:
        return steps if steps >= 0 else math.inf
    return min(steps, -(-trainer.max_steps // max(len(trainer.optimizers), 1)))  # max_steps counts all optimizers'


def steps_per(unit: Unit, owner: str, trainer: pl.Trainer) -> float:
    """Optimizer steps of one unit: of one step, of an epoch, or of the whole run (of which a share is meant).

    Args:
        owner: the callback, for the message.

    Raises:
        MisconfigurationException: it isn't known.
    """
    if unit == "step":
        return 1
    if unit == "epoch":
        return steps_per_epoch(trainer)
    steps = planned_steps(trainer)
    if math.isinf(steps):
        raise MisconfigurationException(
            f"{owner}: the run has no planned end to take shares of: set trainer.max_steps (where the data has a "
            "length, max_epochs), or another unit"
        )
    return steps


def _refuse_scheduled_windows(trainer: pl.Trainer) -> None:
    # Lightning's estimate of the steps leaves this callback out, which sets the window when an epoch begins.
    if any(isinstance(callback, GradientAccumulationScheduler) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        raise MisconfigurationException(
            "with GradientAccumulationScheduler the steps of an epoch change, so epochs and shares of the run are not "
            "known: count in steps (unit: step), or set trainer.accumulate_grad_batches instead"
        )
