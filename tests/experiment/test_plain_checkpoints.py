"""A checkpoint of plain Lightning is continued; what can't be is named."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import SGD, Adam

from experiment.errors import UserError
from experiment.evaluate import evaluate
from experiment.predict import predict
from tests.experiment.line import POINTS, Line, LineData, Loop
from tests.experiment.line_runs import (
    QUIET,
    assert_close,
    in_a_folder_of_its_own,
    last_weights,
)
from tests.tools import Batches, quiet_trainer
from tests.training import train

_in_a_folder_of_its_own = pytest.fixture(autouse=True)(in_a_folder_of_its_own)


def plain_checkpoint(epochs: int = 2, **options: Any) -> Path:
    """Written by a Trainer without the command line."""
    trainer = quiet_trainer(max_epochs=epochs)
    trainer.fit(Line(**options), LineData())
    trainer.save_checkpoint("lightning_logs/version_0/checkpoints/plain.ckpt")
    Path("lightning_logs/version_0/config.yaml").write_text("# pytorch_lightning==2.6.6\ntrainer: {}\n")
    return Path("lightning_logs/version_0/checkpoints/plain.ckpt")


def resume_plain(path: Path, *options: str) -> Tensor:
    train("-c", "line.yaml", *QUIET, "--run_dir=run", "--trainer.max_epochs=4", "--resume", str(path), *options)
    return last_weights()


def test_a_checkpoint_of_plain_lightning_is_continued():
    path = plain_checkpoint(optimizer=Adam)
    weights = resume_plain(path, "--model.optimizer=Adam")
    loop = Loop(Adam, lr=0.1)
    for _ in range(4):
        loop.epoch()
    assert_close(weights, loop)


@pytest.mark.parametrize(
    ("before", "now", "other"),
    [
        (lambda p, lr: SGD(p, lr, momentum=0.9), "Adam", "Adam (with dampening, momentum, nesterov)"),
        (Adam, "SGD", "SGD (with amsgrad, betas, "),
        (torch.optim.RAdam, "torch.optim.NAdam", "NAdam (whose state lacks 'mu_product')"),
    ],
)
def test_another_optimizer_is_named(before: Any, now: str, other: str):
    path = plain_checkpoint(optimizer=before)
    with pytest.raises(UserError, match=re.escape(f"another optimizer than {other}")):
        resume_plain(path, f"--model.optimizer={now}")


def test_what_the_configuration_says_otherwise_takes_effect():
    path = plain_checkpoint()
    weights = resume_plain(path, "--model.lr=0.02")
    loop = Loop(SGD, lr=0.1)
    for lr in (0.1, 0.1, 0.02, 0.02):
        loop.epoch(lr=lr)
    assert_close(weights, loop)


def test_a_plain_schedule_goes_on():
    path = plain_checkpoint(scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5))
    step = ["--model.scheduler=StepLR", "--model.scheduler.step_size=1", "--model.scheduler.gamma=0.5"]
    weights = resume_plain(path, *step)
    loop = Loop(SGD, lr=0.1)
    for epoch in range(4):
        loop.epoch(lr=0.1 * 0.5**epoch)
    assert_close(weights, loop)


class Listed(LineData):
    """Loaders without a position."""

    def train_dataloader(self) -> Any:
        return Batches(POINTS.split(2))

    val_dataloader = test_dataloader = train_dataloader


def test_within_an_epoch_without_a_position_in_the_data_it_begins_anew(capsys: pytest.CaptureFixture[str]):
    class Saves(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.global_step == 6:
                trainer.save_checkpoint("plain.ckpt")

    quiet_trainer(Saves(), max_epochs=2).fit(Line(), Listed())
    weights = resume_plain(Path("plain.ckpt"))
    assert "epoch 1 begins anew: the checkpoint has no position in the data" in capsys.readouterr().out
    loop = Loop(SGD, lr=0.1)
    loop.epoch()
    loop.step(slice(0, 2))
    loop.step(slice(2, 4))
    for _ in range(3):
        loop.epoch()
    assert_close(weights, loop)


def test_without_a_configuration_the_way_out_is_named():
    path = plain_checkpoint()
    with pytest.raises(UserError, match="holds no configuration: name it with -c"):
        train("--resume", str(path))
    with pytest.raises(UserError, match=r"holds no configuration: make a run of it with train\.py -c CONFIG --resume"):
        evaluate([str(path)])


def test_a_plain_checkpoint_predicts():
    path = plain_checkpoint()
    Path("in.txt").write_text("")
    predict([str(path), "--input=in.txt", "--output=out.txt"])
    written = torch.tensor(json.loads(Path("out.txt").read_text()), dtype=torch.float64)
    assert torch.equal(written, torch.load(path, weights_only=True)["state_dict"]["layer.weight"])


def test_weights_alone_are_not_resumed():
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(Line(), LineData())
    trainer.save_checkpoint("weights.ckpt", weights_only=True)
    with pytest.raises(UserError, match="holds weights alone: start a new run from them with --init_from"):
        resume_plain(Path("weights.ckpt"))
