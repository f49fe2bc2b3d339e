"""Checkpoints that are broken, foreign, or contain code, and what the commands say about them."""

import functools
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiment.errors import UserError, run_main
from experiment.evaluate import evaluate
from experiment.predict import predict
from experiment.resuming.restoring import load_checkpoint
from experiment.train import train
from lightning_modules import ONLSTMLanguageModel
from tests.fuzz.fuzzing import Boom, broken, fuzz, outcome


def whole() -> dict[str, Any]:
    """The parts of a checkpoint that predict.py needs."""
    torch.manual_seed(0)
    model = ONLSTMLanguageModel(
        embedding_size=10, hidden_size=10, num_layers=2, vocabulary=["a", "b", "<eos>", "<unk>"]
    )
    return {
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "experiment": {"config": {"trainer": {}}},
        "pytorch-lightning_version": pl.__version__,
        "hidden_states": {"epoch": 0, "states": [None]},
    }


def saved(content: Any, path: Path, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


@functools.cache  # the bytes have addresses in them, which differ from file to file
def small_checkpoint(zipped: bool) -> bytes:
    content = {"state_dict": {"a": torch.arange(3)}, "experiment": {"config": {"seed": 1, "names": ["x"]}}}
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


@fuzz(60)
@given(data=st.booleans().flatmap(lambda zipped: broken(st.just(small_checkpoint(zipped)))))
def test_broken_checkpoints(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    path = tmp_path_factory.mktemp("checkpoint") / "last.ckpt"
    path.write_bytes(data)
    loaded = outcome(lambda: load_checkpoint(path), path, errors=UserError)
    assert loaded is None or isinstance(loaded["experiment"]["config"], dict)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("how", ["system", "eval", "import", "fail", "raw", "in-zip"])
def test_hostile_checkpoints_run_nothing(tmp_path: Path, zipped: bool, how: str):
    path, mark = tmp_path / "last.ckpt", tmp_path / "it-ran"
    boom = {
        "system": Boom(os.system, f"touch {mark}"),
        "eval": Boom(eval, f"open({str(mark)!r}, 'w')"),
        "import": Boom(__import__, "this"),
    }.get(how, Boom())
    content = {"state_dict": {"a": boom}, "experiment": {"config": {}}}
    if how == "raw":
        path.write_bytes(pickle.dumps(boom))
    elif how == "in-zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(content))
            archive.writestr("archive/version", "3\n")
    else:
        saved(content, path, _use_new_zipfile_serialization=zipped)
    assert outcome(lambda: load_checkpoint(path), path, errors=UserError) is None
    assert not mark.exists()


FOREIGN = {
    "list": [1, 2],
    "tensor": torch.ones(2),
    "weights": {"a": torch.ones(2)},
    "lightning": {"state_dict": {}, "epoch": 1},
    "no-config": {"state_dict": {}, "experiment": {}},
    "config-list": {"state_dict": {}, "experiment": {"config": [1]}},
    "experiment-tensor": {"state_dict": {}, "experiment": torch.ones(1)},
    "state-list": {"state_dict": [1], "experiment": {"config": {}}},
    "parameters-list": {"state_dict": {}, "hyper_parameters": [1], "experiment": {"config": {}}},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_checkpoints(tmp_path: Path, name: str):
    path = saved(FOREIGN[name], tmp_path / "it.ckpt")
    with pytest.raises(UserError, match=r"foreign checkpoint: .*it\.ckpt"):
        load_checkpoint(path)


def said(command: Any, arguments: list[object], capfd: pytest.CaptureFixture, path: Path) -> str:
    """The one line with which a command fails."""
    status = run_main(command, [str(argument) for argument in arguments])
    line = capfd.readouterr().err.strip()
    assert status == 2, line
    assert len(line.splitlines()) == 1, line
    assert "--debug" not in line, f"no error for users: {line}"
    assert path.stem in line
    return line


WRONG = {
    "class": ({"hyper_parameters": {"_class_path": "nowhere.Nothing"}}, "a class that is not here"),
    "no-class": ({"hyper_parameters": {"_class_path": None}}, "a class that is not here"),
    "function": ({"hyper_parameters": {"_class_path": "os.system"}}, "os.system, which is no model"),
    "other-class": ({"hyper_parameters": {"_class_path": "torch.nn.Linear"}}, "which is no model"),
    "instantiator": ({"hyper_parameters": {"_instantiator": "os.system"}}, "os.system"),
    "size": ({"hyper_parameters": {"hidden_size": 20}}, "can't be restored"),
    "type": ({"hyper_parameters": {"hidden_size": "many"}}, "hidden_size"),
    "vocabulary": ({"hyper_parameters": {"vocabulary": 7}}, "vocabulary"),
    "missing": ({"state_dict": {"nothing": torch.ones(1)}}, "can't be restored"),
    "no-tensor": ({"state_dict": {"embedding.weight": "x"}}, "can't be restored"),
    "version": ({"pytorch-lightning_version": 7}, "foreign checkpoint"),
}


@pytest.mark.parametrize("name", WRONG)
def test_checkpoints_that_do_not_fit(tmp_path: Path, name: str, capfd: pytest.CaptureFixture):
    change, part = WRONG[name]
    content = whole()
    for key, value in change.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    path = saved(content, tmp_path / "it.ckpt")
    (tmp_path / "in.txt").write_text("a b\n")
    arguments = [path, "--input", tmp_path / "in.txt", "--output", tmp_path / "out.txt"]
    assert part in said(predict, arguments, capfd, path)
    assert not (tmp_path / "out.txt").exists()


def test_the_whole_checkpoint_fits(tmp_path: Path, capfd: pytest.CaptureFixture):
    path = saved(whole(), tmp_path / "it.ckpt")
    (tmp_path / "in.txt").write_text("a b\n")
    arguments = [path, "--input", tmp_path / "in.txt", "--output", tmp_path / "out.txt"]
    assert run_main(predict, [str(argument) for argument in arguments]) == 0, capfd.readouterr().err
    assert (tmp_path / "out.txt").read_text().strip()


CONFIGS = {
    "tensor": {"model": torch.ones(1)},
    "empty": {},
    "keys": {1: 2},
    "model": {"model": "Nothing"},
    "none": {"trainer": None},
}


@pytest.mark.parametrize("command", [evaluate, train])
@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_that_do_not_fit(
    tmp_path: Path, name: str, command: Any, capfd: pytest.CaptureFixture, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for variable in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.delenv(variable, raising=False)
    path = saved({**whole(), "experiment": {"config": CONFIGS[name]}}, tmp_path / "it.ckpt")
    status = run_main(command, ["--resume", str(path)] if command is train else [str(path)])
    line = capfd.readouterr().err.strip()
    assert status == 2
    assert len(line.splitlines()) == 1, line
    assert "--debug" not in line, line
