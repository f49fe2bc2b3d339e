"""Schedulers from the command line: every trained module has the slot, and a killed run resumes exactly."""

import csv
import random
from pathlib import Path

import pytest
import torch

import lightning_modules
from experiment.classes import parameters
from lightning_modules.optimization import Optimized
from tests.conftest import TINY, script
from tests.tools import equal, start_and_kill

EXPERIMENT = [
    *TINY,
    *("--trainer.max_epochs=3", "--save_every=0", "--trainer.callbacks+=LearningRateMonitor"),
    "--trainer.callbacks.logging_interval=step",
    *("--trainer.callbacks+=PiecewiseLinearLR", "--trainer.callbacks.schedule={0: 0.5, 9: 1.0}"),
]
SCHEDULERS = {
    "step": ["--model.scheduler=OneCycleLR", "--model.scheduler.max_lr=0.01", "--model.scheduler_interval=step"],
    "plateau": [
        *("--model.scheduler=ReduceLROnPlateau", "--model.scheduler.patience=0", "--model.scheduler.threshold=9"),
        *("--model.prior=AdversarialPrior", "--model.encoder.stochastic=false"),
    ],
}


def read(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))


def test_every_trained_module_has_the_slot():
    modules = [cls for cls in vars(lightning_modules).values() if hasattr(cls, "monitor")]
    trained = [cls for cls in modules if getattr(cls, "needs_training", True)]
    assert len(trained) == 8
    for cls in trained:
        assert issubclass(cls, Optimized)
        assert {"optimizer", "scheduler", "scheduler_interval"} <= parameters(cls).keys()


@pytest.mark.parametrize("name", SCHEDULERS)
def test_killed_and_resumed_equals_unbroken(name: str, tmp_path: Path):
    experiment = [*EXPERIMENT, *SCHEDULERS[name]]
    unbroken, run = tmp_path / "unbroken", tmp_path / "run"
    script("train", "--run_dir", unbroken, *experiment, cwd=tmp_path)
    rows = read(unbroken)
    rates = [float(row["lr-Adam"]) for row in rows if row["lr-Adam"]]
    # Without the factors that PiecewiseLinearLR multiplies them by.
    moves = {round(rate / min(1.0, 0.5 + step / 18), 9) for step, rate in enumerate(rates)}
    assert len(rates) == 18
    assert len(moves) == (18 if name == "step" else 3)

    killed_after = random.SystemRandom().randint(1, len(rows) - 3)
    print(f"killed after {killed_after} of {len(rows)} rows")
    start_and_kill(experiment, run, killed_after)
    script("train", "--resume", run, cwd=tmp_path)
    assert read(run) == rows
    ours, theirs = (torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (run, unbroken))
    assert len(ours["lr_schedulers"]) == (2 if name == "plateau" else 1)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert equal(ours[key], theirs[key]), key
    assert ours["hyper_parameters"]["scheduler"]["class_path"].endswith(SCHEDULERS[name][0].split("=")[1])
