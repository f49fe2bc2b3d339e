"""Networks whose nodes have states, which tell where a walk came from or which layer it is in: Infomap's files."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import check_utf8, read_contents, user_path, with_line_feeds
from .edge_list import data_lines, split_fields
from .graph import Graph, States, name_array
from .multilayer import Weighted, relaxed_links, switched_links
from .pajek import Section, is_pajek, read_integer, read_rows, read_sections, read_vertices

SECTION = re.compile(rb"^[ \t]*\*(states|multilayer|intra|inter)\b", re.IGNORECASE | re.MULTILINE)
LINKS = ("links", "edges", "arcs")
READ = "*Vertices, *States with *Links, *Edges or *Arcs, *Multilayer, *Intra, *Inter"
COMPLETE = ({"states", "links"}, {"states", "edges"}, {"states", "arcs"}, {"multilayer"}, {"intra"}, {"intra", "inter"})


class StateNetwork(NamedTuple):
    """Links between the states of physical nodes.

    ``map_equation.infomap`` and ``map_equation.codelength`` take it as a graph.

    Shapes:
        edges: (E, 2) int64, source and target; states are numbered from 0. Repeated links add up.
        weights: (E,) float64.
        physical: (n,) int64, the physical node of each state, numbered from 0.
        names: (m,) strings, the names of the physical nodes.
        states: the states in the file, ascending: (n,) int64 ids, or (n, 2) layers and ids of nodes.
        directed: whether links are directed; None if the file does not say.
        ids: (m,) int64, the numbers of the physical nodes in the file.
        directed_layers: of ``*Intra``, whether the links in the file are directed; None for other files.
    """

    edges: NDArray[np.int64]
    weights: NDArray[np.float64]
    physical: NDArray[np.int64]
    names: NDArray[np.str_]
    states: NDArray[np.int64]
    directed: bool | None
    ids: NDArray[np.int64]
    directed_layers: bool | None = None

    def as_graph(self) -> Graph:
        """States as nodes: a state's name is its id, or its layer and node; ``Graph.states`` has the physical nodes."""
        layered = self.states.ndim == 2
        names = [f"{layer} {node}" for layer, node in self.states.tolist()] if layered else self.states.tolist()
        return Graph(
            self.edges,
            name_array([str(name) for name in names]),
            self.weights,
            self.directed if self.directed_layers is None else self.directed_layers,
            ids=np.arange(len(self.states)) if layered else self.states,
            states=States(
                self.names[self.physical],
                self.ids[self.physical],
                self.states[:, 0].copy() if layered else None,
                self.directed_layers,
            ),
        )


def has_states(data: bytes) -> bool:
    """Whether a Pajek file has states or layers."""
    return is_pajek(data) and SECTION.search(data) is not None


def read_state_network(path: Path | str, *, directed: bool | None = None, relax_rate: float = 0.15) -> StateNetwork:
    """The network of a file with states or layers. ``*Vertices`` may name the physical nodes.

    - ``*States``: lines ``state node``, and ``*Links``, ``*Edges`` or ``*Arcs`` (directed): lines
      ``state state [weight]``.
    - ``*Multilayer``: lines ``layer node layer node [weight]``.
    - ``*Intra``: lines ``layer node node [weight]``. Walkers switch layers at the relax rate or, with ``*Inter``, along
      its lines ``layer node layer [weight]``: see ``multilayer``. The links between states are directed.

    A missing weight is 1; further fields are ignored.

    Args:
        path: UTF-8 text, may be gzipped.
        directed: whether the links of the file are directed; None: only arcs are. Undirected links of ``*Intra`` and
            ``*Inter`` count both ways.
        relax_rate: probability per step of following a link in any layer, in [0, 1]; only for ``*Intra`` alone.

    Raises:
        ValueError: ``relax_rate`` is out of range.
        DataError: other sections, a broken line, an unknown node or state; the message names file and line.
    """
    if not 0 <= relax_rate <= 1:
        raise ValueError(f"relax_rate ({relax_rate}) must be in [0, 1]")
    path = user_path(path)
    data = read_contents(path)
    check_utf8(data, path)
    return parse_state_network(with_line_feeds(data), str(path), directed, relax_rate)


def parse_state_network(data: bytes, where: str, directed: bool | None, relax_rate: float = 0.15) -> StateNetwork:
    """``read_state_network`` of a file's content; errors call it ``where``."""
    sections = _find_sections(data, where)
    vertices = read_vertices(data, sections["vertices"], where) if "vertices" in sections else None
    of_layers = None
    if "states" in sections:
        kind = next(name for name in LINKS if name in sections)
        states, nodes, links = _states(data, sections["states"], sections[kind], where)
        directed = True if directed is None and kind == "arcs" else directed
    elif "multilayer" in sections:
        states, links = _multilayer(data, sections["multilayer"], where)
        nodes = states[:, 1]
    else:
        states, links = _layers(data, sections, where, bool(directed), relax_rate)
        nodes, directed, of_layers = states[:, 1], True, bool(directed)
    ids = np.array(sorted(vertices), np.int64) if vertices else np.unique(nodes)
    physical = _places(ids, nodes, f"{where}: the node", "*Vertices")
    names = name_array([(vertices or {}).get(number, str(number)) for number in ids.tolist()])
    return StateNetwork(*links, physical, names, states, directed, ids, of_layers)


