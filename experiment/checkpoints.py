"""Checkpoints: written whole or not at all, loaded without running code, resumed to the same bits."""

import os
import pickle
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


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint of this project.

    Raises:
        UserError: if the file is corrupt or something else.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no such checkpoint: {path}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"corrupt checkpoint, or no checkpoint at all: {path} ({_first_line(error)})") from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "experiment"} <= checkpoint.keys():
        raise UserError(f"foreign checkpoint: {path} was not written by scripts/train.py of this project")
    return checkpoint


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:120]}" if text else type(error).__name__


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
        self._restore: Callable[[], None] | None = None

    # -------------------------------------------------------------------------------------------------------- when

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loop = trainer.fit_loop.epoch_loop
        # The end of an epoch and validations have checkpoints of their own, after them.
        if loop.batch_progress.is_last_batch or self._validates_now(trainer, batch_idx):
            return
        due = time.monotonic() - self._last_write >= self.save_every
        if trainer.world_size > 1:
            due = trainer.strategy.broadcast(due)
        if not due:
            return
        connector = trainer._logger_connector
        if connector.should_update_logs and not trainer.fit_loop._should_accumulate():
            # Lightning logs this step only after this hook: the row goes along.
            self._pending_row = {"step": loop._batches_that_stepped, "epoch": trainer.current_epoch}
            self._pending_row |= {name: float(value) for name, value in connector.metrics["log"].items()}
        self._save(trainer, self.folder.last)
        self._pending_row = {}

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
        score = float(trainer.callback_metrics[self.monitor])
        if np.isnan(score) or (self.best_score is not None and self.sign * score >= self.sign * self.best_score):
            return
        self.best_score = score
        self._save(trainer, self.folder.best)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer, self.folder.last)

    def _save(self, trainer: pl.Trainer, path: Path) -> None:
        trainer.save_checkpoint(path)
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
        states = checkpoint["experiment"]["random_states"]
        if len(states) != trainer.world_size:
            # Another number of processes: the data are divided in another way, so there is nothing to reproduce.
            return
        self._restore = lambda: set_random_state(states[trainer.global_rank])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # As late as possible: building the model and the sanity check draw random numbers too.
        if self._restore is not None:
            self._restore()
            self._restore = None


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
    """Restores what :func:`random_state` gave."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        for device, cuda_state in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(cuda_state.cpu(), device)
