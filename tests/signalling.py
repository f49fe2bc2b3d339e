"""A callback that sends a signal to its own process, once, at a chosen place."""

import os
from pathlib import Path

import pytorch_lightning as pl
import torch


class SignalAt(pl.Callback):
    """Sends ``signum`` in one hook of one process, unless the file ``done`` is there; then makes the file.

    Args:
        hook: name of a hook of ``pl.Callback``.
        done: the file.
        signum: the signal.
        epoch: of the training.
        batch: for hooks of batches, which one.
        rank: of the process that sends it.
    """

    def __init__(self, hook: str, done: str, signum: int = 15, epoch: int = 1, batch: int = 1, rank: int = 0) -> None:
        self.done, self.signum, self.epoch, self.batch, self.rank = Path(done), signum, epoch, batch, rank
        setattr(self, hook, self.send)

    def send(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *arguments: object) -> None:
        batch = next((value for value in arguments if type(value) is int), self.batch)
        there = trainer.sanity_checking or trainer.testing or trainer.current_epoch == self.epoch
        if there and batch == self.batch and trainer.global_rank == self.rank and not self.done.exists():
            self.done.touch()
            os.kill(os.getpid(), self.signum)
            torch.ones(1).add_(1)  # Python handles it before the next of its own instructions
