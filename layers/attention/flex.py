"""Patterns computed by FlexAttention, whose kernels skip the blocks of a pattern that are empty."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any
from warnings import catch_warnings, simplefilter

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from .patterns import Pattern
from .plans import remembered
from .tracing import is_transformed

BLOCK = 128  # queries and keys of a block


def flex_attend(q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, causal: bool, bias: Tensor | None) -> Tensor:
    """``attend`` by FlexAttention, compiled on a GPU; on the CPU its plain form, which holds the N^2 logits.

    Raises:
        ValueError: if a gradient is wanted on the CPU, or torch.func or forward-mode derivatives are at work.
    """
    if is_transformed():
        raise ValueError("backend 'flex' has neither torch.func nor forward-mode derivatives: use 'products'")
    on_cpu = q.device.type == "cpu"
    if on_cpu and torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        raise ValueError("backend 'flex' has no gradient on the CPU: use 'products', or torch.no_grad()")

    def add_bias(score: Tensor, batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return score if bias is None else score + bias[batch, j]

    attention: Any = flex_attention if on_cpu or torch.compiler.is_compiling() else _compiled()
    mask = block_mask(pattern, q.shape[2], causal, q.device)
    with catch_warnings():
        simplefilter("ignore", UserWarning)  # that the plain form is not compiled
        return attention(q, k, v, score_mod=None if bias is None else add_bias, block_mask=mask)


@lru_cache(1)
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(flex_attention)


@remembered
def block_mask(pattern: Pattern, n: int, causal: bool, device: torch.device) -> BlockMask:
    """Which blocks have pairs of the pattern; found row by row of blocks, without an (N, N) mask."""
    blocks = -(-n // BLOCK)
    some, full = (torch.zeros(blocks, blocks, dtype=torch.bool, device=device) for _ in range(2))
    j = torch.arange(n, device=device)
    for row in range(blocks):
        i = torch.arange(row * BLOCK, min(row * BLOCK + BLOCK, n), device=device)
        seen = torch.zeros(BLOCK, blocks * BLOCK, dtype=torch.bool, device=device)
        seen[: len(i), :n] = _sees(pattern, causal, i[:, None], j[None, :])
        tiles = seen.view(BLOCK, blocks, BLOCK)
        some[row], full[row] = tiles.any(2).any(0), tiles.all(2).all(0)

    def rule(batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return _sees(pattern, causal, i, j)

    return BlockMask.from_kv_blocks(
        *_listed(some & ~full), *_listed(full), BLOCK_SIZE=BLOCK, mask_mod=rule, seq_lengths=(n, n)
    )


def _sees(pattern: Pattern, causal: bool, i: Tensor, j: Tensor) -> Tensor:
    seen = pattern.allowed(i, j)
    return seen & (j <= i) if causal else seen


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """The number of True blocks of each row, (1, 1, rows), and their columns before those of the others."""
    columns = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32)[None, None], columns.int()[None, None]
