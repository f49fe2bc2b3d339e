"""The commands in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest

from experiment.benchmark import benchmark
from experiment.errors import run_main
from experiment.evaluate import evaluate
from experiment.predict import predict
from experiment.train import train

COMMANDS = {"train": train, "evaluate": evaluate, "predict": predict, "benchmark": benchmark}


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process; gives exit status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.delenv(name, raising=False)

    def run(command: str, *arguments: object) -> tuple[int, str, str]:
        status = run_main(COMMANDS[command], [str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    return run
