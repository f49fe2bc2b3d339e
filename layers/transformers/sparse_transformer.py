"""The Sparse Transformer: pre-norm blocks with any self-attention, over whole sequences or token by token."""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..attention import AttentionState, MultiheadSelfAttention
from ..reuse import TiedLinear
from .positions import INITIAL_SCALE, Positions

MakeAttention = Callable[[int, int], MultiheadSelfAttention]


class SigmoidGELU(nn.Module):
    """x * sigmoid(1.702 x), the GELU of the Sparse Transformer."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class SparseTransformerBlock(nn.Module):
    """One pre-norm layer, attention and then feed-forward network:

        a = dropout(attention(norm(h)));    b = dropout(W2 gelu(W1 norm(h + a)));    h <- h + a + b

    Shapes: (B, T, embed_dim) -> the same.

    Args:
        attention: the self-attention, batch first.
        embed_dim: size of the vectors.
        feedforward_size: size between W1 and W2.
        dropout: dropout rate of a and b.
    """

    def __init__(
        self, attention: MultiheadSelfAttention, embed_dim: int, feedforward_size: int, dropout: float
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(embed_dim)
        self.attention = attention
        self.feedforward_norm = nn.LayerNorm(embed_dim)
        self.feedforward = nn.Sequential(
            nn.Linear(embed_dim, feedforward_size), SigmoidGELU(), nn.Linear(feedforward_size, embed_dim)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        attended, _ = self.attention(self.attention_norm(h), is_causal=True)
        return self._add(h, attended)

    def prefill(self, h: Tensor, state: AttentionState) -> Tensor:
        """Reads the first positions (B, T, embed_dim) in one call, into an empty ``state``."""
        attended, _ = self.attention.prefill(self.attention_norm(h), state)
        return self._add(h, attended)

    def step(self, h: Tensor, state: AttentionState) -> Tensor:
        """Reads the next position (B, 1, embed_dim) after those in ``state``, and adds it there."""
        attended, _ = self.attention.step(self.attention_norm(h), state)
        return self._add(h, attended)

    def _add(self, h: Tensor, attended: Tensor) -> Tensor:
        h = h + self.dropout(attended)
        return h + self.dropout(self.feedforward(self.feedforward_norm(h)))


class SparseTransformerNetwork(nn.Module):
    """An autoregressive network over tokens: each token is predicted from the tokens before it.

    h = E[token] + position, the blocks, a normalisation, a linear output layer. With ``start`` a learned vector
    precedes the first token, so that it is predicted too: from T tokens the network predicts T + 1.

    Weights start from N(0, 0.125 / sqrt(fan-in)), the embedding from N(0, 0.125 / sqrt(embed_dim)); the last layers of
    attention and feed-forward network are scaled by 1 / sqrt(2 M) for M blocks; biases are 0, and so is the output
    layer unless it is tied to the embedding.

    Source: Child et al., arXiv 1904.10509, sections 5 and 6.

    Args:
        vocab_size: number of tokens.
        embed_dim: size of all vectors.
        attentions: makes the attention of each block, called with ``embed_dim`` and ``num_heads``.
        num_heads: heads of each attention.
        feedforward_size: size inside the feed-forward networks.
        dropout: dropout rate of what attention and feed-forward network add; nowhere else.
        positions: position embedding; None for none, also if the attentions encode positions themselves (``rotary``).
        start: predict the first token too.
        tie_embedding: the output layer shares the weight of the embedding.
        activation_checkpointing: keep only the input of each block and recompute the block in the backward pass.
    """

    def __init__(
        self,
        vocab_size: int,
        embed_dim: int,
        attentions: Sequence[MakeAttention],
        *,
        num_heads: int,
        feedforward_size: int,
        dropout: float = 0.0,
        positions: Positions | None = None,
        start: bool = False,
        tie_embedding: bool = False,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.activation_checkpointing = activation_checkpointing
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.start = nn.Parameter(torch.empty(embed_dim)) if start else None
        self.positions = positions
        self.blocks: Sequence[SparseTransformerBlock] = nn.ModuleList(  # type: ignore[assignment]  # not generic
            SparseTransformerBlock(make(embed_dim, num_heads), embed_dim, feedforward_size, dropout)
            for make in attentions
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.output = TiedLinear(self.embedding) if tie_embedding else nn.Linear(embed_dim, vocab_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Re-initialises all weights but those of positions and normalisations, which have methods of their own."""
        nn.init.normal_(self.embedding.weight, std=INITIAL_SCALE / self.embedding.embedding_dim**0.5)
        if self.start is not None:
            nn.init.normal_(self.start, std=INITIAL_SCALE / self.embedding.embedding_dim**0.5)
        residual_scale = (2 * len(self.blocks)) ** -0.5
        for block in self.blocks:
            for name, parameter in [*block.attention.named_parameters(), *block.feedforward.named_parameters()]:
                if name.endswith("bias"):
                    nn.init.zeros_(parameter)
                else:
                    nn.init.normal_(parameter, std=INITIAL_SCALE / parameter.shape[1] ** 0.5)
            with torch.no_grad():
                block.attention.out_proj.weight.mul_(residual_scale)
                cast(nn.Linear, block.feedforward[-1]).weight.mul_(residual_scale)
        if isinstance(self.output, nn.Linear):
            nn.init.zeros_(self.output.weight)
            nn.init.zeros_(self.output.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the token after each one.

        Args:
            tokens: (B, T) int64.

        Returns:
            (B, T, vocab_size) float; with ``start`` (B, T + 1, vocab_size), those of the first token first.

        Raises:
            ValueError: if there are more tokens than positions.
        """
        h = self._embed(tokens)
        for block in self.blocks:
            if self.activation_checkpointing and torch.is_grad_enabled():
                h = checkpoint(block, h, use_reentrant=False)
            else:
                h = block(h)
        return self.output(self.norm(h))

    def _embed(self, tokens: Tensor) -> Tensor:
        """The input of the first block, with the start in front: (B, T) -> (B, T or T + 1, embed_dim)."""
        h = self.embedding(tokens)
        if self.start is not None:
            h = torch.cat([self.start.to(h.dtype).expand(h.shape[0], 1, -1), h], dim=1)
        if self.positions is not None:
            self.positions.check(h.shape[1])
            h = h + self.positions(torch.arange(h.shape[1], device=h.device))
        return h

    # Decoding, position by position.

    def init_state(self, batch_size: int, length: int) -> list[AttentionState]:
        """An empty state for decoding ``length`` positions.

        Raises:
            ValueError: if there are fewer positions.
        """
        if self.positions is not None:
            self.positions.check(length)
        return [block.attention.init_state(batch_size, length) for block in self.blocks]

    @torch.no_grad()
    def prefill(self, tokens: Tensor, state: list[AttentionState]) -> Tensor:
        """Reads the first tokens in one call, equal to a step for the start and one for each token.

        Args:
            tokens: (B, T) int64; T may be 0 if the network has a start.
            state: from ``init_state``; updated in place.

        Returns:
            (B, vocab_size) float: the logits after the last token, without gradient; in training mode with dropout.

        Raises:
            ValueError: if the state is not empty or too small.
        """
        h = self._embed(tokens)
        for block, block_state in zip(self.blocks, state, strict=True):
            h = block.prefill(h, block_state)
        return self.output(self.norm(h[:, -1]))

    @torch.no_grad()
    def step(self, tokens: Tensor | None, state: list[AttentionState]) -> Tensor:
        """Logits after the next position, without gradient; in training mode with dropout.

        Args:
            tokens: (B,) int64, the tokens at that position; None for the start, which precedes the first.
            state: from ``init_state`` or the previous step; updated in place.

        Returns:
            (B, vocab_size) float.
        """
        h = cast(Tensor, self.start).expand(len(state[0].keys), -1) if tokens is None else self.embedding(tokens)
        h = h.unsqueeze(1)
        if self.positions is not None:
            h = h + self.positions(torch.tensor([state[0].length], device=h.device))
        for block, block_state in zip(self.blocks, state, strict=True):
            h = block.step(h, block_state)
        return self.output(self.norm(h))[:, 0]
