"""What to say instead: the option that was meant, and a type in words."""

import collections.abc
import inspect
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import pytorch_lightning as pl

from ..classes import own_classes, parameters, type_name

# What stands in the sections of a configuration that hold classes.
SECTIONS: dict[str, Any] = {
    "model": pl.LightningModule,
    "data": pl.LightningDataModule,
    "trainer.callbacks": pl.Callback,
    "trainer.logger": pl.loggers.Logger,
}
# Names from other programs that no spelling leads from.
ELSEWHERE = {
    "gpus": "trainer.devices",
    "num_gpus": "trainer.devices",
    "gpu": "trainer.accelerator",
    "device": "trainer.accelerator",
    "fp16": "trainer.precision",
    "amp": "trainer.precision",
    "bf16": "trainer.precision",
    "learning_rate": "model.lr",
    "workers": "data.num_workers",
    "seed": "seed_everything",
    "output_dir": "run_dir",
    "out_dir": "run_dir",
    "log_dir": "run_dir",
    "default_root_dir": "run_dir",
    "ckpt_path": "resume",
    "checkpoint": "resume",
    "grad_clip": "trainer.gradient_clip_val",
    "clip_grad_norm": "trainer.gradient_clip_val",
}
# Keys of LightningCLI that stand elsewhere here.
WAYS_OUT = {
    "lr_scheduler": "the scheduler is an argument of the model: --model.scheduler=CosineAnnealingLR "
    "--model.scheduler.T_max=10",
    "optimizer": "the optimizer is an argument of the model: --model.optimizer=Adam --model.lr=0.001",
    "scheduler": "the scheduler is an argument of the model: --model.scheduler=CosineAnnealingLR "
    "--model.scheduler.T_max=10",
}


def way_out(name: str) -> str:
    """Where a key stands that other programs have at the top; "" for others."""
    return f"; {WAYS_OUT[name.partition('.')[0]]}" if name.partition(".")[0] in WAYS_OUT else ""


def nearest_option(unknown: str, options: Sequence[str]) -> str:
    """``"; did you mean '--trainer.max_epochs'?"``, or "" if no option is near.

    Args:
        unknown: a key, or with its dashes an option; the answer is written in the same way.
        options: keys of the parser; the arguments of models and data are added.
    """
    dashes = "--" if unknown.startswith("-") else ""
    name = unknown.lstrip("-").rstrip("+-").replace("-", "_")
    near = _nearest(name, [*options, *_arguments("model"), *_arguments("data")])
    return f"; did you mean '{dashes}{near}'?" if near and near != unknown.lstrip("-") else ""


def _nearest(name: str, options: Sequence[str]) -> str | None:
    section, _, leaf = name.rpartition(".")
    last = {option: option.rpartition(".")[2] for option in options}
    if leaf in ELSEWHERE and not section:
        return ELSEWHERE[leaf]
    # "epochs" is in max_epochs and min_epochs: max before min, and the first by the number of other words.
    words = _words(leaf)
    within = [option for option in options if words and words <= _words(last[option])]
    within = [option for option in within if len(_words(last[option])) <= len(words) + 1]
    same_section = [option for option in within if option.rpartition(".")[0] == section]
    if same_section and section:
        return min(same_section, key=lambda option: (not last[option].startswith("max"), len(option)))
    if near := get_close_matches(name, options, 1, 0.8):
        return near[0]
    if same := [option for option in options if last[option] == leaf]:
        return same[0]
    if within:
        return min(within, key=lambda option: (not last[option].startswith("max"), len(option)))
    near = get_close_matches(leaf, last.values(), 1, 0.8)
    return next(option for option in options if last[option] == near[0]) if near else None


def _words(name: str) -> set[str]:
    return {word.lower().rstrip("s") for word in name.split("_") if len(word) > 2}


def _arguments(section: str) -> list[str]:
    """``model.lr`` and so on: the arguments of this project's classes, the most common first."""
    count: dict[str, int] = {}
    for cls in own_classes(SECTIONS[section]):
        for name, parameter in parameters(cls).items():
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                count[f"{section}.{name}"] = count.get(f"{section}.{name}", 0) + 1
    return sorted(count, key=lambda name: -count[name])


def type_words(annotation: Any) -> str:
    """A type as one would say it: ``int or null``, ``list of str``, ``one of min, max``."""
    return " or ".join(dict.fromkeys(_type_words(annotation)))


def entry_of(annotation: Any) -> Any:
    """What an entry of a list has to be, where the type is that of a list; else the type itself."""
    arguments = [argument for argument in typing.get_args(annotation) if argument not in (Ellipsis, type(None))]
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType) and len(arguments) == 1:
        return entry_of(arguments[0])
    is_list = inspect.isclass(origin) and issubclass(origin, Iterable) and not issubclass(origin, Mapping)
    return arguments[0] if is_list and arguments else annotation


def _type_words(annotation: Any) -> Iterable[str]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        choices = [value for a in arguments if typing.get_origin(a) is typing.Literal for value in typing.get_args(a)]
        if choices:
            yield f"one of {', '.join(map(str, dict.fromkeys(map(str, choices))))}"
        # In one order, whichever of two equal unions Python met first; null last, as it is rarely what was meant.
        for argument in sorted(arguments, key=lambda argument: (argument is type(None), str(argument))):
            if typing.get_origin(argument) is not typing.Literal:
                yield from _type_words(argument)
    elif origin is typing.Literal:
        yield f"one of {', '.join(map(str, arguments))}"
    elif annotation in (None, type(None)):
        yield "null"
    elif annotation is typing.Any:
        yield "anything"
    elif origin is collections.abc.Callable:
        yield from _type_words(arguments[-1])
    elif inspect.isclass(origin) and issubclass(origin, Mapping):
        yield "settings (key: value)"
    elif inspect.isclass(origin) and issubclass(origin, Iterable):
        inner = [argument for argument in arguments if argument is not Ellipsis]
        if origin is tuple and Ellipsis not in arguments:
            yield f"a list of {len(arguments)}: {', '.join(map(type_words, arguments))}"
            return
        yield f"a list of {type_words(inner[0])}".replace("of one of", "some of") if inner else "a list"
    else:
        yield type_name(annotation)
