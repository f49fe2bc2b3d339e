"""Constant sparse matrices."""

import warnings
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor


class SparseMatrix:
    """A constant sparse matrix A (n, m). ``A @ x`` is differentiable in x, dense (m, d):

        d loss / d x = A^T (d loss / d (A x))

    A and its transpose are both stored in CSR with 32-bit indices, as the fastest kernels take them: on a CPU half the
    time of torch's COO or of 64-bit indices, and no transposition in the backward pass. A symmetric matrix is stored
    once. There is no product in half precision: x is converted to the matrix's dtype, under autocast too.

    Args:
        matrix: (n, m), scipy's or torch's (COO or CSR); duplicate entries are summed.
        dtype: dtype of the values.
        device: device of the values.
    """

    def __init__(
        self, matrix: Any, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
    ) -> None:
        rows = to_scipy(matrix)
        columns = scipy.sparse.csr_array(rows.T)
        self._rows = rows
        self.shape: tuple[int, int] = rows.shape
        self.dtype = dtype
        self.device = torch.device("cpu" if device is None else device)
        self.matrix = _csr_tensor(rows, dtype, self.device)
        same = self.shape[0] == self.shape[1] and all(
            np.array_equal(getattr(rows, part), getattr(columns, part)) for part in ("indptr", "indices", "data")
        )
        self.transposed = self.matrix if same else _csr_tensor(columns, dtype, self.device)

    def __deepcopy__(self, memo: dict[int, Any]) -> "SparseMatrix":
        return self  # a constant, and torch can't copy sparse tensors

    def __matmul__(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return SparseProduct.apply(self.matrix, self.transposed, x.to(self.dtype))

    @cached_property
    def gcn_normalized(self) -> "SparseMatrix":
        """D^-1/2 (A + I) D^-1/2, D the row sums of A + I; A square."""
        looped = self._rows + scipy.sparse.eye_array(self.shape[0])
        scale = scipy.sparse.diags_array(np.asarray(looped.sum(1)) ** -0.5)
        return SparseMatrix(scale @ looped @ scale, self.dtype, self.device)

    @cached_property
    def row_normalized(self) -> "SparseMatrix":
        """D^-1 A, D the row sums of A; rows without entries stay zero."""
        sums = np.asarray(self._rows.sum(1), np.float64)
        scale = np.divide(1.0, sums, out=np.zeros_like(sums), where=sums > 0)
        return SparseMatrix(scipy.sparse.diags_array(scale) @ self._rows, self.dtype, self.device)


class SparseProduct(torch.autograd.Function):
    """A x, of A and its transpose as CSR tensors and x (m, d)."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transposed: Tensor, x: Tensor) -> Tensor:
        ctx.matrices = transposed, matrix
        return matrix @ x.contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:
        return None, None, SparseProduct.apply(*ctx.matrices, gradient)


def to_scipy(matrix: Any) -> scipy.sparse.csr_array:
    """A sparse matrix of scipy or torch as scipy's CSR, in float64, sorted, duplicate entries summed."""
    if isinstance(matrix, Tensor):
        entries = matrix.detach().cpu().to_sparse_coo().coalesce()
        row, column = entries.indices().numpy()
        matrix = scipy.sparse.coo_array((entries.values().double().numpy(), (row, column)), tuple(matrix.shape))
    rows = scipy.sparse.csr_array(matrix, dtype=np.float64)
    rows.sum_duplicates()
    return rows


def _csr_tensor(rows: scipy.sparse.csr_array, dtype: torch.dtype, device: torch.device) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # "beta state", once a process
        return torch.sparse_csr_tensor(
            torch.from_numpy(rows.indptr.astype(np.int32)),
            torch.from_numpy(rows.indices.astype(np.int32)),
            torch.from_numpy(rows.data).to(dtype),
            rows.shape,
            check_invariants=False,
        ).to(device)
