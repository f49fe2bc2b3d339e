"""Rotary positions."""

import torch
from torch import Tensor


def rotate(x: Tensor, positions: Tensor, base: float = 10_000.0) -> Tensor:
    """Rotates pairs of features by angles proportional to the position.

        y_2i = x_2i cos(p t_i) - x_2i+1 sin(p t_i),    y_2i+1 = x_2i sin(p t_i) + x_2i+1 cos(p t_i)

    with t_i = base^(-2i / D). The product of a query at p and a key at p' then depends only on p - p'.

    Source: RoFormer, arXiv 2104.09864; kexue.fm/archives/8265.

    Args:
        x: (..., N, D), D even.
        positions: (N,) p.
        base: base of the frequencies.

    Returns:
        (..., N, D) with x's dtype; angles are computed in float32.

    Raises:
        ValueError: if D is odd.
    """
    size = x.shape[-1]
    if size % 2:
        raise ValueError(f"rotary positions rotate pairs of features: the head size ({size}) must be even")
    exponents = torch.arange(0, size, 2, device=x.device, dtype=torch.float32) / size
    angles = positions.to(x.device, torch.float32)[:, None] * base**-exponents
    cos, sin = angles.cos(), angles.sin()
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).to(x.dtype)
