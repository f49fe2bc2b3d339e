"""What Lightning's own parts do in a run of a shipped configuration: they say it, and leave files where they belong."""

import csv
import math
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.demos.boring_classes import BoringModel

from experiment import console
from experiment.errors import run_main
from experiment.evaluate import evaluate
from experiment.train import train
from tests.conftest import ROOT, TINY, script
from tests.tools import quiet_trainer

CONFIG = ["-c", str(ROOT / "configs/infomax_sample.yaml"), *TINY]
# Of the 120 images of TINY, 108 are trained with and 12 validated with.
NUM_TRAIN = 108

Train = Callable[..., tuple[str, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Train:
    """Trains in this process into the folder ``run``; gives standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object, status: int = 0, command: Any = train, config: list[str] = CONFIG) -> tuple[str, str]:
        found = run_main(command, [*config, *map(str, arguments)])
        captured = capfd.readouterr()
        assert found == status, captured.out + captured.err
        return captured.out, captured.err

    return run


def last_checkpoint(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


def rows(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


# ------------------------------------------------------------------------------------------------------- what they say


@pytest.mark.parametrize("name", ["simple", "advanced"])
def test_a_profiler_reports_the_training_and_the_test(name: str, call: Train):
    out, _ = call("--run_dir=run", "--trainer.max_epochs=1", f"--trainer.profiler={name}")
    for stage, step in (("FIT", "training_step"), ("TEST", "test_step")):
        report = out.split(f"{stage} Profiler Report")[1]
        assert step in report.split("Profiler Report")[0]


def test_early_stopping_says_when_and_why(call: Train, tmp_path: Path):
    stops = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss", "--trainer.max_epochs=9"]
    out, _ = call("--run_dir=run", *stops, "--trainer.callbacks.stopping_threshold=100")
    (line,) = (line for line in out.splitlines() if line.startswith("EarlyStopping:"))
    assert re.fullmatch(r"EarlyStopping: stopped at epoch 0 because stopping threshold reached: .*< 100\.0", line)
    # A resumed run does not say again what stopped the one before.
    out, _ = call("--resume=run", "--trainer.callbacks=[]", "--trainer.max_epochs=2", config=[])
    assert "EarlyStopping:" not in out


def test_a_default_that_is_an_enumeration_is_kept_as_its_value(call: Train, tmp_path: Path):
    call("--run_dir=run", "--trainer.callbacks+=Timer", "--trainer.max_epochs=1")
    callbacks = yaml.safe_load((tmp_path / "run/config.yaml").read_text())["trainer"]["callbacks"]
    assert callbacks[-1]["init_args"]["interval"] == "step"


def test_a_run_that_ran_out_of_time_says_so(call: Train):
    out, _ = call("--run_dir=run", "--trainer.max_time=00:00:00:00")
    assert "max_time: the time of 0:00:00 was up at epoch 0, step 0; to train on, continue with --resume" in out


def test_the_learning_rate_finder_says_what_it_suggests_and_leaves_nothing(call: Train, tmp_path: Path):
    search = ["--trainer.callbacks+=LearningRateFinder", "--trainer.callbacks.num_training_steps=30"]
    out, _ = call("--run_dir=run", *search, "--trainer.max_epochs=6")
    suggested = re.search(r"LearningRateFinder: suggests a learning rate of (\S+), which is used", out)[1]
    (group,) = last_checkpoint(tmp_path / "run")["optimizer_states"][0]["param_groups"]
    assert f"{group['lr']:.3g}" == suggested
    assert group["lr"] != 1e-3
    assert not list((tmp_path / "run").glob(".lr_find*"))
    out, _ = call("--run_dir=short", *search, "--trainer.max_epochs=1")
    assert "LearningRateFinder: 6 steps are too few to suggest a learning rate; the configured one is used" in out


def test_the_batch_size_finder_finds_a_size_that_is_kept_on_resuming(call: Train, tmp_path: Path):
    out, _ = call("--run_dir=run", "--trainer.callbacks+=BatchSizeFinder")
    largest = 2 ** int(math.log2(NUM_TRAIN))  # it doubles 2 until there is no whole batch
    assert f"BatchSizeFinder: the batch size is {largest} (data.batch_size={largest})" in out
    steps = NUM_TRAIN // largest
    assert last_checkpoint(tmp_path / "run")["global_step"] == 2 * steps
    assert not list((tmp_path / "run").glob(".scale*"))
    out, _ = call("--resume=run", "--trainer.max_epochs=5", config=[])
    assert "BatchSizeFinder: left out, a resumed run keeps what was found" in out
    assert last_checkpoint(tmp_path / "run")["global_step"] == 5 * steps
    assert len([row for row in rows(tmp_path / "run") if row["train/loss"]]) == 5 * steps


# ------------------------------------------------------------------------------------------------ where they write


def test_without_rows_of_training_steps(call: Train, tmp_path: Path):
    curves = ["--trainer.callbacks+=MetricCurves", "--trainer.callbacks.metrics=[train/loss,val/loss]"]
    curves.append("--trainer.callbacks.name=losses")
    call("--run_dir=run", "--trainer.log_every_n_steps=0", *curves)
    logged = rows(tmp_path / "run")
    assert len(logged) == 3  # two validations and the test
    assert not [name for name in logged[0] if name.startswith("train/")]
    assert (tmp_path / "run/pictures/losses.png").is_file()


def test_a_users_checkpoints_lie_below_those_of_the_run(call: Train, tmp_path: Path):
    unset = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.filename=mine"]
    relative = [
        "--trainer.callbacks+=ModelCheckpoint",
        "--trainer.callbacks.dirpath=sub",
        "--trainer.callbacks.save_last=true",
    ]
    monitor = ["--trainer.callbacks.monitor=val/loss"]
    call("--run_dir=run", "--trainer.max_epochs=1", *unset, *relative, *monitor)
    folder = tmp_path / "run/checkpoints"
    written = {str(path.relative_to(folder)) for path in folder.rglob("*.ckpt")}
    assert written == {"best.ckpt", "last.ckpt", "mine.ckpt", "sub/epoch=0-step=6.ckpt", "sub/last.ckpt"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    for option in ("save_last=true", "filename=best"):
        _, err = call("--run_dir=other", unset[0], f"--trainer.callbacks.{option}", status=2)
        assert err.count("\n") == 1
        assert "best.ckpt or last.ckpt, which the run keeps itself" in err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_fast_dev_run_leaves_nothing(call: Train, tmp_path: Path):
    for option in ([], ["--run_dir=run"]):
        out, _ = call("--trainer.fast_dev_run=true", *option)
        assert out.count("fast_dev_run: nothing is kept") == 2
        assert not list(tmp_path.iterdir())
    call("--run_dir=run", "--trainer.max_epochs=1")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    call("--resume=run", "--trainer.fast_dev_run=true", config=[], status=2)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_what_a_run_could_not_do_without_is_refused(call: Train, tmp_path: Path):
    for option in ("barebones=true", "enable_checkpointing=false"):
        _, err = call(f"--trainer.{option}", status=2)
        assert err.startswith(f"error: trainer.{option} ")
        assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------------------- data


class Seen(pl.Callback):
    """Keeps the labels of each batch."""

    def __init__(self) -> None:
        self.batches: dict[tuple[str, int], list[list[int]]] = {}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.batches.setdefault(("train", trainer.current_epoch), []).append(batch.labels.tolist())

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.batches.setdefault((f"val {dataloader_idx}", trainer.current_epoch), []).append(batch.labels.tolist())


def test_overfitting_sees_the_first_batches_in_each_epoch(call: Train):
    seen = "--trainer.callbacks+=tests.experiment.test_lightning_parts.Seen"
    built: list[Any] = []

    def keep(arguments: list[str]) -> None:
        built.append(train(arguments))

    out, _ = call("--run_dir=run", "--trainer.overfit_batches=2", seen, command=keep)
    assert "overfit_batches: training data is not shuffled" in out
    (batches,) = (callback.batches for callback in built[0].trainer.callbacks if type(callback).__name__ == "Seen")
    assert len({str(labels) for labels in batches["train", 0]}) == 2
    for loader in ("train", "val 0", "val 1"):
        assert batches[loader, 0] == batches[loader, 1]
    loader = built[0].datamodule.train_dataloader()
    size = loader.batch_size
    in_order = [loader.fetch(torch.arange(begin, begin + size))[1].tolist() for begin in (0, size)]
    assert batches["train", 0] == in_order


SLOW = [pytest.param(strategy, marks=pytest.mark.slow) for strategy in ("ddp_notebook", "ddp_spawn")]


@pytest.mark.parametrize("strategy", ["ddp_fork", *SLOW])
def test_processes_of_lightning_lose_no_rows(strategy: str, tmp_path: Path):
    devices = ["--trainer.devices=2", "--data.batch_size=8", f"--trainer.strategy={strategy}"]
    result = script("train", *CONFIG, *devices, "--run_dir", tmp_path / "run", cwd=tmp_path)
    steps = NUM_TRAIN // (2 * 8)
    logged = rows(tmp_path / "run")
    assert [int(row["step"]) for row in logged if row["train/loss"]] == list(range(2 * steps))
    assert [int(row["step"]) for row in logged if row["val/loss"]] == [steps - 1, 2 * steps - 1]
    (test,) = (row for row in logged if row["test/knn_accuracy"])
    assert (int(test["step"]), int(test["epoch"])) == (2 * steps, 2)
    assert (tmp_path / "run/summary.json").is_file()
    assert not result.stderr, "adverts of Lightning"


# --------------------------------------------------------------------------------------------------------- progress


def test_a_test_gives_signs_of_life(call: Train, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", 0.001)
    out, _ = call("--run_dir=run", "--trainer.max_epochs=1", "--data.eval_batch_size=20")
    batches = 40 // 20 + -(-NUM_TRAIN // 20)  # those of the test, and those in which neighbours are searched
    assert [line for line in out.splitlines() if line.startswith("test: batch")] == [
        f"test: batch {number} of {batches}" for number in range(1, batches + 1)
    ]
    assert f"test: all {batches} batches done, measuring for 0:00:00" in out
    out, _ = call("run", command=evaluate, config=[])
    assert f"test: batch 1 of {batches}" in out


class Measures(BoringModel):
    """Looks at the bar while it measures."""

    def on_test_epoch_end(self) -> None:
        (bar,) = (callback for callback in self.trainer.callbacks if isinstance(callback, console._Bar))
        self.tasks = [task.description for task in bar.progress.tasks]
        self.thread = bar._heartbeat._thread
        assert self.thread.is_alive()


def test_a_bar_shows_that_a_test_measures():
    module = Measures()
    quiet_trainer(console._Bar(), limit_test_batches=2, enable_progress_bar=True).test(module, verbose=False)
    assert module.tasks == ["Testing", "Measuring"]
    assert not module.thread.is_alive()


def test_a_users_own_bar_is_the_only_one(call: Train):
    out, err = call("--run_dir=run", "--trainer.max_epochs=1", "--trainer.callbacks+=TQDMProgressBar")
    assert "Epoch 0: 100%" in out + err
    assert "epoch 0  step" not in out


# ---------------------------------------------------------------------------------------------------------- compiling


@pytest.mark.slow  # torch.compile takes minutes
def test_a_compiled_run_trains_resumes_and_is_tested(tmp_path: Path):
    config = ["-c", str(ROOT / "configs/infomax_sample.yaml"), *TINY, "--trainer.precision=32-true"]
    plain, compiled = tmp_path / "plain", tmp_path / "compiled"
    kernels = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "kernels")}
    config += ["--trainer.max_epochs=1"]
    script("train", *config, "--run_dir", plain, cwd=tmp_path, **kernels)
    assert not list(tmp_path.glob("kernels/**/*.cpp"))
    options = ["--compile=true", "--float32_matmul_precision=high"]
    script("train", *config, *options, "--run_dir", compiled, cwd=tmp_path, **kernels)
    assert list(tmp_path.glob("kernels/**/*.cpp"))
    assert last_checkpoint(plain)["state_dict"].keys() == last_checkpoint(compiled)["state_dict"].keys()
    expected, found = ([float(row["train/loss"]) for row in rows(run)[:6]] for run in (plain, compiled))
    assert found == pytest.approx(expected, rel=1e-3)
    script("train", "--resume", compiled, "--trainer.max_epochs=2", cwd=tmp_path)
    assert last_checkpoint(compiled)["global_step"] == 2 * (NUM_TRAIN // 16)
    script("evaluate", compiled, "--json", tmp_path / "m.json", cwd=tmp_path)


def test_a_compiler_that_fails_is_named_in_one_line(tmp_path: Path):
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name in ("g++", "clang++", "c++", "gcc"):
        (bin_folder / name).write_text("#!/bin/sh\nexit 1\n")
        (bin_folder / name).chmod(stat.S_IRWXU)
    environment = {
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
        "CXX": str(bin_folder / "g++"),
    }
    config = ["-c", str(ROOT / "configs/infomax_sample.yaml"), *TINY, "--trainer.max_epochs=1"]
    result = script(
        "train", *config, "--compile=true", "--run_dir", tmp_path / "run", cwd=tmp_path, check=False, **environment
    )
    lines = result.stderr.strip().splitlines()
    assert result.returncode in (0, 2)
    assert len(lines) == (result.returncode == 2)
    assert "compile: " in (result.stderr if result.returncode else result.stdout)
