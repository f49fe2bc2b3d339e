"""Attention functions on (B, H, N, D): full, atrous, local, sparse, and the Sparse Transformer's fixed pattern."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from ..dropout import check_probability
from .attend import attend, attend_by_operators
from .fused import fused_atrous_attention, fused_attention
from .masks import check_padding, key_bias
from .patterns import Atrous, Full, Local, Pattern, Sparse, fixed_patterns
from .tracing import is_transformed

Backend = Literal["products", "flex"]


def full_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    key_padding_mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Every query sees every key: softmax(q k^T / sqrt(D)) v.

    Args:
        q: queries (B, H, N, D) in float64, float32, float16 or bfloat16; the softmax is computed in float32 or float64.
        k: keys, of the same shape and dtype.
        v: values, likewise.
        causal: query i sees only keys j <= i.
        key_padding_mask: (B, N), True for keys that no query sees; or floats, -inf for these, else 0, which are added
            to the logits and have no gradient. Padded queries are computed like any other.
        dropout: probability that a weight is zeroed; the others are divided by 1 - dropout.

    Returns:
        (B, H, N, D). A row that sees no key is 0 and has no gradient.

    Raises:
        ValueError: on a wrong shape or dtype, or a number out of range.
    """
    return pattern_attention(q, k, v, Full(), causal, key_padding_mask, dropout)


