"""A run that ended, was stopped, or is continued from an earlier checkpoint goes on as one that never was."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD

from tests.experiment.line import Loop
from tests.experiment.line_runs import (
    AVERAGE,
    QUIET,
    begin,
    in_a_folder_of_its_own,
    last,
    resume,
)
from tests.tools import equal
from tests.training import train

_in_a_folder_of_its_own = pytest.fixture(autouse=True)(in_a_folder_of_its_own)


def assert_as_whole(*options: str, epochs: int = 4) -> None:
    """The run in the folder ``run`` has the bits of one that was neither stopped nor continued."""
    broken = last()
    rows = Path("run/metrics.csv").read_text()
    train("-c", "line.yaml", *QUIET, "--run_dir=whole", f"--trainer.max_epochs={epochs}", *options)
    whole = torch.load("whole/checkpoints/last.ckpt", weights_only=True)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "global_step", "epoch"):
        assert equal(broken[key], whole[key]), key
    assert rows == Path("whole/metrics.csv").read_text()


PLATEAU = ["--model.scheduler=lightning_modules.optimization.ReduceLROnPlateau", "--model.scheduler.patience=0"]
PLATEAU += ["--model.scheduler.threshold=1e9", "--model.scheduler.threshold_mode=abs"]


@pytest.mark.parametrize(
    ("end", "goes_on", "options"),
    [
        (["--trainer.max_steps=3"], ["--trainer.max_steps=-1"], ["--model.optimizer=AdamW"]),
        # After a validation within the epoch.
        (["--trainer.max_steps=6"], ["--trainer.max_steps=-1"], ["--trainer.val_check_interval=2", *PLATEAU]),
        (["--trainer.max_steps=3"], ["--trainer.max_steps=16"], [*AVERAGE]),
        (
            ["--trainer.callbacks+=tests.experiment.line.StopsAt", "--trainer.callbacks.batch=5"],
            ["--trainer.callbacks-=StopsAt"],
            ["--trainer.accumulate_grad_batches=2"],
        ),
    ],
)
def test_a_run_that_ended_within_an_epoch_goes_on_there(end: list[str], goes_on: list[str], options: list[str]):
    begin(*options, *end, epochs=4)
    assert last()["epoch"] < 2
    resume(*goes_on)
    whole = [*options, *(option for option in goes_on if "max_steps=16" in option)]
    assert_as_whole(*whole)


def test_a_window_of_gradients_is_finished_before_a_run_ends():
    begin(
        "--trainer.callbacks+=tests.experiment.line.StopsAt",
        "--trainer.callbacks.batch=5",
        *["--trainer.accumulate_grad_batches=3"],
    )
    assert last()["global_step"] == 3  # batch 5 is the first of a window of three


SCHEDULED = ["--trainer.callbacks+=GradientAccumulationScheduler", "--trainer.callbacks.scheduling={1: 2}"]
SWA = ["--trainer.callbacks+=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.05"]


@pytest.mark.parametrize(
    ("options", "after"),
    [
        (SCHEDULED, 6),
        ([*SWA, "--trainer.callbacks.swa_epoch_start=1", "--trainer.callbacks.annealing_epochs=2"], 6),
        (
            [
                *SWA,
                "--trainer.callbacks.swa_epoch_start=0.5",
                "--model.scheduler=torch.optim.lr_scheduler.StepLR",
                "--model.scheduler.step_size=1",
                "--model.scheduler.gamma=0.5",
            ],
            11,
        ),
        (["--model=tests.experiment.line.TwoLayers", "--trainer.callbacks+=tests.experiment.line.Unfreezes"], 10),
        (["--trainer.overfit_batches=2", "--data.shuffle=true"], 3),
    ],
)
def test_what_the_beginning_of_an_epoch_sets_is_set_within_it(options: list[str], after: int):
    begin(*options, epochs=4, after=after)
    resume()
    assert_as_whole(*options)


def scores(checkpoint: str) -> dict[str, Any]:
    return torch.load(f"run/checkpoints/{checkpoint}.ckpt", weights_only=True)


EACH_EPOCH = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_top_k=-1"]


@pytest.mark.parametrize("epochs", [1, 2])
def test_what_an_earlier_checkpoint_leaves_behind_is_not_of_the_run(epochs: int, capsys: pytest.CaptureFixture[str]):
    begin(*EACH_EPOCH, epochs=3)
    abandoned = scores("best")["state_dict"]
    train("--resume", "run/checkpoints/epoch=0-step=4.ckpt", f"--trainer.max_epochs={epochs}", "--model.lr=0.0")
    said = capsys.readouterr().out
    assert "best.ckpt is of step 12, and this run goes on from step 4: kept as best-step=12.ckpt" in said
    assert equal(scores("best-step=12")["state_dict"], abandoned)
    loop = Loop(SGD, lr=0.1)
    loop.epoch()
    for name in ("last", "best") if epochs == 2 else ("last",):
        torch.testing.assert_close(scores(name)["state_dict"]["layer.weight"], loop.weight.detach(), rtol=1e-12, atol=0)
    assert Path("run/checkpoints/best.ckpt").is_file() == (epochs == 2)


@pytest.mark.parametrize("changed", [["--data.scale=10"], ["--data.num_outputs=1"]])
def test_on_other_data_what_was_best_is_forgotten(changed: list[str], capsys: pytest.CaptureFixture[str]):
    early = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss"]
    begin("--data.scale=1", "--model.lr=0.0001", *early, "--trainer.callbacks.patience=1", *PLATEAU)
    first = scores("best")["global_step"]
    resume(*changed, epochs=3)
    is_other = "scale" in changed[0]
    assert (
        f"best.ckpt is the best on other data, and this run goes on from step 8: kept as best-step={first}.ckpt"
        in capsys.readouterr().out
    ) == is_other
    assert scores("best")["global_step"] == 12
