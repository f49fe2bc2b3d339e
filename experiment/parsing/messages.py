"""One line for each message of jsonargparse: what is wrong, where, and what would be right."""

import re
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.cli import LightningArgumentParser

from lightning_modules.optimization import NOT_BUILT, OF_OTHERS

from .. import private_api as said
from ..classes import annotation_of, classes_for, classes_in, import_class, is_importable, parameters, slot_types
from ..errors import did_you_mean
from .suggestions import SECTIONS, entry_of, nearest_option, type_words, way_out

# The arguments of these are tried for every class, and say less.
BASE_NAMES = ("Callback", "LightningModule", "LightningDataModule", "Logger")
BESIDE = "the arguments of a class stand below init_args: {class_path: NAME, init_args: {ARGUMENT: VALUE}}"
# The first of the keys that lead to the arguments of a callback.
LIST = (0, "key", "trainer.callbacks")


@dataclass
class Mistake:
    """One of the attempts in a message that failed: ``argument`` of the class at ``owner``, found below ``keys``."""

    keys: tuple[str, ...]
    owner: str | None
    text: str
    value: str
    in_value: bool = False  # the owner is named by a value that follows

    @property
    def key(self) -> str:
        """Where the value is in the configuration."""
        return ".".join(self.keys) or "configuration"

    @property
    def annotation(self) -> Any:
        """The type that was declared for the value; None if that isn't known."""
        *sections, argument = self.keys or ("",)
        if self.owner is not None:
            name = argument.rpartition(".")[2]
            return annotation_of(import_class(self.owner), name) if is_importable(self.owner) else None
        section, _, argument = argument.partition(".")
        if sections or self.key in SECTIONS or not argument:
            return SECTIONS.get(self.key)
        return annotation_of(pl.Trainer, argument) if section == "trainer" else None


def explain(message: str, parser: LightningArgumentParser) -> str:
    """What is wrong, where, and the nearest name that would be right."""
    options = [action.dest for action in said.parser_actions(parser) if (action.dest or "help") != "help"]
    options = [name for name in options if name != "==SUPPRESS=="]
    if match := said.UNRECOGNIZED.search(message):
        return _unknown_option(match["arguments"], options)
    if match := said.NEEDS_VALUE.search(message):
        return f"{match['option']} needs a value: {match['option']}=VALUE"
    if match := said.OF_HELP.match(message):
        return f"--{match['key']}.help: {_of_help(match['key'], match['value'])}"
    if match := said.UNKNOWN_IN_GROUP.match(message):
        unknown = f"{match['group']}.{match['option']}"
        return f"unknown key '{unknown}'{nearest_option(unknown, options)}"
    if match := said.UNKNOWN_KEY.match(message):
        unknown = match["key"].split(".")[0]
        return f"unknown key '{unknown}'{way_out(unknown) or nearest_option(unknown, options)}"
    if match := said.MISSING.match(message):
        given = " ".join(f"--{key}=" for key in match["keys"].split(", "))
        file = " or in a configuration file (-c configs/X.yaml)" if "config" in options else ""
        return f"{match['keys']} missing: name what to take with {given}{file}"
    for cls in OF_OTHERS:
        if f"{cls.__module__}.{cls.__name__}" in message:
            return f"model.scheduler: {cls.__name__} {NOT_BUILT}"
    mistakes = find_mistakes(message)
    if not mistakes:  # only noise: neither a class nor the name of one
        value = said.GIVEN_VALUE.search(message)
        mistake = Mistake(tuple(said.PARSER_KEY.findall(message)), None, "", value[1] if value else "")
        return _no_name(mistake) if _bases(mistake) else " ".join(message.split())
    worst = max(mistakes, key=_weight)
    return _explain_mistake(worst, [mistake.text for mistake in mistakes if mistake.keys == worst.keys])


