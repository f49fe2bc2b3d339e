"""Dictionaries of aliases, as the DuIE competitions have them."""

from pathlib import Path

from ..errors import DataError
from .json_lines import numbered_lines


def read_aliases(path: Path, encoding: str = "utf-8") -> dict[str, list[str]]:
    """The aliases of names, from lines of a name and its aliases, separated by tabs.

    Raises:
        DataError: the file can't be read, or a line has no alias.
    """
    aliases: dict[str, list[str]] = {}
    for number, line in numbered_lines(path, "name and its aliases, separated by tabs,", encoding):
        names = [name.strip() for name in line.split("\t") if name.strip()]
        if len(names) < 2:
            raise DataError(f"{path}, line {number}: expected a name and its aliases, separated by tabs")
        aliases.setdefault(names[0], []).extend(names[1:])
    return aliases
