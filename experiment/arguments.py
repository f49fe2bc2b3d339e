"""Arguments as typed, before a parser sees them: options, and the configuration files that they name."""

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from readers.files import output_file, user_path

from .errors import UserError, did_you_mean

# Of the project; of an installed one, a copy beside its packages.
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FILES = ("-c", "--config")
_TEMPORARY, _NOTHING = "experiment-", object()
PATHS = (*FILES, "--run_dir", "--resume", "--init_from")


def flag_and_value(argument: str) -> tuple[str, bool, str]:
    """Flag, whether there is a value with it, and the value: of ``--flag``, ``--flag=value``, ``-cFILE``."""
    if argument[:2] == "-c" and len(argument) > 2:
        return "-c", True, argument[2:].removeprefix("=")
    flag, has_value, value = argument.partition("=")
    return flag, bool(has_value), value


def flags_and_values(args: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of flag and value, for ``--flag value`` and ``--flag=value``."""
    pairs = []
    for position, argument in enumerate(args):
        flag, has_value, value = flag_and_value(argument)
        if not has_value:
            value = next((following for following in args[position + 1 :][:1] if following[:2] != "--"), "")
        pairs.append((flag, value))
    return pairs


def take_option(arguments: list[str], name: str) -> str | None:
    """Removes ``name VALUE`` or ``name=VALUE`` from the arguments and gives the value; None if it isn't there.

    Raises:
        UserError: it has no value.
    """
    for position, argument in enumerate(arguments):
        flag, has_value, value = argument.partition("=")
        if flag != name:
            continue
        if not has_value:
            if position + 1 >= len(arguments):
                raise UserError(f"{name} needs a value")
            value = arguments.pop(position + 1)
        arguments.pop(position)
        return value
    return None


def check_output(option: str, file: str | Path | None) -> None:
    """Refuses a file that can't be written, before hours are spent on what it would hold.

    Raises:
        UserError: it is a folder or another thing that is no file, or the folder for it isn't there.
    """
    if file is None:
        return
    path = Path(file)
    if path.is_dir():
        raise UserError(f"{option}: {path} is a folder; name a file")
    try:
        target = output_file(path)
    except ValueError as error:
        raise UserError(f"{option}: {error}") from error
    if not target.parent.is_dir():
        raise UserError(f"{option}: no such folder: {target.parent}")
    if not os.access(target.parent, os.W_OK):
        raise UserError(f"{option}: no permission to write into the folder {target.parent}")


def find_config(given: str) -> str:
    """A configuration file as given or, where there is nothing, the project's own of that name.

    From any folder ``configs/infomax_sample.yaml``, ``infomax_sample.yaml`` and ``infomax_sample`` are the same file,
    ``configs/with/lookahead.yaml`` and ``with/lookahead`` another. A folder of that name is none.
    """
    given = str(user_path(given)) if given[:1] == "~" else given
    path = Path(given)
    if not path.parts or given.startswith("-") or path.is_absolute() or path.is_file():
        return given
    own = CONFIGS.joinpath(*path.parts[path.parts[0] == CONFIGS.name :])
    return next((str(file) for file in (own, own.with_name(f"{own.name}.yaml")) if file.is_file()), given)


def find_paths(argv: Sequence[str]) -> list[str]:
    """The arguments with each configuration file where ``find_config`` finds it, and ``~`` as the home folder.

    ``-c FILE`` becomes ``-c=FILE``.
    """
    found: list[str] = []
    named_by = ""
    for argument in argv:
        flag, has_value, value = flag_and_value(argument)
        if named_by:
            argument = _found(named_by, argument)
            argument, named_by = f"{found.pop()}={argument}" if named_by in FILES else argument, ""
        elif flag in PATHS and has_value:
            argument = f"{flag}={_found(flag, value)}"
        elif flag in PATHS:
            named_by = flag
        found.append(argument)
    return found


def _found(flag: str, value: str) -> str:
    if flag in FILES:
        return find_config(value)
    return str(user_path(value)) if value[:1] == "~" else value


def check_config_files(args: Sequence[str]) -> None:
    """Refuses a configuration file that is missing or not YAML, with the line: the parser tells neither.

    Raises:
        UserError: names the first such file.
    """
    for flag, value in flags_and_values(args):
        if flag == "--trainer":
            _check_section(flag, value if os.path.isfile(value) else loaded(value))
        if flag not in ("-c", "--config"):
            continue
        if not value or value.startswith("-"):
            raise UserError(f"{flag} needs a configuration file")
        try:
            content = yaml.load(Path(value).read_text(), _StrictLoader)
            if not isinstance(content, dict):
                raise UserError(f"{value}: no settings (key: value) in it")
            _check_section(f"{value}: trainer", content.get("trainer", {}))
            _check_callbacks(value, content.get("trainer", {}))
        except IsADirectoryError:
            raise UserError(f"{value} is a folder: {flag} needs a configuration file") from None
        except FileNotFoundError:
            folders = (CONFIGS, Path(value).parent)
            beside = {path.stem: path.name for folder in folders for path in folder.glob("*.yaml")}
            near = did_you_mean(Path(value).stem, beside, beside.get)
            raise UserError(f"no such configuration file: {value}{near}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            mark = getattr(error, "problem_mark", None)
            line = f":{mark.line + 1}" if mark else ""
            is_yaml = isinstance(error, yaml.constructor.ConstructorError)
            is_text = not isinstance(error, UnicodeDecodeError)
            problem = (getattr(error, "problem", None) or error) if is_text else "not in UTF-8"
            raise UserError(f"{value}{line}: {'' if is_yaml else 'not YAML: '}{problem}") from error


def _check_callbacks(file: str, trainer: Any) -> None:
    """Refuses callbacks that are listed as ``- NAME: {arguments}``."""
    for key in {"callbacks", "callbacks+"} & set(trainer if isinstance(trainer, dict) else ()):
        for entry in trainer[key] if isinstance(trainer[key], list) else []:
            if isinstance(entry, dict) and "class_path" not in entry:
                name = next(iter(entry), "NAME")
                raise UserError(
                    f"{file}: trainer.{key}: write the callback {name} as {{class_path: {name}, init_args: {{...}}}}"
                )


class _StrictLoader(yaml.SafeLoader):
    """Refuses what plain YAML reads without a word: a key that stands twice, of which it would keep the last; a key
    that is no name; and an argument of a class beside its ``class_path``."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                problem = "a key has to be a name; {{...}} is a template that was not filled in, {...} are settings"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            if key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' stands twice", key.start_mark)
            seen.add(key.value)
        if "class_path" in seen and (others := seen - {"class_path", "init_args", "dict_kwargs"}):
            key = next(key for key, _ in node.value if key.value in others)
            cls = next(value.value for name, value in node.value if name.value == "class_path")
            argument = "ARGUMENT" if key.value.startswith("init") else key.value
            problem = (
                f"'{key.value}' stands beside class_path; arguments stand below init_args: "
                f"{{class_path: {cls}, init_args: {{{argument}: VALUE}}}}"
            )
            raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        return super().construct_mapping(node, deep)


