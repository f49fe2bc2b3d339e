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
from pytorch_lightning.loggers.logger import DummyLogger

from datamodules.loader import BatchLoader
from experiment import private_api
from experiment.cli import ExperimentCLI
from tests.conftest import ROOT
from tests.experiment.colours import ColourData, LinkedPainter, PlainPainter
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
    library, tried = re.search(r"Tried: (\S+) ([\d.]+)\.$", inspect.getdoc(door)).groups()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    (tmp_path / "empty.yaml").write_text("seed_everything: 1\n")
    try:
        globals()[f"try_{name}"](door, monkeypatch)
    except (Exception, pytest.fail.Exception) as error:
        raise AssertionError(
            f"the door private_api.{name} is closed: tried with {library} {tried}, here is {version(library)}"
        ) from error


def minor(text: str) -> list[int]:
    return [int(part) for part in text.split(".")[:2]]


@pytest.mark.parametrize("library", ["pytorch-lightning", "jsonargparse"])
def test_only_minor_versions_that_were_tried_are_admitted(library: str):
    source = Path(private_api.__file__).read_text()
    (tried,) = set(re.findall(rf"[Tt]ried: {library} (\d+\.\d+\.\d+)", source))
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


def try_class_path_in(door: Callable, _: Any) -> None:
    cli = parse(f"--model={COLOURS}.LinkedPainter", "--trainer.enable_checkpointing=false").build()
    cli.trainer.strategy.connect(cli.model)
    cli.trainer.save_checkpoint("it.ckpt")
    assert door(torch.load("it.ckpt", weights_only=True)) == f"{COLOURS}.LinkedPainter"
    assert door({}) == ""


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


def try_keep_links(door: Callable, _: Any) -> None:
    parser = linked_parser()
    config = parser.parse_args([DATA, f"--model={COLOURS}.LinkedPainter"])
    door(parser, ["num_colours"])
    assert parser.instantiate(config).model.hparams["num_colours"] == ColourData.num_colours
    door(parser, [])
    assert parser.instantiate(config).model.hparams["num_colours"] is None


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


# -------------------------------------------------------------------------------------------------------- the Trainer


class Rows(DummyLogger):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, dict]] = []

    def log_metrics(self, metrics: dict, step: int) -> None:
        self.rows.append((step, {name: value for name, value in metrics.items() if name != "epoch"}))


class LoggingModel(BoringModel):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("train/batch", float(self.trainer.current_epoch * 10 + batch_idx))
        return super().training_step(batch, batch_idx)


class AtBatchEnd(pl.Callback):
    """Keeps what a function says of the Trainer at the end of each training batch."""

    def __init__(self, ask: Callable[[pl.Trainer], Any]) -> None:
        self.ask, self.said = ask, []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.said.append(self.ask(trainer))


def said_in_training(ask: Callable[[pl.Trainer], Any], **options: Any) -> tuple[list[Any], list[tuple[int, dict]]]:
    """What a function says after each of 2 x 4 batches, and what was logged; an optimizer step takes two batches."""
    torch.manual_seed(0)
    callback, logger = AtBatchEnd(ask), Rows()
    options = {"log_every_n_steps": 1, "accumulate_grad_batches": 2, "logger": logger} | options
    trainer = quiet_trainer(callback, max_epochs=2, limit_train_batches=4, limit_val_batches=0, **options)
    trainer.fit(LoggingModel())
    return callback.said, logger.rows


def try_waits_for_gradients(door: Callable, _: Any) -> None:
    assert said_in_training(door)[0] == [True, False] * 4
    # A last batch without a partner is stepped with.
    assert said_in_training(door, accumulate_grad_batches=3)[0] == [True, True, False, False] * 2


class EndsAt(pl.Callback):
    def __init__(self, door: Callable) -> None:
        self.door, self.said = door, []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.said.append(self.door(trainer))
        trainer.should_stop = True
        self.said.append(self.door(trainer))


def try_ends_early(door: Callable, _: Any) -> None:
    for min_epochs, said in ((None, [False, True]), (1, [False] * 4)):
        callback = EndsAt(door)
        quiet_trainer(callback, min_epochs=min_epochs, limit_train_batches=2, limit_val_batches=0).fit(BoringModel())
        assert callback.said == said


def try_batches_trained(door: Callable, _: Any) -> None:
    assert said_in_training(door)[0] == list(range(1, 9))


