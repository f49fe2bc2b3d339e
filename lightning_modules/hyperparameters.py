"""Hyperparameters as plain values, so that checkpoints can hold them."""

import inspect
import typing
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import PurePath
from typing import Any

import pytorch_lightning as pl


def save_plain_hyperparameters(module: pl.LightningModule) -> None:
    """Saves the arguments of the calling ``__init__``, so that a checkpoint loads with ``weights_only=True``.

    Like ``module.save_hyperparameters()``, but a slot filled from Python with a class or a ``partial`` of one is stored
    as ``{"class_path", "init_args"}``, as the command line stores it, and paths as strings. Call it as the first
    statement of ``__init__`` after ``super().__init__()``.

    Slots that the command line filled become plain ``partial`` objects of their classes, so that a module that keeps
    one can be copied and pickled.

    They are not logged: they may hold a whole vocabulary, and the configuration is logged anyway.
    """
    frame = inspect.currentframe()
    caller = frame and frame.f_back
    assert caller is not None
    module.save_hyperparameters(frame=caller, logger=False)
    _forget_parser(caller.f_locals.values())
    if "_class_path" in module.hparams:  # built by the command line: already plain
        return
    slots = _slots(type(module))
    plain = {name: _plain(value, _num_arguments(slots.get(name))) for name, value in module.hparams.items()}
    plain["_class_path"] = _path(type(module))
    plain["_instantiator"] = "pytorch_lightning.cli.instantiate_module"
    module.hparams.clear()
    module.save_hyperparameters(plain, logger=False)


def add_slot_arguments(module: pl.LightningModule, slot: str, arguments: dict[str, Any]) -> None:
    """Adds arguments to those of a slot in a module's saved hyperparameters: what its object found out for itself."""
    if arguments:
        kept = module.hparams[slot]
        module.hparams[slot] = {**kept, "init_args": {**(kept.get("init_args") or {}), **arguments}}


def _forget_parser(arguments: Iterable[Any]) -> None:
    """Makes filled slots ``partial(cls, ...)``, in place: the caller's variables can't be replaced from here.

    jsonargparse fills a slot with ``partial(function, instantiator, cls, ...)``. Its instantiator knows the command
    line, and by it the Trainer and the locked run folder, none of which can be copied or pickled.

    Args:
        arguments: some of them slots, or lists or dictionaries of slots (``**kwargs``).
    """
    for argument in arguments:
        items = argument.values() if isinstance(argument, dict) else argument
        for slot in items if isinstance(argument, dict | list | tuple) else (argument,):
            if not isinstance(slot, partial):
                continue
            if (getattr(slot.func, "__module__", None) or "").startswith("jsonargparse."):
                slot.__setstate__((slot.args[-1], (), slot.keywords, vars(slot)))  # type: ignore[attr-defined]
            _forget_parser(slot.keywords.values())  # slots inside it


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _slots(module_class: type[pl.LightningModule]) -> dict[str, Any]:
    """The annotation of each argument, including those that a subclass passes on as ``**kwargs``."""
    found: dict[str, Any] = {}
    for cls in reversed(module_class.__mro__):
        if issubclass(cls, pl.LightningModule) and cls is not pl.LightningModule and "__init__" in vars(cls):
            found |= typing.get_type_hints(cls.__init__)
    return found


def _num_arguments(annotation: Any) -> int:
    """How many arguments the owner passes to a slot ``Callable[[...], Base]``, alone or in a list."""
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is Callable:
        return len(parts[0]) if isinstance(parts[0], list) else 0
    return max(map(_num_arguments, parts), default=0)


def _plain(value: Any, num_arguments: int = 0) -> Any:
    if isinstance(value, partial) and isinstance(value.func, type):
        return _class_with_arguments(value.func, value.keywords, num_arguments)
    if isinstance(value, type):
        return _class_with_arguments(value, {}, num_arguments)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, tuple | list):
        return [_plain(item, num_arguments) for item in value]
    return value


def _class_with_arguments(cls: type, given: dict[str, Any], num_arguments: int) -> dict[str, Any]:
    """Class and all its arguments but the first ones, which the slot's owner passes.

    All, because missing ones would be taken from the slot's default class when the checkpoint is loaded.
    """
    parameters = dict(list(inspect.signature(cls).parameters.items())[num_arguments:])
    values = {name: p.default for name, p in parameters.items() if p.default is not inspect.Parameter.empty} | given
    slots = {name: _num_arguments(p.annotation) for name, p in parameters.items()}
    return {
        "class_path": _path(cls),
        "init_args": {name: _plain(value, slots.get(name, 0)) for name, value in values.items()},
    }
