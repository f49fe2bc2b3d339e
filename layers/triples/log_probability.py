"""Products of probabilities in log space, and their binary cross-entropy."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def binary_cross_entropy_of_log_probability(log_probability: Tensor, target: Tensor) -> Tensor:
    """Elementwise -y log p - (1 - y) log(1 - p) from log p, accurate for p near 0 and near 1.

    For probabilities that are products, p = p_1 p_2 ...: their logarithms are summed, and neither the product nor
    1 - p is ever rounded to 0.

    Args:
        log_probability: (...) float32 or float64, at most 0.
        target: (...) y, bool or numbers.

    Returns:
        (...) in nats.
    """
    return _BinaryCrossEntropy.apply(log_probability, target.to(log_probability.dtype))


class _BinaryCrossEntropy(Function):
    """The derivative by hand: autograd would divide by a rounded 1 - p."""

    @staticmethod
    def forward(ctx: Any, log_p: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(log_p, target)
        # log(1 - p) in the form that is accurate on that side of p = 1/2.
        complement = torch.where(log_p > -0.6931, (-torch.expm1(log_p)).log(), torch.log1p(-log_p.exp()))
        # Where log p is rounded to 0, take the smallest positive 1 - p: the loss stays finite.
        complement = complement.clamp(min=math.log(torch.finfo(log_p.dtype).tiny))
        return torch.lerp(-complement, -log_p, target)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        log_p, target = ctx.saved_tensors
        odds = log_p.exp() / (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny)
        return gradient * torch.lerp(odds, torch.full_like(odds, -1), target), None