def atrous_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    rate: int,
    causal: bool = False,
    key_padding_mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Query i sees the keys j with (i - j) mod rate = 0: about N^2 / rate pairs.

    Source: kexue.fm/archives/6853. Other arguments, result and errors as in ``full_attention``.

    Args:
        q: queries (B, H, N, D).
        k: keys.
        v: values.
        rate: at least 1; N need not be a multiple.
        causal: keep only keys j <= i.
        key_padding_mask: (B, N) bool, True for padding; or floats.
        dropout: dropout rate of the weights.
    """
    return pattern_attention(q, k, v, Atrous(rate), causal, key_padding_mask, dropout)


def local_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int,
    dilation: int = 1,
    causal: bool = False,
    key_padding_mask: Tensor | None = None,
    dropout: float = 0.0,
    backend: Backend = "products",
) -> Tensor:
    """Query i sees the keys j with |i - j| <= window * dilation in steps of dilation: about N (2 window + 1) pairs.

    Source: kexue.fm/archives/6853. Other arguments, result and errors as in ``full_attention``.

    Args:
        q: queries (B, H, N, D).
        k: keys.
        v: values.
        window: keys seen to each side, at least 1.
        dilation: their distance, at least 1.
        causal: keep only keys j <= i.
        key_padding_mask: (B, N) bool, True for padding; or floats.
        dropout: dropout rate of the weights.
        backend: "products", or "flex" for FlexAttention: without dropout, on the CPU without a gradient.
    """
    return pattern_attention(q, k, v, Local(window, dilation), causal, key_padding_mask, dropout, backend)


def sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    rate: int,
    causal: bool = False,
    key_padding_mask: Tensor | None = None,
    dropout: float = 0.0,
    backend: Backend = "products",
) -> Tensor:
    """Query i sees the keys j with |i - j| <= rate or (i - j) mod rate = 0, in one softmax.

    About N^2 / rate + 2 N rate pairs, fewest at rate = sqrt(N / 2): about 2.8 N^1.5. The causal form is
    the Sparse Transformer's strided pattern with both parts merged.

    Source: kexue.fm/archives/6853; Child et al. 2019, arXiv 1904.10509. Other arguments, result and errors as in
    ``full_attention``.

    Args:
        q: queries (B, H, N, D).
        k: keys.
        v: values.
        rate: distance of the far keys and radius of the near ones, at least 1.
        causal: keep only keys j <= i.
        key_padding_mask: (B, N) bool, True for padding; or floats.
        dropout: dropout rate of the weights.
        backend: "products", or "flex" for FlexAttention: without dropout, on the CPU without a gradient.
    """
    return pattern_attention(q, k, v, Sparse(rate), causal, key_padding_mask, dropout, backend)


def fixed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    block: int,
    summary: int,
    distinct: bool = False,
    causal: bool = False,
    key_padding_mask: Tensor | None = None,
    dropout: float = 0.0,
    backend: Backend = "products",
) -> Tensor:
    """Query i sees its own block of positions and the last ``summary`` keys of every block, in one softmax.

        floor(i / block) = floor(j / block)   or   j mod block >= block - summary

    With ``distinct`` heads have sub-blocks of their own, from the end of the blocks to their beginning in turn: head h
    sees j mod block from block - (s + 1) summary to block - s summary - 1, s = h mod floor(block / summary).

    Source: the fixed pattern of Child et al. 2019, arXiv 1904.10509, both parts merged. Other arguments, result and
    errors as in ``full_attention``.

    Args:
        q: queries (B, H, N, D).
        k: keys.
        v: values.
        block: positions of a block, at least 1.
        summary: last keys of each block, which all queries see, 1 to ``block``.
        distinct: each head has a sub-block of its own, instead of the last.
        causal: keep only keys j <= i.
        key_padding_mask: (B, N) bool, True for padding; or floats.
        dropout: dropout rate of the weights.
        backend: "products", or "flex" for FlexAttention: without dropout, on the CPU without a gradient.
    """
    return pattern_attention(
        q, k, v, fixed_patterns(block, summary, distinct), causal, key_padding_mask, dropout, backend
    )


def pattern_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    patterns: Pattern | Sequence[Pattern],
    causal: bool,
    key_padding_mask: Tensor | None,
    dropout: float,
    backend: Backend = "products",
) -> Tensor:
    """Attention over the pairs of a pattern, or of several that the heads take in turn.

    Arguments, result and errors are those of ``full_attention``.
    """
    check_inputs(q, k, v, key_padding_mask, dropout)
    check_backend(backend, dropout)
    bias = key_bias(key_padding_mask, q.dtype)
    if isinstance(patterns, Pattern):
        return _attention(q, k, v, patterns, causal, bias, dropout, backend)
    heads = [slice(number, None, len(patterns)) for number in range(min(len(patterns), q.shape[1]))]
    parts = [
        _attention(q[:, part], k[:, part], v[:, part], pattern, causal, bias, dropout, backend)
        for part, pattern in zip(heads, patterns, strict=False)
    ]
    return torch.stack([parts[head % len(parts)][:, head // len(parts)] for head in range(q.shape[1])], 1)


def _attention(
    q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, causal: bool, bias: Tensor | None, dropout: float, backend: str
) -> Tensor:
    if backend == "flex":
        from .flex import flex_attend  # imports torch's compiler, which takes seconds

        return flex_attend(q, k, v, pattern, causal, bias)
    if is_transformed():
        return attend_by_operators(q, k, v, pattern, causal, bias, dropout)
    if q.is_cuda and isinstance(pattern, Full):
        return fused_attention(q, k, v, causal, bias, dropout)
    if q.is_cuda and isinstance(pattern, Atrous):
        return fused_atrous_attention(q, k, v, pattern.rate, causal, bias, dropout)
    return attend(q, k, v, pattern, causal, bias, dropout)


def check_backend(backend: str, dropout: float) -> None:
    """Raises ValueError on an unknown backend, or dropout that it doesn't have."""
    if backend not in get_args(Backend):
        raise ValueError(f"backend ({backend!r}) must be one of {', '.join(get_args(Backend))}")
    if backend == "flex" and dropout:
        raise ValueError(f"backend 'flex' has no dropout of the weights ({dropout}): use 'products', or dropout 0")


def check_inputs(q: Tensor, k: Tensor, v: Tensor, key_padding_mask: Tensor | None, dropout: float) -> None:
    """Raises ValueError on inputs that the functions don't accept."""
    if q.dim() != 4 or 0 in q.shape or not q.is_floating_point():
        raise ValueError(f"q {tuple(q.shape)} of {q.dtype} must be non-empty (B, H, N, D) floating-point numbers")
    for name, x in (("k", k), ("v", v)):
        if x.shape != q.shape or x.dtype != q.dtype or x.device != q.device:
            raise ValueError(
                f"{name} {tuple(x.shape)} of {x.dtype} on {x.device} must be like q, {tuple(q.shape)} of {q.dtype} "
                f"on {q.device}"
            )
    check_padding(key_padding_mask, q.shape[0], q.shape[2])
    check_probability("dropout", dropout)
