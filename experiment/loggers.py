"""Loggers: metrics.csv and pictures in the run folder always; W&B, TensorBoard, MLflow and others on request."""

import csv
import importlib.util
import io
import netrc
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from readers.files import replacing

from .console import say
from .errors import UserError
from .private_api import drop_wandb_setting, give_loggers_a_folder
from .run_folder import RunFolder, write_atomically

# Packages of Lightning's loggers, one of which is needed; then how to get one.
_LOGGERS_EXTRA = "pip install 'scientific-spaces-lightning[loggers]' (in a clone: pip install -e '.[loggers]')"
PACKAGES = {
    "TensorBoardLogger": (("tensorboard", "tensorboardX"), _LOGGERS_EXTRA),
    "MLFlowLogger": (("mlflow",), _LOGGERS_EXTRA),
    "WandbLogger": (("wandb",), "pip install wandb"),
    "CometLogger": (("comet_ml",), "pip install comet_ml"),
    "NeptuneLogger": (("neptune",), "pip install neptune"),
    "LitLogger": (("litlogger",), "pip install litlogger"),
}
# Where they write unless told otherwise, relative to the working folder; here, to the run folder.
DEFAULT_FOLDERS = {"TensorBoardLogger": ".", "CSVLogger": ".", "MLFlowLogger": "./mlruns"}

give_loggers_a_folder()


class FolderLogger(Logger):
    """Appends metrics to ``metrics.csv``, writes pictures to ``pictures/`` and files beside them.

    One row per logging call: ``step`` (optimizer steps so far), ``epoch``, and the metrics; a new metric adds a column.
    A row is on disk as soon as it is logged.
    """

    def __init__(self, folder: RunFolder) -> None:
        super().__init__()
        self.folder = folder
        self.columns: list[str] = []
        self.num_rows = 0

    @property
    def name(self) -> str:
        return "folder"

    @property
    def version(self) -> str:
        return self.folder.path.name

    @property
    def save_dir(self) -> str:
        return str(self.folder.path)

    @rank_zero_only
    def resume(self, num_rows: int, pending_row: dict[str, float]) -> None:
        """Continues after the first ``num_rows`` rows of the file; later ones are dropped, ``pending_row`` is added."""
        rows = _read(self.folder.metrics_file)[:num_rows]
        self.columns = list(dict.fromkeys(column for row in rows for column in row))
        self.num_rows = len(rows)
        self._rewrite(rows)
        if pending_row:
            self._append(pending_row)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._append({"step": step or 0, "epoch": metrics.get("epoch", ""), **metrics})

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run folder already has the whole configuration."""

    @rank_zero_only
    def log_image(self, key: str, images: Sequence[Any], step: int | None = None, **kwargs: Any) -> None:
        """Writes ``pictures/<key>.png`` (several images: ``<key>_1.png`` ...); replaces an older one."""
        from PIL import Image

        self.folder.pictures.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(images, 1):
            stem = key.replace("/", "_") + (f"_{number}" if len(images) > 1 else "")
            picture = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
            with replacing(self.folder.pictures / f"{stem}.png") as part:
                picture.save(part, format="png")

    @rank_zero_only
    def log_file(self, name: str, write: Callable[[Path], object]) -> None:
        """Has ``write`` write the file ``name`` in the run folder."""
        write(self.folder.path / name)

    def _append(self, row: dict[str, Any]) -> None:
        new = [name for name in row if name not in self.columns]
        if new:
            rows = _read(self.folder.metrics_file)
            self.columns += new
            self._rewrite(rows)
        with open(self.folder.metrics_file, "a", newline="") as file:
            csv.DictWriter(file, self.columns, restval="").writerow(row)
        self.num_rows += 1

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        if not self.columns:
            self.folder.metrics_file.unlink(missing_ok=True)
            return
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.folder.metrics_file, text.getvalue())


def _read(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics file, each without its empty cells."""
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


def prepare_loggers(configured: Any, folder: RunFolder, run_id: str | None) -> str | None:
    """Completes the arguments of loggers: their folders, and for W&B the run to continue, and online or offline.

    One line says so where W&B runs offline because there is no key.

    Args:
        configured: the logger or loggers of the configuration, changed in place.
        folder: the run folder.
        run_id: id of the W&B run to continue.

    Returns:
        The id of the W&B run; None without W&B, or where it chooses the id (a sweep).

    Raises:
        UserError: a logger's package is not installed.
    """
    wandb_id = None
    for logger in configured if isinstance(configured, list) else [configured]:
        name = getattr(logger, "class_path", "").rsplit(".", 1)[-1]
        packages, way = PACKAGES.get(name, ((), ""))
        if packages and not any(importlib.util.find_spec(package) for package in packages):
            raise UserError(f"trainer.logger: {name} needs the package {' or '.join(packages)}: {way}")
        if name in DEFAULT_FOLDERS and logger.init_args.get("save_dir") == DEFAULT_FOLDERS[name]:
            logger.init_args["save_dir"] = str(folder.path / DEFAULT_FOLDERS[name])
        if name == "MLFlowLogger" and not logger.init_args.get("tracking_uri"):
            # A folder of files, which MLflow 3 admits only on request; a database needs more than its light package.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        if name != "WandbLogger":
            continue
        arguments = logger.init_args
        arguments["save_dir"] = str(folder.path)
        if not os.environ.get("WANDB_SWEEP_ID"):  # a sweep's agent names its runs itself
            arguments["id"] = arguments.get("id") or run_id or _saved_id(folder)
            arguments["resume"] = "allow"
        wandb_id = arguments.get("id")
        # Not Lightning's own `offline`: with it, it refuses `log_model`, though W&B keeps checkpoints for `wandb sync`.
        if arguments.get("offline"):
            arguments["offline"], arguments["mode"] = False, "offline"
        if not os.environ.get("WANDB_MODE"):
            os.environ.pop("WANDB_MODE", None)  # W&B refuses an empty one
            if not (arguments.get("mode") or has_wandb_key()):
                arguments["mode"] = "offline"
                say(
                    "W&B: no API key found, so this run is logged offline; later: "
                    f"wandb login && wandb sync {folder.path / 'wandb'}/offline-run-*"
                )
    return wandb_id


def log_config(trainer: pl.Trainer, config: dict[str, Any]) -> None:
    """Hands the configuration to all loggers."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            drop_wandb_setting(logger, "anonymous")
        logger.log_hyperparams(config)


def finish_wandb(trainer: pl.Trainer, summary: dict[str, Any]) -> None:
    """Adds values to the summary of the W&B run and ends it, where W&B is on."""
    if loggers := [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]:
        import wandb

        for logger in loggers:
            logger.experiment.summary.update(summary)
        wandb.finish()


def has_wandb_key() -> bool:
    """Whether W&B can log in without asking: a key in the environment or (from ``wandb login``) in the netrc file.

    Without importing wandb, which would fix its settings before the logger can make them offline.
    """
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _saved_id(folder: RunFolder) -> str:
    """The id of the run folder's W&B run, made up the first time."""
    file = folder.path / "wandb" / "run_id"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, secrets.token_hex(4))
    return file.read_text().strip()
