"""Checkpoints that are gone on with: read without running code in them, refused in one line where they don't fit."""

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from lightning_modules.trained_models import read_checkpoint

from .errors import UserError, is_expected

# Module and name of those functions of Lightning within which a Trainer or `load_from_checkpoint` restores.
RESTORING = {
    ("pytorch_lightning.trainer.connectors.checkpoint_connector", "_restore_modules_and_callbacks"),
    ("pytorch_lightning.trainer.connectors.checkpoint_connector", "restore_training_state"),
    ("pytorch_lightning.core.saving", "_load_from_checkpoint"),
}


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint of this project.

    Raises:
        UserError: if the file is corrupt or something else.
    """
    if not path.exists():
        raise UserError(f"no such checkpoint: {path}")
    try:
        checkpoint = read_checkpoint(path)
    except ValueError as error:
        raise UserError(str(error)) from error
    if not _is_ours(checkpoint):
        raise UserError(f"foreign checkpoint: {path} was not written by scripts/train.py of this project")
    return checkpoint


def _is_ours(checkpoint: Any) -> bool:
    if not isinstance(checkpoint, dict):
        return False
    experiment = checkpoint.get("experiment")
    parts = [checkpoint.get("state_dict"), checkpoint.get("hyper_parameters", {}), experiment]
    if not all(isinstance(part, dict) for part in parts):
        return False
    version = checkpoint.get("pytorch-lightning_version", "")
    return isinstance(experiment.get("config"), dict) and isinstance(version, str)


@contextlib.contextmanager
def restoring(path: Path | None) -> Iterator[None]:
    """Within it, what Lightning raises while it restores a checkpoint is said in one line.

    Args:
        path: the checkpoint; None where there is none to restore.

    Raises:
        UserError: the checkpoint doesn't fit what it is restored into. What is raised otherwise passes through, as do
            errors that were written for the user.
    """
    try:
        yield
    except Exception as error:
        if path is None or is_expected(error) or not _came_from_restoring(error):
            raise
        lines = [line.strip() for line in str(error).splitlines()]
        # Of many lines about weights, those of other sizes say most.
        detail = " ".join(sorted(lines, key=lambda line: not line.startswith("size mismatch")))
        raise UserError(
            f"{path} can't be restored, it is damaged or of another model or version: {type(error).__name__}: {detail}"
        ) from error


def _came_from_restoring(error: BaseException) -> bool:
    """Whether Lightning was restoring a checkpoint when the error was raised, not writing one or training."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any((frame.f_globals.get("__name__"), frame.f_code.co_name) in RESTORING for frame in frames)


def refuse_other_data(checkpoint: dict[str, Any], model: pl.LightningModule) -> None:
    """Compares what the data gave the model of a checkpoint (a vocabulary, sizes) with what it gives the model now.

    Args:
        checkpoint: as loaded from the file.
        model: built with the present data.

    Raises:
        UserError: names the first that differs.
    """
    for name in getattr(model, "data_links", ()):
        saved, present = map(_frozen, (checkpoint.get("hyper_parameters", {}).get(name), model.hparams[name]))
        if saved == present:
            continue
        if isinstance(saved, tuple) and isinstance(present, tuple):
            raise UserError(
                f"the data's {name} ({len(present):,} entries) is not that of the checkpoint ({len(saved):,}), which "
                f"{_first_difference(saved, present)}: name the data that it was trained with, or train anew"
            )
        raise UserError(
            f"the data's {name} is {present}, the checkpoint's {saved}: name the data that it was trained with, or "
            "train anew"
        )


def _first_difference(saved: tuple, present: tuple) -> str:
    """What the saved entries have or lack; in sets, since there may be hundreds of thousands."""
    before, now = set(saved), set(present)
    for verb, entries, others in (("lacks", present, before), ("also has", saved, now)):
        other = next((entry for entry in entries if entry not in others), None)
        if other is not None:
            return f"{verb} {other!r}"
    return "has them in another order"


def _frozen(value: Any) -> Any:
    """The value with tuples for lists and for dictionaries' entries: to be compared, and looked up in sets."""
    if isinstance(value, dict):
        return tuple((key, _frozen(entry)) for key, entry in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
