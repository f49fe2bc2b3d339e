"""Callbacks of a configuration's list, changed or dropped by name; jsonargparse can only replace a list or add to it.

    --trainer.callbacks.MetricCurves.metrics=[val/loss]    one argument of it
    --trainer.callbacks-=MetricCurves                      without it; also a list, [MetricCurves, CodeMap]

In a file it is the same keys. They apply to the list of the files before, whatever their order in this one: what is
dropped first, then ``callbacks+``, then the changes::

    trainer:
      callbacks-: NearestNeighbors
      callbacks.MetricCurves: {metrics: [val/loss]}

Of several of one class the last is changed (it is the one that counts where a checkpoint can't tell them apart), and
all are dropped. Like all options, these apply to what stands before them.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, Namespace

from ..arguments import loaded, shown_file
from ..errors import UserError, did_you_mean
from ..private_api import parser_actions

KEY = "trainer.callbacks"
DROP = f"--{KEY}-"
# A class by its name, and an argument of it. What begins in lower case is an argument of the last callback.
CHANGE = re.compile(rf"--{re.escape(KEY)}\.(?P<name>[A-Z]\w*)(?:\.(?P<argument>.+))?")


def add_edit_options(parser: Any, args: Sequence[str]) -> None:
    """Gives a parser ``--trainer.callbacks-`` and those options that change a callback by name in ``args``."""
    flags = dict.fromkeys([DROP, *(arg.partition("=")[0] for arg in args if CHANGE.fullmatch(arg.partition("=")[0]))])
    there = {option for action in parser_actions(parser) for option in action.option_strings}
    for flag in flags:
        if flag not in there:
            action = _Drop if flag == DROP else _Change
            parser.add_argument(flag, action=action, dest=argparse.SUPPRESS, default=argparse.SUPPRESS)


def without_edits(content: str) -> str:
    """The text of a configuration file without what is changed and dropped by name; it is left alone if nothing is."""
    rest, drops, changes = split_edits(content)
    return yaml.safe_dump(rest, sort_keys=False) if drops or changes else content


class ConfigFile(ActionConfigFile):
    """``-c FILE``, whose file may change and drop callbacks by name."""

    def __call__(self, parser: Any, namespace: Any, value: Any, option_string: str | None = None) -> None:
        rest, drops, changes = split_edits(Path(value).read_text())
        trainer = rest.get("trainer")
        is_anew = KEY in rest or (isinstance(trainer, dict) and "callbacks" in trainer)
        try:
            if not is_anew:
                _drop(namespace, drops)
            super().__call__(parser, namespace, value, option_string)
            if is_anew:
                _drop(namespace, drops)
            for name, argument, given in changes:
                try:
                    _change(parser, namespace, name, argument, given)
                except TypeError as error:
                    parser.error(str(error), error)
        except UserError as error:
            raise UserError(f"{shown_file(value)}: {error}") from error


class _Drop(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, value: Any, option_string: str | None = None) -> None:
        _drop(namespace, _names(loaded(value)))


class _Change(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, value: Any, option_string: str | None = None) -> None:
        match = CHANGE.fullmatch(option_string or "")
        assert match is not None  # it was registered
        argument = match["argument"] or ""
        _change(parser, namespace, match["name"], argument, value if argument else loaded(value))


def split_edits(content: str) -> tuple[dict[str, Any], list[str], list[tuple[str, str, Any]]]:
    """A file's settings without its edits; the names to drop; and name, argument and value of each change."""
    settings = yaml.safe_load(content)
    if not isinstance(settings, dict):
        return {}, [], []
    drops: list[str] = []
    changes: list[tuple[str, str, Any]] = []

    def kept(group: dict[str, Any], prefix: str) -> dict[str, Any]:
        rest = {}
        for key, value in group.items():
            flag = f"--{prefix}{key}"
            if flag == DROP:
                drops.extend(_names(value))
            elif match := CHANGE.fullmatch(flag):
                changes.append((match["name"], match["argument"] or "", value))
            elif flag == f"--{KEY}" and isinstance(value, dict) and value and _all_are_names(value):
                changes.extend((name, "", arguments) for name, arguments in value.items())
            else:
                rest[key] = (
                    kept(value, f"{key}.") if f"{prefix}{key}" == "trainer" and isinstance(value, dict) else value
                )
        return rest

    return kept(settings, ""), drops, changes


def _all_are_names(group: dict[Any, Any]) -> bool:
    return all(isinstance(key, str) and key[:1].isupper() for key in group)


def _names(value: Any) -> list[str]:
    """Names from a name, a list of them, or entries as in ``callbacks+``."""
    entries = value if isinstance(value, list) else [value]
    names: list[Any] = [entry.get("class_path") if isinstance(entry, dict) else entry for entry in entries]
    for name in names:
        if not isinstance(name, str):
            raise UserError(f"{KEY}-: expected the name of a callback, got {'nothing' if name is None else repr(name)}")
    return names


def _listed(namespace: Namespace) -> list[Namespace]:
    given = namespace.get(KEY) or []
    return list(given) if isinstance(given, list) else [given]


def _positions(namespace: Namespace, name: str) -> list[int]:
    paths = [callback.class_path for callback in _listed(namespace)]
    found = [position for position, path in enumerate(paths) if name in (path, path.rpartition(".")[2])]
    if not found:
        names = list(dict.fromkeys(path.rpartition(".")[2] for path in paths))
        there = f"it has {', '.join(names)}" if names else "it is empty here: name the configuration (-c) first"
        raise UserError(f"{KEY} has no '{name}'{did_you_mean(name, names)} ({there})")
    return found


def _drop(namespace: Namespace, names: Sequence[str]) -> None:
    for name in names:
        dropped = _positions(namespace, name)
        namespace[KEY] = [callback for n, callback in enumerate(_listed(namespace)) if n not in dropped]


def _change(parser: Any, namespace: Namespace, name: str, argument: str, value: Any) -> None:
    position = _positions(namespace, name)[-1]
    if not argument:
        if not isinstance(value, dict) or not value:
            raise UserError(f"{KEY}.{name}: expected arguments of it (argument: value), got {value or 'nothing'!r}")
        for key, given in (value["init_args"] if list(value) == ["init_args"] else value).items():
            _change(parser, namespace, name, str(key), given)
        return
    callbacks = _listed(namespace)
    # As the only one of its list it is the last one, whose arguments jsonargparse can change.
    alone = Namespace()
    alone[KEY] = [callbacks[position].clone()]
    last = next(action for action in parser_actions(parser) if action.dest == KEY)
    last(parser, alone, value, f"--{KEY}.{argument}")
    namespace[KEY] = [*callbacks[:position], *alone[KEY], *callbacks[position + 1 :]]
