"""What is known of a graph's nodes, from a file of its own."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import bare_suffix, check_utf8, read_contents
from .edge_list import INTEGER, count_fields, data_lines, find_separator, split_fields
from .markup import SUFFIXES, number_classes, read_markup

Labelled = tuple[str, tuple[str, ...], int | str]  # place in the file, what the node may be called, label
HEADERS = {"node", "nodeid", "id", "name", "vertex"}


def read_labels(path: Path, names: NDArray[np.str_]) -> NDArray[np.int64]:
    """The labels of nodes.

    Args:
        path: GML or GraphML whose nodes have their label as an attribute and are called as in the graph (by name or
            id); else text: a node and its label a line, apart by blanks, TABs, commas or semicolons, in double quotes
            where these are part of them. Lines that begin with # or % don't count, nor does a first line that calls its
            columns. Gzipped or not.
        names: (n,) what the nodes are called.

    Returns:
        (n,) numbers from 0 in the order of the labels; -1 for nodes that the file doesn't name.

    Raises:
        DataError: it can't be read, a line is something else, a node isn't one of the graph's or comes again with
            another label.
    """
    data = read_contents(path)
    index = {name: place for place, name in enumerate(names.tolist())}
    labels: list[int | str | None] = [None] * len(names)
    for where, called, label in _markup(data, path) if bare_suffix(path) in SUFFIXES else _lines(data, path, index):
        place = next((index[name] for name in called if name in index), None)
        if place is None:
            raise DataError(f"{where}: the graph has no node {called[0]}, which has a label here")
        if labels[place] not in (None, label):
            raise DataError(f"{where}: the node {called[0]} has the label {labels[place]} already")
        labels[place] = label
    if all(label is None for label in labels):
        raise DataError(f"{path} has no labels: expected a node and its label a line")
    return number_classes(labels)


def _markup(data: bytes, path: Path) -> Iterator[Labelled]:
    markup = read_markup(data, str(path), bare_suffix(path))
    for name, other, label in zip(markup.links.names.tolist(), markup.ids, markup.classes, strict=True):
        if label is not None:
            yield str(path), (name, other), label


def _lines(data: bytes, path: Path, index: dict[str, int]) -> Iterator[Labelled]:
    check_utf8(data, path)
    separator = None
    for number, _, line in data_lines(data):
        where = f"{path}, line {number}"
        first = separator is None
        if first:
            separator = find_separator(line)
        fields = split_fields(line, separator, where)
        if len(fields) != 2 or not all(fields):
            raise DataError(f"{where}: expected a node and its label, found {count_fields(fields)}")
        node, label = fields
        if first and node not in index and re.sub("[_ -]", "", node.lower()) in HEADERS:
            continue
        yield where, (node,), int(label) if INTEGER.fullmatch(label) else label
