"""Graphs as ``npz``, named NumPy arrays or SciPy's sparse matrix, and ``npy``, one array."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, one_line
from ..npz import read_arrays
from .graph import Graph, check_num_nodes, number_names
from .markup import number_classes
from .matrix_market import matrix_graph

NODE_ARRAYS = ("names", "labels", "features")
ARRAYS = ("edges", "weights", *NODE_ARRAYS, "directed")
SPARSE = {"format", "shape", "data"}  # what every ``scipy.sparse.save_npz`` writes
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
        data: the file, with the arrays that ``read_graph`` lists. Without ``names``, ``labels`` and ``features``, the
            nodes are the ids that occur.
        where: what messages call it.

    Raises:
        DataError: it is not an npz of such arrays; the message names the array.
    """
    arrays = read_arrays(io.BytesIO(data), where)
    if arrays.keys() >= SPARSE:
        return _read_sparse(data, where)
    return _make_graph(_checked(arrays, where), where)


def read_graph_npy(data: bytes, where: str) -> Graph:
    """The graph of an ``npy`` file: ``(E, 2)`` ids, ``(E, 3)`` with weights, or an adjacency matrix (nodes from 0).

    Raises:
        DataError: it is not such an array.
    """
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{where} is not an npy file of a plain array") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{where} is an npz file: call it .npz")
    if array.ndim != 2 or array.dtype.kind not in "biuf" or not array.size:
        raise DataError(
            f"{where} ({array.dtype}, {array.shape}) must be numbers (E, 2), (E, 3) with weights, or (n, n)"
        )
    if array.shape[0] == array.shape[1] and not (len(array) == 2 and array.dtype.kind in "iu"):
        return _adjacency(array, where)
    edges = array[:, :2]
    if array.dtype.kind == "f" and (edges == np.floor(edges)).all():
        edges = edges.astype(np.int64)
    arrays = {"edges": edges} if array.shape[1] == 2 else {"edges": edges, "weights": array[:, 2:].squeeze(1)}
    return _make_graph(_checked(arrays, where), where)


def _read_sparse(data: bytes, where: str) -> Graph:
    from scipy.sparse import load_npz  # takes a while to load

    try:
        matrix = load_npz(io.BytesIO(data))
        if hasattr(matrix, "check_format"):
            matrix.check_format(full_check=True)
    except Exception as error:  # SciPy raises several kinds
        raise DataError(f"{where} is not a sparse matrix that SciPy can read: {one_line(error)}") from error
    check_num_nodes(matrix.shape[0], matrix.nnz, where)
    return _adjacency(matrix, where)


def _adjacency(matrix: Any, where: str) -> Graph:
    graph = matrix_graph(matrix, 0, where)
    return graph._replace(directed=None) if graph.directed else graph  # a matrix does not say


def _make_graph(arrays: dict[str, NDArray[Any]], where: str) -> Graph:
    edges = arrays["edges"]
    if edges.dtype.kind not in "iu" or edges.shape[1:] != (2,):
        raise DataError(f"{where}: edges ({edges.dtype}, {edges.shape}) must be integers (E, 2)")
    edges = edges.astype(np.int64)
    given = [name for name in NODE_ARRAYS if name in arrays]
    if not len(edges) and not given:
        raise DataError(f"{where} is an empty graph: it has no node and no link")
    if given:
        nodes = len(arrays[given[0]])
        numbers = np.arange(nodes)
    else:
        nodes = int(edges.max()) + 1
        numbers, places = np.unique(edges, return_inverse=True)
    check_num_nodes(len(numbers), len(edges), where)
    for name in given:
        if len(arrays[name]) != nodes:
            raise DataError(
                f"{where}: {name} has {len(arrays[name])} rows, but {given[0]} {nodes}: each needs one per node"
            )
    wrong = np.flatnonzero(((edges < 0) | (edges >= nodes)).any(1))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(f"{where}: row {row} of edges is {edges[row].tolist()}, but nodes are 0 to {nodes - 1}")
    if not given:
        edges = places.reshape(edges.shape)
    directed = arrays.get("directed")
    return Graph(
        edges,
        arrays["names"] if "names" in arrays else number_names(numbers),
        _weights(arrays["weights"], len(edges), where) if "weights" in arrays else None,
        None if directed is None else bool(directed),
        labels=_labels(arrays["labels"]) if "labels" in arrays else None,
        features=arrays.get("features"),
    )


def _checked(arrays: dict[str, NDArray[Any]], where: str) -> dict[str, NDArray[Any]]:
    """The arrays, each of the right kind and number of dimensions."""
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
