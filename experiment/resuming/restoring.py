"""Checkpoints to continue from: read without running code in them, refused in one line where they don't fit."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from lightning_modules.trained_models import read_checkpoint

from ..errors import UserError, is_expected
from ..private_api import raised_while_restoring


def load_checkpoint(path: Path, plain: bool = False) -> dict[str, Any]:
    """Reads a checkpoint of this project.

    Args:
        path: the file.
        plain: one that a Trainer wrote without our command line will do, too.

    Raises:
        UserError: the file is missing, corrupt or something else.
    """
    if not path.exists():
        raise UserError(f"no such checkpoint: {path}")
    try:
        checkpoint = read_checkpoint(path)
    except ValueError as error:
        raise UserError(str(error)) from error
    if _is_ours(checkpoint):
        return checkpoint
    foreign = f"foreign checkpoint: {path} was not written by scripts/train.py of this project"
    if not is_plain(checkpoint):
        raise UserError(foreign)
    if not plain:
        raise UserError(
            f"{foreign} but by plain Lightning, and holds no configuration: make a run of it with train.py -c "
            f"CONFIG --resume {path}"
        )
    return checkpoint


def is_plain(checkpoint: Any) -> bool:
    """Whether a Trainer wrote a checkpoint without our command line: it holds no configuration."""
    if not isinstance(checkpoint, dict) or "experiment" in checkpoint:
        return False
    parts = [checkpoint.get("state_dict"), checkpoint.get("hyper_parameters", {})]
    return "pytorch-lightning_version" in checkpoint and all(isinstance(part, dict) for part in parts)


def _is_ours(checkpoint: Any) -> bool:
    if not isinstance(checkpoint, dict):
        return False
    experiment, version = checkpoint.get("experiment"), checkpoint.get("pytorch-lightning_version", "")
    parts = [checkpoint.get("state_dict"), checkpoint.get("hyper_parameters", {})]
    if not isinstance(experiment, dict) or not all(isinstance(part, dict) for part in parts):
        return False
    return isinstance(experiment.get("config"), dict) and isinstance(version, str)


@contextlib.contextmanager
def restoring(path: Path | None, changed: Sequence[str] = ()) -> Iterator[None]:
    """Turns whatever Lightning raises while it restores a checkpoint into one line.

    Args:
        path: the checkpoint; None if there is none to restore.
        changed: the options of the model that are others than in the checkpoint, to be named where it doesn't fit.

    Raises:
        UserError: the checkpoint doesn't fit what it is restored into. Other errors pass through, as do those that
            were written for the user.
    """
    try:
        yield
    except Exception as error:
        if path is None or is_expected(error) or not raised_while_restoring(error):
            raise
        lines = [line.strip() for line in str(error).splitlines()]
        # Of many lines about weights, those about sizes say most.
        of_weights = any("loading state_dict" in line for line in lines)
        lines.sort(key=lambda line: not line.startswith("size mismatch"))
        if changed and of_weights:
            raise UserError(
                f"--{', --'.join(changed)}: the weights of {path} do not fit the model so changed: leave out what "
                "changes its parts or sizes, or train a new run from the weights that fit "
                f"(train.py --init_from {path} --init_from_partly): {' '.join(lines)}"
            ) from error
        reason = f"it is damaged, or from another model or version: {type(error).__name__}: {' '.join(lines)}"
        raise UserError(f"{path} can't be restored: {reason}") from error


def refuse_other_data(hyperparameters: Mapping[str, Any], model: pl.LightningModule) -> None:
    """Compares what the data gave the model of a checkpoint (a vocabulary, sizes) with what it gives the model now.

    Args:
        hyperparameters: those in the checkpoint.
        model: built with the present data.

    Raises:
        UserError: names the first difference.
    """
    for name in getattr(model, "data_links", ()):
        if name not in hyperparameters:  # of plain Lightning
            continue
        saved, present = map(_frozen, (hyperparameters.get(name), model.hparams[name]))
        if saved == present:
            continue
        if isinstance(saved, tuple) and isinstance(present, tuple):
            raise UserError(
                f"the data's {name} ({len(present):,} entries) is not that of the checkpoint ({len(saved):,}), which "
                f"{_first_difference(saved, present)}: name the data it was trained with, or train anew"
            )
        raise UserError(
            f"the data's {name} is {present}, the checkpoint's {saved}: name the data it was trained with, or train "
            "anew"
        )


def _first_difference(saved: tuple, present: tuple) -> str:
    """What the saved entries have or lack; by sets, since there may be hundreds of thousands."""
    before, now = set(saved), set(present)
    for verb, entries, others in (("lacks", present, before), ("also has", saved, now)):
        other = next((entry for entry in entries if entry not in others), None)
        if other is not None:
            return f"{verb} {other!r}"
    return "has them in another order"


def _frozen(value: Any) -> Any:
    """The value with tuples in place of lists and dictionaries, to compare them and to look them up in sets."""
    if isinstance(value, dict):
        return tuple((key, _frozen(entry)) for key, entry in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
