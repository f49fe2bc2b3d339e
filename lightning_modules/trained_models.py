"""Models of this project from their checkpoints, without trainer or data."""

import difflib
import importlib
from contextvars import Context
from pathlib import Path
from typing import Any, Self

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import instantiate_module

from readers.files import user_path

# In a run folder, best first.
CHECKPOINTS = ("checkpoints/best.ckpt", "checkpoints/last.ckpt")


class LoadsTrained:
    """Mixin for a module that is used from Python: ``model = Model.load("runs/NAME/TIME")``."""

    @classmethod
    def load(cls, run_or_checkpoint: str | Path) -> Self:
        """The trained model of a run folder (its best checkpoint, else the last) or of a checkpoint; on the CPU, in
        evaluation mode. Neither a Trainer nor data is needed.

        Raises:
            ValueError: there is none, it can't be read, or it is of another class; the message is one line.
        """
        path = find_checkpoint(run_or_checkpoint)
        hyperparameters, _ = read_model(path)
        try:
            model_class = import_model_class(hyperparameters["_class_path"])
        except ValueError as error:
            raise ValueError(f"{path} holds {error}") from None
        if not issubclass(model_class, cls):
            raise ValueError(f"{path} holds a {model_class.__name__}: load it with {model_class.__name__}.load")
        # In its own context, as in ``build_model``.
        return Context().run(model_class.load_from_checkpoint, path, map_location="cpu", weights_only=True).eval()


def find_checkpoint(target: str | Path) -> Path:
    """The checkpoint that a user names: a file, or the best (else the last) one of a run folder.

    Raises:
        ValueError: if there is none.
    """
    path = user_path(target)
    if path.is_dir():
        for candidate in (path / name for name in CHECKPOINTS):
            if candidate.is_file():
                return candidate
        raise ValueError(f"no checkpoint in {path}: name a run folder (runs/NAME/TIME) or a checkpoint file")
    if not path.is_file():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, n=3, cutoff=0.7)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise ValueError(f"no such run folder or checkpoint: {target}{hint}")
    return path


def read_checkpoint(path: Path) -> Any:
    """The contents of a checkpoint file, on the CPU; no code in it is run.

    Raises:
        ValueError: if it can't be read.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises nearly any exception on broken files
        if path.suffix in (".yaml", ".yml", ".json", ".csv", ".png"):
            raise ValueError(f"{path} is no checkpoint: name a run folder (runs/NAME/TIME) or a .ckpt file") from None
        raise ValueError(f"corrupt checkpoint, or not a checkpoint: {path} ({type(error).__name__})") from error


def read_model(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The hyperparameters of a checkpoint's model, with its class as ``_class_path``, and its weights.

    Raises:
        ValueError: if the file is corrupt, or holds no model of this project.
    """
    checkpoint = read_checkpoint(path)
    hyperparameters = checkpoint.get("hyper_parameters", {}) if isinstance(checkpoint, dict) else {}
    if not isinstance(hyperparameters, dict) or "_class_path" not in hyperparameters or "state_dict" not in checkpoint:
        raise ValueError(f"foreign checkpoint: {path} was not written by scripts/train.py of this project")
    return dict(hyperparameters), checkpoint["state_dict"]


def import_model_class(class_path: str) -> type[pl.LightningModule]:
    """The class of a model.

    Raises:
        ValueError: if it can't be imported, or is not a model.
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
        ValueError: if its class can't be imported.
    """
    arguments = {name: value for name, value in hyperparameters.items() if name != "_instantiator"}
    # In its own context: otherwise a module that the command line is building would pass its hyperparameters down to
    # this one.
    return Context().run(instantiate_module, import_model_class(hyperparameters["_class_path"]), arguments)
