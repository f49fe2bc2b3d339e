import json
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.demos.boring_classes import BoringModel

from experiment.errors import UserError, describe, run_main
from experiment.evaluate import evaluate
from experiment.predict import predict
from experiment.resuming.checkpoint_files import AtomicCheckpointIO
from experiment.resuming.random_states import random_state, set_random_state
from experiment.resuming.restoring import refuse_other_data, restoring
from experiment.train import train
from tests.experiment.colours import LinkedPainter


def test_random_states_come_back_and_load_safely(tmp_path: Path):
    def draw():
        return random.random(), np.random.rand(), torch.rand(3).tolist()

    torch.save(random_state(), tmp_path / "state.pt")
    first = draw()
    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert draw() == first


def test_a_failed_write_leaves_the_older_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    assert torch.load(path) == {"step": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_said_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writing to /dev/full fails as on a full disk."""
    import builtins

    real_open = builtins.open
    monkeypatch.setattr(
        builtins,
        "open",
        lambda path, *rest, **k: real_open("/dev/full" if str(path).endswith(".tmp") else path, *rest, **k),
    )
    with pytest.raises(OSError, match="No space left") as caught:
        AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(1 << 16)}, tmp_path / "last.ckpt")
    line = describe(caught.value)
    assert line.startswith("no space left")
    assert "--resume" in line
    assert "\n" not in line


class Model:
    data_links = ("words", "size")

    def __init__(self, words: list, size: int = 2) -> None:
        self.hparams = {"words": words, "size": size}


def test_other_data_than_the_checkpoints_is_refused_with_what_differs():
    many = [[str(number), "x"] for number in range(100_000)]
    saved = {"words": [tuple(entry) for entry in many], "size": 2}
    refuse_other_data(saved, Model(many))
    for model, said in (
        (Model([*many, ["a", "b"]]), "lacks ('a', 'b'): name the data"),
        (Model(many[:-1]), "also has ('99999', 'x'): name the data"),
        (Model(many[::-1]), "has them in another order: name the data"),
        (Model(many, size=3), "the data's size is 3, the checkpoint's 2: name the data"),
    ):
        with pytest.raises(UserError) as caught:
            refuse_other_data(saved, model)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("end", ["max_steps", "max_epochs"])
def test_a_run_that_ended_with_an_epoch_continues_with_the_next(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its data has two batches per epoch."""
    monkeypatch.chdir(tmp_path)
    Path("two.yaml").write_text("model: tests.experiment.colours.LinkedPainter\ntrainer: {accelerator: cpu}\n")
    one_epoch, three_epochs = (2, 6) if end == "max_steps" else (1, 3)
    new = ["-c", "two.yaml", "--data=tests.experiment.colours.ColourData"]
    for arguments in (
        [*new, "--run_dir=whole", f"--trainer.{end}={three_epochs}"],
        [*new, "--run_dir=broken", f"--trainer.{end}={one_epoch}"],
        ["--resume=broken", f"--trainer.{end}={three_epochs}"],
    ):
        monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
        train([str(argument) for argument in arguments])
    whole, broken = (Path(name, "metrics.csv").read_text().splitlines() for name in ("whole", "broken"))
    assert [row.split(",")[:2] for row in whole if row.split(",")[2]] == [
        ["step", "epoch"],
        ["1", "0"],
        ["3", "1"],
        ["5", "2"],
    ]
    # The test after the first epoch left no row: the resumed run dropped it.
    assert broken == whole


class Keeps(pl.Callback):
    """Keeps a value in its state."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def state_dict(self) -> dict:
        values = {"numpy": np.float64(3.0), "path": Path("x"), "plain": {"seen": {1, 2}, "size": torch.Size([3])}}
        return {"best": values[self.kind]}


class Untested(LinkedPainter):
    """Has no test, and logs another name than its monitor."""

    test_step = pl.LightningModule.test_step
    monitor = "val/los"


class OneMode(LinkedPainter):
    mode = "minimum"


PAINTER = ["-cpaint.yaml", "--data=tests.experiment.colours.ColourData", "--trainer.max_epochs=1", "--run_dir=~/run"]


@pytest.fixture
def paint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Trains in an empty folder, which is also the home folder, as a command; gives the status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    Path("paint.yaml").write_text("model: tests.experiment.colours.LinkedPainter\ntrainer: {accelerator: cpu}\n")
    return lambda *options: run_main(train, [*PAINTER, *options])


@pytest.mark.parametrize(("kind", "what"), [("numpy", "numpy.float64"), ("path", "PosixPath"), ("plain", "")])
def test_what_can_not_be_read_is_not_written(kind: str, what: str, paint, capsys: pytest.CaptureFixture[str]):
    own = [f"--trainer.callbacks+={__name__}.Keeps", f"--trainer.callbacks.kind={kind}"]
    status, err = paint(*own), capsys.readouterr().err
    assert status == (2 if what else 0), err
    assert not what or ("trainer.callbacks: Keeps keeps a " in err and what in err and err.count("\n") == 1)


def test_a_module_without_a_test_or_its_monitor_is_trained(paint, capsys: pytest.CaptureFixture[str]):
    assert paint(f"--model={__name__}.Untested") == 0
    said = capsys.readouterr().out
    assert "monitor: the validation logged no 'val/los', so there is no best.ckpt (logged: val/loss)" in said
    assert "no test: Untested has no test_step" in said
    assert json.loads(Path("run/summary.json").read_text())["metrics"] == {}


def test_paths_of_options_may_begin_with_the_home_folder(paint):
    assert paint("--model=tests.experiment.line.Line", "--data=tests.experiment.line.LineData") == 0
    assert run_main(evaluate, ["~/run", "--json=~/metrics.json"]) == 0
    assert run_main(predict, ["~/run", "--input=~/paint.yaml", "--output", "~/weights.json"]) == 0
    assert {"run", "metrics.json", "weights.json"} <= {path.name for path in Path().iterdir()}
    assert not Path("~").exists()


def test_validations_may_be_a_time_apart(paint):
    assert paint("--trainer.val_check_interval=00:01:00:00") == 0


def test_an_unknown_mode_is_refused(paint, capsys: pytest.CaptureFixture[str]):
    assert paint(f"--model={__name__}.OneMode") == 2
    assert "OneMode.mode is 'minimum'" in capsys.readouterr().err


def test_a_training_outlives_the_reader_of_its_output(paint, monkeypatch: pytest.MonkeyPatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert paint() == 0
    assert Path("run/summary.json").is_file()


class SavesInVain(pl.Callback):
    """Fails while a checkpoint is being written."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        trainer.save_checkpoint("never.ckpt")

    def on_save_checkpoint(self, *_: object) -> None:
        raise KeyError("lost")


def fit(*callbacks: pl.Callback, epochs: int, checkpoint: Path | None = None) -> pl.Trainer:
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        limit_train_batches=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(BoringModel(), ckpt_path=checkpoint, weights_only=True)
    return trainer


def test_what_is_raised_while_restoring_is_told_from_the_rest(tmp_path: Path):
    path = tmp_path / "last.ckpt"
    fit(epochs=1).save_checkpoint(path)
    whole = torch.load(path, weights_only=True)
    with restoring(path):
        fit(epochs=2, checkpoint=path)
    # Writing a checkpoint goes through the same file of Lightning.
    with pytest.raises(KeyError, match="lost"), restoring(path):
        fit(SavesInVain(), epochs=2, checkpoint=path)
    weights = {"layer.weight": torch.zeros(3, 3), "layer.bias": torch.zeros(2)}
    for damage in ({"optimizer_states": None}, {"loops": {}}, {"state_dict": weights}):
        torch.save(whole | damage, path)
        with pytest.raises(UserError, match=r"last\.ckpt can't be restored") as caught, restoring(path):
            fit(epochs=2, checkpoint=path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="size mismatch"), restoring(path):
        BoringModel.load_from_checkpoint(path, weights_only=True)
