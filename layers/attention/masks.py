"""The masks that callers pass: padding as bool or float, and torch's causal mask."""

import torch
from torch import Tensor

from .kernels import wide
from .tracing import is_plain, may_look


def check_padding(mask: Tensor | None, batch: int, n: int) -> None:
    """Raises ValueError unless a ``key_padding_mask`` is (batch, n), bool or float with 0 and -inf.

    Values of floats are looked at only on the CPU, where that makes nobody wait: positive ones are refused, since they
    are a mask of ones and zeros; other negative ones are added to the logits, as torch does.
    """
    if mask is None:
        return
    wrong = mask.shape != (batch, n) or not (mask.dtype == torch.bool or mask.is_floating_point())
    if not wrong and mask.is_floating_point() and may_look(mask):
        wrong = not bool((mask <= 0).all())
    if wrong:
        raise ValueError(
            f"key_padding_mask {tuple(mask.shape)} of {mask.dtype} must be (B, N) = ({batch}, {n}): torch.bool with "
            "True for padding, or floats with -inf for padding, else 0"
        )


def key_bias(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """What a ``key_padding_mask`` adds to the logits of attention in this dtype: (B, N) in float32 or wider."""
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, dtype=wide(dtype), device=mask.device).masked_fill(mask, -torch.inf)
    return mask.detach().to(wide(dtype))


def means_causal(mask: Tensor | None, n: int, is_causal: bool, name: str) -> bool:
    """Whether torch's ``attn_mask`` and ``is_causal`` ask for causal attention.

    The mask may be the causal one, (n, n), bool with True above the diagonal or floats with -inf there. With
    ``is_causal`` it is, as torch demands, and is looked at only on the CPU, where that makes nobody wait.

    Raises:
        ValueError: if it is any other mask, or has to be looked at where it has no values.
    """
    if mask is None:
        return is_causal
    if is_causal and not may_look(mask) and mask.shape == (n, n):
        return True
    if not is_plain():
        raise ValueError(
            f"{name} can't look at attn_mask while it is compiled or transformed: pass is_causal=True for "
            "the causal mask"
        )
    if mask.shape != (n, n) or not torch.equal(mask, causal_mask(n, mask)):
        raise ValueError(
            f"{name} takes no attn_mask but the causal one of ({n}, {n}): its pattern is the mask; use is_causal and "
            "key_padding_mask"
        )
    return True


def causal_mask(n: int, like: Tensor) -> Tensor:
    """torch's causal mask with the dtype and device of another."""
    hidden = True if like.dtype == torch.bool else -torch.inf if like.is_floating_point() else 1
    return torch.full((n, n), hidden, dtype=like.dtype, device=like.device).triu(1)
