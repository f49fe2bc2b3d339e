"""Patterns computed by torch's own attention, whose kernels are the fastest on a GPU."""

import torch
from torch import Tensor
from torch.nn import functional as F

EXTRA = 8  # further features that hide padding; the fused kernels want head sizes that are multiples of 8


def fused_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool, bias: Tensor | None, dropout: float) -> Tensor:
    """Full attention by ``scaled_dot_product_attention``; rows without a key are 0.

    No kernel takes both the causal flag and a mask, and a mask of both is (N, N). So with both the bias of the keys is
    the product of further features: q' = (q, sqrt(D), 0 ...), k' = (k, bias, 0 ...).
    """
    if bias is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, dropout_p=dropout)
    seen = bias > -torch.inf
    if not causal:
        # Empty rows see everything and are zeroed afterwards, so no kernel takes a softmax over nothing.
        empty = ~seen.any(-1)[:, None, None, None]
        mask = bias[:, None, None].to(q.dtype).masked_fill(empty, 0)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return out.masked_fill(empty, 0)
    size = q.shape[-1]
    one = F.pad(q.new_full((1,), size**0.5), (0, EXTRA - 1)).expand(*q.shape[:-1], -1)
    lowest = max(torch.finfo(q.dtype).min / 2, -1e30)  # finite, so that its product with a gradient of 0 is 0
    hide = F.pad(bias.clamp(min=lowest)[..., None], (0, EXTRA - 1)).to(q.dtype)[:, None].expand(*k.shape[:-1], -1)
    q, k, v = torch.cat([q, one], -1), torch.cat([k, hide], -1), F.pad(v, (0, EXTRA))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout, scale=size**-0.5)[..., :size]
    return out.masked_fill((seen.cumsum(-1) == 0)[:, None, :, None], 0)


def fused_atrous_attention(
    q: Tensor, k: Tensor, v: Tensor, rate: int, causal: bool, bias: Tensor | None, dropout: float
) -> Tensor:
    """Atrous attention as full attention within each residue class, the sequence padded to a multiple of the rate."""
    batch, heads, n, size = q.shape
    extra = -n % rate
    if extra:
        if bias is None and not causal:  # causal queries don't see what is behind them
            bias = torch.zeros(batch, n, dtype=torch.float32, device=q.device)
        bias = None if bias is None else F.pad(bias, (0, extra), value=-torch.inf)
        q, k, v = (F.pad(x, (0, 0, 0, extra)) for x in (q, k, v))
    q, k, v = (x.unflatten(2, (-1, rate)).permute(3, 0, 1, 2, 4).flatten(0, 1) for x in (q, k, v))
    if bias is not None:
        bias = bias.unflatten(1, (-1, rate)).permute(2, 0, 1).flatten(0, 1)
    out = fused_attention(q, k, v, causal, bias, dropout)
    out = out.unflatten(0, (rate, batch)).permute(1, 2, 3, 0, 4).reshape(batch, heads, n + extra, size)
    return out[:, :, :n]