def try_logs_now(door: Callable, _: Any) -> None:
    said, rows = said_in_training(door, log_every_n_steps=2, accumulate_grad_batches=1)
    assert said == [False, True] * 4
    assert len(rows) == 4


def try_logged_step(door: Callable, _: Any) -> None:
    said, rows = said_in_training(door)
    assert [step for step, _ in rows] == said[1::2] == [0, 1, 2, 3]


def try_metrics_to_log(door: Callable, _: Any) -> None:
    said, rows = said_in_training(lambda trainer: {name: float(value) for name, value in door(trainer).items()})
    assert [metrics for _, metrics in rows] == said[1::2]
    assert [metrics["train/batch"] for metrics in said] == [0, 1, 2, 3, 10, 11, 12, 13]


class Saves(pl.Callback):
    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.save_checkpoint("batch.ckpt")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.save_checkpoint("epoch.ckpt")


def try_is_at_epoch_end(door: Callable, _: Any) -> None:
    quiet_trainer(Saves(), max_steps=2, limit_train_batches=2, limit_val_batches=0).fit(BoringModel())
    said = [door(torch.load(f"{name}.ckpt", weights_only=True)) for name in ("batch", "epoch")]
    assert said == [False, True]


class SavesEach(pl.Callback):
    """Saves after each batch, in each validation, and at the end of each epoch."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        trainer.save_checkpoint(f"batch{trainer.current_epoch}{batch_idx}.ckpt")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.save_checkpoint(f"validation{trainer.current_epoch}.ckpt")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.save_checkpoint(f"epoch{trainer.current_epoch}.ckpt")


def saved_in_training(loader: Any = None) -> Callable[[str], dict[str, Any]]:
    """Trains two epochs of two batches; gives a function that reads what was saved."""
    options: dict[str, Any] = {"limit_train_batches": 2, "limit_val_batches": 1}
    quiet_trainer(SavesEach(), max_epochs=2, **options).fit(BoringModel(), loader)
    return lambda name: torch.load(f"{name}.ckpt", weights_only=True)


def try_is_mid_epoch(door: Callable, _: Any) -> None:
    saved = saved_in_training()
    names = ("batch00", "batch01", "validation0", "epoch0", "batch10", "epoch1")
    assert [door(saved(name)) for name in names] == [True, False, False, False, True, False]


def try_epochs_trained(door: Callable, _: Any) -> None:
    saved = saved_in_training()
    names = ("batch00", "batch01", "validation0", "epoch0", "batch10", "batch11", "validation1", "epoch1")
    assert [door(saved(name)) for name in names] == [0, 1, 1, 1, 1, 2, 2, 2]


def try_has_data_position(door: Callable, _: Any) -> None:
    assert not door(saved_in_training()("batch00"))
    assert door(saved_in_training(BatchLoader(lambda rows: torch.ones(1, 32), 4, 1))("batch00"))


class SeenBatches(pl.Callback):
    def __init__(self, anew: Callable) -> None:
        self.anew, self.seen, self.steps = anew, [], []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.anew(trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append((trainer.current_epoch, batch_idx, float(batch.mean())))


def try_begin_epoch_anew(door: Callable, _: Any, anew: Callable = private_api.continue_as_new) -> None:
    loader = BatchLoader(lambda rows: rows.float().expand(1, 32), 2, 1)
    saved = saved_in_training(loader)
    for epoch in (0, 1):
        checkpoint = saved(f"batch{epoch}0")
        door(checkpoint, counts_steps=True)
        torch.save(checkpoint, "changed.ckpt")
        callback = SeenBatches(anew)
        trainer = quiet_trainer(callback, max_epochs=2, limit_val_batches=0)
        trainer.fit(BoringModel(), BatchLoader(lambda rows: rows.float().expand(1, 32), 3, 1), ckpt_path="changed.ckpt")
        expected = [(e, batch, float(batch)) for e in range(epoch, 2) for batch in range(3)]
        assert callback.seen == expected
        assert trainer.global_step == private_api.logged_step(trainer) == 2 * epoch + 1 + len(expected)


def rows_loader() -> BatchLoader:
    return BatchLoader(lambda rows: rows.float().expand(1, 32), 3, 1)


def try_within_epoch(door: Callable, _: Any) -> None:
    quiet_trainer(SavesEach(), max_steps=1, limit_val_batches=0).fit(BoringModel(), rows_loader())
    checkpoint = torch.load("epoch0.ckpt", weights_only=True)
    door(checkpoint)
    torch.save(checkpoint, "changed.ckpt")
    callback = SeenBatches(lambda trainer: None)
    trainer = quiet_trainer(callback, max_epochs=2, limit_val_batches=0)
    trainer.fit(BoringModel(), rows_loader(), ckpt_path="changed.ckpt")
    assert callback.seen == [(0, 1, 1.0), (0, 2, 2.0), (1, 0, 0.0), (1, 1, 1.0), (1, 2, 2.0)]
    assert trainer.global_step == private_api.logged_step(trainer) == 6


def try_resumes_within_epoch(door: Callable, _: Any) -> None:
    saved_in_training(rows_loader())
    said: list[bool] = []
    for name in ("batch00", "epoch0"):
        callback = SeenBatches(lambda trainer: said.append(door(trainer)))
        trainer = quiet_trainer(callback, max_epochs=2, limit_val_batches=0, limit_train_batches=2)
        trainer.fit(BoringModel(), rows_loader(), ckpt_path=f"{name}.ckpt")
    assert said == [True, False]


def try_continue_as_new(door: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    try_begin_epoch_anew(private_api.begin_epoch_anew, monkeypatch, door)


def try_set_max_steps(door: Callable, _: Any) -> None:
    trainer = quiet_trainer(max_steps=2, limit_train_batches=4, limit_val_batches=0)
    door(trainer, 3)
    assert trainer.max_steps == 3
    trainer.fit(BoringModel())
    assert trainer.global_step == 3


def try_raised_while_restoring(door: Callable, _: Any) -> None:
    options = {"limit_train_batches": 1, "limit_val_batches": 0}
    whole = quiet_trainer(**options)
    whole.fit(BoringModel())
    whole.save_checkpoint("whole.ckpt")
    checkpoint = torch.load("whole.ckpt", weights_only=True)
    weights = {"layer.weight": torch.zeros(3, 3), "layer.bias": torch.zeros(2)}
    for number, damage in enumerate(({"state_dict": weights}, {"optimizer_states": None})):
        torch.save(checkpoint | damage, f"{number}.ckpt")
        with pytest.raises(Exception) as caught:
            quiet_trainer(max_epochs=2, **options).fit(BoringModel(), ckpt_path=f"{number}.ckpt", weights_only=True)
        assert door(caught.value), damage
    with pytest.raises(RuntimeError) as caught:
        BoringModel.load_from_checkpoint("0.ckpt", weights_only=True)
    assert door(caught.value)
    with pytest.raises(TypeError) as caught:  # building, after restoring nothing
        quiet_trainer(limit_train_batches={})
    assert not door(caught.value)


class SizedModel(BoringModel):
    batch_size = 2

    def train_dataloader(self) -> Any:
        assert self.batch_size <= 16, "a batch that the data does not have"
        return torch.utils.data.DataLoader(torch.randn(16, 32), batch_size=self.batch_size)


def try_limit_batch_sizes(door: Callable, _: Any) -> None:
    asked: list[int] = []
    for mode in ("power", "binsearch"):
        finder = pl.callbacks.BatchSizeFinder(mode=mode, margin=0.0)
        door(finder, lambda size: asked.append(size) or size <= 8)
        quiet_trainer(finder, limit_train_batches=1, limit_val_batches=0, enable_checkpointing=False).fit(SizedModel())
        assert finder.optimal_batch_size == 8
    assert asked == [4, 8, 16] * 2


def try_trains_in_children(door: Callable, _: Any) -> None:
    for strategy, expected in (("auto", False), ("ddp", False), ("ddp_spawn", True), ("ddp_fork", True)):
        trainer = pl.Trainer(accelerator="cpu", devices=1 if strategy == "auto" else 2, strategy=strategy, logger=False)
        assert door(trainer) is expected, strategy


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

    @contextlib.contextmanager
    def context():
        order.append("begins")
        yield
        order.append("ends")

    trainer = quiet_trainer(devices=2, strategy="ddp")
    trainer.strategy._configure_launcher()
    door(trainer, context)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: order.append("a process"))
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


def try_wandb_id(door: Callable, _: Any) -> None:
    pytest.importorskip("wandb")
    assert door(pl.loggers.WandbLogger(id="a1", offline=True)) == "a1"
    assert door(pl.loggers.WandbLogger(offline=True)) is None


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
