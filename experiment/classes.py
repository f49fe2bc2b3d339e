"""The classes that a configuration can name."""

import importlib
import inspect
import typing
from typing import Any

import pytorch_lightning as pl

BASES = (pl.LightningModule, pl.LightningDataModule, pl.Callback)


def import_class(class_path: str) -> Any:
    """The class at a full import path, as a parsed configuration has it."""
    module, _, name = class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def is_importable(class_path: str) -> bool:
    """Whether there is anything at an import path."""
    try:
        import_class(class_path)
    except (ImportError, ValueError, AttributeError):
        return False
    return True


def parameters(cls: Any) -> dict[str, inspect.Parameter]:
    """The arguments of a class by name."""
    return {name: p for name, p in inspect.signature(cls.__init__).parameters.items() if name != "self"}


def classes_for(base: type) -> list[type]:
    """The classes that may fill a slot: those that can be built, are not private and not the command line's own."""
    return [
        cls
        for cls in _subclasses(base)
        if not (inspect.isabstract(cls) or cls in BASES)
        and not (cls.__name__.startswith("_") or cls.__module__.startswith("experiment."))
    ]


def own_classes(base: type) -> list[type]:
    """The classes of this project (and the user's own) for a slot, by name."""
    ours = [cls for cls in classes_for(base) if not cls.__module__.startswith("pytorch_lightning.")]
    return sorted(ours, key=lambda cls: cls.__name__)


def summaries(base: type) -> dict[str, str]:
    """Names and first paragraphs of the classes of this project (and the user's own) for a slot."""
    return {cls.__name__: (inspect.getdoc(cls) or "").split("\n\n")[0] for cls in own_classes(base)}


def annotation_of(owner: Any, argument: str) -> Any:
    """The declared type of an argument; None if there is none, or it can't be resolved."""
    try:
        hints = typing.get_type_hints(owner.__init__)
    except (NameError, TypeError, AttributeError):
        hints = getattr(owner.__init__, "__annotations__", {})
    found = hints.get(argument)
    return None if isinstance(found, str) else found


def type_name(annotation: Any) -> str:
    """The bare name of a type."""
    return getattr(annotation, "__name__", None) or str(annotation).rpartition(".")[2]


def slot_types(key: str) -> list[type]:
    """The base classes of what a key below a section of the configuration may hold."""
    argument, owners = key.rsplit(".", 1)[-1], [owner for base in BASES for owner in _subclasses(base)]
    annotations = [getattr(owner.__init__, "__annotations__", {}).get(argument) for owner in owners]
    return [cls for annotation in annotations for cls in classes_in(annotation)]


def classes_in(annotation: Any) -> list[type]:
    """The classes that a declared type admits, also as what a callable returns."""
    if isinstance(annotation, list):  # the arguments of a Callable
        return []
    if arguments := typing.get_args(annotation):
        return [cls for argument in arguments for cls in classes_in(argument)]
    is_slot = isinstance(annotation, type) and annotation.__module__ != "builtins"
    return [annotation] if is_slot else []


def _subclasses(cls: type) -> list[Any]:
    below: list[type] = cls.__subclasses__()
    return [cls, *(found for subclass in below for found in _subclasses(subclass))]
