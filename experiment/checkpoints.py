"""Checkpoints: written whole or not at all, with all that a resumed run needs for the same bits."""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import WandbLogger

from callbacks.update_chain.checks import refuse_other_chain
from callbacks.update_chain.rule import UpdateRule

from .errors import UserError
from .loggers import FolderLogger
from .run_folder import RunFolder


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it.

    Lightning's own way goes through the temporary folder of the system, from where the last step is a copy: a kill or
    a full disk leaves half a file.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        try:
            with open(temporary, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException as error:
            temporary.unlink(missing_ok=True)
            if isinstance(error, RuntimeError) and _is_disk_full(path.parent):
                # torch reports a failed write as a RuntimeError of its own.
                raise OSError(28, "No space left on device", str(path)) from error
            raise


def _is_disk_full(folder: Path) -> bool:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize < 1 << 26


class RunCheckpoints(Checkpoint):
    """Keeps ``best.ckpt`` and ``last.ckpt``, and in them all that a resumed run needs for the same bits.

    ``best.ckpt`` is written after a validation that improved the module's ``monitor``; ``last.ckpt`` at the end of
    each epoch and, inside an epoch, after an optimizer step when ``save_every`` seconds have passed. Beside what
    Lightning stores they hold, below ``experiment``: the configuration, the random states of all processes, the
    position in ``metrics.csv``, and the id of the W&B run.

    Args:
        folder: the run folder.
        config: the configuration, plain values.
        monitor: metric that decides on the best checkpoint.
        mode: ``min`` or ``max``.
        save_every: seconds between two writes inside an epoch.
    """

    def __init__(self, folder: RunFolder, config: dict[str, Any], monitor: str, mode: str, save_every: float) -> None:
        self.folder = folder
        self.config = config
        self.monitor = monitor
        self.sign = {"min": 1.0, "max": -1.0}[mode]
        self.save_every = save_every
        self.best_score: float | None = None
        self._last_write = time.monotonic()
        self._pending_row: dict[str, float] = {}
        self._resumed: dict[str, Any] = {}
        self._begun = False
        self._restore: Callable[[], None] | None = None

    # -------------------------------------------------------------------------------------------------------- when

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loop = trainer.fit_loop.epoch_loop
        # The end of an epoch and validations have checkpoints of their own, after them.
        if loop.batch_progress.is_last_batch or self._validates_now(trainer, batch_idx):
            return
        # Inside a window of accumulated gradients a checkpoint would lose those it has already.
        if trainer.fit_loop._should_accumulate() or not self._is_due(trainer, batch_idx):
            return
        logs_now = trainer._logger_connector.should_update_logs
        self._save_last(trainer, step=loop._batches_that_stepped if logs_now else None)

    def _is_due(self, trainer: pl.Trainer, batch_idx: int) -> bool:
        due = time.monotonic() - self._last_write >= self.save_every
        if trainer.world_size == 1:
            return due
        # The first process decides, but it need not ask all others after every batch.
        return (self.save_every == 0 or batch_idx % 10 == 0) and trainer.strategy.broadcast(due)

    @staticmethod
    def _validates_now(trainer: pl.Trainer, batch_idx: int) -> bool:
        interval = trainer.val_check_batch
        if not trainer.enable_validation or interval in (None, float("inf")):
            return False
        step = trainer.fit_loop.epoch_loop.total_batch_idx if trainer.check_val_every_n_epoch is None else batch_idx
        return (step + 1) % interval == 0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit" or self.monitor not in trainer.callback_metrics:
            return
        # A metric that was not reduced over the processes differs among them; all must decide alike.
        score = trainer.strategy.broadcast(float(trainer.callback_metrics[self.monitor]))
        if np.isnan(score) or (self.best_score is not None and self.sign * score >= self.sign * self.best_score):
            return
        self.best_score = score
        trainer.save_checkpoint(self.folder.best)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Running statistics differ among the processes; the checkpoint has those of the first, so all judge by them.
        if trainer.world_size > 1:
            for buffer in pl_module.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save_last(trainer, step=trainer.fit_loop.epoch_loop._batches_that_stepped - 1)

    def _save_last(self, trainer: pl.Trainer, step: int | None) -> None:
        """Writes ``last.ckpt``, with the row of metrics that Lightning logs only after this hook, as of ``step``."""
        metrics = trainer._logger_connector.metrics["log"] if step is not None else {}
        if metrics:
            self._pending_row = {"step": step, "epoch": trainer.current_epoch}
            self._pending_row |= {name: float(value) for name, value in metrics.items()}
        trainer.save_checkpoint(self.folder.last)
        self._pending_row = {}
        self._last_write = time.monotonic()

    # -------------------------------------------------------------------------------------------------------- what

    def state_dict(self) -> dict[str, Any]:
        return {"best_score": self.best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_score = state_dict["best_score"]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        folder_logger = next((logger for logger in trainer.loggers if isinstance(logger, FolderLogger)), None)
        wandb_logger = next((logger for logger in trainer.loggers if isinstance(logger, WandbLogger)), None)
        checkpoint["experiment"] = {
            "config": self.config,
            "random_states": _gather(trainer, random_state()),
            "metrics_rows": folder_logger.num_rows if folder_logger else 0,
            "pending_row": self._pending_row,
            "wandb_id": wandb_logger._wandb_init.get("id") if wandb_logger else None,
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn != "fit":
            return
        if not any(isinstance(callback, UpdateRule) for callback in trainer.callbacks):
            refuse_other_chain(checkpoint, [])  # where there are rules, they compare their chain themselves
        self._resumed = checkpoint["experiment"]
        states = self._resumed["random_states"]
        if len(states) != trainer.world_size:
            # Another number of processes: the data are divided in another way, so there is nothing to reproduce.
            return
        self._restore = lambda: set_random_state(states[trainer.global_rank])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _check_optimizers(trainer)
        self.begin(trainer)
        if self._resumed:
            # A checkpoint of an epoch's end: with `max_steps` Lightning would take that epoch for one to be trained.
            progress = trainer.fit_loop.epoch_progress.current
            progress.completed = progress.processed
        # As late as possible: building the model and the sanity check draw random numbers too.
        if self._restore is not None:
            self._restore()
            self._restore = None

    def begin(self, trainer: pl.Trainer) -> None:
        """Brings the run folder to the state of the checkpoint, once; from here on the run is going on.

        Not earlier than training starts: a resumption that fails on a wrong option leaves the run as it was.
        """
        if self._begun:
            return
        self._begun = True
        if not self.folder.best.is_file():
            self.best_score = None  # that of a run elsewhere
        if trainer.is_global_zero:
            self.folder.summary_file.unlink(missing_ok=True)
            self.folder.write_config(self.config)
            for logger in trainer.loggers:
                if isinstance(logger, FolderLogger):
                    logger.resume(self._resumed.get("metrics_rows", 0), self._resumed.get("pending_row", {}))


def _check_optimizers(trainer: pl.Trainer) -> None:
    """Refuses a checkpoint of another optimizer, which would fail in the first step only."""
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            if missing := optimizer.defaults.keys() - group.keys():
                raise UserError(
                    f"the checkpoint was written with another optimizer than {type(optimizer).__name__} (it has no "
                    f"{', '.join(sorted(missing))}): keep model.optimizer, or start a new run"
                )


def _gather(trainer: pl.Trainer, state: dict[str, Any]) -> list[dict[str, Any]]:
    if trainer.world_size == 1:
        return [state]
    states: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(states, state)
    return states


def random_state() -> dict[str, Any]:
    """The states of the random generators of Python, NumPy and torch, in tensors and plain values."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restores what ``random_state`` gave."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        for device, cuda_state in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(cuda_state.cpu(), device)
