"""What the terminal shows: a progress bar or a line per validation, a table at the end, and nothing else."""

import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
from jsonargparse import Namespace
from pytorch_lightning.callbacks import ProgressBar, RichProgressBar
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

from .classes import import_class

# Remarks of Lightning, torch and jsonargparse that a user of this project can do nothing about.
_NOT_FOR_USERS = (
    ".*is deprecated.*",
    ".*will be removed.*",
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*exists and is not empty.*",
    ".*The `srun` command is available.*",
    ".*Trying to infer the `batch_size`.*",
    ".*You called `self.log.*but have no logger configured.*",
    ".*tensorboardX.*",
    ".*Found .* module.* in eval mode.*",
    ".*callbacks used to create the checkpoint.*",
    "Grad strides do not match bucket view strides.*",
)
# What these parts of Lightning log is what they were asked for: profilers' reports, ``verbose`` callbacks.
_FOR_USERS = ("pytorch_lightning.profilers", "pytorch_lightning.callbacks")
# Of a long test that is no terminal's.
SECONDS_BETWEEN_LINES = 30.0


def quiet() -> None:
    """Silences adverts and remarks of the libraries; real warnings and errors stay."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("pytorch_lightning.tuner").setLevel(logging.CRITICAL)  # LightningParts says what it found
    for name in _FOR_USERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [_Says(logging.INFO)], False
        logger.setLevel(logging.INFO)
    for pattern in _NOT_FOR_USERS:
        warnings.filterwarnings("ignore", message=pattern)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.showwarning = _one_line


def _one_line(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    say(f"warning: {' '.join(str(message).split())}")


@rank_zero_only
def say(line: str) -> None:
    """Prints a line for the user, from the first process only."""
    # File names that are not UTF-8 are escaped: the terminal can't show them, and must not fail over them.
    print(line.encode(errors="backslashreplace").decode(), flush=True)


class _Says(logging.Handler):
    """Shows log messages as other lines."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def progress_arguments(settings: Namespace) -> dict[str, Any]:
    """What a Trainer needs to show progress: a bar on a terminal, elsewhere some lines (a log file wants no bar).

    Args:
        settings: the configured arguments of the Trainer. A bar among its callbacks is the only one.
    """
    configured = settings.callbacks or []
    configured = configured if isinstance(configured, list) else [configured]
    if any(issubclass(import_class(callback.class_path), ProgressBar) for callback in configured):
        return {"callbacks": [], "enable_progress_bar": True}
    bar = sys.stdout.isatty() and settings.enable_progress_bar is not False
    return {"callbacks": [_Bar(leave=True) if bar else ValidationLines()], "enable_progress_bar": bar}


class _Heartbeat:
    """Calls ``beat(seconds so far)`` again and again in a thread of its own, until it is stopped."""

    def __init__(self, interval: float, beat: Callable[[float], object]) -> None:
        self._stopped, begun = threading.Event(), time.monotonic()

        def run() -> None:
            while not self._stopped.wait(interval):
                beat(time.monotonic() - begun)

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


class _WatchesMeasures:
    """Gives a sign of life while a test that has seen all batches measures: a probe of all images takes minutes."""

    _heartbeat: _Heartbeat | None = None

    def _watch(self, trainer: pl.Trainer, interval: float, beat: Callable[[float], object]) -> None:
        self._unwatch()
        if trainer.is_global_zero:
            self._heartbeat = _Heartbeat(interval, beat)

    def _unwatch(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None

    def on_test_end(self, *args: Any) -> None:
        self._unwatch()
        super().on_test_end(*args)  # type: ignore[misc]

    def on_exception(self, *args: Any) -> None:
        self._unwatch()
        super().on_exception(*args)  # type: ignore[misc]


class _Bar(_WatchesMeasures, RichProgressBar):
    """With what callbacks show, without the version of the logger, which says nothing here."""

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_test_epoch_end(trainer, pl_module)
        if progress := self.progress:
            progress.add_task("Measuring", total=float("inf"))
            self._watch(trainer, 0.5, lambda _: progress.refresh())

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        metrics = {**super().get_metrics(trainer, pl_module), **_shown_by_callbacks(trainer)}
        return {name: value for name, value in metrics.items() if name != "v_num"}


def _shown_by_callbacks(trainer: pl.Trainer) -> dict[str, float]:
    """What callbacks with a method ``shown()`` want to be shown beside the metrics of the bar."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    shown = (callback.shown() for callback in callbacks if hasattr(callback, "shown"))
    return {name: value for values in shown for name, value in values.items()}


class ValidationLines(_WatchesMeasures, pl.Callback):
    """Prints the metrics of each validation on one line, and now and then how far a test is."""

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._batches, self._last = 0, time.monotonic()

    def on_test_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self._batches += 1
        if time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            total = sum(trainer.num_test_batches)
            say(f"test: batch {self._batches}" + (f" of {int(total)}" if total < float("inf") else ""))

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        def beat(seconds: float) -> None:
            say(f"test: all {self._batches} batches done, measuring for {timedelta(seconds=round(seconds))}")

        self._watch(trainer, SECONDS_BETWEEN_LINES, beat)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        named = {name: value for name, value in metrics.items() if name.startswith("val/")}
        metrics = named or {name: value for name, value in metrics.items() if not name.startswith("train")}
        metrics |= _shown_by_callbacks(trainer)
        text = "  ".join(f"{name} {_number(name, value)}" for name, value in sorted(metrics.items()))
        say(f"epoch {trainer.current_epoch}  step {trainer.global_step}  {text}")


def _number(name: str, value: float) -> str:
    """A metric for the terminal: counts (``val/num_modules``) are whole numbers."""
    is_count = name.rpartition("/")[2].startswith("num_") and float(value).is_integer()
    return f"{value:.0f}" if is_count else f"{value:.4f}"


@rank_zero_only
def print_metrics(metrics: dict[str, float], title: str) -> None:
    """Prints metrics as a table: ``test/a/b/name`` goes in row ``test/a/b``, column ``name``."""
    console = Console(width=None if sys.stdout.isatty() else 110)
    cells: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        *path, column = name.split("/")
        cells.setdefault("/".join(path), {})[column] = value
    columns = list(dict.fromkeys(column for row in cells.values() for column in row))
    console.print(title, highlight=False)
    table = Table()
    if len(cells) > 1 and len(columns) <= 8:
        table.add_column("")
        for column in columns:
            table.add_column(column.replace("_", " "), justify="right")
        for row, values in cells.items():
            table.add_row(row, *(_number(column, values[column]) if column in values else "" for column in columns))
    else:
        table.add_column("metric")
        table.add_column("value", justify="right")
        for name, value in metrics.items():
            table.add_row(name, _number(name, value))
    console.print(table)
