"""Rotary positions."""

import torch
from torch import Tensor

from .plans import remembered


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
    return _turn(x, *_angles(positions.to(x.device), size, base))


def rotate_sequence(x: Tensor, first: int = 0, length: int | None = None) -> Tensor:
    """``rotate`` at the positions first, first + 1 ... of ``length`` (first + N), whose angles are computed once."""
    length = first + x.shape[-2] if length is None else length
    # A subclass of Tensor, such as a fake one, needs tables of its own kind.
    table = kept_rotary_table if type(x) is Tensor else rotary_table
    cos, sin = (part[first : first + x.shape[-2]] for part in table(length, x.shape[-1], x.device))
    return _turn(x, cos, sin)


def rotary_table(length: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin of the angles at the first ``length`` positions: (length, size / 2) float32."""
    return _angles(torch.arange(length, device=device), size)


kept_rotary_table = remembered(rotary_table)


def _angles(positions: Tensor, size: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    exponents = torch.arange(0, size, 2, device=positions.device, dtype=torch.float32) / size
    angles = positions.float()[:, None] * base**-exponents
    return angles.cos(), angles.sin()


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).to(x.dtype)