def find_mistakes(message: str) -> list[Mistake]:
    """The attempts in a message, which jsonargparse nests by indentation."""
    found: list[Mistake] = []
    above: list[tuple[int, str, str]] = []  # indentation; "key" or "class"; its name
    for line in message.splitlines():
        text = line.lstrip(" -")
        indentation = len(line) - len(text)
        if given := said.GIVEN_VALUE.match(text):
            # It stands below the attempts at a union.
            for mistake in found:
                if mistake.in_value and (named := said.CLASS_PATH.search(given[1])):
                    mistake.owner, mistake.in_value = named["cls"], False
                mistake.value = mistake.value or given[1]
            continue
        if not text:
            continue
        above = [entry for entry in above if entry[0] < indentation]
        text, inline = said.OF_CALLABLE.sub("", text), said.OF_CALLABLE.match(text)
        while key := said.PARSER_KEY.match(text):
            # A callback of the list is told by its name.
            listed = [name for _, kind, name in above if kind == "class"] if above[:1] == [LIST] else []
            above.append((indentation, "key", f"{listed[0].rpartition('.')[2]}.{key[1]}" if listed[:1] else key[1]))
            text = text[key.end() :].lstrip(": ")
        if problem := said.PROBLEM.match(text):
            above.append((indentation, "class", problem[1]))
            text = text[problem.end() :].strip()
        if not text or said.NOISE.match(text):
            continue
        keys = tuple(name for _, kind, name in above if kind == "key")
        owners = [name for _, kind, name in above if kind == "class"]
        # Below a slot for something to call, only the value that follows names the class.
        values = said.GOT_CLASS.findall(text)
        is_about_arguments = said.NOT_ACCEPTED.search(text) or said.MISSING.search(text)
        has_inline_key = any(kind == "key" for _, kind, _ in above[_last_class(above) + 2 :])
        is_inline = has_inline_key or (inline is not None and is_about_arguments)
        owner = values[0] if values and is_inline else (owners[-1] if owners else None)
        got = said.GOT_VALUE.search(text)
        value = got[1] if got else ""
        if owner is not None and not is_importable(owner):  # it is what stands in the slot of the one above
            owner, value = (owners[-2] if len(owners) > 1 else None), owner
        found.append(Mistake(keys, owner, text, value, in_value=bool(is_inline and not values)))
    return found


def _last_class(above: list[tuple[int, str, str]]) -> int:
    return max((n for n, (_, kind, _) in enumerate(above) if kind == "class"), default=-1)


def _weight(mistake: Mistake) -> tuple[bool, int, int]:
    """Of several attempts: that of a class which was named, then the deepest one, then the one that came furthest."""
    is_base = (mistake.owner or "").rpartition(".")[2] in BASE_NAMES
    early = (said.EXPECTED_TYPE.match, said.NO_SUBCLASS.search)
    came = next((place for place, is_it in enumerate(early) if is_it(mistake.text)), len(early))
    return not is_base, len(mistake.keys), came


def _explain_mistake(mistake: Mistake, attempts: list[str]) -> str:
    key, text = mistake.key, mistake.text
    if match := said.NOT_ACCEPTED.search(text):
        return _unknown_argument(mistake, match["option"])
    if match := said.MISSING.search(text):
        owner = (mistake.owner or "").rpartition(".")[2]
        argument = match["keys"].split(", ")[0]
        return f"{key}: {owner} needs {argument}: set it in the configuration or with --{key}.{argument}="
    if match := said.NO_MODULE.search(text):
        return _not_importable(mistake, match["module"])
    if match := said.NO_SUCH_CLASS.search(text):
        return _unknown_class(mistake, match["cls"])
    if said.NO_ATTRIBUTE.search(text):
        return _unknown_class(mistake, mistake.value)
    if match := said.NO_SUBCLASS.search(text):
        return _class_that_does_not_fit(mistake, match["cls"] or match["other"] or mistake.value)
    named = said.CLASS_PATH.search(mistake.value) or said.CLASS_PATH.search(text)
    if named and not is_importable(named["cls"]):
        return _unknown_class(mistake, named["cls"])
    if said.EXPECTED_TYPE.match(text):
        return _wrong_value(mistake, attempts)
    rest = " ".join(said.GOT_VALUE.sub("", text).split())
    return f"{key}: {rest}" if mistake.keys else rest


def _wrong_value(mistake: Mistake, attempts: list[str]) -> str:
    annotation, value = mistake.annotation, _short(mistake.value)
    wanted = [match[1] for attempt in attempts if (match := said.EXPECTED_TYPE.match(attempt))]
    is_list = any(said.SEQUENCE.search(text) for text in wanted)
    if annotation is not None and not is_list:
        annotation = entry_of(annotation)
    bases = classes_in(annotation) if annotation is not None else []
    if bases:
        is_name = re.fullmatch(r"[A-Za-z_][\w.]*", value[1:-1])
        return _unknown_class(mistake, value[1:-1]) if is_name else _no_name(mistake)
    words = type_words(annotation) if annotation is not None else ""
    expected = words or " or ".join(dict.fromkeys(map(_plain_type, wanted)))
    got = f", got {value}" if value else ""
    is_word = is_list and re.fullmatch(r"'[^\[\]{}]+'", value)
    return f"{mistake.key}: expected {expected}{got}{f': write [{value[1:-1]}]' if is_word else ''}"


def _plain_type(text: str) -> str:
    """The words for a type that is known only from a message."""
    text = said.LITERAL.sub(lambda match: "one of " + match[1].replace("'", ""), said.TYPE.sub(r"\1", text))
    return said.MODULES.sub("", text)


def _short(value: str) -> str:
    """A value as a user wrote it, or "" for what only a program would write."""
    nested = said.NESTED_VALUE.match(value)
    value = (nested[1] if nested else value).strip("'")
    return "" if "Namespace(" in value or len(value) > 80 else f"'{value}'"


