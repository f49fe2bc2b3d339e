"""Of two processes, one is told to stop or is killed: both end, and say why."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, script_environment
from tests.test_signals import signal_at, states
from tests.tools import equal

TWO = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.precision=32-true"]


def train(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Runs train.py, both processes in a group of their own; fails if one is left."""
    return run(folder, str(ROOT / "scripts" / "train.py"), *arguments)


def run(folder: Path, *words: str, timeout: int = 300) -> subprocess.CompletedProcess:
    """Runs Python; fails if one of its processes is left."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=script_environment(),
        capture_output=True,  # ends only when the last process has closed them
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.parametrize(
    ("hook", "rank", "place"),
    [
        ("on_train_batch_start", 1, {"epoch": 1, "batch": 0}),
        pytest.param("on_validation_batch_end", 1, {"epoch": 0, "batch": 0}, marks=pytest.mark.slow),
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


@pytest.mark.parametrize(("strategy", "rank"), [("ddp_fork", 1), pytest.param("ddp_spawn", 0, marks=pytest.mark.slow)])
def test_processes_of_lightning_stop_too(strategy: str, rank: int, tmp_path: Path):
    """The one that started them is told by them, and tells the others."""
    arguments = signal_at("on_train_batch_start", tmp_path / "done", epoch=1, batch=1, rank=rank)
    two = [*TWO[:1], f"--trainer.strategy={strategy}", *TWO[2:], "--trainer.max_epochs=500"]
    stopped = train(tmp_path, *arguments, *two, "--run_dir=run")
    assert stopped.returncode == 143, stopped.stderr
    assert stopped.stderr == "stopped by SIGTERM; continue with --resume run\n"
    assert 3 < states(tmp_path / "run")["global_step"] < 100


def test_other_commands_stop_together(trained_run: Path, tmp_path: Path):
    """Told as soon as there are two: the other one is still loading, and says nothing."""
    command = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), str(trained_run), *TWO]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=script_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None and not children.read_text():
        time.sleep(0.01)
    process.terminate()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143
    # torch itself may warn, with its frames, of a connection that ended while it was being made.
    assert err.splitlines().count("stopped by SIGTERM") == 1
    assert not any(word in err for word in ("Traceback", "error:", "--resume", "terminate called"))


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


def test_told_while_the_other_one_is_started(trained_run: Path, tmp_path: Path):
    """The one that is told knows the other one only when its start is over; else nobody would end that one."""
    code = f"""
import os, signal, subprocess, sys
start = subprocess.Popen.__init__
def start_and_be_told(self, *arguments, **options):
    start(self, *arguments, **options)
    if "evaluate.py" in str(arguments):
        os.kill(os.getpid(), signal.SIGTERM)
subprocess.Popen.__init__ = start_and_be_told
sys.argv = [{str(ROOT / "scripts" / "evaluate.py")!r}, {str(trained_run)!r}, *{TWO}]
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    told = run(tmp_path, "-c", code, timeout=60)
    assert (told.returncode, told.stderr) == (143, "stopped by SIGTERM\n")
