"""Pajek's ``.net`` files, with Infomap's extensions."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .edge_list import INTEGER, SMALL_TEXT, count_fields, data_lines, link_fields, read_weight
from .graph import Graph, Links, check_num_nodes, name_array

READ = "*Vertices, *Edges, *Arcs, *Links and *Bipartite"
# An id and a name: in quotes, before which a backslash may stand; else up to the last quote; else without a blank.
VERTEX = re.compile(r'\s*(\S*)\s*("(?:[^"\\]|\\.)*"(?=\s|$)|".*"|\S*)')
ESCAPED = re.compile(r'\\(["\\])')


class Section(NamedTuple):
    """A section of a file: its name in lower case, the rest of that line, and where the lines below begin and end."""

    name: str
    rest: list[str]
    start: int
    end: int
    where: str


def is_pajek(data: bytes) -> bool:
    """Whether the first line that isn't a comment begins a section."""
    return next((line.startswith("*") for _, _, line in data_lines(data)), False)


def read_pajek(data: bytes, where: str, directed: bool | None = None) -> Graph:
    """The graph of a Pajek file.

    - ``*Vertices [N [N1]]``: lines ``id "name"``. With N the nodes are 1 to N, unless the lines have other ids; with N1
      the first N1 are of the first kind.
    - ``*Edges``, ``*Arcs``, ``*Links``: lines ``id id [weight]``. If there are arcs, the links are directed, and edges
      count in both directions; edges alone have the direction that the walk gives them, as in Infomap.
    - ``*Bipartite N``: like ``*Links``, where the nodes from id N on are of the second kind (Infomap's).
    - ``*Network``: a title.

    Further fields of a line are ignored.

    Args:
        data: UTF-8 text.
        where: what messages call it.
        directed: what the user says, or whether the walk goes one way; if False, edges beside arcs count once.

    Raises:
        DataError: another section, an id that isn't an integer or one of the vertices, or a broken line.
    """
    nodes: dict[int, str] | None = None
    edges: list[Links] = []
    arcs: list[Links] = []
    second_kind = first_kind = None
    for section in read_sections(data, where):
        if section.name == "vertices":
            if nodes is not None:
                raise DataError(f"{section.where}: a second *Vertices; put each network in its own file")
            nodes = read_vertices(data, section, where)
            first_kind = read_integer(section.rest[1], section.where) if len(section.rest) > 1 else None
        elif section.name in ("edges", "arcs", "links", "bipartite"):
            if section.name == "bipartite":
                if not section.rest:
                    raise DataError(f"{section.where}: expected *Bipartite and the first id of the second kind")
                second_kind = read_integer(section.rest[0], section.where)
            links = _read_links(data, section, where)
            if links is not None:
                (arcs if section.name == "arcs" else edges).append(links)
        elif section.name != "network":
            raise DataError(f"{section.where}: the section *{section.name} is not supported, only {READ}")
    if not edges and not arcs:
        if not nodes:
            raise DataError(f"{where} is an empty graph: it has no node and no link")
        edges.append((np.empty((0, 2), np.int64), None))
    if arcs and directed is not False:
        edges += [_reversed(*links) for links in edges]
    ends, weights = _joined(edges + arcs)
    ids, ends = _number(ends, nodes, where)
    names = [(nodes or {}).get(number, str(number)) for number in ids.tolist()]
    if second_kind is None and first_kind is not None:
        second_kind = int(ids[0]) + first_kind
    bipartite = 0 if second_kind is None else _second_kind(ends, names, ids, second_kind, where)
    return Graph(ends, name_array(names), weights, True if arcs else None, bipartite, ids=ids)


def read_sections(data: bytes, where: str) -> Iterator[Section]:
    """Yields the sections of a file in order; each begins with a line that begins with ``*``."""
    heads = [found.start(1) for found in re.finditer(rb"^[ \t\r]*(\*)", data, re.MULTILINE)]
    for head, end in zip(heads, [*heads[1:], len(data)], strict=True):
        stop = data.find(b"\n", head, end)
        stop = end if stop < 0 else stop
        number = data.count(b"\n", 0, head) + 1
        name, *rest = data[head + 1 : stop].decode().split() or [""]
        yield Section(name.lower(), rest, min(stop + 1, end), end, f"{where}, line {number}")


def read_integer(text: str, where: str) -> int:
    """An integer as files write it; DataError that names ``where`` if it isn't one."""
    if not INTEGER.fullmatch(text):
        raise DataError(f"{where}: {text!r} is not an integer")
    return int(text)


