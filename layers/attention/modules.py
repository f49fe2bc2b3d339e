"""The self-attention layers, one per pattern, for the attention slot of transformers."""

from .base import MultiheadSelfAttention
from .functional import Backend
from .patterns import Atrous, Full, Local, Sparse, fixed_patterns


class FullAttention(MultiheadSelfAttention):
    """Every position sees every other: N^2 pairs.

    Args:
        embed_dim: size of input and output.
        num_heads: number of heads; must divide ``embed_dim``.
        dropout: dropout rate of the attention weights.
        bias: whether the projections have a bias.
        batch_first: input is (B, N, embed_dim), else (N, B, embed_dim).
        rotary: apply rotary positions to queries and keys.

    Example:
        import torch

        from layers import FullAttention

        attention = FullAttention(embed_dim=64, num_heads=4, rotary=True)
        output, _ = attention(torch.randn(2, 100, 64), is_causal=True)  # (2, 100, 64)
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        dropout: float = 0.0,
        bias: bool = True,
        batch_first: bool = True,
        rotary: bool = False,
    ) -> None:
        super().__init__(embed_dim, num_heads, Full(), dropout, bias, batch_first, rotary)


class AtrousAttention(MultiheadSelfAttention):
    """A position sees every rate-th position, (i - j) mod rate = 0: N^2 / rate pairs.

    Source: kexue.fm/archives/6853.

    Args:
        embed_dim: size of input and output.
        num_heads: number of heads; must divide ``embed_dim``.
        rate: distance between keys.
        dropout: dropout rate of the attention weights.
        bias: whether the projections have a bias.
        batch_first: input is (B, N, embed_dim), else (N, B, embed_dim).
        rotary: apply rotary positions to queries and keys.

    Example:
        model:
          class_path: SparseTransformer
          init_args:
            attention: [AtrousAttention, LocalAttention] # the blocks take them in turn
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        rate: int = 16,
        dropout: float = 0.0,
        bias: bool = True,
        batch_first: bool = True,
        rotary: bool = False,
    ) -> None:
        super().__init__(embed_dim, num_heads, Atrous(rate), dropout, bias, batch_first, rotary)


class LocalAttention(MultiheadSelfAttention):
    """A position sees its neighbours, |i - j| <= window * dilation in steps of dilation: N (2 window + 1) pairs.

    Decoding keeps only the window's keys, in a ring buffer.

    Source: kexue.fm/archives/6853.

    Args:
        embed_dim: size of input and output.
        num_heads: number of heads; must divide ``embed_dim``.
        window: keys seen to each side.
        dilation: distance between keys.
        dropout: dropout rate of the attention weights.
        bias: whether the projections have a bias.
        batch_first: input is (B, N, embed_dim), else (N, B, embed_dim).
        rotary: apply rotary positions to queries and keys.
        backend: "products", or "flex" for FlexAttention: without dropout, on the CPU without a gradient.

    Example:
        model:
          class_path: SparseTransformer
          init_args:
            attention:
              class_path: LocalAttention
              init_args: {window: 64, rotary: true}
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        window: int = 64,
        dilation: int = 1,
        dropout: float = 0.0,
        bias: bool = True,
        batch_first: bool = True,
        rotary: bool = False,
        backend: Backend = "products",
    ) -> None:
        super().__init__(embed_dim, num_heads, Local(window, dilation), dropout, bias, batch_first, rotary, backend)


class SparseAttention(MultiheadSelfAttention):
    """A position sees its neighbours up to rate and every rate-th position, in one softmax.

    About N^2 / rate + 2 N rate pairs, fewest at rate = sqrt(N / 2).

    Source: kexue.fm/archives/6853; Child et al. 2019, arXiv 1904.10509.

    Args:
        embed_dim: size of input and output.
        num_heads: number of heads; must divide ``embed_dim``.
        rate: distance of the far keys and radius of the near ones.
        dropout: dropout rate of the attention weights.
        bias: whether the projections have a bias.
        batch_first: input is (B, N, embed_dim), else (N, B, embed_dim).
        rotary: apply rotary positions to queries and keys.
        backend: "products", or "flex" for FlexAttention: without dropout, on the CPU without a gradient.

    Example:
        model:
          class_path: SparseTransformer
          init_args:
            attention:
              class_path: SparseAttention
              init_args: {rate: 32}
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        rate: int = 32,
        dropout: float = 0.0,
        bias: bool = True,
        batch_first: bool = True,
        rotary: bool = False,
        backend: Backend = "products",
    ) -> None:
        super().__init__(embed_dim, num_heads, Sparse(rate), dropout, bias, batch_first, rotary, backend)


class FixedAttention(MultiheadSelfAttention):
    """A position sees its own block and the last keys of every block, in one softmax.

    Source: the fixed pattern of Child et al. 2019, arXiv 1904.10509.

    Args:
        embed_dim: size of input and output.
        num_heads: number of heads; must divide ``embed_dim``.
        block: positions per block.
        summary: last keys of each block, which all queries see.
        distinct: each head has a sub-block of its own instead of the last, from the end of the blocks in turn.
        dropout: dropout rate of the attention weights.
        bias: whether the projections have a bias.
        batch_first: input is (B, N, embed_dim), else (N, B, embed_dim).
        rotary: apply rotary positions to queries and keys.
        backend: "products", or "flex" for FlexAttention: without dropout, on the CPU without a gradient.

    Example:
        model:
          class_path: SparseTransformer
          init_args:
            attention:
              class_path: FixedAttention
              init_args: {block: 128, summary: 8, distinct: true}
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        block: int = 128,
        summary: int = 8,
        distinct: bool = False,
        dropout: float = 0.0,
        bias: bool = True,
        batch_first: bool = True,
        rotary: bool = False,
        backend: Backend = "products",
    ) -> None:
        patterns = fixed_patterns(block, summary, distinct)
        super().__init__(embed_dim, num_heads, patterns, dropout, bias, batch_first, rotary, backend)
