"""Modules that the command line built can be copied and pickled: Lightning's weight averages and spawning need it."""

import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml
from torch.optim import lr_scheduler

from experiment.cli import ExperimentCLI
from experiment.errors import run_main
from experiment.train import train
from tests.conftest import TINY
from tests.test_configs import EXPERIMENTS, other_files, small_arguments
from tests.tools import equal, quiet_trainer

SAMPLES = [path for path in EXPERIMENTS if path.stem.endswith("_sample") or path.stem == "on_lstm_logic"]
WITHOUT_OPTIMIZER = {"infomap_sample"}


@pytest.fixture
def built(path: Path, tmp_path: Path) -> Iterator[ExperimentCLI]:
    """A sample's model and data, with a scheduler, built as train.py builds them; its Trainer holds an open file."""
    arguments = [*small_arguments(yaml.safe_load(path.read_text())), *other_files(path, tmp_path)]
    if path.stem not in WITHOUT_OPTIMIZER:
        arguments += ["--model.scheduler=CosineAnnealingLR", "--model.scheduler.T_max=10"]
        arguments += ["--model.scheduler_interval=step"]
    options = ["--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.logger=false"]
    cli = ExperimentCLI(["-c", str(path), *options, *arguments])
    with open(tmp_path / "lock", "w") as lock:
        callback = pl.Callback()
        callback.lock = lock
        yield cli.build(callbacks=[callback])


def scores(model: pl.LightningModule, data: pl.LightningDataModule) -> list[dict[str, float]]:
    return quiet_trainer(limit_val_batches=1).validate(model, data, verbose=False)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_copies_and_pickles_of_a_module_are_the_module(built: ExperimentCLI, path: Path):
    model = built.model
    new = pickle.dumps(model)
    # Neither the parser nor what it knows: the Trainer and the run folder.
    assert b"jsonargparse" not in new
    assert b"experiment" not in new
    copy.deepcopy(model)
    # Nor does what a module remembers of training hinder it.
    quiet_trainer(limit_train_batches=2, limit_val_batches=1).fit(model, built.datamodule)
    expected = scores(model, built.datamodule)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert equal(dict(other.state_dict()), dict(model.state_dict()))
        assert scores(other, built.datamodule) == expected
        if path.stem not in WITHOUT_OPTIMIZER:
            made, wanted = other.configure_optimizers(), model.configure_optimizers()
            assert equal(made["optimizer"].state_dict(), wanted["optimizer"].state_dict())
            assert type(made["lr_scheduler"]["scheduler"]) is lr_scheduler.CosineAnnealingLR
            assert made["lr_scheduler"]["scheduler"].T_max == 10
            assert made["lr_scheduler"]["interval"] == "step"


def test_all_samples_are_covered():
    assert len(SAMPLES) == 9


@pytest.mark.parametrize(
    "average",
    [
        ["StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=1e-3"],
        ["EMAWeightAveraging", "--trainer.callbacks.decay=0.5"],
    ],
)
def test_lightnings_averages_from_the_command_line(average: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    weights = []
    for run, options in (("plain", []), ("averaged", [f"--trainer.callbacks+={average[0]}", *average[1:]])):
        for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
            monkeypatch.delenv(name, raising=False)
        assert run_main(train, ["--run_dir", run, *TINY, "--trainer.precision=32-true", *options]) == 0
        metrics = json.loads((tmp_path / run / "summary.json").read_text())["metrics"]
        assert "test/knn_accuracy" in metrics
        weights.append(torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    assert not equal(dict(weights[0]), dict(weights[1]))
