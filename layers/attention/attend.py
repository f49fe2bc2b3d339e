"""One softmax over all branches of a pattern: value and gradient without an (N, N) matrix."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .kernels import FlashCPU, Kernel, Products, finite, wide
from .patterns import Pattern
from .tiles import Branch, Piece

# Logits that the matrix-product kernel holds at once: what fits in a CPU's cache, and enough to keep a GPU busy.
CPU_LOGITS, GPU_LOGITS = 2**19, 2**25


def attend(
    q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, causal: bool, key_padding_mask: Tensor | None, dropout: float
) -> Tensor:
    """softmax_j(q_i k_j / sqrt(D)) v_j over the pattern's pairs that are not padding.

    Branches are computed separately, each with the log-sum-exp l_b of its logits, and merged:

        l = log sum_b exp(l_b);    o = sum_b exp(l_b - l) o_b

    The backward pass recomputes weights exp(logit - l), so only q, k, v, o and l are kept.

    Args:
        q: queries (B, H, N, D).
        k: keys, of the same shape.
        v: values, likewise.
        pattern: the pairs of query and key.
        causal: keep only pairs with j <= i.
        key_padding_mask: (B, N) bool, True for padding.
        dropout: dropout rate of the weights.

    Returns:
        (B, H, N, D); 0 where a row sees no key.
    """
    batch, heads, n, _ = q.shape
    bias = None
    if key_padding_mask is not None:
        bias = torch.zeros(batch, n, dtype=wide(q.dtype), device=q.device)
        bias = bias.masked_fill_(key_padding_mask, -torch.inf).repeat_interleave(heads, 0)
    folded = (x.flatten(0, 1) for x in (q, k, v))
    folded = (x if x.stride(-1) == 1 else x.contiguous() for x in folded)
    # Drawn from the default generator, so that a run's seed and activation checkpointing apply.
    seed = int(torch.randint(2**62, ())) if dropout else 0
    out = _Attend.apply(*folded, bias, pattern.branches(n, causal), dropout, seed)
    return out.unflatten(0, (batch, heads))


class _Attend(torch.autograd.Function):
    """``attend`` on q, k, v (R, N, D), R = B H, and the padding bias (R, N)."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None,
        branches: list[Branch],
        dropout: float,
        seed: int,
    ) -> Tensor:
        kernel = _kernel(q, dropout, seed)
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        lse = q.new_empty(q.shape[:-1], dtype=wide(q.dtype))
        with torch.autocast(q.device.type, enabled=False):
            for number, branch in enumerate(branches):
                for piece in _split(branch, q):
                    mine = piece.queries.read(out), piece.queries.read(lse)
                    tile = piece.queries.read(q), piece.keys.read(k), piece.keys.read(v)
                    theirs = kernel.forward(*tile, _bias(piece, bias, q), piece.causal)
                    if number:
                        _merge(*mine, *theirs)
                    else:
                        mine[0].copy_(theirs[0])
                        mine[1].copy_(theirs[1])
        ctx.save_for_backward(q, k, v, bias, out, finite(lse))
        ctx.branches, ctx.dropout, ctx.seed = branches, dropout, seed
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, out, lse = ctx.saved_tensors
        grad = grad if grad.stride(-1) == 1 else grad.contiguous()
        kernel = _kernel(q, ctx.dropout, ctx.seed)
        gradients = [torch.zeros(x.shape, dtype=wide(x.dtype), device=x.device) for x in (q, k, v)]
        with torch.autocast(q.device.type, enabled=False):
            for branch in ctx.branches:
                for piece in _split(branch, q):
                    places = piece.queries, piece.keys, piece.keys
                    tile = piece.queries.read(q), piece.keys.read(k), piece.keys.read(v)
                    whole = piece.queries.read(out), piece.queries.read(lse)
                    parts = kernel.backward(
                        piece.queries.read(grad), *tile, *whole, _bias(piece, bias, q), piece.causal
                    )
                    for place, gradient, part in zip(places, gradients, parts, strict=True):
                        place.add(gradient, part)
        return *(gradient.to(q.dtype) for gradient in gradients), None, None, None, None


def _kernel(q: Tensor, dropout: float, seed: int) -> Kernel:
    if q.device.type == "cpu" and not dropout:
        return FlashCPU()
    generator = torch.Generator(q.device).manual_seed(seed) if dropout else None
    return Products(CPU_LOGITS if q.device.type == "cpu" else GPU_LOGITS, dropout, generator)


def _split(branch: Branch, q: Tensor) -> list[Piece]:
    """Pieces whose key gradients, before they are summed, take at most three times the memory of the keys.

    A lower limit would save memory, but each piece synchronises the threads about ten times. A band in tiles of its
    radius, which has three times the keys, stays one piece.
    """
    most_keys = 3 * q.shape[1]
    return [part for piece in branch for part in piece.split(most_keys)]


def _bias(piece: Piece, padding: Tensor | None, q: Tensor) -> Tensor | None:
    """The bias on a piece's logits, 0 or -inf, broadcastable to (G, R, m, n); None for no bias."""
    bias = None
    if piece.mask is not None:
        bias = torch.zeros(piece.mask.shape, dtype=wide(q.dtype), device=q.device)
        bias = bias.masked_fill_(~piece.mask.to(q.device), -torch.inf)[None, None]
    if padding is None:
        return bias
    there = piece.keys.read(padding).unsqueeze(-2)
    return there if bias is None else bias + there


def _merge(out: Tensor, lse: Tensor, other_out: Tensor, other_lse: Tensor) -> None:
    """Merges a branch into the result of the earlier ones, in place."""
    both = torch.logaddexp(lse, other_lse)
    safe = finite(both)
    out.mul_((lse - safe).exp_().unsqueeze(-1)).add_(other_out * (other_lse - safe).exp_().unsqueeze(-1))
    lse.copy_(both)
