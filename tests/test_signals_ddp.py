"""Of two processes, one is told to stop or is killed: both end, and say why."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, script_environment
from tests.test_signals import signal_at, states
from tests.tools import equal

TWO = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.precision=32-true"]


def train(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Runs train.py, both processes in a group of their own; fails if one is left."""
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments],
        cwd=folder,
        env=script_environment(),
        capture_output=True,  # ends only when the last process has closed them
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    ("hook", "rank", "place"),
    [
        ("on_train_batch_start", 1, {"epoch": 1, "batch": 0}),
        ("on_validation_batch_end", 1, {"epoch": 0, "batch": 0}),
        ("on_test_batch_end", 0, {"batch": 0}),
    ],
)
def test_one_of_two_is_told_to_stop(hook: str, rank: int, place: dict, tmp_path: Path):
    arguments = [*signal_at(hook, tmp_path / "done", rank=rank, **place), *TWO]
    stopped = train(tmp_path, *arguments, "--run_dir=run")
    assert stopped.returncode == 143, stopped.stderr
    assert stopped.stderr == "stopped by SIGTERM; continue with --resume run\n"
    continued = train(tmp_path, "--resume=run")
    assert continued.returncode == 0, continued.stderr
    whole = train(tmp_path, *arguments, "--run_dir=whole")
    assert whole.returncode == 0, whole.stderr
    assert (tmp_path / "run" / "metrics.csv").read_text() == (tmp_path / "whole" / "metrics.csv").read_text()
    assert equal(states(tmp_path / "run"), states(tmp_path / "whole"))


def test_before_anything_was_trained(tmp_path: Path):
    arguments = [*signal_at("on_sanity_check_start", tmp_path / "done", rank=1), "--trainer.num_sanity_val_steps=1"]
    stopped = train(tmp_path, *arguments, *TWO, "--run_dir=run")
    assert stopped.returncode == 143, stopped.stderr
    assert stopped.stderr == "stopped by SIGTERM; nothing was trained yet\n"


@pytest.mark.parametrize("rank", [0, 1])
def test_one_of_two_is_killed(rank: int, tmp_path: Path):
    place = {"epoch": 1, "batch": 2, "signum": 9, "rank": rank}
    killed = train(tmp_path, *signal_at("on_train_batch_start", tmp_path / "done", **place), *TWO, "--run_dir=run")
    assert killed.returncode == (2 if rank else -9), killed.stderr
    (line,) = [line for line in killed.stderr.splitlines() if line.startswith("error: ")]
    assert "process 1 of this run was ended by SIGKILL" in line or "another process of this run has ended" in line
    assert "terminate called" not in killed.stderr
