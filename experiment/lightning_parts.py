"""Lightning's own parts in a run: where they write, what they did, and what they need of our data."""

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    Checkpoint,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    StochasticWeightAveraging,
    Timer,
)
from torch import nn

from .classes import import_class, parameters
from .console import quiet, say
from .errors import UserError
from .loggers import FolderLogger
from .private_api import limit_batch_sizes, resumes_within_epoch
from .resuming.restoring import load_checkpoint
from .run_folder import RunFolder


def refuse_parts(settings: Any) -> None:
    """Refuses settings of the Trainer with which a run could not be what it is here.

    Raises:
        UserError: names the setting.
    """
    reasons = {
        "barebones": (True, "is without the metrics and checkpoints that a run keeps"),
        "enable_checkpointing": (False, "leaves nothing to test and to resume"),
    }
    for name, (refused, reason) in reasons.items():
        if settings.get(name) is refused:
            given = f"trainer.{name}={str(refused).lower()}"
            raise UserError(
                f"{given} {reason}: leave it out (--trainer.fast_dev_run=true is a trial that keeps nothing)"
            )
    if settings.default_root_dir is not None:
        raise UserError("trainer.default_root_dir: a run writes into its run folder, which --run_dir=DIR names")
    refuse_missing_gpu(settings.accelerator)


def refuse_missing_gpu(accelerator: Any) -> None:
    """Refuses a GPU where there is none; what Lightning says of it names neither the setting nor the way out."""
    if accelerator in ("gpu", "cuda") and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        raise UserError(
            f"trainer.accelerator={accelerator}: no GPU is found here; --trainer.accelerator=auto takes what there is"
        )


def prepare_checkpoint_callbacks(configured: Any, folder: RunFolder) -> None:
    """Has callbacks that write checkpoints (``ModelCheckpoint``) do so below the run's ``checkpoints/``.

    Args:
        configured: the callbacks of the configuration, changed in place; an absolute ``dirpath`` stays.
        folder: the run folder.

    Raises:
        UserError: one would write ``best.ckpt`` or ``last.ckpt``, which are the run's own.
    """
    for callback in _as_list(configured):
        cls = import_class(callback.class_path)
        if not (issubclass(cls, Checkpoint) and "dirpath" in parameters(cls)):
            continue
        arguments, own = callback.init_args, folder.last.parent
        arguments["dirpath"] = str(own / Path(arguments.get("dirpath") or "").expanduser())
        names = {"last"} if arguments.get("save_last") else set()
        if Path(arguments["dirpath"]) == own and (names | {arguments.get("filename")}) & {"best", "last"}:
            raise UserError(
                f"trainer.callbacks: {cls.__name__} would write best.ckpt or last.ckpt, which the run keeps itself: "
                "leave out save_last, or give it a dirpath or another filename"
            )


def catch_up(trainer: pl.Trainer, data: pl.LightningDataModule, folder: RunFolder) -> None:
    """Lets this process know what those did that were forked or spawned from it to train."""
    if folder.last.is_file():
        trainer.fit_loop.load_state_dict(load_checkpoint(folder.last)["loops"]["fit_loop"])
        epochs: Any = trainer.fit_loop.epoch_progress.current
        epochs.completed = epochs.processed
    for logger in trainer.loggers:
        if isinstance(logger, FolderLogger):
            logger.resume(sys.maxsize, {})
    data.prepare_data()
    for stage in ("fit", "test"):
        data.setup(stage)


