"""Transformer over characters, for the encoder slot of the triple extractor, with a slot for its attention."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ..attention import FullAttention, MultiheadSelfAttention
from .encoders import CharacterEmbedding, SequenceEncoder


class EncoderBlock(nn.Module):
    """A pre-norm transformer block.

        x' = x + Dropout(Attention(Norm(x)));    y = x' + Dropout(W_2 GELU(W_1 Norm(x')))

    Args:
        attention: self-attention over vectors of x's size.
        dropout: dropout rate of what is added to x.
    """

    def __init__(self, attention: MultiheadSelfAttention, dropout: float) -> None:
        super().__init__()
        size = attention.embed_dim
        self.attention = attention
        self.attention_norm, self.feedforward_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.feedforward = nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        """(B, L, D) and (B, L) bool, True for padding -> (B, L, D)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), key_padding_mask=padding)[0])
        return x + self.dropout(self.feedforward(self.feedforward_norm(x)))


class AttentionEncoder(SequenceEncoder):
    """A transformer over embedded characters with learned positions: a stack of ``EncoderBlock``.

    Args:
        characters: the vocabulary; passed by the module that owns the encoder, as are the next two.
        word_vector_size: size of the word vectors, 0 for none.
        max_length: longest input in characters.
        size: D of embedding and output.
        num_layers: number of blocks.
        num_heads: number of heads of each attention; must divide ``size``.
        attention: the attention slot, called with ``size`` and ``num_heads``.
        dropout: dropout rate of the embedding and of what each part of a block adds.

    Example:
        model:
          class_path: TripleExtractor
          init_args:
            encoder:
              class_path: AttentionEncoder
              init_args: {num_layers: 4, attention: LocalAttention}
    """

    def __init__(
        self,
        characters: Sequence[str],
        word_vector_size: int,
        max_length: int,
        size: int = 128,
        num_layers: int = 4,
        num_heads: int = 8,
        attention: Callable[[int, int], MultiheadSelfAttention] = FullAttention,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(size, max_length)
        self.embedding = CharacterEmbedding(len(characters), word_vector_size, size, dropout)
        self.blocks = nn.ModuleList(EncoderBlock(attention(size, num_heads), dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(size)

    def forward(self, characters: Tensor, word_vectors: Tensor | None, mask: Tensor) -> Tensor:
        x = self.embedding(characters, word_vectors, mask, self.positions)
        padding = mask.squeeze(-1) == 0
        for block in self.blocks:
            x = block(x, padding)
        return self.norm(x) * mask
