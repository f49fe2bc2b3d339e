"""What ``test_private_api`` does with the private doors into the Trainer: a ``try_NAME`` for each."""

from collections.abc import Callable
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.demos.boring_classes import BoringModel
from pytorch_lightning.loggers.logger import DummyLogger

from datamodules.loader import BatchLoader
from experiment import private_api
from tests.tools import quiet_trainer


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
