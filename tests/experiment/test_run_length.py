"""``--min_steps``: small data gets more epochs, unless the length of the run was chosen."""

from pathlib import Path

import pytest
import yaml

from tests.experiment.line_runs import QUIET
from tests.training import Killed, killed_after, train

LENGTH = "min_steps: 11\ntrainer: {max_epochs: 2, val_check_interval: 0.2}\n"  # an epoch has 4 batches


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("line.yaml").write_text("save_every: 0\n" + LENGTH)


def steps(*options: str, run: str = "run") -> int:
    return train("-c", "line.yaml", *QUIET, f"--run_dir={run}", *options).trainer.global_step


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], 12),
        (["--trainer.accumulate_grad_batches=2"], 12),
        (["--trainer.callbacks+=GradientAccumulation"], 12),  # of two batches
        (["--trainer.max_epochs=2"], 8),
        (["--trainer.max_steps=3"], 3),
        (["--trainer.limit_train_batches=2"], 4),
        (["--trainer={max_epochs: 2}"], 8),
        (["--min_steps=0"], 8),
        (["--min_steps=8"], 8),
    ],
)
def test_epochs_are_added_where_they_were_left_open(options: list[str], expected: int):
    assert steps(*options) == expected


def test_a_later_file_may_choose_the_length_too():
    Path("later.yaml").write_text("trainer: {max_epochs: 1}\n")
    assert steps("-c", "later.yaml") == 4
    Path("short.yaml").write_text("max_epochs: 1\n")
    for number, text in enumerate(("trainer.max_epochs: 1\n", "trainer: short.yaml\n")):
        Path("other.yaml").write_text(text)
        assert steps("-c", "other.yaml", run=f"run{number}") == 4
    Path("both.yaml").write_text("min_steps: 5\ntrainer: {max_epochs: 1}\n")
    assert steps("-c", "both.yaml", run="both") == 8


def test_it_is_said_and_kept(capsys: pytest.CaptureFixture[str]):
    steps()
    out = capsys.readouterr().out
    assert "min_steps: an epoch of this data has 4 steps, so 3 epochs are planned instead of 2" in out
    assert "val_check_interval=0.2 of 4 batches: validating once an epoch instead" in out
    assert yaml.safe_load(Path("run/config.yaml").read_text())["min_steps"] == 11
    steps("--trainer.max_epochs=2", run="chosen")
    assert "min_steps" not in yaml.safe_load(Path("chosen/config.yaml").read_text())


def test_a_killed_run_goes_on_to_the_same_end():
    with pytest.raises(Killed), killed_after(10):  # beyond the epochs of the configuration
        steps()
    assert train(*QUIET, "--resume=run").trainer.global_step == 12


def test_a_schedule_knows_of_them():
    schedule = ["--trainer.callbacks+=PiecewiseLinearLR", "--trainer.callbacks.schedule={0.5: 1.0, 1.0: 0.0}"]
    run = train("-c", "line.yaml", *QUIET, "--run_dir=run", *schedule, "--trainer.callbacks.unit=share")
    (rule,) = [callback for callback in run.trainer.callbacks if type(callback).__name__ == "PiecewiseLinearLR"]
    assert [rule.factor(step) for step in (0, 3, 6, 9, 12)] == [0, 0.5, 1, 0.5, 0]
