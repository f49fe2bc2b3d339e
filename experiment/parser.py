"""The command-line parser: short help, and errors in one line with the nearest known name."""

import argparse
import importlib
import inspect
import re
import textwrap
import typing
from collections.abc import Sequence
from typing import Any, NoReturn

import jsonargparse._typehints as typehints
import pytorch_lightning as pl
import yaml
from jsonargparse import Namespace
from pytorch_lightning.cli import LightningArgumentParser

from .errors import UserError, did_you_mean

# What --help shows of the Trainer; --trainer.help shows all.
COMMON_TRAINER_OPTIONS = {
    "max_epochs": "epochs to train",
    "max_steps": "optimizer steps to train; -1: no limit",
    "accelerator": "auto, cpu, gpu, mps",
    "devices": "number of processes, each with its device; -1: all GPUs",
    "strategy": "auto, ddp, fsdp ...",
    "precision": "32-true, bf16-mixed, 16-mixed ...; left open: bf16-mixed where the hardware computes in it",
    "limit_train_batches": "batches of an epoch, a number or a share; also limit_val_batches, limit_test_batches",
    "accumulate_grad_batches": "batches an optimizer step",
    "gradient_clip_val": "largest norm of the gradient",
    "val_check_interval": "validations: a share of an epoch, or a number of batches",
    "log_every_n_steps": "steps between two rows of metrics.csv",
    "callbacks+": "add a callback, e.g. --trainer.callbacks+=CodeMap --trainer.callbacks.num_points=500",
}


class Parser(LightningArgumentParser):
    """LightningArgumentParser that raises ``UserError`` with one line instead of printing usage and errors."""

    # Set on the parser of a whole experiment: its --help lists what one needs, not everything.
    narrow_help = False
    # Set there too: the arguments that the model names in `data_links` are attributes of the data.
    links_model_to_data = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def validate(self, namespace: Namespace, *args: Any, **kwargs: Any) -> None:
        """Checks a configuration, as is done before one is used or written: the moment at which the model is known.

        Linked are the names of this model alone, so that another one's argument of such a name is an argument as any.
        """
        model = namespace.get("model") if self.links_model_to_data else None
        if model is not None and _importable(model.class_path):
            self._link(getattr(import_class(model.class_path), "data_links", ()))
        super().validate(namespace, *args, **kwargs)

    def _link(self, names: Sequence[str]) -> None:
        if hasattr(self, "_links_group"):  # those of the model of an earlier configuration
            self._links_group._group_actions.clear()
            next(action for action in self._actions if action.dest == "model").sub_add_kwargs["linked_targets"] = set()
        for name in names:
            self.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def format_help(self) -> str:
        if not self.narrow_help:
            return super().format_help()
        own = ("help", "config", "print_config", "seed_everything", "run_dir", "resume", "save_every")
        options = {
            ", ".join(action.option_strings): action.help
            for action in self._actions
            if action.dest in own and action.option_strings and "+" not in action.option_strings[0]
        }
        options["--debug"] = "show the traceback of an error"
        trainer = {f"--trainer.{name}": text for name, text in COMMON_TRAINER_OPTIONS.items()}
        sections = [
            ("options", options),
            ("trainer (all of it: --trainer.help)", trainer),
            ("models (--model=NAME; arguments: --model.help=NAME, then --model.ARGUMENT=)", _ours(pl.LightningModule)),
            ("data (--data=NAME; arguments: --data.help=NAME, then --data.ARGUMENT=)", _ours(pl.LightningDataModule)),
            ("callbacks (--trainer.callbacks+=NAME; arguments: --trainer.callbacks.help=NAME)", _ours(pl.Callback)),
        ]
        lines = [f"usage: {self.usage}", "", self.description]
        for title, entries in sections:
            lines.append(f"{title}:")
            for name, text in entries.items():
                wrapped = textwrap.wrap(" ".join((text or "").split()), 86) or [""]
                lines += [f"  {name:30} {wrapped[0]}"] if len(name) <= 30 else [f"  {name}", " " * 33 + wrapped[0]]
                lines += [" " * 33 + line for line in wrapped[1:]]
            lines.append("")
        return "\n".join(lines)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # a parser for one class of a slot: its message becomes part of the outer one
            super().error(message, ex)
        raise UserError(explain(message, self)) from ex

    def print_trainer_help(self) -> NoReturn:
        """All options of the Trainer."""
        self.narrow_help = False
        for action in self._actions:
            if not (action.dest or "").startswith("trainer."):
                action.help = argparse.SUPPRESS
        self.print_help()
        raise SystemExit(0)


