"""Goes through each private door against the installed libraries, and names the one that is closed."""

import contextlib
import inspect
import platform
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from jsonargparse import ArgumentParser
from pytorch_lightning.cli import LightningArgumentParser
from pytorch_lightning.demos.boring_classes import BoringModel

from experiment import private_api
from experiment.cli import ExperimentCLI
from tests.conftest import ROOT
from tests.experiment import trainer_doors
from tests.experiment.colours import LinkedPainter, PlainPainter
from tests.tools import quiet_trainer

COLOURS = "tests.experiment.colours"
DATA = f"--data={COLOURS}.ColourData"
DOORS = [
    name
    for name, value in vars(private_api).items()
    if inspect.isfunction(value) and value.__module__ == private_api.__name__
]


@pytest.mark.parametrize("name", DOORS)
def test_door(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    door = getattr(private_api, name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    (tmp_path / "empty.yaml").write_text("seed_everything: 1\n")
    tries = globals() | vars(trainer_doors)
    try:
        tries[f"try_{name}"](door, monkeypatch)
    except (Exception, pytest.fail.Exception) as error:
        here = {library: version(library) for library in private_api.TRIED}
        raise AssertionError(
            f"the door private_api.{name} is closed: tried with {private_api.TRIED}, here are {here}"
        ) from error


def minor(text: str) -> list[int]:
    return [int(part) for part in text.split(".")[:2]]


@pytest.mark.parametrize("library", ["pytorch-lightning", "jsonargparse"])
def test_only_minor_versions_that_were_tried_are_admitted(library: str):
    tried = private_api.TRIED[library]
    assert minor(version(library)) == minor(tried)
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (admitted,) = (line for line in dependencies if line.startswith(library))
    lowest, above = re.search(r">=([\d.]+),<([\d.]+)$", admitted).groups()
    major, latest = minor(tried)
    assert (minor(lowest), minor(above)) == ([major, latest], [major, latest + 1])


# --------------------------------------------------------------------------------------------------- the command line


def parse(*arguments: str) -> ExperimentCLI:
    return ExperimentCLI(["-c", "empty.yaml", DATA, "--trainer.accelerator=cpu", *arguments])


def try_recording_instantiator(door: Callable, _: Any) -> None:
    links = {"model.init_args.num_colours": 3}
    cli = parse(f"--model={COLOURS}.LinkedPainter")
    model = door(cli, "model")(LinkedPainter, applied_instantiation_links=links, num_colours=3)
    assert model.hparams["num_colours"] == 3
    assert model.hparams["_class_path"] == f"{COLOURS}.LinkedPainter"


def try_parser_actions(door: Callable, _: Any) -> None:
    parser = ArgumentParser()
    parser.add_argument("--colour", help="the colour")
    (found,) = (action for action in door(parser) if action.dest == "colour")
    assert (found.option_strings, found.help) == (["--colour"], "the colour")


def linked_parser() -> LightningArgumentParser:
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(pl.LightningModule, "model", subclass_mode=True)
    parser.add_lightning_class_args(pl.LightningDataModule, "data", subclass_mode=True)
    parser.link_arguments("data.num_colours", "model.init_args.num_colours", apply_on="instantiate")
    return parser


def try_forget_links(door: Callable, _: Any) -> None:
    parser = linked_parser()
    door(parser, "model")
    parts = parser.instantiate(parser.parse_args([DATA, f"--model={COLOURS}.PlainPainter", "--model.num_colours=5"]))
    assert isinstance(parts.model, PlainPainter)
    assert parts.model.hparams["num_colours"] == 5
    door(ArgumentParser(), "model")  # no link yet


class Shape:
    pass


class Disc(Shape):
    def __init__(self, size: int = 2) -> None:
        self.size = size


class Square(Shape):
    def __init__(self, size: int = 3) -> None:
        self.size = size


def try_help_formatter(door: Callable, _: Any) -> None:
    parser = ArgumentParser(formatter_class=door(lambda text: text.replace("colour", "shade")))
    parser.add_argument("--hue", type=int, default=3, help="the colour")
    help_text = parser.format_help()
    assert "the shade" in help_text
    assert "default: 3" in help_text


def try_start_from_own_defaults(door: Callable, _: Any) -> None:
    door()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--shape", type=Shape)
    for given in (["--shape=Disc", "--shape=Square"], ["--shape=Disc", "--shape.size=5", "--shape=Square"]):
        assert parser.parse_args(given).shape.init_args.size == 3


# ------------------------------------------------------------------------------------------------ signals, processes


def try_leave_signals_alone(door: Callable, _: Any) -> None:
    class Watch(pl.Callback):
        def setup(self, trainer, pl_module, stage):
            door(trainer)

        def on_train_start(self, trainer, pl_module):
            self.handler = signal.getsignal(signal.SIGTERM)

    def own(*_: Any) -> None:
        pass

    before = signal.signal(signal.SIGTERM, own)
    try:
        watch = Watch()
        quiet_trainer(watch, max_steps=1).fit(BoringModel())
        assert watch.handler is own
    finally:
        signal.signal(signal.SIGTERM, before)


def try_requeue_signal(door: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytorch_lightning.plugins.environments import SLURMEnvironment

    assert door(quiet_trainer()) is None
    for name in ("JOB_ID", "NTASKS", "PROCID", "LOCALID", "NODEID"):
        monkeypatch.setenv(f"SLURM_{name}", "1" if name in ("JOB_ID", "NTASKS") else "0")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    assert door(quiet_trainer()) == signal.SIGUSR1
    assert door(quiet_trainer(plugins=[SLURMEnvironment(requeue_signal=signal.SIGHUP)])) == signal.SIGHUP
    assert door(quiet_trainer(plugins=[SLURMEnvironment(auto_requeue=False)])) is None


def try_child_processes(door: Callable, _: Any) -> None:
    assert door(quiet_trainer()) == []
    trainer = quiet_trainer(devices=2, strategy="ddp")
    trainer.strategy._configure_launcher()
    assert door(trainer) == []
    trainer.strategy.launcher.procs.append("a process")
    assert door(trainer) == ["a process"]


def try_start_children_within(door: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []

    class Child:
        def __init__(self, *_: object, **__: object) -> None:
            order.append("a process")

        def poll(self) -> int:
            return 0

    @contextlib.contextmanager
    def context():
        order.append("begins")
        yield
        order.append("ends")

    trainer = quiet_trainer(devices=2, strategy="ddp")
    trainer.strategy._configure_launcher()
    door(trainer, context)
    monkeypatch.setattr(subprocess, "Popen", Child)
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "")  # the launcher sets them
        monkeypatch.delenv(name)
    trainer.strategy.launcher.launch(lambda: order.append("runs"))
    assert order == ["begins", "a process", "ends", "runs"]
    door(quiet_trainer(), context)  # one process starts no other


def try_dump_checkpoint(door: Callable, _: Any) -> None:
    trainer, model = quiet_trainer(max_steps=1), BoringModel()
    trainer.fit(model)
    trainer.save_checkpoint("saved.ckpt")
    saved = torch.load("saved.ckpt", weights_only=True)
    assert door(trainer).keys() == saved.keys()
    assert saved["state_dict"].keys() == model.state_dict().keys()


def try_before_validation(door: Callable, _: Any) -> None:
    """A run that continues from a checkpoint of within a validation validates all of it, once."""
    seen: list[tuple[int, int]] = []

    class Dump(pl.Callback):
        def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
            seen.append((trainer.global_step, batch_idx))

        def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
            if trainer.global_step == 2 and batch_idx == 1 and not Path("dumped.ckpt").exists():
                checkpoint = private_api.dump_checkpoint(trainer)
                door(checkpoint)
                torch.save(checkpoint, "dumped.ckpt")

    options = {"max_epochs": 2, "limit_train_batches": 2, "limit_val_batches": 3}
    quiet_trainer(Dump(), **options).fit(BoringModel())
    whole = list(seen)
    seen.clear()
    quiet_trainer(Dump(), **options).fit(BoringModel(), ckpt_path="dumped.ckpt")
    assert seen == whole == [(step, batch) for step in (2, 4) for batch in range(3)]


# ------------------------------------------------------------------------------------------------ loggers, processors


def try_give_loggers_a_folder(door: Callable, _: Any) -> None:
    for _ in range(2):
        door()
        for cls in (pl.loggers.TensorBoardLogger, pl.loggers.CSVLogger):
            arguments = inspect.signature(cls).parameters
            assert arguments["save_dir"].default == "."
            assert arguments["name"].default == "lightning_logs"


def try_drop_wandb_setting(door: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    begun: list[dict[str, Any]] = []
    monkeypatch.setattr(wandb, "init", lambda **settings: begun.append(settings) or SimpleNamespace(id="a1"))
    for drops in (False, True):
        logger = pl.loggers.WandbLogger(id="a1")
        if drops:
            door(logger, "anonymous")
        assert logger.experiment.id == "a1"
    assert ["anonymous" in settings for settings in begun] == [True, False]


def try_run_uncompiled_what_fails(door: Callable, _: Any) -> None:
    import torch._dynamo

    def no_compiler(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler")

    with torch._dynamo.config.patch(suppress_errors=False):  # what pytest sets there, it takes away afterwards
        double = torch.compile(lambda x: 2 * x, backend=no_compiler)
        with pytest.raises(Exception, match="no compiler"):
            double(torch.ones(2))
        door()
        assert torch.equal(torch.compile(lambda x: 3 * x, backend=no_compiler)(torch.ones(2)), torch.full((2,), 3.0))


def try_cpu_has_bfloat16(door: Callable, _: Any) -> None:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("what this CPU can do is not known here")
    words = Path("/proc/cpuinfo").read_text().split()
    assert door() == ("avx512_bf16" in words or "amx_tile" in words)
