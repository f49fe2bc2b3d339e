"""Runs of the linear model in the present folder: begun, killed, continued, read."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.experiment.line import Loop
from tests.training import Killed, killed_after, train

QUIET = [
    "--model=tests.experiment.line.Line",
    "--data=tests.experiment.line.LineData",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.log_every_n_steps=1",
]
AVERAGE = ["--trainer.callbacks+=AveragedWeights", "--trainer.callbacks.decay=0.8"]


def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fixture of tests that use these: an empty folder with ``line.yaml``."""
    monkeypatch.chdir(tmp_path)
    Path("line.yaml").write_text("save_every: 0\n")


def begin(*options: str, epochs: int = 2, after: int | None = None) -> None:
    """A run in the folder ``run``, of so many epochs, or killed after so many batches."""
    arguments = ["-c", "line.yaml", *QUIET, "--run_dir=run", f"--trainer.max_epochs={epochs}", *options]
    if after is None:
        train(*arguments)
        return
    with killed_after(after), pytest.raises(Killed):
        train(*arguments)


def resume(*options: str, epochs: int = 4) -> Tensor:
    """Goes on, and gives the trained weights."""
    cli = train("--resume", "run", f"--trainer.max_epochs={epochs}", *options)
    return cli.model.layer.weight.detach() if not Path("run/checkpoints/last.ckpt").exists() else last_weights()


def last() -> dict[str, Any]:
    return torch.load("run/checkpoints/last.ckpt", weights_only=True)


def last_weights() -> Tensor:
    return last()["state_dict"]["layer.weight"]


def group() -> dict[str, Any]:
    return last()["optimizer_states"][0]["param_groups"][0]


def assert_close(actual: Tensor, loop: Loop) -> None:
    torch.testing.assert_close(actual, loop.weight.detach(), rtol=1e-12, atol=0)
