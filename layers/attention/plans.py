"""What a step needs besides its inputs, made once: the tiles of a pattern with their biases, on the device."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

import torch

from .patterns import Pattern
from .tiles import Branch, Columns, Piece
from .tracing import is_plain

P = ParamSpec("P")
R = TypeVar("R")

PLANS = 64  # what each cache keeps; the least recently used goes
MOST_KEYS = 4096  # of a piece: its gradients stay in the cache and its memory serves the next piece


def remembered(function: Callable[P, R]) -> Callable[P, R]:
    """Keeps the function's results, so that the same tensors serve the next step without an upload to the device.

    Where tensors stand for others (``tracing``) nothing is kept. What is made in inference mode is made outside of it,
    so that training can use it.
    """
    cached = lru_cache(PLANS)(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not is_plain():
            return function(*args, **kwargs)
        with torch.inference_mode(False):
            return cached(*args, **kwargs)  # type: ignore[arg-type]  # they are hashable

    return call


@remembered
def plan(pattern: Pattern, n: int, causal: bool, device: torch.device, dtype: torch.dtype) -> list[Branch]:
    """The branches of a pattern over n positions, with biases of the dtype and indices on the device.

    Pieces are split, which bounds the memory of their gradients before these are summed; each synchronises the threads
    about ten times.
    """
    branches = pattern.branches(n, causal)
    return [
        [_placed(part, device, dtype) for piece in branch for part in piece.split(MOST_KEYS)] for branch in branches
    ]


def _placed(piece: Piece, device: torch.device, dtype: torch.dtype) -> Piece:
    keys = piece.keys.to(device) if isinstance(piece.keys, Columns) else piece.keys
    bias = None if piece.bias is None else piece.bias.to(device, dtype)
    return Piece(piece.queries, keys, bias, piece.causal)
