"""The Sparse Transformer: network, positions, and generation token by token."""

from .generation import check_sampling, generate
from .positions import ImagePositions, Positions, TokenPositions
from .sparse_transformer import SigmoidGELU, SparseTransformerBlock, SparseTransformerNetwork

__all__ = [
    "ImagePositions",
    "Positions",
    "SigmoidGELU",
    "SparseTransformerBlock",
    "SparseTransformerNetwork",
    "TokenPositions",
    "check_sampling",
    "generate",
]
