"""Checkpoints: written completely or not at all, with all that a resumed run needs to be bit-identical."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from callbacks.update_chain.checks import refuse_other_chain
from callbacks.update_chain.rule import UpdateRule
from layers.processes import by_rank, forget_process_states, gather_process_states

from .console import say
from .loggers import FolderLogger
from .private_api import (
    batches_trained,
    before_validation,
    dump_checkpoint,
    ends_early,
    is_at_epoch_end,
    logged_step,
    logs_now,
    metrics_to_log,
    set_max_steps,
    waits_for_gradients,
    within_epoch,
)
from .processes import stopping
from .processes.agreement import Agreement
from .processes.stopping import Stopped
from .resuming.checkpoint_files import set_aside
from .resuming.random_states import random_state, set_random_state
from .run_folder import RunFolder


class RunCheckpoints(Checkpoint):
    """Keeps ``best.ckpt`` and ``last.ckpt``, with all that makes a resumed run bit-identical to an uninterrupted one.

    ``best.ckpt`` is written after each validation that improves the module's ``monitor``; ``last.ckpt`` at the end of
    each epoch and, within an epoch, after an optimizer step once ``save_every`` seconds have passed. Besides what
    Lightning stores they hold, under ``experiment``: the configuration, the random states of all processes, the
    position in ``metrics.csv``, and the id of the W&B run.

    Args:
        folder: the run folder.
        config: the configuration, plain values.
        monitor: the metric that decides which checkpoint is best.
        mode: ``min`` or ``max``.
        save_every: seconds between two writes within an epoch.
        wandb_id: the id of the W&B run; None: there is none, or W&B chooses it.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: dict[str, Any],
        monitor: str,
        mode: str,
        save_every: float,
        wandb_id: str | None = None,
    ) -> None:
        self.folder = folder
        self.config = config
        self.monitor = monitor
        self.sign = {"min": 1.0, "max": -1.0}[mode]
        self.save_every = save_every
        self.wandb_id = wandb_id
        self.best_score: float | None = None
        self._last_write = time.monotonic()
        self._pending_row: dict[str, float] = {}
        self._resumed: dict[str, Any] = {}
        self._resumed_step: int | None = None
        self._begun = False
        self._at_epoch_end = False
        self._is_within_epoch = self._is_saved = False
        self._stops_after_window = False
        self._restore: Callable[[], None] | None = None
        self.process_states: list[dict[str, Any]] | None = None  # gathered for a checkpoint
        self._validating = self._said_missing = False
        # What loggers read of a ModelCheckpoint, to upload what it writes (``log_model`` of W&B's and MLflow's).
        self.mode, self.save_top_k, self.save_last, self.save_weights_only = mode, 1, True, False
        self.best_model_path, self.last_model_path = str(folder.best), str(folder.last)
        self.best_model_score: float | None = None
        self.current_score: torch.Tensor | None = None

    # -------------------------------------------------------------------------------------------------------- when

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Within a window of accumulated gradients a checkpoint would lose those accumulated so far.
        if self._postpone_end(trainer):
            return
        # The end of an epoch and validations have checkpoints of their own, after them; there a run stops, too.
        if trainer.is_last_batch or self._validates_now(trainer, batch_idx):
            return
        signum, due = self._agreement.reached(trainer, time.monotonic() - self._last_write >= self.save_every)
        # The validation with which such a run ends is none of a run that goes on.
        self._is_saved = ends_early(trainer)
        if due or signum or self._is_saved:
            self._save_last(trainer, step=logged_step(trainer) if logs_now(trainer) else None)
        if signum:
            raise Stopped(signum)

    def _postpone_end(self, trainer: pl.Trainer) -> bool:
        """Whether a window of accumulated gradients is open; a run that is to end (``max_time``) finishes it first."""
        waits = waits_for_gradients(trainer)
        stops = trainer.should_stop or self._stops_after_window
        trainer.should_stop, self._stops_after_window = stops and not waits, stops and waits
        return waits

    @staticmethod
    def _validates_now(trainer: pl.Trainer, batch_idx: int) -> bool:
        interval = trainer.val_check_batch
        if not trainer.enable_validation or interval in (None, float("inf")):
            return False
        batches = batches_trained(trainer) if trainer.check_val_every_n_epoch is None else batch_idx + 1
        return batches % interval == 0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._validating:
            self._validating = False
            forget_process_states(_parts(trainer))
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._postpone_end(trainer)
        if self.monitor not in trainer.callback_metrics:
            self._say_missing(trainer)
            return
        # A metric that was not reduced over the processes differs between them; all must decide alike.
        score = trainer.strategy.broadcast(float(trainer.callback_metrics[self.monitor]))
        if np.isnan(score) or (self.best_score is not None and self.sign * score >= self.sign * self.best_score):
            return
        self.best_score = score
        self._save(trainer, self.folder.best)

    def _say_missing(self, trainer: pl.Trainer) -> None:
        if not self._said_missing:
            logged = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
            say(f"monitor: the validation logged no '{self.monitor}', so there is no best.ckpt (logged: {logged})")
        self._said_missing = True

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Running statistics differ between processes; the checkpoint has those of the first, so all validate with them.
        if trainer.world_size > 1:
            for buffer in pl_module.buffers():
                torch.distributed.broadcast(buffer, src=0)
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            # A run that is told to stop while it validates continues with this validation.
            gather_process_states(_parts(trainer))
            # Where gradients wait, those accumulated so far would be lost; a chain keeps them.
            self._validating = not waits_for_gradients(trainer) or _has_chain(trainer)
            self._validation_agreement.begin(trainer)
            self._common_batches = self._validation_agreement.least(trainer, list(map(float, trainer.num_val_batches)))
            if self._validating:
                self._stop_validating(trainer, at_once=True)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        # One process may have a batch more than another: with the last, nobody asks.
        if self._validating and batch_idx < self._common_batches[dataloader_idx] < float("inf"):
            self._stop_validating(trainer)

    def _stop_validating(self, trainer: pl.Trainer, at_once: bool = False) -> None:
        if signum := self._validation_agreement.reached(trainer, False, at_once)[0]:
            if trainer.is_global_zero:
                checkpoint = dump_checkpoint(trainer)
                before_validation(checkpoint)
                trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, self.folder.last)
            trainer.strategy.barrier()
            raise Stopped(signum)

    def end_within_epoch(self, trainer: pl.Trainer) -> None:
        """The run ends before the last batch of an epoch: continued, it goes on where it stands."""
        self._is_within_epoch = True
        if not self._is_saved:
            self._save_last(trainer, step=None)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_last_batch:
            self._save_last(trainer, step=logged_step(trainer) - 1)
        if signum := self._agreement.reached(trainer, False, at_once=True)[0]:
            raise Stopped(signum)

    def _save_last(self, trainer: pl.Trainer, step: int | None) -> None:
        """Writes ``last.ckpt``, with the row of metrics that Lightning logs only after this hook, for ``step``."""
        if step is not None and (metrics := metrics_to_log(trainer)):
            self._pending_row = {"step": step, "epoch": trainer.current_epoch}
            self._pending_row |= {name: float(value) for name, value in metrics.items()}
        self._save(trainer, self.folder.last)
        self._pending_row = {}
        self._last_write = time.monotonic()

    def _save(self, trainer: pl.Trainer, path: Path) -> None:
        gather_process_states(_parts(trainer))
        trainer.save_checkpoint(path)
        forget_process_states(_parts(trainer))
        self.best_model_score, self.current_score = self.best_score, trainer.callback_metrics.get(self.monitor)
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.after_save_checkpoint(self)  # type: ignore[arg-type]

    def process_state(self) -> dict[str, Any]:
        """The random state of this process."""
        return random_state()

    # -------------------------------------------------------------------------------------------------------- what

    def state_dict(self) -> dict[str, Any]:
        return {"best_score": self.best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_score = state_dict["best_score"]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        folder_logger = next((logger for logger in trainer.loggers if isinstance(logger, FolderLogger)), None)
        checkpoint["experiment"] = {
            "config": self.config,
            "random_states": by_rank(self.process_state(), self.process_states),
            "metrics_rows": folder_logger.num_rows if folder_logger else 0,
            "pending_row": self._pending_row,
            "wandb_id": self.wandb_id,
        }
        if self._is_within_epoch:
            within_epoch(checkpoint)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn != "fit":
            return
        if not _has_chain(trainer):
            refuse_other_chain(checkpoint, [])  # rules compare the chain themselves
        self._resumed, self._at_epoch_end = checkpoint.get("experiment", {}), is_at_epoch_end(checkpoint)
        self._resumed_step = checkpoint["global_step"]
        states = self._resumed.get("random_states", [])  # plain Lightning's have none
        if len(states) != trainer.world_size or states[trainer.global_rank] is None:
            # With another number of processes the data is divided differently: there is nothing to reproduce.
            return
        self._restore = lambda: set_random_state(states[trainer.global_rank])

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Until training starts, that is while the loops are restored; the optimizers are configured by now.
        self._max_steps = trainer.max_steps
        if self._at_epoch_end:
            set_max_steps(trainer, -1)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._agreement, self._validation_agreement = Agreement(every_step=self.save_every == 0), Agreement()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stopping.defer()
        self._agreement.begin(trainer)
        self.begin(trainer)
        set_max_steps(trainer, self._max_steps)
        # As late as possible, since building the model and the sanity check draw random numbers too.
        if self._restore is not None:
            self._restore()
            self._restore = None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stopping.stop_deferring()

    def begin(self, trainer: pl.Trainer) -> None:
        """Sets the run folder back to the state of the checkpoint, once; from here on the run is under way.

        Not before training starts: a resumption that fails on a wrong option leaves the run as it was.
        """
        if self._begun:
            return
        self._begun = True
        if trainer.is_global_zero:
            self.folder.begin()
            if self._resumed_step is not None:
                is_same = self._resumed.get("config") == self.config
                set_aside(self.folder, Path(str(trainer.ckpt_path)), self._resumed_step, is_same, self.best_score)
            self.folder.write_config(self.config)
            for logger in trainer.loggers:
                if isinstance(logger, FolderLogger):
                    logger.resume(self._resumed.get("metrics_rows", 0), self._resumed.get("pending_row", {}))
        if not trainer.strategy.broadcast(self.folder.best.is_file()):
            self.best_score = None  # it is that of a run elsewhere


class BeforeEpochEnd(pl.Callback):
    """The first of a run's callbacks: where a run ends within an epoch (``max_steps``, ``max_time``), the checkpoint is
    written before others take that epoch for done.

    Args:
        checkpoints: of the run.
    """

    def __init__(self, checkpoints: RunCheckpoints) -> None:
        self.checkpoints = checkpoints

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_last_batch:
            self.checkpoints.end_within_epoch(trainer)


def _callbacks(trainer: pl.Trainer) -> list[pl.Callback]:
    return trainer.callbacks  # type: ignore[attr-defined]


def _has_chain(trainer: pl.Trainer) -> bool:
    return any(isinstance(callback, UpdateRule) for callback in _callbacks(trainer))


def _parts(trainer: pl.Trainer) -> list[Any]:
    return [trainer.lightning_module, *_callbacks(trainer)]
