"""Under SLURM, with its variables faked: the signal before the end of a job, and an interactive shell."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT, script_environment
from tests.test_signals import SMALL, signal_at

JOB = {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}


def start(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments],
        cwd=folder,
        env=script_environment(**variables),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_job_that_is_to_be_requeued_writes_its_checkpoint_and_continues(tmp_path: Path):
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path / "asked"}\n')
    scontrol.chmod(0o755)
    variables = {**JOB, "SLURM_JOB_NAME": "train", "PATH": f"{scontrol.parent}:{os.environ['PATH']}"}
    arguments = signal_at("on_train_batch_start", tmp_path / "done", epoch=1, signum=signal.SIGUSR1)
    arguments = [*arguments, "--run_dir=run", "--resume=auto"]
    first = start(tmp_path, *arguments, **variables)
    assert first.returncode == 128 + signal.SIGUSR1, first.stderr
    assert first.stderr == "stopped by SIGUSR1; continue with --resume run; SLURM requeues job 77\n"
    assert (tmp_path / "asked").read_text() == "requeue 77\n"
    again = start(tmp_path, *arguments, **variables)  # the same command, as SLURM starts it again
    assert again.returncode == 0, again.stderr
    assert "resuming run" in again.stdout
    assert (tmp_path / "run" / "summary.json").is_file()


def test_an_interactive_shell_is_no_launcher(tmp_path: Path):
    variables = {**JOB, "SLURM_JOB_NAME": "bash", "SLURM_NTASKS": "4", "SLURM_PROCID": "2"}
    result = start(tmp_path, *SMALL, "--trainer.max_epochs=1", "--trainer.devices=1", **variables)
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "runs" / "infomax_sample").glob("*/summary.json"))) == 1
