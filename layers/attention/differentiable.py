"""Attention as plain operators, for what own ones don't have: derivatives of gradients, forward mode, torch.func."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from .kernels import Kernel, finite, wide
from .tiles import Branch

Keep = Callable[[Tensor, Tensor, Tensor], Tensor]  # from queries, keys and weights the weights after dropout


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

    def keep(queries: Tensor, keys: Tensor, weights: Tensor) -> Tensor:
        factors = kernel.keep(queries, keys)
        return weights if factors is None else weights * factors

    out = _attention(q, k, v, bias, lse, branches, keep).to(q.dtype)
    needed = [x for x in (q, k, v) if x.requires_grad]
    found = iter(torch.autograd.grad(out, needed, grad, create_graph=True))
    return [next(found) if x.requires_grad else None for x in (q, k, v)]


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, branches: list[Branch], dropout: float) -> Tensor:
    """The output (R, N, D), by operators that torch.func and forward-mode derivatives know; holds all logits."""
    highest = q.new_full(q.shape[:-1], -torch.inf, dtype=wide(q.dtype))
    with torch.autocast(q.device.type, enabled=False):
        for i, _, logits in _logits(q.detach(), k.detach(), bias, branches):
            here = logits.amax(-1).transpose(0, 1).flatten(1)
            highest = highest.index_copy(1, i.flatten(), torch.maximum(highest[:, i.flatten()], here))
    out = _attention(q, k, v, bias, finite(highest), branches, lambda _, __, weights: F.dropout(weights, dropout))
    return out.to(q.dtype)


def _attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, shift: Tensor, branches: list[Branch], keep: Keep
) -> Tensor:
    """Sums over pairs, exp(logit - shift) v and exp(logit - shift), divided: whatever the shift is, it cancels."""
    kind = wide(q.dtype)
    total, norm = torch.zeros_like(v, dtype=kind), torch.zeros_like(shift)
    with torch.autocast(q.device.type, enabled=False):
        for i, j, logits in _logits(q, k, bias, branches):
            weights = (logits - _at(shift, i).unsqueeze(-1)).exp()
            norm = norm.index_add(1, i.flatten(), weights.sum(-1).transpose(0, 1).flatten(1))
            parts = keep(_at(q, i), _at(k, j), weights) @ _at(v, j).to(kind)
            total = total.index_add(1, i.flatten(), parts.transpose(0, 1).flatten(1, 2))
    return total / norm.masked_fill(norm == 0, 1).unsqueeze(-1)


def _logits(
    q: Tensor, k: Tensor, bias: Tensor | None, branches: list[Branch]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For each piece the positions of its queries (G, m) and keys (G or 1, n), and the logits (G, R, m, n)."""
    for piece in (piece for branch in branches for piece in branch):
        i, j = piece.queries.positions().to(q.device), piece.keys.positions().to(q.device)
        queries, keys = (_at(x, at).to(wide(q.dtype)) for x, at in ((q, i), (k, j)))
        logits = queries @ keys.transpose(-1, -2) * q.shape[-1] ** -0.5
        if piece.bias is not None:
            logits = logits + piece.bias
        if bias is not None:
            logits = logits + _at(bias, j).unsqueeze(-2)
        if piece.causal:
            logits = logits.masked_fill(torch.ones_like(logits, dtype=torch.bool).triu(1), -torch.inf)
        yield i, j, logits


def _at(x: Tensor, positions: Tensor) -> Tensor:
    """x (R, N, ...) at positions (G, m): (G, R, m, ...)."""
    return x[:, positions].transpose(0, 1)
