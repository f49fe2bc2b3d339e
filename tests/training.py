"""Runs of the command line within a test, and their end without a warning."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import experiment.train
from experiment.checkpoints import RunCheckpoints
from experiment.cli import ExperimentCLI


class Killed(BaseException):
    """Raised to end a run unexpectedly."""


def train(*arguments: object) -> ExperimentCLI:
    """Does what ``scripts/train.py`` does; returns the trainer, model and data that it built."""
    with unseeded():
        return experiment.train.train([str(argument) for argument in arguments])


@contextmanager
def unseeded() -> Iterator[None]:
    """Keeps seeds that Lightning leaves in the environment from the next run."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
            patch.delenv(name, raising=False)
        yield


@contextmanager
def killed_after(batches: int) -> Iterator[None]:
    """Ends training after this many batches, without a chance to save anything more."""
    save, seen = RunCheckpoints.on_train_batch_end, []

    def save_and_die(self: RunCheckpoints, *arguments: Any) -> None:
        save(self, *arguments)
        seen.append(1)
        if len(seen) == batches:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunCheckpoints, "on_train_batch_end", save_and_die)
        yield