def _check_section(name: str, value: Any) -> None:
    """Refuses a section that is no group of settings (or a file of them); jsonargparse would take it."""
    if not isinstance(value, dict | str) or (isinstance(value, str) and not os.path.isfile(value)):
        raise UserError(f"{name}: expected settings (key: value), got {'nothing' if value is None else repr(value)}")


def nested(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings however they are written: ``trainer.max_epochs: 3`` as ``trainer: {max_epochs: 3}``, and a section that
    names a file, or is text, as what it holds."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        *sections, name = str(key).split(".")
        place = found
        for section in sections:
            place[section] = dict(_section(place.get(section)))
            place = place[section]
        is_section = isinstance(value, dict) or (not sections and name == "trainer")
        place[name] = {**_section(place.get(name)), **_section(value)} if is_section else value
    return found


def _section(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        # Path.is_file fails where settings are longer than the name of a file may be.
        value = loaded(Path(value).read_text() if os.path.isfile(value) else value)
    return value if isinstance(value, dict) else {}


def loaded(value: str) -> Any:
    """The value of an option: YAML, or else the text itself."""
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value


def shown_file(file: str) -> str:
    """A configuration file as its user knows it: one from a checkpoint has a name of no meaning."""
    return "the configuration in the checkpoint" if Path(file).parent.name.startswith(_TEMPORARY) else file


def naming_file(message: str, args: Sequence[str]) -> str:
    """A message about an unknown key, with the configuration file that has it."""
    if match := re.match(r"unknown key '([\w.+-]+)'", message):
        for flag, file in flags_and_values(args):
            content = yaml.safe_load(Path(file).read_text()) if flag in FILES else None
            for name in match[1].split("."):
                content = content.get(name, _NOTHING) if isinstance(content, dict) else _NOTHING
            if content is not _NOTHING:
                return f"{shown_file(file)}: {message}"
    return message


def write_temporary_config(config: dict[str, Any], name: str) -> Path:
    """Writes a configuration from a checkpoint to a temporary file, for the parser to read.

    Raises:
        UserError: it holds other than plain values.
    """
    folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = folder / f"{name}.yaml"
    try:
        file.write_text(yaml.safe_dump(config))
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"the configuration in the checkpoint {name} holds other than plain values") from error
    return file
