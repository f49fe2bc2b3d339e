"""The labels of a graph's nodes, from a separate file."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import bare_suffix, check_utf8, read_contents, with_line_feeds
from .edge_list import INTEGER, count_fields, data_lines, find_separator, split_fields
from .markup import SUFFIXES, number_classes, read_markup

Labelled = tuple[str, tuple[str, ...], int | str]  # place in the file, possible names of the node, label
HEADERS = {"node", "nodeid", "id", "name", "vertex"}


def read_labels(path: Path, names: NDArray[np.str_]) -> NDArray[np.int64]:
    """The labels of nodes.

    Args:
        path: GML or GraphML whose nodes have the label as an attribute and are named as in the graph (by name or id),
            else text with a node and its label per line; separators, quotes, comments and a first line with the names
            of columns are as in edge lists (``read_graph``). May be gzipped.
        names: (n,) the names of the nodes.

    Returns:
        (n,) numbers from 0 in the order of the labels; -1 for nodes that the file doesn't name.

    Raises:
        DataError: the file can't be read, a line has another layout, or a node isn't in the graph or has two labels.
    """
    data = read_contents(path)
    index = {name: place for place, name in enumerate(names.tolist())}
    labels: list[int | str | None] = [None] * len(names)
    for where, called, label in _markup(data, path) if bare_suffix(path) in SUFFIXES else _lines(data, path, index):
        place = next((index[name] for name in called if name in index), None)
        if place is None:
            raise DataError(f"{where}: the graph has no node {called[0]}, which has a label here")
        if labels[place] not in (None, label):
            raise DataError(f"{where}: the node {called[0]} already has the label {labels[place]}")
        labels[place] = label
    if all(label is None for label in labels):
        raise DataError(f"{path} has no labels: expected a node and its label per line")
    return number_classes(labels)


def _markup(data: bytes, path: Path) -> Iterator[Labelled]:
    markup = read_markup(data, str(path), bare_suffix(path))
    for name, other, label in zip(markup.graph.names.tolist(), markup.ids, markup.classes, strict=True):
        if label is not None:
            yield str(path), (name, other), label


def _lines(data: bytes, path: Path, index: dict[str, int]) -> Iterator[Labelled]:
    check_utf8(data, path)
    separator = ""
    for number, _, line in data_lines(with_line_feeds(data)):
        where = f"{path}, line {number}"
        first = not separator
        separator = separator or find_separator(line)
        fields = split_fields(line, separator, where)
        if len(fields) != 2 or not all(fields):
            raise DataError(f"{where}: expected a node and its label, found {count_fields(fields)}")
        node, label = fields
        if first and node not in index and re.sub("[_ -]", "", node.lower()) in HEADERS:
            continue
        yield where, (node,), int(label) if INTEGER.fullmatch(label) else label
