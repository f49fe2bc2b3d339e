"""Dropout for recurrent language models."""

import torch
from torch import Tensor, nn

__all__ = ["LockedDropout", "WordDropout"]


class LockedDropout(nn.Module):
    """Dropout with one mask for all steps of a sequence: ``x * m / (1 - p)`` with m (1, B, D) of zeros and ones.

    Shapes: (T, B, D) -> (T, B, D).

    Args:
        p: probability of a zero, in [0, 1).

    Raises:
        ValueError: if ``p`` is out of range.

    Source: Gal and Ghahramani, arXiv 1512.05287 (variational dropout).
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = check_probability("p", p)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        mask = torch.empty_like(x[:1]).bernoulli_(1 - self.p) / (1 - self.p)
        return x * mask

    def extra_repr(self) -> str:
        return f"p={self.p}"


class WordDropout(nn.Module):
    """An embedding lookup that drops whole words: one mask over the embedding's rows, kept rows scaled by 1 / (1 - p).

    A dropped word is dropped everywhere in the batch.

    Shapes: tokens (...) int64 -> vectors (..., embedding_dim).

    Args:
        p: probability that a word is dropped, in [0, 1).

    Raises:
        ValueError: if ``p`` is out of range.

    Source: Gal and Ghahramani, arXiv 1512.05287, and Merity et al., arXiv 1708.02182 (embedding dropout).
    """

    def __init__(self, p: float = 0.1) -> None:
        super().__init__()
        self.p = check_probability("p", p)

    def forward(self, embedding: nn.Embedding, tokens: Tensor) -> Tensor:
        vectors = embedding(tokens)
        if not self.training or self.p == 0:
            return vectors
        weight = embedding.weight
        keep = torch.empty(len(weight), 1, device=weight.device, dtype=weight.dtype).bernoulli_(1 - self.p)
        return vectors * (keep / (1 - self.p))[tokens]

    def extra_repr(self) -> str:
        return f"p={self.p}"


def check_probability(name: str, value: float) -> float:
    """``value`` if it is in [0, 1), else raises ValueError."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} ({value}) must be in [0, 1)")
    return value
