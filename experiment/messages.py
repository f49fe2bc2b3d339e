"""One line for each message of jsonargparse, with the nearest known name."""

from pytorch_lightning.cli import LightningArgumentParser

from . import private_api as said
from .classes import classes_for, import_class, is_importable, parameters, slot_types
from .errors import did_you_mean


def explain(message: str, parser: LightningArgumentParser) -> str:
    """What is wrong, where, and the nearest name that would be right."""
    options = [action.dest for action in said.parser_actions(parser) if action.dest and action.dest != "help"]
    if match := said.UNRECOGNIZED.search(message):
        unknown = match["arguments"].split()[0].split("=")[0]
        return f"unknown option {unknown}{did_you_mean(unknown.lstrip('-'), options)} (--help lists the options)"
    if match := said.UNKNOWN_IN_GROUP.match(message):
        unknown = f"{match['group']}.{match['option']}"
        return f"unknown key '{unknown}'{did_you_mean(unknown, options)}"
    if match := said.UNKNOWN_KEY.match(message):
        unknown = match["key"].split(".")[0]
        return f"unknown key '{unknown}'{did_you_mean(unknown, [name.split('.')[0] for name in options])}"
    if match := said.MISSING.match(message):
        given = " ".join(f"--{key}=" for key in match["keys"].split(", "))
        file = " or in a configuration file (-c configs/X.yaml)" if "config" in options else ""
        return f"{match['keys']} missing: name what to take with {given}{file}"
    key = ".".join(said.PARSER_KEY.findall(message)) or "configuration"
    if match := said.MISSING_OF_CLASS.search(message):
        argument = match["argument"]
        return f"{key}: {match['cls']} needs {argument}: set it in the configuration or with --{key}.{argument}="
    if match := said.NOT_ACCEPTED.search(_problem_of_named_class(message)):
        return _unknown_argument(key, match["cls"], match["option"])
    if match := said.NOT_ACCEPTED_IN_VALUE.search(message):
        return _unknown_argument(key, match["cls"], match["option"])
    if match := said.NO_SUCH_CLASS.search(message):
        return _unknown_class(key, match["cls"])
    if (match := said.CLASS_PATH.search(message)) and not is_importable(match["cls"]):
        return _unknown_class(key, match["cls"].rsplit(".", 1)[-1])
    return f"{key}: {_innermost(message)}"


def _problem_of_named_class(message: str) -> str:
    """The message from the class on that was given by name (its base class is tried too, and knows less)."""
    for problem in message.split(said.PROBLEM):
        if "is not accepted" in problem and not problem.startswith("'pytorch_lightning."):
            return "class_path " + problem
    return message


def _innermost(message: str) -> str:
    """What was expected and what was given, from a nested message; else its last line."""
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
    expected = [line for line in lines if said.EXPECTED.match(line) and "NoneType" not in line]
    if not expected:
        return lines[-1] if lines else ""
    text = said.TYPE.sub(r"\1", expected[-1])
    given = said.GIVEN.search(message)
    return text if said.GIVEN.search(text) or not given else f"{text}. Got value: {given[1]}"


def _unknown_argument(key: str, class_path: str, argument: str) -> str:
    cls = import_class(class_path)
    known = [name for name in parameters(cls) if name != "kwargs"]
    if argument in known:
        return f"{key}: {cls.__name__}'s '{argument}' is set by the module that holds it, not here"
    near = did_you_mean(argument, known)
    return f"{key}: {cls.__name__} has no argument '{argument}'{near} (it has {', '.join(known)})"


def _unknown_class(key: str, name: str) -> str:
    names = sorted({cls.__name__ for base in slot_types(key) for cls in classes_for(base)})
    known = f" (known: {', '.join(names)})" if 0 < len(names) <= 12 else ""
    return f"{key}: no class '{name}'{did_you_mean(name, names)}{known}"
