"""A run that is killed anywhere and resumed ends with the bits of a run that never was."""

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from tests.conftest import ROOT, TINY, script, script_environment
from tests.tools import equal, start_and_kill

# 6 batches an epoch, 3 epochs, a checkpoint after every step; the prior draws noise in every step.
EXPERIMENT = [*TINY, "--trainer.max_epochs=3", "--save_every=0", "--data.augment=true"]


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize(
    ("resume", "options"),
    [
        ("auto", []),
        ("run", ["--trainer.accumulate_grad_batches=2", "--trainer.val_check_interval=3"]),
        ("run", ["--trainer.max_steps=14", "--model.weight_normalization={score: spectral_persistent}"]),
    ],
)
def test_killed_and_resumed_equals_unbroken(tmp_path: Path, resume: str, options: list[str]):
    experiment = [*EXPERIMENT, *options]
    unbroken, run = tmp_path / "unbroken", tmp_path / "run"
    script("train", "--run_dir", unbroken, *experiment, cwd=tmp_path)
    all_rows = len((unbroken / "metrics.csv").read_text().splitlines()) - 2
    rows = random.SystemRandom().randint(1, all_rows - 1)
    print(f"killed after {rows} of {all_rows} rows")
    start_and_kill(experiment, run, rows)
    assert not (run / "summary.json").exists()
    if resume == "auto":
        result = script("train", "--resume", "auto", "--run_dir", run, *experiment, cwd=tmp_path)
    else:
        result = script("train", "--resume", run, cwd=tmp_path)
    assert "run folder: " in result.stdout

    assert (run / "metrics.csv").read_bytes() == (unbroken / "metrics.csv").read_bytes()
    for name in ("last.ckpt", "best.ckpt"):
        ours, theirs = load(run / "checkpoints" / name), load(unbroken / "checkpoints" / name)
        for key in ("state_dict", "optimizer_states", "global_step", "epoch"):
            assert equal(ours[key], theirs[key]), (name, key)
        assert equal(ours["experiment"]["random_states"], theirs["experiment"]["random_states"])
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (run, unbroken)]
    assert summaries[0]["metrics"] == summaries[1]["metrics"]


def test_auto_starts_a_new_run_where_there_is_none_to_resume(trained_run: Path, tmp_path: Path):
    result = script("train", "--resume", "auto", "--run_dir", tmp_path / "new", *TINY, cwd=tmp_path)
    assert "starting a new one" in result.stdout
    assert (tmp_path / "new" / "summary.json").is_file()


def test_auto_finds_the_run_below_the_named_folder_and_leaves_finished_ones_alone(trained_run: Path, tmp_path: Path):
    finished, unfinished = tmp_path / "all/finished", tmp_path / "all/unfinished"
    shutil.copytree(trained_run, finished)
    shutil.copytree(trained_run, unfinished)
    (unfinished / "summary.json").unlink()
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    result = script("train", "--resume", "auto", "--run_dir", tmp_path / "all", *TINY, cwd=tmp_path)
    assert f"resuming {unfinished}" in result.stdout
    assert (unfinished / "summary.json").is_file()
    again = script("train", "--resume", "auto", "--run_dir", finished, *TINY, cwd=tmp_path)
    assert "starting a new one" in again.stdout
    assert {path: path.read_bytes() for path in before} == before
    assert len(list(finished.glob("*/summary.json"))) == 1


def test_a_finished_run_can_be_trained_longer(trained_run: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    script("train", "--resume", run, "--trainer.max_epochs=3", cwd=tmp_path)
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["trainer"]["max_epochs"] == 3
    epochs = [line.split(",")[1] for line in (run / "metrics.csv").read_text().splitlines()[1:]]
    assert {"0", "1", "2"} <= set(epochs)


def test_a_running_run_cannot_be_resumed(tmp_path: Path):
    run = tmp_path / "run"
    arguments = [*EXPERIMENT, "--trainer.max_epochs=500"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "train.py"), "--run_dir", str(run), *arguments],
        env=script_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    try:
        deadline = time.monotonic() + 120
        while not (run / "checkpoints" / "last.ckpt").is_file():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        result = script("train", "--resume", run, cwd=tmp_path, check=False)
        assert result.returncode == 2
        assert result.stderr.strip().splitlines()[-1].startswith("error: run folder in use by another process")
        assert len(result.stderr.strip().splitlines()) == 1
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--data.source=nowhere"], "nowhere"),
        (["--data.batch_size=5000"], "batch_size"),
        (["--model.optimizer=SGD", "--trainer.max_epochs=3"], "another optimizer than SGD"),
        (["--model.encoder.channels=32"], "size mismatch"),
    ],
)
def test_a_resumption_that_fails_leaves_the_run_as_it_was(
    trained_run: Path, tmp_path: Path, options: list[str], reason: str
):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    result = script("train", "--resume", run, *options, cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert reason in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_chain_of_optimizer_tricks_is_not_dropped_silently(tmp_path: Path):
    run = tmp_path / "run"
    add_on = ["-c", ROOT / "configs/infomax_sample.yaml", *TINY, "-c", ROOT / "configs/with/lookahead.yaml"]
    script("train", "--run_dir", run, *add_on, cwd=tmp_path)
    options = ("--trainer.callbacks=[]", "--trainer.max_epochs=3")
    result = script("train", "--resume", run, *options, cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert "another update chain: the checkpoint has Lookahead" in result.stderr


def test_resuming_a_finished_run_only_tests_it_again(trained_run: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    script("train", "--resume", run, cwd=tmp_path)
    assert (run / "metrics.csv").read_bytes() == (trained_run / "metrics.csv").read_bytes()
    summaries = [json.loads((folder / "summary.json").read_text())["metrics"] for folder in (run, trained_run)]
    assert summaries[0] == summaries[1]
