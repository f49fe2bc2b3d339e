"""A run that is told to stop writes its checkpoint, says how to continue, and continues bit-identically."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiment.errors import run_main
from experiment.evaluate import evaluate
from experiment.processes import stopping
from experiment.train import train
from tests.conftest import ROOT, TINY, script_environment
from tests.tools import equal

TWO_VIEWS = ["--data.views=2", "--data.augmentation=Composed", "--data.augmentation.parts=[Crops,ChannelMixing,Blur]"]
SMALL = [*TINY, "--trainer.max_epochs=3", "--data.augment=true", "--data.eval_batch_size=16"]


def signal_at(hook: str, done: Path, **arguments: int) -> list[str]:
    given = "".join(f", {name}: {value}" for name, value in arguments.items())
    at = f"{{class_path: tests.signalling.SignalAt, init_args: {{hook: {hook}, done: {done}{given}}}}}"
    return [*SMALL, f"--trainer.callbacks=[{at}]"]


def states(run: Path) -> dict:
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return {name: checkpoint[name] for name in ("state_dict", "optimizer_states", "lr_schedulers", "global_step")}


@pytest.mark.parametrize(
    ("hook", "place", "options"),
    [
        ("on_train_batch_start", {"epoch": 1, "batch": 2}, []),
        ("on_train_batch_end", {"epoch": 0, "batch": 5}, []),  # the last of an epoch: validated before it stops
        ("on_train_batch_start", {"epoch": 1, "batch": 0}, ["--trainer.accumulate_grad_batches=2"]),
        ("on_train_batch_start", {"epoch": 1, "batch": 2}, TWO_VIEWS),
        ("on_validation_start", {"epoch": 1}, []),
        ("on_validation_batch_end", {"epoch": 1, "batch": 0}, []),
        ("on_validation_batch_end", {"epoch": 1, "batch": 0}, ["--trainer.val_check_interval=3"]),
        ("on_validation_batch_end", {"epoch": 0, "batch": 0}, ["-c", str(ROOT / "configs/with/average.yaml")]),
        ("on_validation_epoch_end", {"epoch": 2}, []),
        ("on_test_batch_end", {"batch": 0}, []),
    ],
)
def test_stopped_anywhere_and_continued(
    hook: str, place: dict, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.chdir(tmp_path)
    arguments = [*signal_at(hook, tmp_path / "done", **place), *options]
    if "-c" in options:  # an add-on to the default job
        arguments = ["-c", str(ROOT / "configs/infomax_sample.yaml"), *arguments]
        arguments = [a.replace("callbacks=[", "callbacks+=[") for a in arguments if a != "--trainer.callbacks=[]"]
    assert run_main(train, [*arguments, "--run_dir=run"]) == 143
    assert capsys.readouterr().err == "stopped by SIGTERM; continue with --resume run\n"
    assert not (tmp_path / "run" / "summary.json").exists()
    assert run_main(train, ["--resume=run"]) == 0
    (tmp_path / "whole").mkdir()
    assert run_main(train, [*arguments, "--run_dir=whole/run"]) == 0  # with `done` there, nothing is sent
    whole, run = tmp_path / "whole" / "run", tmp_path / "run"
    assert (run / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    assert equal(states(run), states(whole))


def test_before_anything_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = [*signal_at("on_sanity_check_start", tmp_path / "done"), "--trainer.num_sanity_val_steps=1"]
    assert run_main(train, [*arguments, "--run_dir=run"]) == 143
    assert capsys.readouterr().err == "stopped by SIGTERM; nothing was trained yet\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_scripts_end_with_the_status_of_the_signal(signum: int, status: int, trained_run: Path, tmp_path: Path):
    for command in (["train", *signal_at("on_train_start", tmp_path / f"{signum}", signum=signum, epoch=0)],):
        result = subprocess.run(
            [sys.executable, str(ROOT / "scripts" / f"{command[0]}.py"), *command[1:], f"--run_dir={signum}_run"],
            cwd=tmp_path,
            env=script_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == status, result.stderr
        assert result.stderr.count("\n") == 1
        assert f"stopped by {signal.Signals(signum).name}; " in result.stderr


def test_a_hang_up_that_was_ignored_at_the_start_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as by nohup
    try:
        assert run_main(lambda argv: signal.raise_signal(signal.SIGHUP), []) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_so_it_does_in_processes_that_are_started():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping.later():
            code = "import signal; print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)"
            assert subprocess.check_output([sys.executable, "-c", code], text=True) == "True\n"
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_commands_stop_without_talk_of_resuming(trained_run: Path, monkeypatch, capsys):
    def told_to_stop(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("pytorch_lightning.Trainer.test", told_to_stop)
    assert run_main(evaluate, [str(trained_run)]) == 143
    assert capsys.readouterr().err == "stopped by SIGTERM\n"


def test_a_finished_run_that_is_continued_keeps_its_summary_and_counts_as_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "done").touch()
    arguments = signal_at("on_train_batch_start", tmp_path / "done", epoch=3)
    assert run_main(train, [*arguments, "--run_dir=run"]) == 0
    before = (tmp_path / "run" / "summary.json").read_text()
    (tmp_path / "done").unlink()
    longer = [a.replace("max_epochs=3", "max_epochs=5") for a in arguments]
    assert run_main(train, ["--resume=run", "--trainer.max_epochs=5"]) == 143
    assert (tmp_path / "run" / "summary.json").read_text() == before
    assert run_main(train, [*longer, "--run_dir=run", "--resume=auto"]) == 0
    assert "resuming run" in capsys.readouterr().out
    assert (tmp_path / "run" / "summary.json").read_text() != before
    assert not (tmp_path / "run" / ".continued").exists()
