"""Modules of a graph's nodes, from files that this project or Infomap wrote: ``.tree``, ``.ftree``, ``.clu``."""

import re
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError
from ..files import bare_suffix, check_utf8, read_contents, user_path, with_line_feeds
from .edge_list import data_lines

SUFFIXES = (".tree", ".ftree", ".clu")
# Path, flow, name in quotes, id; of states the numbers of the node and the layer follow.
TREE = re.compile(
    r'(\d+(?::\d+)*)[ \t]+\S+[ \t]+("(?:[^"\\]|\\.)*"(?=[ \t])|".*"|\S+)[ \t]+(-?\d+)(?:[ \t]+-?\d+)*[ \t]*'
)
# Name in quotes or id, module, and optionally flow and name in quotes.
CLU = re.compile(r'("(?:[^"\\]|\\.)*"(?=[ \t])|".*"|[^\s"]+)[ \t]+(\d+)(?:[ \t]+[^\s"]+)?(?:[ \t]+("?.*"?))?')


ESCAPED = re.compile(r'\\(["\\nr])')
BREAKS = {"n": "\n", "r": "\r"}


class GivenNode(NamedTuple):
    """A node of a partition's file.

    Args:
        name: None if the file has only ids.
        id: None if the file has only names.
        path: the modules that the node is in, from the top.
    """

    name: str | None
    id: str | None
    path: tuple[int, ...]


def read_partition(path: Path | str) -> list[GivenNode]:
    """The modules of the nodes in a file; its suffix tells the format. It may be gzipped.

    - ``.tree``, ``.ftree``: lines ``1:2:3 flow "name" id``; the last number of a path is the node's place.
    - ``.clu``: lines ``id module …`` or ``"name" module …``.

    Args:
        path: the file.

    Raises:
        DataError: the file can't be read, has another suffix or layout, or no node.
    """
    path = user_path(path)
    suffix = bare_suffix(path)
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: modules are read from files that end in {', '.join(SUFFIXES)}")
    data = read_contents(path)
    check_utf8(data, path)
    nodes = []
    for number, _, line in data_lines(with_line_feeds(data)):
        if line.startswith("*"):
            if suffix == ".clu":
                continue  # *Vertices of old files
            break  # the links of .ftree
        node = _clu_node(line) if suffix == ".clu" else _tree_node(line)
        if node is None:
            expected = "a node and its module" if suffix == ".clu" else 'a line such as 1:2 0.25 "name" 7'
            raise DataError(f"{path}, line {number}: expected {expected}, found {line[:60]!r}")
        nodes.append(node)
    if not nodes:
        raise DataError(f"{path} has no modules: it has no line with a node")
    return nodes


def _tree_node(line: str) -> GivenNode | None:
    found = TREE.fullmatch(line)
    return found and GivenNode(unquote(found[2]), found[3], tuple(map(int, found[1].split(":")))[:-1])


def _clu_node(line: str) -> GivenNode | None:
    found = CLU.fullmatch(line)
    if found is None:
        return None
    key, module, name = found[1], (int(found[2]),), found[3]
    if key.startswith('"'):
        return GivenNode(unquote(key), None, module)
    return GivenNode(unquote(name) if name else None, key, module)


def unquote(text: str) -> str:
    """A name without its quotes and the backslashes in it."""
    name = text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text.strip('"')
    return ESCAPED.sub(lambda found: BREAKS.get(found[1], found[1]), name)