def _not_importable(mistake: Mistake, module: str) -> str:
    path = mistake.value
    if path.endswith((".yaml", ".yml")):
        return f"{mistake.key}: no such file: {path}"
    if path.partition(".")[0] == module.partition(".")[0]:
        return f"{mistake.key}: no module '{module}' for {path}: is its folder in PYTHONPATH?"
    return f"{mistake.key}: {path} can't be imported: the package '{module}' is not installed"


def _unknown_option(arguments: str, options: list[str]) -> str:
    first = arguments.split()[0]
    name = first.partition("=")[0]
    if name.startswith("--"):
        return f"unknown option {name}{way_out(name[2:]) or nearest_option(name, options)} (--help lists the options)"
    if first.endswith((".yaml", ".yml")):
        return f"unexpected {first}: a configuration file is named with -c {first}"
    if "=" in first:
        near = nearest_option(f"--{name.lstrip('-')}", options)
        is_known = not near and f"{name.lstrip('-')}" in options
        return f"unexpected {first}: options begin with two dashes: --{first.lstrip('-')}{'' if is_known else near}"
    return f"unexpected {first}: options are written --KEY=VALUE (--help lists them)"


def _unknown_argument(mistake: Mistake, argument: str) -> str:
    key = mistake.key
    if argument == "class_path":
        return f"{key}: {BESIDE}"
    if mistake.owner is None or not is_importable(mistake.owner):
        return f"{key}: no argument '{argument}'"
    cls = import_class(mistake.owner)
    known = [name for name, p in parameters(cls).items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if argument in known:
        return f"{key}: {cls.__name__}'s '{argument}' is set by the module that holds it, not here"
    known = [name for name in known if name != "params"]  # an optimizer's first, which the module sets
    near = did_you_mean(argument, known)
    return f"{key}: {cls.__name__} has no argument '{argument}'{near} (it has {', '.join(known) or 'none'})"


def _bases(mistake: Mistake) -> list[type]:
    """What may stand where the mistake is; several for a union."""
    if mistake.annotation is not None:
        return list(dict.fromkeys(classes_in(mistake.annotation)))
    return slot_types(mistake.key) if mistake.owner is None else []


def _known(mistake: Mistake) -> tuple[list[str], str]:
    """The names that fit, and how to show them: not at all where they are many."""
    names = sorted({cls.__name__ for base in _bases(mistake) for cls in classes_for(base)})
    return names, f" (known: {', '.join(names)})" if 0 < len(names) <= 12 else ""


def _of_help(key: str, path: str) -> str:
    name = path.rpartition(".")[2]
    names, known = _known(Mistake((key,), None, "", path))
    return f"no class '{name}'{did_you_mean(name, names)}{known}"


def _no_name(mistake: Mistake) -> str:
    bases = " or ".join(type_words(base) for base in _bases(mistake)) or "class"
    got = _short(mistake.value)
    return f"{mistake.key}: expected the name of a {bases}{f', got {got}' if got else ''}{_known(mistake)[1]}"


def _unknown_class(mistake: Mistake, path: str) -> str:
    name = path.rpartition(".")[2]
    if not name.isidentifier():
        return _no_name(mistake)
    names, known = _known(mistake)
    elsewhere = _elsewhere(mistake, name)
    if path in names:
        return f"{mistake.key}: {BESIDE}"
    module = path.rpartition(".")[0]
    if module and not elsewhere and not _has_module(module):
        return f"{mistake.key}: no module '{module}' for {path}: is its folder in PYTHONPATH?"
    return f"{mistake.key}: no class '{name}'{elsewhere or did_you_mean(name, names)}{known}"


def _has_module(name: str) -> bool:
    import importlib.util

    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _class_that_does_not_fit(mistake: Mistake, path: str) -> str:
    name = _short(path).strip("'").rpartition(".")[2]
    bases = [base.__name__ for base in _bases(mistake)]
    _, known = _known(mistake)
    what = f"is no {' or '.join(bases)}" if bases else "does not fit here"
    return f"{mistake.key}: {name} {what}{_elsewhere(mistake, name)}{known}"


def _elsewhere(mistake: Mistake, name: str) -> str:
    """The other slot, of the same class or of the whole, that takes a class of this name; "" if there is none."""
    slots: dict[str, Any] = {}
    if mistake.owner is not None and is_importable(mistake.owner):
        owner = import_class(mistake.owner)
        outer = ".".join(mistake.keys[:-1])
        slots = {f"{outer}.{argument}": annotation_of(owner, argument) for argument in parameters(owner)}
    slots |= SECTIONS
    slots.pop(mistake.key, None)
    for key, annotation in slots.items():
        bases = classes_in(annotation)
        if any(cls.__name__ == name for base in bases for cls in classes_for(base)):
            sign = "+=" if key == "trainer.callbacks" else "="
            return f"; it goes to --{key}{sign}{name}"
    return ""
