"""Graphs from a user's file."""

import re
from pathlib import Path

from ..errors import DataError
from ..files import bare_suffix, check_utf8, read_contents, user_path, with_line_feeds
from .edge_list import read_edge_text
from .graph import Graph, drop_light_links
from .labels import read_labels
from .markup import SUFFIXES, read_markup
from .matrix_market import is_matrix_market, read_matrix_market
from .neighbour_lists import ADJACENCY, is_metis, read_adjacency_list, read_metis, read_multiline_list
from .npz import read_graph_npy, read_graph_npz
from .pajek import is_pajek, read_pajek
from .state_networks import has_states, parse_state_network

# Formats that are not read: suffixes, and how their files begin, if that tells.
OTHERS = (
    ("GEXF", (".gexf",), rb"(<\?xml[^>]*>\s*)?<gexf"),
    ("GraphML without .graphml", (), rb"(<\?xml[^>]*>\s*)?<graphml"),
    ("GML without .gml", (), rb"(creator[^\n]*\s+)?graph\s*\["),
    ("Graphviz's dot", (".dot", ".gv"), rb"(strict\s+)?(di)?graph\b[^\n{\[]*\{"),
    ("UCINET's dl", (".dl",), rb"dl\s+n\s*="),
    ("graph6 or sparse6", (".g6", ".s6"), rb">>(graph|sparse|digraph)6<<"),
    ("JSON", (".json",), rb"\{\s*\"|\[\s*[\[{]"),
    ("igraph's LGL", (".lgl",), b""),
    ("Parquet", (".parquet", ".pq"), rb"PAR1\x15"),
    ("MATLAB", (), rb"MATLAB [57]\.\d MAT-file"),
    ("HDF5", (".h5", ".hdf5"), rb"\x89HDF\r\n"),
    ("Excel", (".xlsx",), b""),
    ("Python's pickle", (".pickle", ".pkl", ".gpickle"), rb"\x80[\x02-\x05][\x95c}]"),
    ("packed with bzip2", (".bz2",), rb"BZh[1-9]1AY&SY"),
    ("packed with xz", (".xz",), rb"\xfd7zXZ\x00"),
    ("packed with zstd", (".zst",), rb"\x28\xb5\x2f\xfd"),
)


def read_graph(
    path: Path | str,
    *,
    directed: bool | None = None,
    labels_file: Path | str | None = None,
    min_weight: float = 0.0,
    one_way: bool | None = None,
) -> Graph:
    """The graph of a file. The suffix of its name tells the format; any file may be gzipped.

    - ``.gml``, ``.graphml``, ``.xml``: GML and GraphML, by networkx. A link's weight is its attribute ``weight``, else
      ``value``, else 1; a node's name is its ``label``, else ``name``, else its id; a node's label is its attribute
      ``value``, ``group``, ``community``, ``class``, ``club`` or ``groundTruth``.
    - ``.npz``: the array ``edges`` (E, 2) of integers from 0, and optionally ``weights`` (E,), ``labels`` (n,) of
      integers (-1: unknown) or strings, ``features`` (n, F), ``names`` (n,), ``directed`` (true or false); or an
      adjacency matrix as ``scipy.sparse.save_npz`` writes it.
    - ``.npy``: an array ``(E, 2)``, ``(E, 3)`` with weights, or an adjacency matrix ``(n, n)``.
    - ``.adjlist``: an adjacency list, a node and its neighbours in each line (networkx's multiline lists are known by
      their content); ``.metis``, and ``.graph`` if its first
      line counts its lines: METIS (both in ``neighbour_lists``).
    - Any other suffix is UTF-8 text: a MatrixMarket matrix if its first line begins with ``%%MatrixMarket``, Pajek if
      it begins with ``*`` (``pajek.read_pajek``), else an edge list with one link per line: source, target and
      optionally a weight, separated by blanks, TABs, commas or semicolons. Names are integers or any strings, in double
      quotes if they contain the separator. The first line may name the columns; a third one of numbers has the
      weights under any name. What follows a # or % at the beginning
      of a line or after a link is a comment. Where blanks separate the fields, a link without a weight has weight 1;
      attributes as networkx writes them, ``{'weight': 2.0}``, may stand in its place.

    Links are kept as written: repeated links add up, as in Infomap. A file that lists each undirected link in both
    directions, like many of SNAP's, doubles all weights, which does not change the code length; only the weights of
    self-links, which it lists once, are not doubled.

    Args:
        path: the file.
        directed: whether links are directed, from source to target; None: as the file says, else undirected.
        labels_file: the labels of nodes (``read_labels``), instead of the file's own.
        min_weight: drop lighter links; their nodes stay.
        one_way: whether the walk that the graph is read for follows links one way only. It decides where neither the
            file nor ``directed`` does and links are made while reading: edges beside Pajek's arcs, layers of
            ``*Intra``.

    Raises:
        DataError: the file can't be read or has another layout, there is no node, a weight is negative or not finite,
            or an unknown node has a label; the message names file and line.
    """
    path = user_path(path)
    data, suffix, where = read_contents(path), bare_suffix(path), str(path)
    if not data or data.isspace():
        raise DataError(f"{where} is an empty graph: it has no link")
    if suffix == ".npz":
        graph = read_graph_npz(data, where)
    elif suffix == ".npy":
        graph = read_graph_npy(data, where)
    else:
        _refuse_others(data, suffix, where)
        check_utf8(data, path)
        data = with_line_feeds(data)
        if suffix in SUFFIXES:
            graph = read_markup(data, where, suffix).graph
        else:
            graph = _read_text(data, suffix, where, one_way if directed is None else directed)
    if directed is not None and graph.states is None:
        graph = graph._replace(directed=directed)
    if graph.directed and graph.bipartite:
        raise DataError(f"{where}: the links of a bipartite graph are undirected here: leave directed out")
    if labels_file is not None:
        graph = graph._replace(labels=read_labels(user_path(labels_file), graph.names))
    return drop_light_links(graph, min_weight, where)


def _refuse_others(data: bytes, suffix: str, where: str) -> None:
    for name, suffixes, start in OTHERS:
        begins = start and suffix not in SUFFIXES and re.match(rb"\s*" + start, data[:1000], re.IGNORECASE)
        if suffix in suffixes or begins:
            packed = ", plain or gzipped" * name.startswith("packed")
            raise DataError(
                f"{where} is {name}, which isn't read: save the graph as .graphml, .gml, .net or an edge list{packed}"
            )


def _read_text(data: bytes, suffix: str, where: str, directed: bool | None) -> Graph:
    if is_matrix_market(data):
        return read_matrix_market(data, where)
    if has_states(data):
        return parse_state_network(data, where, directed).as_graph()
    if is_pajek(data):
        return read_pajek(data, where, directed)
    if (graph := read_multiline_list(data, where)) is not None:
        return graph
    if suffix in ADJACENCY:
        return read_adjacency_list(data, where)
    return read_metis(data, where) if is_metis(data, suffix) else read_edge_text(data, where)