class LightningParts(pl.Callback):
    """Says in one line each what Lightning's own parts did, and lets them work with our loaders.

    ``EarlyStopping`` and ``max_time``: when training ended, and why. ``LearningRateFinder`` and ``BatchSizeFinder``:
    what they found; they search at the start of a run; a resumed run keeps what was found. ``overfit_batches``:
    no shuffling, which Lightning can switch off for torch's ``DataLoader`` only.
    """

    def __init__(self) -> None:
        self.batch_size: int | None = None
        self._stops: list[Any] = []
        self._frozen: dict[str, list[str]] | None = None

    def state_dict(self) -> dict[str, Any]:
        return {} if self.batch_size is None else {"batch_size": self.batch_size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.batch_size = state_dict["batch_size"]

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In a spawned process (``ddp_spawn``), to which this process's settings of warnings and logs mean nothing."""
        vars(self).update(state)
        quiet()

    # ------------------------------------------------------------------------------------------------- the beginning

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            for finder in _of(trainer, BatchSizeFinder):
                limit_batch_sizes(finder, lambda size: _has_batches_of(trainer, size))

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._frozen = checkpoint.get("frozen")
        # Those that search write a checkpoint before the first step, and restore it.
        if trainer.state.fn != "fit" or checkpoint["global_step"] == 0:
            return
        for name in _leave_out(trainer, LearningRateFinder, BatchSizeFinder):
            say(f"{name}: left out, a resumed run keeps what was found")
        found = checkpoint.get("callbacks", {}).get(self.state_key, {}).get("batch_size")
        if found is not None:
            trainer.datamodule.batch_size = found  # type: ignore[attr-defined]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # ``BaseFinetuning`` freezes in ``setup`` what it has unfrozen since; its state does not tell.
        if _of(trainer, BaseFinetuning):
            checkpoint["frozen"] = {
                "parameters": [name for name, p in pl_module.named_parameters() if not p.requires_grad],
                "statistics": [name for name, norm in _norms(pl_module) if not norm.track_running_stats],
            }

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._frozen is not None and _of(trainer, BaseFinetuning):
            for name, parameter in pl_module.named_parameters():
                parameter.requires_grad = name not in self._frozen["parameters"]
            for name, norm in _norms(pl_module):
                norm.track_running_stats = name not in self._frozen["statistics"]
        self._stops = list(_stops(trainer))
        for finder in _of(trainer, BatchSizeFinder):
            self.batch_size = finder.optimal_batch_size
            say(f"BatchSizeFinder: the batch size is {self.batch_size} (data.batch_size={self.batch_size})")
        for finder in _of(trainer, LearningRateFinder):
            self._say_learning_rate(finder, trainer)
        if resumes_within_epoch(trainer):
            self._begin_epoch(trainer, pl_module)

    def _begin_epoch(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Does what Lightning leaves out when a run resumes within an epoch: what callbacks set as an epoch begins."""
        rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in trainer.optimizers]
        for callback in (self, *_of(trainer, (GradientAccumulationScheduler, StochasticWeightAveraging))):
            callback.on_train_epoch_start(trainer, pl_module)
        for optimizer, before in zip(trainer.optimizers, rates, strict=True):
            for group, rate in zip(optimizer.param_groups, before, strict=True):
                group["lr"] = rate  # a new scheduler of weight averaging has set its own

    @staticmethod
    def _say_learning_rate(finder: LearningRateFinder, trainer: pl.Trainer) -> None:
        if finder.optimal_lr is None:  # fast_dev_run
            return
        lr = finder.optimal_lr.suggestion()
        if lr is None:
            tried = len(finder.optimal_lr.results["lr"])
            say(f"LearningRateFinder: {tried} steps are too few to suggest a learning rate; the configured one is used")
        else:
            used = any(group["lr"] == lr for optimizer in trainer.optimizers for group in optimizer.param_groups)
            say(f"LearningRateFinder: suggests a learning rate of {lr:.3g}, which is {'' if used else 'not '}used")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.overfit_batches:  # type: ignore[attr-defined]
            return
        shuffled = [loader for loader in _loaders(trainer.train_dataloader) if getattr(loader, "shuffle", False)]
        for loader in shuffled:
            loader.shuffle = False
        if shuffled:
            say("overfit_batches: training data is not shuffled, so each epoch has the same batches")

    # ------------------------------------------------------------------------------------------------------- the end

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _leave_out(trainer, BatchSizeFinder)  # it would search again, for the test
        if trainer.should_stop:
            for name, epoch, reason in _stops(trainer):
                if (name, epoch, reason) not in self._stops:
                    say(f"{name}: stopped at epoch {epoch} because {reason}")
            for timer in _of(trainer, Timer):
                self._say_time(timer, trainer)

    @staticmethod
    def _say_time(timer: Timer, trainer: pl.Trainer) -> None:
        remaining = timer.time_remaining()
        if remaining is not None and remaining <= 0:
            limit = timedelta(seconds=round(timer.time_elapsed() + remaining))
            say(
                f"max_time: the time of {limit} was up at epoch {trainer.current_epoch}, step {trainer.global_step}; "
                "to train on, continue with --resume and a longer --trainer.max_time"
            )


def _stops(trainer: pl.Trainer) -> Iterator[tuple[str, int, str]]:
    """Of each ``EarlyStopping`` that stopped a run, this one or that of a checkpoint: name, epoch, reason."""
    for callback in _of(trainer, EarlyStopping):
        if callback.stopping_reason_message:
            reason = callback.stopping_reason_message.replace(" Signaling Trainer to stop.", "").rstrip(".")
            yield type(callback).__name__, callback.stopped_epoch, reason[0].lower() + reason[1:]


def _has_batches_of(trainer: pl.Trainer, size: int) -> bool:
    """Whether the data is enough for a batch of that size, in training and validation."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    before = data.batch_size
    try:
        data.batch_size = size
        return all(
            len(loader) > 0 for make in (data.train_dataloader, data.val_dataloader) for loader in _loaders(make())
        )
    except ValueError:  # which says so
        return False
    finally:
        data.batch_size = before


def _of(trainer: pl.Trainer, types: Any) -> list[Any]:
    return [callback for callback in trainer.callbacks if isinstance(callback, types)]  # type: ignore[attr-defined]


def _norms(module: nn.Module) -> list[tuple[str, Any]]:
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    return [(name, layer) for name, layer in module.named_modules() if isinstance(layer, kinds)]


def _leave_out(trainer: pl.Trainer, *types: type[pl.Callback]) -> list[str]:
    """Takes callbacks from the Trainer, which may be going through its list just now; gives their names."""
    left_out = _of(trainer, types)
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    trainer.callbacks = [callback for callback in callbacks if callback not in left_out]  # type: ignore[attr-defined]
    return [type(callback).__name__ for callback in left_out]


def _as_list(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [] if given is None else [given]


def _loaders(given: Any) -> list[Any]:
    if isinstance(given, dict):
        return list(given.values())
    return list(given) if isinstance(given, list | tuple) else [given]
