"""The gradient of attention as plain operators, for derivatives of it."""

import torch
from torch import Tensor

from .kernels import Kernel, wide
from .tiles import Branch


def differentiable_gradients(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    lse: Tensor,
    branches: list[Branch],
    kernel: Kernel,
) -> list[Tensor | None]:
    """The gradients of q, k, v (R, N, D) from that of the output, as functions of all four; None for what needs none.

    Args:
        grad: the gradient of the output.
        q: queries.
        k: keys.
        v: values.
        bias: (R, N), added to the logits of each key, or None.
        lse: (R, N) log-sum-exp of the logits, finite; a constant.
        branches: the pattern's pairs.
        kernel: draws the dropout.
    """
    out = _attention(q, k, v, bias, lse, branches, kernel).to(q.dtype)
    needed = [x for x in (q, k, v) if x.requires_grad]
    found = iter(torch.autograd.grad(out, needed, grad, create_graph=True))
    return [next(found) if x.requires_grad else None for x in (q, k, v)]


def _attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, lse: Tensor, branches: list[Branch], kernel: Kernel
) -> Tensor:
    """Sums over pairs, exp(logit - lse) v and exp(logit - lse), divided: whatever constant lse is, it cancels."""
    kind = wide(q.dtype)
    total, norm = torch.zeros_like(v, dtype=kind), torch.zeros_like(lse)
    with torch.autocast(q.device.type, enabled=False):
        for piece in (piece for branch in branches for piece in branch):
            i, j = piece.queries.positions().to(q.device), piece.keys.positions().to(q.device)
            queries, keys, values = (x.to(kind)[:, at].transpose(0, 1) for x, at in ((q, i), (k, j), (v, j)))
            logits = queries @ keys.transpose(-1, -2) * q.shape[-1] ** -0.5
            if piece.bias is not None:
                logits = logits + piece.bias
            if bias is not None:
                logits = logits + bias[:, j].transpose(0, 1).unsqueeze(-2)
            if piece.causal:
                logits = logits.masked_fill(torch.ones_like(logits, dtype=torch.bool).triu(1), -torch.inf)
            weights = (logits - lse[:, i].transpose(0, 1).unsqueeze(-1)).exp()
            norm = norm.index_add(1, i.flatten(), weights.sum(-1).transpose(0, 1).flatten(1))
            keep = kernel.keep(queries, keys)
            parts = (weights if keep is None else weights * keep) @ values
            total = total.index_add(1, i.flatten(), parts.transpose(0, 1).flatten(1, 2))
    return total / norm.masked_fill(norm == 0, 1).unsqueeze(-1)
