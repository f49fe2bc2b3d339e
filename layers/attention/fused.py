"""Patterns computed by torch's own attention, whose kernels are the fastest on a GPU."""

import torch
from torch import Tensor
from torch.nn import functional as F


def fused_attention(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, key_padding_mask: Tensor | None, dropout: float
) -> Tensor:
    """Full attention by ``scaled_dot_product_attention``; rows without a key are 0."""
    if key_padding_mask is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, dropout_p=dropout)
    seen = ~key_padding_mask[:, None, None]
    if causal:
        seen = seen & torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).tril()
    empty = ~seen.any(-1, keepdim=True)
    # Empty rows see everything and are zeroed afterwards, so no kernel takes a softmax over nothing.
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen | empty, dropout_p=dropout)
    return out.masked_fill(empty, 0)


def fused_atrous_attention(
    q: Tensor, k: Tensor, v: Tensor, rate: int, causal: bool, key_padding_mask: Tensor | None, dropout: float
) -> Tensor:
    """Atrous attention as full attention within each residue class, the sequence padded to a multiple of the rate."""
    batch, heads, n, size = q.shape
    extra = -n % rate
    if extra:
        if key_padding_mask is None:
            key_padding_mask = torch.zeros(batch, n, dtype=torch.bool, device=q.device)
        key_padding_mask = F.pad(key_padding_mask, (0, extra), value=True)
        q, k, v = (F.pad(x, (0, 0, 0, extra)) for x in (q, k, v))
    q, k, v = (x.unflatten(2, (-1, rate)).permute(3, 0, 1, 2, 4).flatten(0, 1) for x in (q, k, v))
    if key_padding_mask is not None:
        key_padding_mask = key_padding_mask.unflatten(1, (-1, rate)).permute(2, 0, 1).flatten(0, 1)
    out = fused_attention(q, k, v, causal, key_padding_mask, dropout)
    out = out.unflatten(0, (rate, batch)).permute(1, 2, 3, 0, 4).reshape(batch, heads, n + extra, size)
    return out[:, :, :n]
