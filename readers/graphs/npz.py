"""Graphs as ``npz``: named NumPy arrays."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..npz import read_arrays
from .graph import Graph, check_num_nodes, number_names
from .markup import number_classes

NODE_ARRAYS = ("names", "labels", "features")
ARRAYS = ("edges", "weights", *NODE_ARRAYS, "directed")
# Allowed kinds of dtype, and the number of dimensions.
KINDS = {
    "weights": ("iuf", 1),
    "names": ("U", 1),
    "labels": ("iuU", 1),
    "features": ("biuf", 2),
    "directed": ("biu", 0),
}
TYPES = {"weights": np.float64, "features": np.float32}  # what they are converted to


def read_graph_npz(data: bytes, where: str) -> Graph:
    """The graph of an ``npz`` file.

    Args:
        data: the file, with the arrays that ``read_graph`` lists. Without ``names``, ``labels`` and ``features``, n is
            the highest id plus 1.
        where: what messages call it.

    Raises:
        DataError: it is not an npz of such arrays; the message names the array.
    """
    arrays = _load(data, where)
    edges = arrays["edges"]
    if edges.dtype.kind not in "iu" or edges.shape[1:] != (2,):
        raise DataError(f"{where}: edges ({edges.dtype}, {edges.shape}) must be integers (E, 2)")
    edges = edges.astype(np.int64)
    given = [name for name in NODE_ARRAYS if name in arrays]
    if not len(edges) and not given:
        raise DataError(f"{where} is an empty graph: it has no node and no link")
    nodes = len(arrays[given[0]]) if given else int(edges.max()) + 1
    check_num_nodes(nodes, len(edges), where)
    for name in given:
        if len(arrays[name]) != nodes:
            raise DataError(
                f"{where}: {name} has {len(arrays[name])} rows, but {given[0]} {nodes}: each needs one per node"
            )
    wrong = np.flatnonzero(((edges < 0) | (edges >= nodes)).any(1))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(f"{where}: row {row} of edges is {edges[row].tolist()}, but nodes are 0 to {nodes - 1}")
    directed = arrays.get("directed")
    return Graph(
        edges,
        arrays["names"] if "names" in arrays else number_names(np.arange(nodes)),
        _weights(arrays["weights"], len(edges), where) if "weights" in arrays else None,
        None if directed is None else bool(directed),
        labels=_labels(arrays["labels"]) if "labels" in arrays else None,
        features=arrays.get("features"),
    )


def _load(data: bytes, where: str) -> dict[str, NDArray[Any]]:
    """The arrays, each of the right kind and number of dimensions."""
    arrays = read_arrays(io.BytesIO(data), where)
    if "edges" not in arrays or not set(ARRAYS) >= arrays.keys():
        found = ", ".join(sorted(arrays)) or "none"
        raise DataError(f"{where} has the arrays {found}; expected edges, and optionally {', '.join(ARRAYS[1:])}")
    for name, (kind, dimensions) in KINDS.items():
        array = arrays.get(name)
        if array is not None and (array.dtype.kind not in kind or array.ndim != dimensions):
            what = {"U": "strings", "iuU": "integers or strings", "biu": "true or false"}.get(kind, "numbers")
            raise DataError(
                f"{where}: {name} ({array.dtype}, {array.shape}) must be {what} in {dimensions} dimension(s)"
            )
        if array is not None and name in TYPES:
            with np.errstate(over="ignore"):  # what doesn't fit is not finite
                array = arrays[name] = array.astype(TYPES[name])
        if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
            place = np.argwhere(~np.isfinite(array))[0].tolist()
            raise DataError(f"{where}: {name} must be finite, but is {array[tuple(place)]} at {place}")
    return arrays


def _weights(weights: NDArray[Any], links: int, where: str) -> NDArray[np.float64]:
    if len(weights) != links:
        raise DataError(f"{where}: {len(weights)} weights for {links} edges")
    negative = np.flatnonzero(weights < 0)
    if len(negative):
        row = int(negative[0])
        raise DataError(f"{where}: weights must not be negative, but row {row} is {weights[row]}")
    return weights


def _labels(labels: NDArray[Any]) -> NDArray[np.int64]:
    if labels.dtype.kind == "U":
        return number_classes(labels.tolist())
    return number_classes([None if label < 0 else label for label in labels.tolist()])