def _find_sections(data: bytes, where: str) -> dict[str, Section]:
    """The sections of a complete file by their names."""
    if not is_pajek(data):
        raise DataError(f"{where} is not a network of states or layers: it must begin with one of {READ}")
    found: dict[str, Section] = {}
    for section in read_sections(data, where):
        if section.name == "network":
            continue
        if section.name not in ("vertices", *set().union(*COMPLETE)):
            raise DataError(f"{section.where}: the section *{section.name} is not supported here, only {READ}")
        if section.name in found:
            raise DataError(f"{section.where}: a second *{section.name}; merge the two")
        found[section.name] = section
    if found.keys() - {"vertices"} not in COMPLETE:
        given = " and ".join(f"*{name}" for name in found) or "*Network"
        raise DataError(
            f"{where}: {given} do not make a network of states or layers; expected {READ}, one kind per file"
        )
    return found


def _rows(data: bytes, section: Section, where: str, width: int, what: str) -> Weighted:
    """Integers (E, width) and weights (E,) of a section's lines, without those of weight 0.

    Raises:
        DataError: a line is broken, or none is left.
    """
    rows, weights = read_rows(data, section, where, width, what)
    kept = weights > 0
    if not kept.any():
        raise DataError(f"{section.where}: *{section.name} is empty: it has no line with a positive weight")
    return rows[kept], weights[kept]


def _states(
    data: bytes, declared: Section, section: Section, where: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], Weighted]:
    """States, their physical nodes, and links."""
    nodes: dict[int, int] = {}
    for number, _, line in data_lines(data, declared.start, declared.end):
        place = f"{where}, line {number}"
        fields = split_fields(line, " ", place)
        if len(fields) < 2:
            raise DataError(f"{place}: expected the ids of a state and its node, found 1 field")
        state = read_integer(fields[0], place)
        if state in nodes:
            raise DataError(f"{place}: the state {state} is listed twice")
        nodes[state] = read_integer(fields[1], place)
    states = np.array(sorted(nodes), np.int64)
    edges, weights = _rows(data, section, where, 2, "two ids of states and optionally a weight")
    edges = _places(states, edges, f"{section.where}: the state", "*States")
    return states, np.array([nodes[state] for state in states.tolist()], np.int64), (edges, weights)


def _multilayer(data: bytes, section: Section, where: str) -> tuple[NDArray[np.int64], Weighted]:
    """States (layer, node) and links."""
    rows, weights = _rows(data, section, where, 4, "layer, node, layer, node and optionally a weight")
    states, edges = _number(rows.reshape(-1, 2))
    return states, (edges.reshape(-1, 2), weights)


def _layers(
    data: bytes, sections: dict[str, Section], where: str, directed: bool, relax_rate: float
) -> tuple[NDArray[np.int64], Weighted]:
    """States (layer, node) and links, from links within layers."""
    rows, weights = _rows(data, sections["intra"], where, 3, "layer, node, node and optionally a weight")
    ends = np.stack([rows[:, [0, 1]], rows[:, [0, 2]]], 1)  # (E, source and target, layer and node)
    if not directed:
        two = rows[:, 1] != rows[:, 2]
        ends, weights = np.concatenate([ends, ends[two, ::-1]]), np.concatenate([weights, weights[two]])
    if "inter" not in sections:
        states, edges = _number(ends.reshape(-1, 2))
        nodes = np.unique(states[:, 1], return_inverse=True)[1]
        return states, relaxed_links(nodes, edges.reshape(-1, 2), weights, relax_rate)
    rows, switch_weights = _rows(data, sections["inter"], where, 3, "layer, node, layer and optionally a weight")
    if (rows[:, 0] == rows[:, 2]).any():
        layer, node, _ = rows[rows[:, 0] == rows[:, 2]][0]
        raise DataError(f"{sections['inter'].where}: a link of the node {node} leads from layer {layer} to itself")
    switches = np.stack([rows[:, [0, 1]], rows[:, [2, 1]]], 1)
    if not directed:
        switches = np.concatenate([switches, switches[:, ::-1]])
        switch_weights = np.concatenate([switch_weights, switch_weights])
    states, numbers = _number(np.concatenate([ends, switches]).reshape(-1, 2))
    pairs = numbers.reshape(-1, 2)
    edges, weights = switched_links(pairs[: len(ends)], weights, pairs[len(ends) :], switch_weights)
    used, edges = np.unique(edges, return_inverse=True)
    return states[used], (edges.reshape(-1, 2), weights)


def _number(pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct rows, ascending, and the index of each row among them."""
    rows, numbers = np.unique(pairs, axis=0, return_inverse=True)
    return rows, numbers.ravel()


def _places(known: NDArray[np.int64], ids: NDArray[np.int64], what: str, section: str) -> NDArray[np.int64]:
    """The position of each id among the ascending known ones.

    Raises:
        DataError: it isn't there.
    """
    places = np.searchsorted(known, ids)
    unknown = ~np.isin(ids, known)
    if unknown.any():
        raise DataError(f"{what} {int(ids[unknown][0])} is not among the {len(known)} of {section}")
    return places
