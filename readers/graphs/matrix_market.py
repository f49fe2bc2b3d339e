"""Graphs in MatrixMarket files (``.mtx``), read with SciPy."""

import io
from typing import Any

import numpy as np

from ..errors import DataError, one_line
from .graph import Graph, check_num_nodes, number_names

HEADER = b"%%MatrixMarket"
ROUNDING = 4096  # the largest rounding error of an entry, in units of its last digit


def is_matrix_market(data: bytes) -> bool:
    """Whether the first line is that of a MatrixMarket file."""
    return data[: len(HEADER)].lower() == HEADER.lower()


def read_matrix_market(data: bytes, where: str) -> Graph:
    """The graph of an adjacency matrix: rows are sources, columns targets, and nodes are named from 1.

    Links have a direction if the matrix is not symmetric. A symmetric one holds each link twice, or once if the file
    says so; both give each link once.

    Args:
        data: the file.
        where: what messages call it.

    Raises:
        DataError: SciPy can't read it, it isn't square, or an entry is negative, not finite or not real.
    """
    from scipy.io import mmread  # takes a while to load

    try:
        matrix = mmread(io.BytesIO(data))
    except Exception as error:  # SciPy raises several kinds
        raise DataError(f"{where} is not a MatrixMarket file that SciPy can read: {one_line(error)}") from error
    check_num_nodes(matrix.shape[0], data.count(b"\n"), where)
    return matrix_graph(matrix, 1, where)


def matrix_graph(matrix: Any, first: int, where: str) -> Graph:
    """The graph of an adjacency matrix as above, SciPy's or an array; nodes are named from ``first``."""
    from scipy.sparse import coo_array

    matrix = coo_array(matrix)
    if matrix.shape[0] != matrix.shape[1]:
        raise DataError(f"{where}: an adjacency matrix is square, but this one has shape {matrix.shape}")
    if not matrix.shape[0]:
        raise DataError(f"{where} is an empty graph: it has no node and no link")
    values = matrix.data.astype(np.float64) if matrix.data.dtype.kind in "iufb" else np.full(len(matrix.data), np.nan)
    if not ((values >= 0) & (values < np.inf)).all():
        entry = int(np.flatnonzero(~((values >= 0) & (values < np.inf)))[0])
        place = f"row {matrix.row[entry] + first}, column {matrix.col[entry] + first}"
        raise DataError(f"{where}: {place} is {matrix.data[entry]}, but weights are finite numbers, 0 or more")
    dtype, matrix = matrix.dtype, coo_array((values, (matrix.row, matrix.col)), matrix.shape)
    symmetric = is_symmetric(matrix, dtype)
    kept = (matrix.data > 0) & ((matrix.row <= matrix.col) | (not symmetric))
    edges = np.stack([matrix.row[kept], matrix.col[kept]], 1).astype(np.int64)
    names = number_names(np.arange(first, matrix.shape[0] + first))
    return Graph(edges, names, matrix.data[kept], directed=not symmetric)


def is_symmetric(matrix: Any, dtype: np.dtype[Any]) -> bool:
    """Whether a square sparse matrix is equal to its transpose, up to rounding errors of the dtype it was computed in.

    Correlations and cosines are often equal up to such only: two entries may differ by 9e-13 of the larger one in
    float64, 5e-4 in float32.
    """
    matrix = matrix.tocsr()
    if (matrix != matrix.T).nnz == 0:
        return True
    if dtype.kind != "f":
        return False
    tolerance = min(ROUNDING * np.finfo(dtype).eps, 1e-3)
    matrix = matrix.astype(np.float64)
    excess = abs(matrix - matrix.T) - tolerance * abs(matrix).maximum(abs(matrix.T))
    return not (excess.data > 0).any()
