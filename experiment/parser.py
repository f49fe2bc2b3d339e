"""The command-line parser: short help, and errors in one line with the nearest known name."""

import argparse
import importlib
import inspect
import re
import typing
from typing import Any, NoReturn

import jsonargparse._typehints as typehints
import pytorch_lightning as pl
import yaml
from jsonargparse import Namespace
from pytorch_lightning.cli import LightningArgumentParser

from .errors import UserError, did_you_mean

# What --help shows of the Trainer; --trainer.help shows all.
COMMON_TRAINER_OPTIONS = (
    "accelerator",
    "devices",
    "strategy",
    "precision",
    "max_epochs",
    "max_steps",
    "callbacks",
    "logger",
    "limit_train_batches",
    "limit_val_batches",
    "limit_test_batches",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "val_check_interval",
    "log_every_n_steps",
)


class Parser(LightningArgumentParser):
    """LightningArgumentParser that raises :class:`UserError` with one line instead of printing usage and errors."""

    help_for_trainer = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(explain(message, self)) from ex

    def format_help(self) -> str:
        for action in self._actions:
            name = (action.dest or "").removeprefix("trainer.")
            is_trainer = (action.dest or "").startswith("trainer.")
            if is_trainer and not self.help_for_trainer and name not in COMMON_TRAINER_OPTIONS:
                action.help = argparse.SUPPRESS
        return super().format_help()

    def format_usage(self) -> str:
        return f"usage: {self.prog} {self.usage}\n"


def _drop_arguments_of_other_class(parser_or_action: Any, previous: Any, value: Any) -> None:
    """A class that replaces another starts from its own defaults.

    jsonargparse keeps those arguments of the old class that have the same name in the new one, even where they were
    only defaults: ``encoder: DIMEncoder`` would get the code size of the default ``BlogEncoder``.
    """
    if previous and "init_args" in previous and previous["class_path"] != value["class_path"]:
        arguments = previous["init_args"]
        for key in list(arguments.keys() if isinstance(arguments, dict) else vars(arguments)):
            del arguments[key]


typehints.discard_init_args_on_class_path_change = _drop_arguments_of_other_class


def explain(message: str, parser: LightningArgumentParser) -> str:
    """One line for an error message of jsonargparse, with the nearest known name."""
    options = [action.dest for action in parser._actions if action.dest and action.dest != "help"]
    if match := re.search(r"[Uu]nrecognized arguments: (.+)", message):
        unknown = match[1].split()[0]
        key = unknown.lstrip("-").split("=")[0]
        return f"unknown option {unknown.split('=')[0]}{did_you_mean(key, options)} (--help lists the options)"
    key = ".".join(re.findall(r'Parser key "([^"]+)"', message)) or "the configuration"
    if key.startswith("config") and (match := re.search(r"File does not exist: '?([^'\n]+)'?", message)):
        return f"no such configuration file: {match[1]}"
    if match := re.search(r"class_path '([^']+)':\s+Option '([^']+)' is not accepted", _last_problem(message)):
        class_path, option = match.groups()
        known = _arguments_of(class_path)
        name = class_path.rsplit(".", 1)[-1]
        return f"{key}: {name} has no argument '{option}'{did_you_mean(option, known)} (it has {', '.join(known)})"
    if match := re.search(r"Expected a dot import path string: (\S+)", message):
        return _unknown_class(key, match[1], parser)
    if match := re.search(r"(?:Unable to import|Problem with given class_path) '?([\w.]+)'?", message):
        head = f"{key}: {match[1]}"
        tail = _innermost(message)
        return f"{head}: {tail}" if tail else head
    if match := re.search(r"[Kk]ey '?\"?([\w.]+)'?\"? is not expected|No action for key \"([\w.]+)\"", message):
        unknown = match[1] or match[2]
        return f"unknown key '{unknown}'{did_you_mean(unknown, options)}"
    if match := re.search(r'Key "([\w.]+)" is required', message):
        return f"{match[1]} is missing: set it in the configuration or with --{match[1]}="
    detail = _innermost(message) or " ".join(message.split())
    return f"{key}: {detail}" if key not in detail else detail


def _last_problem(message: str) -> str:
    """The message from the innermost class on that was given by name (the base class is tried too; it knows less)."""
    problems = [part for part in message.split("- Problem with given class_path ") if "is not accepted" in part]
    for part in problems:
        if not part.startswith("'pytorch_lightning."):
            return "class_path " + part
    return message


def _innermost(message: str) -> str:
    """What was expected and what was given, from a nested message of jsonargparse."""
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
    expected = [line for line in lines if line.startswith("Expected") and "NoneType" not in line]
    given = re.search(r"Got value: (.+)|Given value: (.+)", message)
    if expected:
        text = re.sub(r"<class '([\w.]+)'>", r"\1", expected[-1])
        if "Got value" not in text and given:
            text += f". Got value: {given[1] or given[2]}"
        return text
    return lines[-1] if lines else ""


def _arguments_of(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    return [argument for argument in inspect.signature(cls.__init__).parameters if argument not in ("self", "kwargs")]


def _unknown_class(key: str, name: str, parser: LightningArgumentParser) -> str:
    names = sorted(
        {
            cls.__name__
            for base in _slot_types(key)
            for cls in _subclasses(base)
            if not inspect.isabstract(cls) and not cls.__name__.startswith("_")
        }
    )
    known = f" (known: {', '.join(names)})" if 0 < len(names) <= 12 else ""
    return f"{key}: no class '{name}'{did_you_mean(name, names)}{known}"


def _slot_types(key: str) -> list[type]:
    """The base classes that the value of a configuration key may have."""
    tops = {"model": pl.LightningModule, "data": pl.LightningDataModule, "trainer.callbacks": pl.Callback}
    if key in tops:
        return [tops[key]]
    if key == "trainer.logger":
        return [pl.loggers.Logger]
    found: list[type] = []
    for owner in (pl.LightningModule, pl.LightningDataModule, pl.Callback):
        for cls in _subclasses(owner):
            annotation = getattr(cls.__init__, "__annotations__", {}).get(key.rsplit(".", 1)[-1])
            found += _classes_in(annotation)
    return found


def _classes_in(annotation: Any) -> list[type]:
    if isinstance(annotation, list):  # the arguments of a Callable
        return []
    arguments = typing.get_args(annotation)
    if arguments:
        return [cls for argument in arguments for cls in _classes_in(argument)]
    is_slot = isinstance(annotation, type) and annotation.__module__ != "builtins" and annotation is not type(None)
    return [annotation] if is_slot else []


def _subclasses(cls: type) -> list[type]:
    return [cls, *(deeper for sub in cls.__subclasses__() for deeper in _subclasses(sub))]


def plain_config(config: Namespace, parser: LightningArgumentParser) -> dict[str, Any]:
    """The configuration as plain values, without what belongs to one invocation only."""
    text = parser.dump(config, skip_link_targets=True, skip_none=False, format="yaml")
    plain = yaml.safe_load(text)
    for name in ("run_dir", "resume", "config"):
        plain.pop(name, None)
    return plain
