"""What the processes of a training agree on between two steps: to stop, and to write a checkpoint."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch

from ..private_api import (
    child_processes,
    leave_signals_alone,
    requeue_signal,
    start_children_within,
    trains_in_children,
)
from ..run_folder import RunFolder
from . import stopping
from .launcher import ENVIRONMENT_VARIABLE, process_rank
from .stopping import LostProcess, Stopped

PERIOD = 1.0  # seconds between two questions


class Agreement:
    """Asks all processes after the same step whether one was told to stop, and whether a checkpoint is due.

    A single process asks itself after every step. Several agree by a small reduction on the CPU, about once a second:
    the number of steps until the next is part of what they agree on.

    Args:
        every_step: ask after every step.
    """

    def __init__(self, every_step: bool = False) -> None:
        self.every_step = every_step
        self._group: Any = None

    def begin(self, trainer: pl.Trainer) -> None:
        """Steps of another kind or speed follow: training begins, or a validation. Every process calls it."""
        if trainer.world_size > 1 and self._group is None:
            self._group = torch.distributed.new_group(backend="gloo")  # on the CPU: no device has to wait
        self._wait, self._steps, self._since = 1, 0, time.monotonic()

    def least(self, trainer: pl.Trainer, counts: list[float]) -> list[float]:
        """The least of the counts of all processes, for each place."""
        if trainer.world_size == 1:
            return counts
        table = torch.tensor(counts, dtype=torch.float64)
        torch.distributed.all_reduce(table, torch.distributed.ReduceOp.MIN, group=self._group)
        return table.tolist()

    def reached(self, trainer: pl.Trainer, due: bool, at_once: bool = False) -> tuple[int, bool]:
        """The signal by which a process was told to stop, 0 for none, and whether a checkpoint is due.

        Every process calls it after the same steps.

        Args:
            trainer: of the training.
            due: whether this process thinks that a checkpoint is due.
            at_once: ask now.
        """
        signum = stopping.requested() or 0
        if trainer.world_size == 1:
            return signum, due
        self._steps += 1
        if not (at_once or self.every_step or self._steps >= self._wait):
            return 0, False
        now = time.monotonic()
        # A process that is slower than the others makes the period longer, never the steps different.
        wait = max(1, round(PERIOD / max((now - self._since) / self._steps, 1e-3)))
        answers = torch.tensor([signum, int(due and trainer.is_global_zero), wait])
        torch.distributed.all_reduce(answers, torch.distributed.ReduceOp.MAX, group=self._group)
        signum, due_somewhere, self._wait = answers.tolist()
        self._steps, self._since = 0, now
        return signum, bool(due_somewhere)


@contextlib.contextmanager
def stopped_runs_can_continue(folder: RunFolder) -> Iterator[None]:
    """Within it, the line of a run that is told to stop says how to continue it; SLURM is asked to requeue the job.

    Args:
        folder: the run folder.
    """
    try:
        yield
    except (Stopped, Exception) as error:
        stopped = stopping.as_stopped(error)
        how = f"continue with --resume {folder.path}" if folder.last.is_file() else "nothing was trained yet"
        if stopped is None and stopping.is_lost_connection(error):
            raise LostProcess(f"{stopping.LOST}; {how}") from error
        if stopped is None:
            raise
        if stopping.is_of_scheduler(stopped.signum) and process_rank() == 0:
            how += f"; {_requeue()}"
        raise Stopped(stopped.signum, f"{stopped}; {how}") from None


def _requeue() -> str:
    """Asks SLURM to start this job again; says what came of it."""
    job = os.environ.get("SLURM_ARRAY_JOB_ID", "")
    job = f"{job}_{os.environ['SLURM_ARRAY_TASK_ID']}" if job else os.environ.get("SLURM_JOB_ID", "")
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", "") or str(error)).strip()
        return f"SLURM did not requeue job {job}: {reason}"
    return f"SLURM requeues job {job}"


def stop_together(trainer: pl.Trainer) -> None:
    """From here on a signal that reaches one process of a Trainer is handed to all that it has started by then."""
    if trainer.num_devices * trainer.num_nodes > 1:
        stopping.listen()  # a spawned process has not yet
        stopping.tell_others(lambda signum: _tell(trainer, signum))
        start_children_within(trainer, stopping.later)


class StopTogether(pl.Callback):
    """Hands signals to all processes that the Trainer has started, and keeps the Trainer from handling them itself."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        leave_signals_alone(trainer)
        if (signum := requeue_signal(trainer)) is not None:
            stopping.listen(signum)
        stop_together(trainer)


def _tell(trainer: pl.Trainer, signum: int) -> None:
    if trains_in_children(trainer):
        _tell_family(signum)
        return
    if not trainer.is_global_zero:
        if ENVIRONMENT_VARIABLE in os.environ:  # the first process has started this one
            stopping.signal_parent(signum)
        return
    children = child_processes(trainer)
    # Lightning watches them, and sends this process a signal when one has ended.
    lost = [process for process in children if process.returncode not in (None, 0)]
    for process in children:
        process.send_signal(signum)
    if lost:
        rank = children.index(lost[0]) + 1
        raise LostProcess(f"process {rank} of this run {_how(lost[0].returncode)}: no process can go on alone")


def _tell_family(signum: int) -> None:
    """Of ``ddp_spawn`` and ``ddp_fork``: the process that started the others trains nothing and waits for them."""
    if multiprocessing.parent_process() is not None:
        stopping.signal_parent(signum)
        return
    children = multiprocessing.active_children()
    for process in children:
        if process.pid is not None:
            os.kill(process.pid, signum)
    for process in children:
        process.join()


def _how(status: int) -> str:
    """How a process ended."""
    if status >= 0:
        return f"has failed with status {status} (its own message says why)"
    name = signal.Signals(-status).name
    return f"was ended by {name}" + (" (for lack of memory?)" if name == "SIGKILL" else "")
