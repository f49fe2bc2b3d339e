"""How many epochs, and how often to validate, for data that is smaller than a configuration's own."""

import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml

from .arguments import flags_and_values, nested
from .console import say

# Whoever gives one of these has chosen the length of the run.
CHOICES = ("max_epochs", "max_steps", "fast_dev_run", "overfit_batches", "limit_train_batches")


def chooses_length(argv: list[str]) -> bool:
    """Whether what comes after the ``min_steps`` of a command line says how long to train: options or later files."""
    chosen = False
    for flag, value in flags_and_values(argv):
        if flag in ("-c", "--config"):
            settings = nested(yaml.safe_load(Path(value).read_text()))
            chosen = "min_steps" not in settings and (chosen or _chooses(settings))
        elif flag == "--min_steps":
            return False
        elif flag.startswith("--trainer"):
            chosen = chosen or _chooses(nested({flag.removeprefix("--"): value}))
    return chosen


def _chooses(settings: dict[str, Any]) -> bool:
    return bool(set(CHOICES) & set(settings.get("trainer") or ()))


class FitsSmallData(pl.Callback):
    """Before the training, raises ``max_epochs`` if so many epochs have fewer optimizer steps than ``min_steps``.

    A configuration's number of epochs suits its own data. On a thousandth of it they are too few steps to learn
    anything; more epochs do no harm, since the best checkpoint is the one that is tested. A ``val_check_interval`` of
    less than a batch, which Lightning refuses, becomes one epoch.

    Args:
        min_steps: optimizer steps.
    """

    def __init__(self, min_steps: int) -> None:
        self.min_steps = min_steps

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if stage != "fit" or data is None:
            return
        try:
            batches: float = len(data.train_dataloader())
        except TypeError:  # it has no length
            return
        limit = trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * (1.0 if limit is None else limit))
        interval = getattr(trainer, "val_check_interval", None)  # not there where it is a time
        if isinstance(interval, float) and batches and batches * interval < 1:
            say(f"val_check_interval={interval} of {batches} batches: validating once an epoch instead")
            trainer.val_check_interval = 1.0
        if not self.min_steps or trainer.max_epochs in (None, -1) or trainer.max_steps != -1 or not batches:
            return
        steps = math.ceil(batches / trainer.accumulate_grad_batches)
        epochs = math.ceil(self.min_steps / steps)
        if epochs > trainer.max_epochs:
            say(
                f"min_steps: an epoch of this data has {steps:,} steps, so {epochs:,} epochs are planned instead of "
                f"{trainer.max_epochs:,} (--trainer.max_epochs=N: as many as you say)"
            )
            trainer.fit_loop.max_epochs = epochs
