"""``--init_from``: a new run starts from the weights of another one, and from nothing else of it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from lightning_modules.trained_models import find_checkpoint, read_checkpoint

from ..console import say
from ..errors import UserError

# As many names as fit in one line of an error message.
_MAX_CHARACTERS = 420
_OTHER_SHAPE = re.compile(r"size mismatch for ([\w.]+): copying a param with shape (.+?) from checkpoint, the shape")


def hyperparameters_in(target: str) -> dict[str, Any]:
    """Those of the model in a run or checkpoint; empty if the file holds none.

    Raises:
        UserError: no such checkpoint, or it can't be read.
    """
    checkpoint = _read(target)[1]
    found = checkpoint.get("hyper_parameters") if isinstance(checkpoint, dict) else None
    return dict(found) if isinstance(found, dict) else {}


def _read(target: str) -> tuple[Path, Any]:
    try:
        path = find_checkpoint(target)
        return path, read_checkpoint(path)
    except ValueError as error:
        raise UserError(f"--init_from: {error}") from error


def warm_start(model: pl.LightningModule, target: str, partly: bool = False) -> None:
    """Gives a model the validated weights (and buffers) of a run, a checkpoint, or a saved ``state_dict``.

    The checkpoint may be of another configuration, another class, or of plain Lightning: names and shapes decide. Plain
    weights also fit normalised ones (``layers.weights.normalization``).

    Args:
        model: changed in place.
        target: a run folder (its best checkpoint, else the last), or a file.
        partly: what does not fit keeps its initial values in the model, and is named.

    Raises:
        UserError: no such checkpoint; or, unless ``partly``, what does not fit; or nothing fits.
    """
    path, checkpoint = _read(target)
    weights = _weights_in(checkpoint)
    if weights is None:
        raise UserError(f"--init_from: {path} holds no weights (a state_dict)")
    own = model.state_dict()
    other_shape = [
        name
        for name, value in weights.items()
        if isinstance(value, Tensor) and isinstance(own.get(name), Tensor) and value.shape != own[name].shape
    ]
    shapes = {name: f"{name} {_shape(own[name])}, there {_shape(weights[name])}" for name in other_shape}
    fitting = {name: value for name, value in weights.items() if name not in shapes}
    try:
        result = model.load_state_dict(fitting, strict=False)
    except RuntimeError as error:
        # Only weights that the model converts while it loads them.
        found = _OTHER_SHAPE.search(str(error))
        what = f"{found[1]} has another shape there, {found[2]}" if found else " ".join(str(error).split())
        raise UserError(f"--init_from {target} doesn't fit: {what}") from error
    missing = [name for name in result.missing_keys if name not in shapes]
    surplus = list(result.unexpected_keys)
    if len(shapes) + len(missing) >= len(own):
        raise UserError(f"--init_from {target}: nothing of it fits {type(model).__name__}; name another checkpoint")
    parts = [
        (f"of another shape{'' if partly else ' here'}", list(shapes.values())),
        ("not there", missing),
        ("only there", surplus),
    ]
    if partly:
        for what, names in parts[:2]:
            for name in names:
                say(f"--init_from: {name} starts fresh ({what})")
        if surplus:
            say(f"--init_from: not used: {', '.join(surplus)}")
    elif shapes or missing or surplus:
        text = "; ".join(f"{what}: {_listed(names)}" for what, names in parts if names)
        raise UserError(
            f"--init_from {target} doesn't fit: {text} (--init_from_partly: these start fresh, the rest is taken)"
        )
    _mention_other_data(checkpoint, model)
    say(f"weights of {path}: {len(own) - len(shapes) - len(missing)} of {len(own)} tensors")


def _weights_in(checkpoint: Any) -> dict[str, Any] | None:
    if not isinstance(checkpoint, dict):
        return None
    weights = checkpoint.get("state_dict", checkpoint)
    is_state_dict = isinstance(weights, dict) and any(isinstance(value, Tensor) for value in weights.values())
    return dict(weights) if is_state_dict else None


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _listed(names: Sequence[str]) -> str:
    """As many names as fit in a line, and how many more there are."""
    shown: list[str] = []
    for name in names:
        if sum(map(len, shown)) + len(name) > _MAX_CHARACTERS // 3 and shown:
            return f"{', '.join(shown)} and {len(names) - len(shown)} more"
        shown.append(name)
    return ", ".join(shown)


def _mention_other_data(checkpoint: dict[str, Any], model: pl.LightningModule) -> None:
    """Says where tensors fit by their shapes although their rows stand for something else (other words)."""
    saved = checkpoint.get("hyper_parameters", {})
    for name in getattr(model, "data_links", ()):
        before, now = saved.get(name), model.hparams.get(name)
        if not (isinstance(before, list | tuple) and isinstance(now, list | tuple)):
            continue
        if len(before) == len(now) and list(map(str, before)) != list(map(str, now)):
            say(f"--init_from: the data's {name} is another one of the same size: what is learnt of it keeps its place")