def import_class(class_path: str) -> type:
    """The class of a full import path, as a parsed configuration has it."""
    module, _, name = class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)


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
        unknown = match[1].split()[0].split("=")[0]
        return f"unknown option {unknown}{did_you_mean(unknown.lstrip('-'), options)} (--help lists the options)"
    if match := re.match(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
        unknown = f"{match[1]}.{match[2]}"
        return f"unknown key '{unknown}'{did_you_mean(unknown, options)}"
    if match := re.match(r"Option '([\w.]+)' is not accepted", message):
        unknown = match[1].split(".")[0]
        return f"unknown key '{unknown}'{did_you_mean(unknown, [name.split('.')[0] for name in options])}"
    if match := re.search(r'Key "([\w.]+)" is required', message):
        return f"{match[1]} is missing: set it in the configuration or with --{match[1]}="
    key = ".".join(re.findall(r'Parser key "([^"]+)"', message)) or "configuration"
    if match := re.search(r"class_path '[\w.]*?(\w+)':\s+the following arguments are required: (\w+)", message):
        return f"{key}: {match[1]} needs {match[2]}: set it in the configuration or with --{key}.{match[2]}="
    if match := re.search(r"class_path '([^']+)':\s+Option '([^']+)' is not accepted", _last_problem(message)):
        return _unknown_argument(key, match[1], match[2])
    if match := re.search(r"Option '([^']+)' is not accepted\. Got value: Namespace\(class_path='([^']+)'", message):
        return _unknown_argument(key, match[2], match[1])
    if match := re.search(r"Expected a dot import path string: (\S+)", message):
        return _unknown_class(key, match[1])
    if (match := re.search(r"'?class_path'?[:=] ?'([\w.]+)'", message)) and not _importable(match[1]):
        return _unknown_class(key, match[1].rsplit(".", 1)[-1])
    return f"{key}: {_innermost(message)}"


def _importable(class_path: str) -> bool:
    module, _, name = class_path.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), name)
    except (ImportError, ValueError):
        return False


def _last_problem(message: str) -> str:
    """The message from the innermost class on that was given by name (the base class is tried too; it knows less)."""
    problems = [part for part in message.split("- Problem with given class_path ") if "is not accepted" in part]
    for part in problems:
        if not part.startswith("'pytorch_lightning."):
            return "class_path " + part
    return message


def _innermost(message: str) -> str:
    """What was expected and what was given, from a nested message of jsonargparse; else its last line."""
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
    expected = [line for line in lines if line.startswith("Expected") and "NoneType" not in line]
    given = re.search(r"Got value: (.+)|Given value: (.+)", message)
    if expected:
        text = re.sub(r"<class '([\w.]+)'>", r"\1", expected[-1])
        if "Got value" not in text and given:
            text += f". Got value: {given[1] or given[2]}"
        return text
    return lines[-1] if lines else ""


def _unknown_argument(key: str, class_path: str, option: str) -> str:
    module, _, name = class_path.rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), name).__init__).parameters
    known = [parameter for parameter in parameters if parameter not in ("self", "kwargs")]
    if option in known:
        return f"{key}: {name}'s '{option}' is set by the module that holds it, not here"
    return f"{key}: {name} has no argument '{option}'{did_you_mean(option, known)} (it has {', '.join(known)})"


def _unknown_class(key: str, name: str) -> str:
    names = sorted({cls.__name__ for base in _slot_types(key) for cls in _offered(base)})
    known = f" (known: {', '.join(names)})" if 0 < len(names) <= 12 else ""
    return f"{key}: no class '{name}'{did_you_mean(name, names)}{known}"


def _slot_types(key: str) -> list[type]:
    """The base classes that the value of a configuration key may have."""
    tops = {
        "model": pl.LightningModule,
        "data": pl.LightningDataModule,
        "trainer.callbacks": pl.Callback,
        "trainer.logger": pl.loggers.Logger,
    }
    if key in tops:
        return [tops[key]]
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


def _ours(base: type) -> dict[str, str]:
    """Names and first sentences of this project's classes (and the user's own) for a slot."""
    packages = ("pytorch_lightning", "experiment")
    classes = [cls for cls in _offered(base) if not cls.__module__.startswith(packages)]
    return {
        cls.__name__: (inspect.getdoc(cls) or "").split("\n\n")[0]
        for cls in sorted(classes, key=lambda cls: cls.__name__)
    }


def _offered(base: type) -> list[type]:
    """The classes that one may name for a slot: those that can be built and are not private."""
    return [cls for cls in _subclasses(base) if not inspect.isabstract(cls) and not cls.__name__.startswith("_")]


def _subclasses(cls: type) -> list[type]:
    return [cls, *(deeper for sub in cls.__subclasses__() for deeper in _subclasses(sub))]


def plain_config(config: Namespace, parser: LightningArgumentParser) -> dict[str, Any]:
    """The configuration as plain values, without what belongs to one invocation only."""
    text = parser.dump(config, skip_link_targets=True, skip_none=False, format="yaml")
    plain = yaml.safe_load(text)
    for name in ("run_dir", "resume", "config"):
        plain.pop(name, None)
    return plain
