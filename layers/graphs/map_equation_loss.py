"""The map equation of a soft assignment: a differentiable code length."""

from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from .sparse_matrix import SparseMatrix, SparseProduct, to_scipy

# The smallest argument of log2: it bounds the slopes by 126, so that those of unused clusters are finite.
SMALLEST = torch.finfo(torch.float32).tiny
BLOCK = 2**18  # entries of S converted to float64 at a time


class MapEquationLoss:
    """Bits per step to describe a random walk by modules, for soft modules; made once per graph.

        L = plogp(sum_m enter_m) - sum_m plogp(enter_m) - sum_m plogp(exit_m) + sum_m plogp(exit_m + flow_m)
            - sum_a plogp(p_a),                                                         plogp(x) = x log2 x
        flow = S^T p,   exit = S^T F 1 - diag(S^T F S),   enter = S^T F^T 1 - diag(S^T F S)

    S (n, s): each node's share in each cluster; F: the link flow; p: the visit rates. Recorded teleportation adds the
    outer product of leave and land to F without forming it: S^T leave * (1 - S^T land) to exit, its mirror image to
    enter.

    The quadratic form is that of (F + F^T) / 2, which is its own transpose: one sparse product serves the forward
    and backward pass. Time O(links * s), memory O(links + n * s). With float32 the sparse product and S are in
    float32; sums over nodes and all that follows are in float64. plogp(x) = x log2 max(x, 1.2e-38): at 0 its value is 0
    and its slope finite.

    Source: Blöcker, Tan, Scholtes, arXiv 2310.01144. Differences: enter and exit rates differ (unrecorded directed
    flow), dangling nodes keep their flow, nothing is added to S.

    Args:
        link_flow: F (n, n), row -> column, sparse (scipy or torch), without recorded teleportation.
        node_flow: p (n,).
        leave: (n,) rate of recorded teleportation from each node; None without.
        land: (n,) probability of landing on each node, summing to 1.
        dtype: dtype of S in the computation, float32 or float64.
        device: device of S.

    Raises:
        ValueError: if shapes differ, or one of ``leave`` and ``land`` is missing.
    """

    def __init__(
        self,
        link_flow: Any,
        node_flow: Any,
        leave: Any = None,
        land: Any = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        flow = to_scipy(link_flow)
        rates = {"node_flow": node_flow, "leave": leave, "land": land}
        rates = {name: _array(value) for name, value in rates.items() if value is not None}
        if ("leave" in rates) != ("land" in rates):
            raise ValueError("leave and land go together: pass both or neither")
        for name, value in rates.items():
            if flow.shape != (len(value), len(value)) or value.ndim != 1:
                raise ValueError(f"{name} {value.shape} and link_flow {flow.shape} must be (n,) and (n, n)")
        p = rates["node_flow"]
        self.entropy = -float((p * np.log2(p, out=np.zeros_like(p), where=p > 0)).sum())
        self.symmetric = SparseMatrix((flow + scipy.sparse.csr_array(flow.T)) / 2, dtype, device)
        out, into = np.asarray(flow.sum(1)), np.asarray(flow.sum(0))
        self.vectors = torch.from_numpy(np.stack([out, into - out, *rates.values()])).to(device)

    def __call__(self, assignment: Tensor) -> Tensor:
        """L in bits, a float64 scalar.

        Args:
            assignment: S (n, s), rows summing to 1. Half precision is converted to ``dtype``.
        """
        with torch.autocast(assignment.device.type, enabled=False):
            assignment = assignment.to(self.symmetric.dtype)
            leaving, excess, flow, *teleporting = _ModuleRates.apply(assignment, self.vectors, self.symmetric.matrix)
            entering = leaving + excess
            if teleporting:
                leave, land = teleporting
                leaving = leaving + leave * (1 - land)
                entering = entering + (leave.sum() - leave) * land
            books = plogp(entering.sum()) - (plogp(entering) + plogp(leaving) - plogp(leaving + flow)).sum()
            return books + self.entropy


class _ModuleRates(torch.autograd.Function):
    """V S for vectors V (k, n), minus diag(S^T F S) in the first row; F symmetric. Computes and returns float64.

    One sparse product, and memory for one more S.
    """

    @staticmethod
    def forward(ctx: Any, assignment: Tensor, vectors: Tensor, flow: Tensor) -> Tensor:
        stays = flow @ assignment
        rates = vectors.new_zeros(len(vectors), assignment.shape[1])
        rows = max(1, BLOCK // assignment.shape[1])
        for shares, staying, part in zip(
            assignment.split(rows), stays.split(rows), vectors.split(rows, 1), strict=True
        ):
            rates.addmm_(part, shares.double())
            rates[0] -= (shares * staying).double().sum(0)
        ctx.save_for_backward(assignment, stays, vectors)
        ctx.flow = flow
        return rates

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        assignment, stays, vectors = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient will be differentiated
            stays = SparseProduct.apply(ctx.flow, ctx.flow, assignment)
        gradient = gradient.to(stays.dtype)
        linear = vectors.to(stays.dtype).T @ gradient
        return linear.addcmul_(stays, gradient[0], value=-2), None, None


def map_equation_loss(
    assignment: Tensor, link_flow: Any, node_flow: Any, leave: Any = None, land: Any = None
) -> Tensor:
    """``MapEquationLoss`` for a single use: L in bits of the assignment S (n, s)."""
    dtype = torch.promote_types(assignment.dtype, torch.float32)
    return MapEquationLoss(link_flow, node_flow, leave, land, dtype, assignment.device)(assignment)


def plogp(x: Tensor) -> Tensor:
    """x log2 x, 0 at and below 0, with finite slopes everywhere."""
    x = x.clamp(min=0)
    return x * x.clamp(min=SMALLEST).log2()


def _array(values: Any) -> np.ndarray:
    values = values.detach().cpu() if isinstance(values, Tensor) else values
    return np.asarray(values, np.float64)
