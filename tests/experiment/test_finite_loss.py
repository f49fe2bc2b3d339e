"""A loss that is not finite stops the training at its step, in one line, with the last good checkpoint untouched."""

from pathlib import Path

import pytest
import torch

from experiment.errors import UserError, run_main
from experiment.finite_loss import FiniteLoss, first_bad
from experiment.run_folder import RunFolder
from experiment.train import train
from layers.images import GaussianPrior
from tests.conftest import TINY

SMALL = [*TINY, "--trainer.max_epochs=2", "--save_every=0", "--run_dir=run"]


@pytest.fixture
def broken_prior(monkeypatch: pytest.MonkeyPatch):
    """From the 9th step on, the second of an epoch of 6 batches, one term of the loss is nan."""
    original, calls = GaussianPrior.forward, []

    def forward(self, mean, logvar):
        calls.append(self.training)
        return original(self, mean, logvar) * (float("nan") if calls.count(True) > 8 else 1.0)

    monkeypatch.setattr(GaussianPrior, "forward", forward)


def test_one_line_names_term_step_and_checkpoint(broken_prior, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_main(train, SMALL) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "the loss is not finite at step 8 of epoch 1 (train/prior_loss is nan): the last good checkpoint is" in error
    assert "--check_finite=false" in error
    last = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 8
    assert all(value.isfinite().all() for value in last["state_dict"].values())


def test_it_can_be_turned_off(broken_prior, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_main(train, [*SMALL, "--check_finite=false", "--trainer.limit_val_batches=0", "--trainer.max_steps=10"])
    last = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 10


def test_on_other_devices_no_step_waits(tmp_path: Path):
    """The meta device has no values: nothing of it can be read."""
    callback = FiniteLoss(None)

    class Steps:
        log_every_n_steps, global_step = 5, 1

    callback.on_before_backward(Steps, None, torch.zeros((), device="meta"))
    Steps.global_step = 5
    with pytest.raises(RuntimeError, match="meta tensors"):
        callback.on_before_backward(Steps, None, torch.zeros((), device="meta"))


def test_the_first_step_is_kept_on_the_device_and_looked_at_before_a_checkpoint(tmp_path: Path, monkeypatch):
    first = torch.tensor(-1)
    for step, loss in enumerate([1.0, float("nan"), 1.0, float("inf")], 5):
        first = first_bad(first, torch.tensor(loss), step)
    assert first == 6
    callback = FiniteLoss(RunFolder(tmp_path))
    monkeypatch.setattr("experiment.finite_loss.metrics_to_log", lambda _: {})
    trainer = type("Trainer", (), {"current_epoch": 0})
    callback._first = torch.tensor(-1)
    callback.on_save_checkpoint(trainer, None, {})
    callback._first = first
    with pytest.raises(UserError, match="not finite at step 6"):
        callback.on_save_checkpoint(trainer, None, {})
