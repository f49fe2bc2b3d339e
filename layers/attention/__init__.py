"""Self-attention over all, over every rate-th, over neighbouring keys, and unions of these; (B, H, N, D) or layers."""

from .base import AttentionState, MultiheadSelfAttention
from .functional import atrous_attention, fixed_attention, full_attention, local_attention, sparse_attention
from .modules import AtrousAttention, FixedAttention, FullAttention, LocalAttention, SparseAttention
from .rotary import rotate

__all__ = [
    "AtrousAttention",
    "AttentionState",
    "FixedAttention",
    "FullAttention",
    "LocalAttention",
    "MultiheadSelfAttention",
    "SparseAttention",
    "atrous_attention",
    "fixed_attention",
    "full_attention",
    "local_attention",
    "rotate",
    "sparse_attention",
]
