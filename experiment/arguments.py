"""Arguments as typed, before a parser sees them: options, and the configuration files that they name."""

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from .errors import UserError, did_you_mean


def flags_and_values(args: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of flag and value, for ``--flag value`` and ``--flag=value``."""
    pairs = []
    for position, argument in enumerate(args):
        flag, has_value, value = argument.partition("=")
        if not has_value:
            value = args[position + 1] if position + 1 < len(args) else ""
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


def without_configs(argv: list[str]) -> list[str]:
    """The arguments without the configuration files."""
    kept, skip = [], False
    for argument in argv:
        if skip:
            skip = False
        elif argument in ("-c", "--config"):
            skip = True
        elif not argument.startswith(("-c=", "--config=")):
            kept.append(argument)
    return kept


def check_config_files(args: Sequence[str]) -> None:
    """Refuses a configuration file that is missing or not YAML, with the line: the parser tells neither.

    Raises:
        UserError: names the first such file.
    """
    for flag, value in flags_and_values(args):
        if flag not in ("-c", "--config"):
            continue
        if not value or value.startswith("-"):
            raise UserError(f"{flag} needs a configuration file")
        try:
            content = yaml.safe_load(Path(value).read_text())
            if not isinstance(content, dict):
                raise UserError(f"{value}: no settings (key: value) in it")
        except IsADirectoryError:
            raise UserError(f"{value} is a folder: {flag} needs a configuration file") from None
        except FileNotFoundError:
            near = did_you_mean(Path(value).name, [path.name for path in Path(value).parent.glob("*.yaml")])
            raise UserError(f"no such configuration file: {value}{near}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            mark = getattr(error, "problem_mark", None)
            line = f":{mark.line + 1}" if mark else ""
            raise UserError(f"{value}{line}: not YAML: {getattr(error, 'problem', None) or error}") from error


def write_temporary_config(config: dict[str, Any], name: str) -> Path:
    """Writes a configuration from a checkpoint to a temporary file, for the parser to read.

    Raises:
        UserError: it holds other than plain values.
    """
    folder = Path(tempfile.mkdtemp(prefix="experiment-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = folder / f"{name}.yaml"
    try:
        file.write_text(yaml.safe_dump(config))
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"the configuration in the checkpoint {name} holds other than plain values") from error
    return file
