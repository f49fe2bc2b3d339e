"""The command line's parser: short help, errors in one line, and links from the data to the chosen model."""

import argparse
import re
import textwrap
from collections.abc import Sequence
from enum import Enum
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
import yaml
from jsonargparse import ActionConfigFile, Namespace
from jsonargparse.typing import register_type
from pytorch_lightning.cli import LightningArgumentParser

from ..classes import import_class, is_importable, summaries
from ..errors import UserError, as_called
from ..private_api import forget_links, help_formatter, parser_actions, start_from_own_defaults
from .callback_edits import ConfigFile, add_edit_options, without_edits
from .limits import check_limits
from .messages import explain

# What --help shows of the Trainer; --trainer.help shows all.
COMMON_TRAINER_OPTIONS = {
    "max_epochs": "epochs to train",
    "max_steps": "optimizer steps to train; -1: no limit",
    "accelerator": "auto, cpu, gpu, mps",
    "devices": "number of processes, each with its own device; -1: all GPUs",
    "strategy": "auto, ddp, fsdp ...",
    "precision": "32-true, bf16-mixed, 16-mixed ...; by default bf16-mixed where the hardware supports it natively",
    "limit_train_batches": "batches per epoch, a number or a fraction; also limit_val_batches, limit_test_batches",
    "accumulate_grad_batches": "batches per optimizer step",
    "gradient_clip_val": "maximum norm of the gradient",
    "val_check_interval": "how often to validate: a fraction of an epoch, or a number of batches",
    "log_every_n_steps": "steps between two rows of metrics.csv",
    "callbacks-": "drop a callback of the configuration by its name, e.g. --trainer.callbacks-=CodeMap",
    "callbacks.NAME.KEY": "change one, e.g. --trainer.callbacks.CodeMap.num_points=500",
    "callbacks+": "add a callback, e.g. --trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor=val/loss",
}
start_from_own_defaults()
# Arguments of Lightning's callbacks, e.g. of StochasticWeightAveraging, which has one as its default.
register_type(torch.device)
yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, value: dumper.represent_data(value.value))


# :meth:`~pytorch_lightning.Trainer.fit` and :ref:`the page <page>`
_ROLE = re.compile(r":(?:[a-z]+:)?[a-z]+:`(?:(?P<shown>[^`<]+?)\s*<[^`>]*>|~?(?P<target>[^`]*))`")
# <class 'torch.optim.Adam'>
_OBJECT = re.compile(r"<(?:class|function) '?(?:[\w.]+\.)?(\w+)(?:'| at 0x\w+)>")


def plain_help(text: str) -> str:
    """A help text without what only a renderer of docstrings or Python itself would read."""
    text = _ROLE.sub(lambda role: role["shown"] or role["target"].rpartition(".")[2], text)
    text = _OBJECT.sub(r"\1", text)
    return text.replace("``", "`").replace("NoneType", "null").replace("typing.", "")


_Formatter = help_formatter(plain_help)


def _is_shown(names: Sequence[str]) -> bool:
    """Whether an option has a name, and one of its own: not that of a list's entry or of a class's help."""
    return bool(names) and not names[0].endswith(("+", ".help"))


class Parser(LightningArgumentParser):
    """LightningArgumentParser that raises ``UserError`` with one line instead of printing usage and errors.

    Args:
        of_experiment: for the parser of a whole experiment: its ``--help`` lists what one needs, not everything, and
            the arguments that the model names in ``data_links`` are linked to attributes of the data.
    """

    def __init__(self, *args: Any, of_experiment: bool = False, **kwargs: Any) -> None:
        self.of_experiment = of_experiment
        kwargs |= {name: as_called(kwargs[name]) for name in ("description", "usage") if kwargs.get(name)}
        super().__init__(*args, allow_abbrev=False, formatter_class=_Formatter, **kwargs)

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        """As jsonargparse's, with files that may change and drop callbacks by name."""
        if kwargs.get("action") is ActionConfigFile and self.of_experiment:
            kwargs["action"] = ConfigFile
        return super().add_argument(*args, **kwargs)

    def add_argument_group(self, *args: Any, **kwargs: Any) -> Any:
        """As jsonargparse's; the title is the first line of a docstring."""
        args = tuple(plain_help(text) if isinstance(text, str) else text for text in args)
        kwargs |= {key: plain_help(kwargs[key]) for key in ("title", "description") if kwargs.get(key)}
        return super().add_argument_group(*args, **kwargs)

    def parse_args(self, args: Any = None, *rest: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        """As jsonargparse's, with options that change and drop callbacks by name."""
        if self.of_experiment:
            add_edit_options(self, args)
        return super().parse_args(args, *rest, **kwargs)

    def parse_string(self, content: str, *args: Any, **kwargs: Any) -> Namespace:
        """As jsonargparse's, without what ``ConfigFile`` does by itself."""
        return super().parse_string(without_edits(content) if self.of_experiment else content, *args, **kwargs)

    def validate(self, namespace: Namespace, *args: Any, **kwargs: Any) -> None:
        """Checks a configuration before it is used or written; now the model is known, and its links are made.

        Only those of this model: an argument of the same name of another model is like any other argument.
        """
        model = namespace.get("model") if self.of_experiment else None
        if model is not None and is_importable(model.class_path):
            self.link_to_data(getattr(import_class(model.class_path), "data_links", ()))
        super().validate(namespace, *args, **kwargs)
        if self.of_experiment:
            check_limits(namespace)

    def link_to_data(self, names: Sequence[str]) -> None:
        """Links these arguments of the model to attributes of the data, and no others (of an earlier model)."""
        forget_links(self, "model")
        for name in names:
            self.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # the parser of one class in a slot: its message becomes part of the outer one
            super().error(message, ex)
        raise UserError(explain(message, self)) from ex

    def format_help(self, *args: Any) -> str:
        if not self.of_experiment:
            return super().format_help(*args)
        options = {
            ", ".join(action.option_strings): action.help
            for action in parser_actions(self)
            if "." not in action.dest and action.dest not in ("model", "data") and _is_shown(action.option_strings)
        }
        options["--debug"] = "Show the traceback of an error."
        trainer = {f"--trainer.{name}": text for name, text in COMMON_TRAINER_OPTIONS.items()}
        sections = {
            "options": options,
            "trainer (all of it: --trainer.help)": trainer,
            "models (--model=NAME; arguments: --model.help=NAME, then --model.ARGUMENT=)": summaries(
                pl.LightningModule
            ),
            "data (--data=NAME; arguments: --data.help=NAME, then --data.ARGUMENT=)": summaries(pl.LightningDataModule),
            "callbacks (--trainer.callbacks+=NAME; arguments: --trainer.callbacks.help=NAME)": summaries(pl.Callback),
        }
        lines = [f"usage: {self.usage}", "", self.description or ""]
        for title, entries in sections.items():
            lines.append(f"{title}:")
            for name, text in entries.items():
                wrapped = textwrap.wrap(" ".join(plain_help(text or "").split()), 86) or [""]
                lines += [f"  {name:30} {wrapped[0]}"] if len(name) <= 30 else [f"  {name}", " " * 33 + wrapped[0]]
                lines += [" " * 33 + line for line in wrapped[1:]]
            lines.append("")
        return "\n".join(lines)

    def print_trainer_help(self) -> NoReturn:
        """Prints all options of the Trainer and exits."""
        self.description = "All options of the Trainer, each with a default."
        for action in parser_actions(self):
            if not (action.dest or "").startswith("trainer."):
                action.help = argparse.SUPPRESS
        print(super().format_help(), end="")
        raise SystemExit(0)
