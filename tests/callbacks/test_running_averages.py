"""RunningAverages: the bar shows the averages of the logged values, and nothing else changes."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ProgressBar
from torch import Tensor

from callbacks import RunningAverages
from datamodules.loader import BatchLoader
from experiment.console import ValidationLines, _Bar
from tests.callbacks.chain_tools import MemoryLogger
from tests.tools import quiet_trainer

BATCHES = 5


class Losses(pl.LightningModule):
    """Logs known values: (10 * epoch + batch)^2."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        value = float(10 * self.current_epoch + batch_idx) ** 2
        self.log("train/loss", value)
        self.log("train/size", value, prog_bar=True)
        return self.weight.square()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/loss", 7.0)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Bar(ProgressBar):
    """Records what the project's bar would show after each batch, without a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict] = []

    def disable(self) -> None: ...

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args) -> None:
        self.rows.append(_Bar().get_metrics(trainer, pl_module))


def fit(*callbacks: pl.Callback, epochs: int = 2, ckpt_path=None, **options) -> tuple[pl.Trainer, MemoryLogger]:
    logger = MemoryLogger()
    bars = any(isinstance(callback, ProgressBar) for callback in callbacks)
    options |= {"max_epochs": epochs, "logger": logger, "log_every_n_steps": 1, "enable_progress_bar": bars}
    trainer = quiet_trainer(*callbacks, **options)
    loader = BatchLoader(lambda rows: rows, BATCHES, 1)
    trainer.fit(Losses(), loader, loader, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return trainer, logger


@pytest.mark.parametrize("accumulate", [1, 2])
def test_averages_restart_with_each_epoch_and_raw_values_are_unchanged(accumulate: int):
    bar = Bar()
    fit(RunningAverages(["train/loss"], raw=["train/size"]), bar, accumulate_grad_batches=accumulate)
    expected = []
    for epoch in (0, 1):
        values = [float(10 * epoch + batch) ** 2 for batch in range(BATCHES)]
        for n in range(1, BATCHES + 1):
            expected.append((sum(values[:n]) / n, values[n - 1]))
    assert [(row["train/loss"], row["train/size"]) for row in bar.rows] == [pytest.approx(pair) for pair in expected]


def test_what_is_logged_does_not_change():
    trainer, logger = fit(RunningAverages(["train/loss", "train/size"]))
    other, plain = fit()
    assert logger.rows == plain.rows
    assert trainer.callback_metrics == other.callback_metrics
    assert trainer.progress_bar_metrics == other.progress_bar_metrics


def test_without_a_terminal_the_averages_are_in_the_line_of_a_validation(capsys: pytest.CaptureFixture):
    fit(RunningAverages(), ValidationLines(), epochs=1)
    assert "epoch 0  step 5  train/loss 6.0000  val/loss 7.0000" in capsys.readouterr().out


class Stop(Exception):
    pass


class StopInside(pl.Callback):
    def __init__(self, path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        if trainer.current_epoch == 1 and batch_idx == 2:
            trainer.save_checkpoint(self.path)
            raise Stop


def test_a_resumed_epoch_continues_from_its_averages(tmp_path):
    path = tmp_path / "stopped.ckpt"
    with pytest.raises(Stop):
        fit(RunningAverages(), StopInside(path))
    resumed = RunningAverages()
    fit(resumed, ckpt_path=path)
    values = [float(10 + batch) ** 2 for batch in range(BATCHES)]
    assert resumed.shown() == {"train/loss": pytest.approx(sum(values) / BATCHES)}


def test_a_name_that_is_never_logged_gives_a_warning_with_the_nearest():
    with pytest.warns(UserWarning, match=r"'train/los' is not shown: .*; the nearest name is 'train/loss'"):
        fit(RunningAverages(["train/los"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"average": "train/loss"}, r"average \('train/loss'\) must be a list"),
        ({"average": []}, "name at least one metric"),
        ({"average": ["a"], "raw": ["a"]}, "'a' is named twice"),
        ({"raw": ["val/loss"]}, "'val/loss' is not logged in training"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, message: str):
    with pytest.raises(ValueError, match=f"^RunningAverages: {message}"):
        RunningAverages(**arguments)
