"""Graphs as lists of neighbours: METIS (``.graph``, ``.metis``) and adjacency lists (``.adjlist``)."""

import re

import numpy as np

from ..errors import DataError
from .edge_list import ATTRIBUTES, BLANKS, data_lines, in_order, link_fields, read_weight, split_fields
from .graph import Graph, number_names
from .pajek import read_integer

METIS, ADJACENCY = (".graph", ".metis"), (".adjlist", ".adj")


def is_metis(data: bytes, suffix: str) -> bool:
    """Whether a file is METIS's: by its suffix, and its first line, which counts the lines that follow."""
    if suffix == ".metis":
        return True
    rows = _metis_rows(data.decode())
    header = rows[0][1].split() if rows else []
    if suffix not in METIS or not 2 <= len(header) <= 4 or not all(re.fullmatch("[0-9]+", field) for field in header):
        return False
    nodes, links = int(header[0]), int(header[1])
    return len(rows) == nodes + 1 and 2 * links <= nodes * (nodes + 1)


def _metis_rows(text: str) -> list[tuple[int, str]]:
    """Numbers and texts of the lines that are no comments. An empty line is a node without neighbours."""
    lines = text.rstrip(" \t\r").removesuffix("\n").split("\n")
    return [(number, line.strip(BLANKS)) for number, line in enumerate(lines, 1) if not line.lstrip().startswith("%")]


def read_metis(data: bytes, where: str) -> Graph:
    """The undirected graph of a METIS file; nodes are named from 1.

    The first line has the numbers of nodes and links, and a format: the last digit tells whether neighbours have
    weights, the one before whether nodes have, the one before that whether they have sizes (both are ignored). Each
    further line has the neighbours of a node; each link is in two lines.

    Args:
        data: UTF-8 text.
        where: what messages call it.

    Raises:
        DataError: the header, the number of lines or that of links is wrong, or a neighbour is no node.
    """
    rows = _metis_rows(data.decode())
    number, text = rows[0]
    header = text.split()
    if not re.fullmatch("[1-9][0-9]* +[0-9]+( +[01]{1,3}( +[0-9]+)?)?", " ".join(header)):
        raise DataError(f"{where}, line {number}: METIS begins with the numbers of nodes and links, not {text[:60]!r}")
    nodes, links = int(header[0]), int(header[1])
    form = (header[2] if len(header) > 2 else "").rjust(3, "0")
    ignored = (form[-3] == "1") + (form[-2] == "1") * int(header[3] if len(header) > 3 else 1)
    step = 1 + (form[-1] == "1")
    if len(rows) != nodes + 1:
        raise DataError(f"{where}: METIS's first line counts {nodes} nodes, but {len(rows) - 1} lines follow")
    edges: list[tuple[int, int]] = []
    weights: list[float] = []
    entries = 0
    for node, (number, text) in enumerate(rows[1:]):
        place = f"{where}, line {number}"
        fields = text.split()[ignored:]
        if len(fields) % step:
            raise DataError(f"{place}: a neighbour without a weight")
        for field, weight in zip(fields[::step], fields[1::2] if step == 2 else ["1"] * len(fields), strict=True):
            neighbour = read_integer(field, place) - 1
            if not 0 <= neighbour < nodes:
                raise DataError(f"{place}: the neighbour {field} is not one of the {nodes} nodes")
            entries += 1
            if node <= neighbour:
                edges.append((node, neighbour))
                weights.append(read_weight(weight, place))
    if entries != 2 * links:
        raise DataError(f"{where}: METIS's first line counts {links} links, but the lines have {entries} / 2")
    names = number_names(np.arange(1, nodes + 1))
    ends = np.array(edges, np.int64).reshape(-1, 2)
    return Graph(ends, names, np.array(weights) if step == 2 else None, directed=False)


def read_adjacency_list(data: bytes, where: str) -> Graph:
    """The graph of an adjacency list as networkx writes it: a node and then its neighbours in each line.

    Args:
        data: UTF-8 text; what follows a # is a comment. An undirected link is in one line, a directed one in that of
            its source.
        where: what messages call it.

    Raises:
        DataError: there is no node.
    """
    numbers: dict[str, int] = {}
    edges: list[tuple[int, int]] = []
    for number, line in enumerate(data.decode().split("\n"), 1):
        text = line.split("#")[0].strip(BLANKS)
        if not text:
            continue
        place = f"{where}, line {number}"
        names = split_fields(text, " ", place)
        if any(name.startswith("{") for name in names[1:]):
            raise DataError(f"{place}: an adjacency list has no attributes; write an edge list")
        first, *others = [numbers.setdefault(name, len(numbers)) for name in names]
        edges += [(first, other) for other in others]
    if not numbers:
        raise DataError(f"{where} is an empty graph: it has no node and no link")
    return Graph(*in_order(np.array(edges, np.int64).reshape(-1, 2), list(numbers)))


def read_multiline_list(data: bytes, where: str) -> Graph | None:
    """The graph of networkx's ``write_multiline_adjlist``; None if the file isn't such.

    A line has a node and the number of its neighbours; each has a line below, with its attributes. ``weight`` is one.
    """
    numbers: dict[str, int] = {}
    edges: list[tuple[int, int]] = []
    weights: list[float] = []
    node = left = 0
    for number, _, line in data_lines(data):
        place = f"{where}, line {number}"
        bare = ATTRIBUTES.sub("", line.rstrip(BLANKS)).split()
        if left and len(bare) == 1 and line.rstrip(BLANKS).endswith("}"):
            _, name, *weight = link_fields(f"node {line}", " ", place)
            edges.append((node, numbers.setdefault(name, len(numbers))))
            weights.append(read_weight(weight[0], place) if weight else 1.0)
            left -= 1
        elif not left and len(bare) == 2 and bare[1].isdecimal() and len(bare[1]) < 20:
            node, left = numbers.setdefault(bare[0], len(numbers)), int(bare[1])
        else:
            return None
    if left or not edges:
        return None
    return Graph(*in_order(np.array(edges, np.int64), list(numbers)), np.array(weights))
