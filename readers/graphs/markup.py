"""Graphs in GML and GraphML, read with networkx."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .edge_list import INTEGER, read_weight
from .graph import Graph, name_array

if TYPE_CHECKING:
    import networkx

SUFFIXES = (".gml", ".graphml", ".xml")
NAMES = ("label", "name")
WEIGHTS = ("weight", "value")
LABELS = ("value", "group", "community", "class", "club", "groundtruth")


class Markup(NamedTuple):
    """A graph, and its nodes' ids and classes (None if unknown) in the file."""

    graph: Graph
    ids: list[str]
    classes: list[Any]


def read_markup(data: bytes, where: str, suffix: str) -> Markup:
    """The graph of a GML or GraphML file; the nodes are in the file's order.

    Args:
        data: the file, UTF-8.
        where: what messages call it.
        suffix: ``.gml``; any other means GraphML.

    Raises:
        DataError: networkx can't read it, or a weight is negative, not finite or not a number.
    """
    parsed = _parse(data, where, suffix)
    index = {node: place for place, node in enumerate(parsed)}
    edges = np.array([(index[a], index[b]) for a, b in parsed.edges()], np.int64).reshape(-1, 2)
    attributes = dict(parsed.nodes(data=True))
    called = next((name for name in NAMES if any(name in given for given in attributes.values())), None)
    names = [str(given.get(called, node)) for node, given in attributes.items()]
    classes = _classes(list(attributes.values()))
    labels = None if all(known is None for known in classes) else number_classes(classes)
    if not names:
        raise DataError(f"{where} is an empty graph: it has no node and no link")
    graph = Graph(edges, name_array(names), _weights(parsed, where), parsed.is_directed(), labels=labels)
    ids = [str(node) for node in parsed]
    if all(INTEGER.fullmatch(text) for text in ids):
        graph = graph._replace(ids=np.array(ids, np.int64))
    return Markup(graph, ids, classes)


def number_classes(classes: Sequence[Any]) -> NDArray[np.int64]:
    """Classes as numbers from 0 in sorted order (integers first), -1 for None."""
    known = sorted(
        {known for known in classes if known is not None},
        key=lambda value: (0, value, "") if isinstance(value, int) else (1, 0, value),
    )
    number = {value: place for place, value in enumerate(known)}
    return np.array([number.get(value, -1) for value in classes], np.int64)


def _parse(data: bytes, where: str, suffix: str) -> "networkx.Graph":
    import networkx

    kind = "GML" if suffix == ".gml" else "GraphML"
    try:
        if suffix != ".gml":
            return networkx.parse_graphml(data)
        text = data.decode()
        try:
            return networkx.parse_gml(text.split("\n"), label="id")
        except networkx.NetworkXError as error:
            if "duplicated" not in str(error):
                raise
            text = re.sub(r"\bgraph(\s*)\[", r"graph\1[ multigraph 1 ", text, count=1)
            return networkx.parse_gml(text.split("\n"), label="id")
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8; save the file as UTF-8") from error
    except Exception as error:  # networkx and its parsers raise nearly everything on broken files
        reason = str(error).strip().split("\n")[0]
        raise DataError(f"{where} is not {kind} that networkx can read: {reason}") from error


def _weights(graph: "networkx.Graph", where: str) -> NDArray[np.float64] | None:
    given = [attributes for _, _, attributes in graph.edges(data=True)]
    called = next((name for name in WEIGHTS if any(name in attributes for attributes in given)), None)
    if called is None:
        return None
    weights = np.empty(len(given))
    for number, (source, target, attributes) in enumerate(graph.edges(data=True)):
        weights[number] = read_weight(str(attributes.get(called, 1)), f"{where}, link {source} {target}")
    return weights


def _classes(nodes: list[dict[str, Any]]) -> list[Any]:
    """The class of each node, an integer or a string; None if it has none."""
    for attribute in LABELS:
        values = [
            next((value for name, value in given.items() if name.lower().replace("_", "") == attribute), None)
            for given in nodes
        ]
        values = [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]
        known = [value for value in values if value is not None]
        if known and all(isinstance(value, int | str) for value in known):
            return values
    return [None] * len(nodes)
