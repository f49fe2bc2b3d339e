"""One softmax over all branches of a pattern: value and gradient without an (N, N) matrix.

Both are operators of torch.library, so that torch.compile and torch.export take them as they are.
"""

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor

from .differentiable import attention, differentiable_gradients
from .kernels import FlashCPU, Kernel, Products, finite, wide
from .patterns import Pattern, pattern_of
from .plans import plan
from .tiles import Piece

# Logits that the matrix-product kernel holds at once: what fits in a CPU's cache, and enough to keep a GPU busy.
CPU_LOGITS, GPU_LOGITS = 2**19, 2**25


def attend(
    q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, causal: bool, key_bias: Tensor | None, dropout: float
) -> Tensor:
    """softmax_j(q_i k_j / sqrt(D) + b_j) v_j over the pattern's pairs.

    Branches are computed separately, each with the log-sum-exp l_b of its logits, and merged:

        l = log sum_b exp(l_b);    o = sum_b exp(l_b - l) o_b

    The backward pass recomputes weights exp(logit - l), so only q, k, v, o and l are kept. Derivatives of it go
    through plain operators, which hold the logits of the pattern.

    Args:
        q: queries (B, H, N, D).
        k: keys, of the same shape.
        v: values, likewise.
        pattern: the pairs of query and key.
        causal: keep only pairs with j <= i.
        key_bias: (B, N) b, -inf for padding, in float32 or wider; has no gradient.
        dropout: dropout rate of the weights.

    Returns:
        (B, H, N, D); 0 where a row sees no key.
    """
    batch, heads = q.shape[:2]
    bias = None if key_bias is None else key_bias.repeat_interleave(heads, 0)
    folded = (x.flatten(0, 1) for x in (q, k, v))
    # Drawn from the default generator, so that a run's seed and activation checkpointing apply.
    seed = torch.randint(2**62, (), device="cpu") if dropout else None
    out, _ = _attend(*folded, bias, type(pattern).__name__, astuple(pattern), causal, dropout, seed)
    return out.unflatten(0, (batch, heads))


def attend_by_operators(
    q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, causal: bool, key_bias: Tensor | None, dropout: float
) -> Tensor:
    """``attend`` by plain operators, which torch.func and forward-mode derivatives know; holds the pattern's logits."""
    batch, heads = q.shape[:2]
    bias = None if key_bias is None else key_bias.repeat_interleave(heads, 0)
    branches = plan(pattern, q.shape[2], causal, q.device, wide(q.dtype))
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    return attention(q, k, v, bias, branches, dropout).unflatten(0, (batch, heads))


@torch.library.custom_op("scientific_spaces::attend", mutates_args=())
def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    pattern: str,
    numbers: Sequence[int],
    causal: bool,
    dropout: float,
    seed: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """``attend`` on q, k, v (R, N, D), R = B H, and the bias (R, N): the output and l, finite.

    The pattern is the name of its class and its numbers; the seed draws the dropout.
    """
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    kernel = _kernel(q, dropout, seed)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = q.new_empty(q.shape[:-1], dtype=wide(q.dtype))
    branches = plan(pattern_of(pattern, numbers), q.shape[1], causal, q.device, wide(q.dtype))
    with torch.autocast(q.device.type, enabled=False):
        for number, branch in enumerate(branches):
            for piece in branch:
                mine = piece.queries.read(out), piece.queries.read(lse)
                tile = piece.queries.read(q), piece.keys.read(k), piece.keys.read(v)
                theirs = kernel.forward(*tile, _bias(piece, bias), piece.causal)
                if number:
                    _merge(*mine, *theirs)
                else:
                    mine[0].copy_(theirs[0])
                    mine[1].copy_(theirs[1])
    return out, finite(lse)


@_attend.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:-1], dtype=wide(q.dtype))


@torch.library.custom_op("scientific_spaces::attend_backward", mutates_args=())
def _attend_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    out: Tensor,
    lse: Tensor,
    pattern: str,
    numbers: Sequence[int],
    causal: bool,
    dropout: float,
    seed: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k, v from that of the output."""
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    kernel = _kernel(q, dropout, seed)
    branches = plan(pattern_of(pattern, numbers), q.shape[1], causal, q.device, wide(q.dtype))
    # What the first branch has exactly once, queries and perhaps keys, needs no zeros to add to.
    once = (True, *2 * [all(piece.keys == piece.queries for piece in branches[0])])
    gradients = [
        (torch.empty if written else torch.zeros)(x.shape, dtype=wide(x.dtype), device=x.device)
        for x, written in zip((q, k, v), once, strict=True)
    ]
    with torch.autocast(q.device.type, enabled=False):
        for number, branch in enumerate(branches):
            for piece in branch:
                places = piece.queries, piece.keys, piece.keys
                tile = piece.queries.read(q), piece.keys.read(k), piece.keys.read(v)
                whole = piece.queries.read(out), piece.queries.read(lse)
                parts = kernel.backward(piece.queries.read(grad), *tile, *whole, _bias(piece, bias), piece.causal)
                for place, gradient, part, written in zip(places, gradients, parts, once, strict=True):
                    if written and not number:
                        place.read(gradient).copy_(part)
                    else:
                        place.add(gradient, part)
    grad_q, grad_k, grad_v = (gradient.to(q.dtype) for gradient in gradients)
    return grad_q, grad_k, grad_v


@_attend_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, bias, *ctx.how, seed = inputs
    ctx.save_for_backward(q, k, v, bias, *output, seed)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, bias, out, lse, seed = ctx.saved_tensors
    gradients: Sequence[Tensor | None] = (None, None, None)
    if grad is not None and torch.is_grad_enabled():  # the gradient will be differentiated
        pattern, numbers, causal, dropout = ctx.how
        branches = plan(pattern_of(pattern, numbers), q.shape[1], causal, q.device, wide(q.dtype))
        kernel = _kernel(q, dropout, seed)
        gradients = differentiable_gradients(grad, q, k, v, bias, lse.detach(), branches, kernel)
    elif grad is not None:
        gradients = _attend_backward(grad, q, k, v, bias, out, lse, *ctx.how, seed)
    return *gradients, None, None, None, None, None, None


_attend.register_autograd(_gradients, setup_context=_save)


def _kernel(q: Tensor, dropout: float, seed: Tensor | None) -> Kernel:
    if q.device.type == "cpu" and seed is None:
        return FlashCPU()
    generator = None if seed is None else torch.Generator(q.device).manual_seed(int(seed))
    return Products(CPU_LOGITS if q.device.type == "cpu" else GPU_LOGITS, dropout, generator)


def _bias(piece: Piece, keys: Tensor | None) -> Tensor | None:
    """The bias on a piece's logits from that of the keys (R, N), broadcastable to (G, R, m, n); None for no bias."""
    bias = None if piece.bias is None else piece.bias[None, None]
    if keys is None:
        return bias
    there = piece.keys.read(keys).unsqueeze(-2)
    return there if bias is None else bias + there


def _merge(out: Tensor, lse: Tensor, other_out: Tensor, other_lse: Tensor) -> None:
    """Merges a branch into the result of the earlier ones, in place."""
    both = torch.logaddexp(lse, other_lse)
    safe = finite(both)
    out.mul_((lse - safe).exp_().unsqueeze(-1)).add_(other_out * (other_lse - safe).exp_().unsqueeze(-1))
    lse.copy_(both)
