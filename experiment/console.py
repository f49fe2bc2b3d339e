"""What the terminal shows: a progress bar or a line per validation, a table at the end, and nothing else."""

import logging
import sys
import warnings
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

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
    ".*CSVLogger.*",
    ".*Found .* module.* in eval mode.*",
    ".*callbacks used to create the checkpoint.*",
    "Grad strides do not match bucket view strides.*",
    ".*isinstance.treespec, LeafSpec.*",
)


def quiet() -> None:
    """Silences adverts and remarks of the libraries; real warnings and errors stay."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
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


def progress_callbacks() -> list[pl.Callback]:
    """A progress bar on a terminal, elsewhere a line per validation (a log file wants no bar)."""
    return [_Bar(leave=True)] if sys.stdout.isatty() else [ValidationLines()]


class _Bar(RichProgressBar):
    """With what callbacks show, without the version of the logger, which says nothing here."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        metrics = {**super().get_metrics(trainer, pl_module), **_shown_by_callbacks(trainer)}
        return {name: value for name, value in metrics.items() if name != "v_num"}


def _shown_by_callbacks(trainer: pl.Trainer) -> dict[str, float]:
    """What callbacks with a method ``shown()`` want to be shown beside the metrics of the bar."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    shown = (callback.shown() for callback in callbacks if hasattr(callback, "shown"))
    return {name: value for values in shown for name, value in values.items()}


class ValidationLines(pl.Callback):
    """Prints the metrics of each validation on one line."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        metrics |= _shown_by_callbacks(trainer)
        text = "  ".join(f"{name} {value:.4f}" for name, value in sorted(metrics.items()))
        say(f"epoch {trainer.current_epoch}  step {trainer.global_step}  {text}")


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
            table.add_row(row, *(f"{values[column]:.4f}" if column in values else "" for column in columns))
    else:
        table.add_column("metric")
        table.add_column("value", justify="right")
        for name, value in metrics.items():
            table.add_row(name, f"{value:.4f}")
    console.print(table)
