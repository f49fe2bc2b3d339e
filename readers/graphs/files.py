"""Graphs from a user's file."""

from pathlib import Path

from ..errors import DataError
from ..files import bare_suffix, check_utf8, read_contents, user_path
from .edge_list import read_edge_text
from .graph import Graph, drop_light_links
from .labels import read_labels
from .markup import SUFFIXES, read_markup
from .npz import read_graph_npz
from .pajek import is_pajek, read_pajek


def read_graph(
    path: Path | str,
    *,
    directed: bool | None = None,
    labels_file: Path | str | None = None,
    min_weight: float = 0.0,
) -> Graph:
    """The graph of a file, by its ending; each may be gzipped.

    - ``.gml`` and ``.graphml``, by networkx: links weigh their attribute ``weight``, else ``value``, else 1; nodes are
      called by ``label``, else ``name``, else by their id; an attribute ``value``, ``group``, ``community``, ``class``,
      ``club`` or ``groundTruth`` is their label.
    - ``.npz``: the arrays ``edges`` (E, 2) of integers from 0, and perhaps ``weights`` (E,), ``labels`` (n,) of
      integers (-1: unknown) or strings, ``features`` (n, F), ``names`` (n,), ``directed`` (true or false).
    - any other is UTF-8 text: Pajek if its first line begins with ``*`` (``pajek.read_pajek``), else
      a link a line: source, target and perhaps a weight, apart by blanks, TABs, commas or semicolons. Names are
      integers or any strings, in double quotes where the separator is part of them. The first line may call the
      columns. Lines that begin with # or % don't count. Where blanks part the fields, a link without a weight has 1.

    Links stay as they are written: what comes again counts again, as in Infomap. A file that writes each undirected
    link in both directions, as many of SNAP's do, doubles all weights, which leaves the code length as it is; but not
    those of the links from a node to itself, which it writes once.

    Args:
        path: the file.
        directed: whether links have a direction, from source to target; None: as the file says, else they have none.
        labels_file: the labels of nodes (``read_labels``), in place of the file's own.
        min_weight: drop the links that weigh less; their nodes stay.

    Raises:
        DataError: it can't be read or has another layout, an empty graph, a weight that is negative or not finite, a
            label of an unknown node; the message names file and line.
    """
    path = user_path(path)
    links = _read(path, directed)
    if directed is not None:
        links = links._replace(directed=directed)
    if links.directed and links.bipartite:
        raise DataError(f"{path}: the links of a bipartite graph have no direction here: leave directed out")
    if labels_file is not None:
        links = links._replace(labels=read_labels(user_path(labels_file), links.names))
    return drop_light_links(links, min_weight, str(path))


def _read(path: Path, directed: bool | None) -> Graph:
    data, suffix, where = read_contents(path), bare_suffix(path), str(path)
    if not data or data.isspace():
        raise DataError(f"{where} is an empty graph: it has no link")
    if suffix == ".npz":
        return read_graph_npz(data, where)
    check_utf8(data, path)
    if suffix in SUFFIXES:
        return read_markup(data, where, suffix).links
    return read_pajek(data, where, directed) if is_pajek(data) else read_edge_text(data, where)
