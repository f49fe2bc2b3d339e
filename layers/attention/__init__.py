"""Self-attention over all, every rate-th or neighbouring keys, or unions of these: functions and layers."""

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