def read_vertices(data: bytes, section: Section, where: str) -> dict[int, str]:
    """The names of nodes by id, a missing name being the id; DataError for a line or count that is wrong."""
    names: dict[int, str] = {}
    for number, _, line in data_lines(data, section.start, section.end):
        place = f"{where}, line {number}"
        found = VERTEX.match(line)
        assert found is not None  # it matches any line
        node = read_integer(found[1], place)
        if node in names:
            raise DataError(f"{place}: the node {node} is listed twice")
        name = unquote(found[2]) if '\\"' in found[2] else found[2].strip('"')  # else backslashes mean themselves
        names[node] = name or str(node)
    if section.rest:
        count = read_integer(section.rest[0], section.where)
        check_num_nodes(count, data.count(b"\n"), section.where)
        if all(1 <= node <= count for node in names):
            return {node: names.get(node, str(node)) for node in range(1, count + 1)}
        if len(names) != count:
            raise DataError(
                f"{section.where}: {count} vertices are declared, {len(names)} are given, not all from 1 to {count}"
            )
    return names


def unquote(text: str) -> str:
    """A name without its quotes; a quote inside may have a backslash before it, and then a backslash has one too."""
    name = text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text.strip('"')
    return ESCAPED.sub(r"\1", name)


def read_rows(
    data: bytes, section: Section, where: str, width: int, what: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Integers (E, width) and weights (E,) of a section's lines, 1 where a line has none; further fields are ignored.

    Raises:
        DataError: a line doesn't have ``what`` is expected.
    """
    rows: list[list[int]] = []
    weights: list[float] = []
    for number, _, line in data_lines(data, section.start, section.end):
        place = f"{where}, line {number}"
        fields = link_fields(line, " ", place)
        if len(fields) < width:
            raise DataError(f"{place}: expected {what}, found {count_fields(fields)}")
        rows.append([read_integer(field, place) for field in fields[:width]])
        weights.append(read_weight(fields[width], place) if len(fields) > width else 1.0)
    return np.array(rows, np.int64).reshape(-1, width), np.array(weights)


def _read_links(data: bytes, section: Section, where: str) -> Links | None:
    """Ids and weights of a section's links; None if it is empty."""
    if section.end - section.start > SMALL_TEXT:
        from .compiled_links import parse_links

        links = parse_links(data, section.start, section.end, " ", 2, 3)
        if links is not None:
            return links
    edges, weights = read_rows(data, section, where, 2, "two ids of nodes and optionally a weight")
    return (edges, None if (weights == 1).all() else weights) if len(edges) else None


def _reversed(edges: NDArray[np.int64], weights: NDArray[np.float64] | None) -> Links:
    """The links in the other direction, without self-links."""
    two = edges[:, 0] != edges[:, 1]
    return edges[two, ::-1], None if weights is None else weights[two]


def _joined(parts: list[Links]) -> Links:
    if len(parts) == 1:
        return parts[0]
    weights = [np.ones(len(edges)) if given is None else given for edges, given in parts]
    return np.concatenate([edges for edges, _ in parts]), np.concatenate(weights)


def _number(
    edges: NDArray[np.int64], nodes: dict[int, str] | None, where: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The ids of the nodes, ascending, and the links between their positions."""
    if len(edges):
        from .compiled_links import number_ids

        used = number_ids(edges)
    else:
        used = np.empty(0, np.int64)
    if not nodes:
        return used, edges
    ids = np.array(sorted(nodes), np.int64)
    place = np.minimum(np.searchsorted(ids, used), len(ids) - 1)
    unknown = ids[place] != used
    if unknown.any():
        node = int(used[unknown][0])
        raise DataError(f"{where}: a link names the node {node}, which is not among the {len(ids)} of *Vertices")
    return ids, place[edges]


def _second_kind(
    edges: NDArray[np.int64], names: list[str], ids: NDArray[np.int64], second_kind: int, where: str
) -> int:
    """The first node of the second kind.

    Raises:
        DataError: a link doesn't join the two kinds, or there is only one.
    """
    first = int(np.searchsorted(ids, second_kind))
    if not 0 < first < len(ids):
        raise DataError(f"{where}: with {second_kind} as the first id of the second kind, one kind has no nodes")
    second = edges >= first
    same = np.flatnonzero(second[:, 0] == second[:, 1])
    if len(same):
        source, target = (names[node] for node in edges[same[0]])
        raise DataError(
            f"{where}: the link {source} {target} doesn't join the two kinds; the second begins at {second_kind}"
        )
    return first
