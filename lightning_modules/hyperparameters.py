"""Hyperparameters that a checkpoint can hold as plain values."""

import inspect
from functools import partial
from pathlib import PurePath
from typing import Any

import pytorch_lightning as pl


def save_plain_hyperparameters(module: pl.LightningModule) -> None:
    """Saves the arguments of the calling ``__init__``, so that a checkpoint loads with ``weights_only=True``.

    As ``module.save_hyperparameters()``, but a slot that was filled from Python by a class or a ``partial`` of one is
    stored as ``{"class_path", "init_args"}``, the way the command line stores it, and paths as strings. Call it as the
    first statement of ``__init__`` after ``super().__init__()``.
    """
    module.save_hyperparameters(frame=inspect.currentframe().f_back)
    if "_class_path" in module.hparams:  # built by the command line: plain already
        return
    plain = {name: _plain(value) for name, value in module.hparams.items()}
    plain["_class_path"] = _path(type(module))
    plain["_instantiator"] = "pytorch_lightning.cli.instantiate_module"
    module.hparams.clear()
    module.save_hyperparameters(plain)


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _plain(value: Any) -> Any:
    if isinstance(value, type):
        return {"class_path": _path(value)}
    if isinstance(value, partial) and isinstance(value.func, type):
        return {"class_path": _path(value.func), "init_args": {k: _plain(v) for k, v in value.keywords.items()}}
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
