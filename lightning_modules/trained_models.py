"""Models of this project out of their checkpoints, without trainer and data."""

import difflib
import importlib
from contextvars import Context
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import instantiate_module

# Best first: what a run folder has.
CHECKPOINTS = ("checkpoints/best.ckpt", "checkpoints/last.ckpt")


def find_checkpoint(target: str | Path) -> Path:
    """The checkpoint that a user names: a file, or the best (else the last) of a run folder.

    Raises:
        ValueError: if there is none.
    """
    path = Path(target)
    if path.is_dir():
        for candidate in (path / name for name in CHECKPOINTS):
            if candidate.is_file():
                return candidate
        raise ValueError(f"no checkpoint in {path}: name a run folder (runs/NAME/TIME) or a checkpoint file")
    if not path.is_file():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, n=3, cutoff=0.5)
        hint = f"; near are {', '.join(near)}" if near else ""
        raise ValueError(f"no such run folder or checkpoint: {target}{hint}")
    return path


def read_checkpoint(path: Path) -> Any:
    """What a checkpoint file holds, on the CPU; no code in it is run.

    Raises:
        ValueError: if it can't be read.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises nearly everything on broken files
        raise ValueError(f"corrupt checkpoint, or no checkpoint at all: {path} ({type(error).__name__})") from error


def read_model(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What a checkpoint says of its model: hyperparameters, of which ``_class_path`` is the class; and the weights.

    Raises:
        ValueError: if the file is corrupt, or has no model of this project.
    """
    checkpoint = read_checkpoint(path)
    hyperparameters = checkpoint.get("hyper_parameters", {}) if isinstance(checkpoint, dict) else {}
    if not isinstance(hyperparameters, dict) or "_class_path" not in hyperparameters or "state_dict" not in checkpoint:
        raise ValueError(f"foreign checkpoint: {path} was not written by scripts/train.py of this project")
    return dict(hyperparameters), checkpoint["state_dict"]


def import_model_class(class_path: str) -> type[pl.LightningModule]:
    """The class of a model.

    Raises:
        ValueError: if it isn't there, or is no model.
    """
    module, _, name = str(class_path).rpartition(".")
    try:
        model_class = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        raise ValueError(f"a model of a class that is not here: {class_path or 'unnamed'}") from None
    if not isinstance(model_class, type) or not issubclass(model_class, pl.LightningModule):
        raise ValueError(f"a {class_path}, which is no model")
    return model_class


def build_model(hyperparameters: dict[str, Any]) -> pl.LightningModule:
    """A model as its checkpoint describes it, with new weights.

    Raises:
        ValueError: if its class isn't there.
    """
    arguments = {name: value for name, value in hyperparameters.items() if name != "_instantiator"}
    # In a context of its own: a module that is being built by the command line would else hand its own hyperparameters
    # down to this one.
    return Context().run(instantiate_module, import_model_class(hyperparameters["_class_path"]), arguments)
