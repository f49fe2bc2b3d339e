"""The table of docs/make_your_own.md: which files are of one technique alone."""

import re
from pathlib import Path

from tests.conftest import ROOT

PAGE = ROOT / "docs" / "make_your_own.md"
ROW = re.compile(r"^\| `(\w+)` \| (.*) \|$", re.MULTILINE)


def techniques() -> dict[str, list[str]]:
    """The patterns of each technique's files, by the name of its sample's configuration."""
    page = PAGE.read_text()
    section = page[page.index("## Only one technique") : page.index("## What else there is")]
    return {name: re.findall(r"`([^`]+)`", files) for name, files in ROW.findall(section)}


def across() -> list[str]:
    """The patterns of what goes through all techniques."""
    page = PAGE.read_text()
    (files,) = re.findall(r"^\| all of them together \| (.*) \|$", page, re.MULTILINE)
    return re.findall(r"`([^`]+)`", files)


def files_of(patterns: list[str], root: Path) -> set[Path]:
    """The files that some patterns name, those below a folder too.

    Raises:
        AssertionError: a pattern names nothing.
    """
    found = set()
    for pattern in patterns:
        paths = list(root.glob(pattern))
        assert paths, f"{pattern} names no file"
        for path in paths:
            found |= {file for file in path.rglob("*") if file.is_file()} if path.is_dir() else {path}
    return {file for file in found if "__pycache__" not in file.parts}
