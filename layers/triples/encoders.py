"""Character encoders for the triple extractor's slot: DGCNN and BiLSTM."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .gated_convolution import GatedConvolution


class SequenceEncoder(nn.Module, ABC):
    """Base class of the encoder slot: one vector per character.

    A subclass is called with the vocabulary, the size of word vectors (0 for none) and the longest input, then with
    its own arguments.

    Args:
        size: D of the output.
        max_length: longest input in characters.

    Attributes:
        reads_texts: whether ``forward`` is also given the rows' texts, as a fourth argument.
        size: as above.
        positions: (max_length, D) table of positions, initially zero; heads may look up distances in it.
    """

    reads_texts = False

    def __init__(self, size: int, max_length: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"size ({size}) must be at least 1")
        self.size = size
        self.positions = nn.Embedding(max_length, size)
        # Not self.reset_parameters(): a subclass may override it for layers that it adds later.
        SequenceEncoder.reset_parameters(self)

    def reset_parameters(self) -> None:
        """Zeroes the table of positions; the layers initialise their own weights."""
        nn.init.zeros_(self.positions.weight)

    def portable_arguments(self) -> dict[str, Any]:
        """Arguments, as plain values, that a checkpoint needs beside those given, to be loaded on another machine."""
        return {}

    @abstractmethod
    def forward(self, characters: Tensor, word_vectors: Tensor | None, mask: Tensor) -> Tensor:
        """Encodes a batch.

        Args:
            characters: (B, L) int64, indices into the vocabulary, 0 for padding.
            word_vectors: (B, L, word_vector_size), for each character the vector of its word; None if unused.
            mask: (B, L, 1) float, 1 for characters and 0 for padding.

        Returns:
            (B, L, D), zero at padding. What comes after a row's end does not affect the row.
        """


class CharacterEmbedding(nn.Module):
    """Sum of the embeddings of a character, its word and its position, followed by dropout and mask.

    Args:
        num_characters: size of the vocabulary.
        word_vector_size: size of the word vectors, which a linear map without bias brings to ``size``; 0 for none.
        size: D of the embedding.
        dropout: dropout rate of the sum.
    """

    def __init__(self, num_characters: int, word_vector_size: int, size: int, dropout: float) -> None:
        super().__init__()
        self.characters = nn.Embedding(num_characters, size, padding_idx=0)
        self.reset_parameters()
        self.words = nn.Linear(word_vector_size, size, bias=False) if word_vector_size else None
        self.dropout = nn.Dropout(dropout)

    def reset_parameters(self) -> None:
        """Re-initialises the character embedding; the map of word vectors initialises its own weight."""
        nn.init.uniform_(self.characters.weight, -0.05, 0.05)  # Keras' default, which the recipe uses

    def forward(
        self, characters: Tensor, word_vectors: Tensor | None, mask: Tensor, positions: nn.Embedding | None = None
    ) -> Tensor:
        """As ``SequenceEncoder.forward``; ``positions`` is the table of positions, None to leave them out."""
        x = self.characters(characters)
        if self.words is not None:
            x = x + self.words(word_vectors)
        if positions is not None:
            x = x + positions.weight[: x.shape[1]]
        return self.dropout(x) * mask


class DGCNN(SequenceEncoder):
    """Dilated gated convolutions: a stack of ``GatedConvolution`` over embedded characters.

    The recipe's dilations see 27 characters to each side.

    Source: kexue.fm/archives/6671.

    Args:
        characters: the vocabulary; passed by the module that owns the encoder, as are the next two.
        word_vector_size: size of the word vectors, 0 for none.
        max_length: longest input in characters.
        size: D of embedding and output.
        dilations: dilations of the blocks, in order.
        dropout: dropout rate of the embedding.
        gate_dropout: dropout rate of the gates.

    Example:
        model:
          class_path: TripleExtractor
          init_args:
            encoder:
              class_path: DGCNN
              init_args: {size: 64, dilations: [1, 2, 5, 1, 2, 5, 1]}
    """

    def __init__(
        self,
        characters: Sequence[str],
        word_vector_size: int,
        max_length: int,
        size: int = 128,
        dilations: Sequence[int] = (1, 2, 5, 1, 2, 5, 1, 2, 5, 1, 1, 1),
        dropout: float = 0.25,
        gate_dropout: float = 0.1,
    ) -> None:
        super().__init__(size, max_length)
        if any(dilation < 1 for dilation in dilations):
            raise ValueError(f"dilations ({list(dilations)}) must all be at least 1")
        self.embedding = CharacterEmbedding(len(characters), word_vector_size, size, dropout)
        self.blocks = nn.ModuleList(GatedConvolution(size, dilation, gate_dropout) for dilation in dilations)

    def forward(self, characters: Tensor, word_vectors: Tensor | None, mask: Tensor) -> Tensor:
        x = self.embedding(characters, word_vectors, mask, self.positions)
        for block in self.blocks:
            x = block(x, mask)
        return x


class BiLSTM(SequenceEncoder):
    """A bidirectional LSTM over embedded characters, without positions: the baseline's encoder.

    Source: github.com/bojone/kg-2019-baseline.

    Args:
        characters: the vocabulary; passed by the module that owns the encoder, as are the next two.
        word_vector_size: size of the word vectors, 0 for none.
        max_length: longest input in characters.
        size: D of embedding and output, half of it for each direction.
        num_layers: number of LSTM layers.
        dropout: dropout rate of the embedding.

    Example:
        model:
          class_path: TripleExtractor
          init_args:
            encoder:
              class_path: BiLSTM
              init_args: {size: 128, num_layers: 2}
    """

    def __init__(
        self,
        characters: Sequence[str],
        word_vector_size: int,
        max_length: int,
        size: int = 128,
        num_layers: int = 2,
        dropout: float = 0.25,
    ) -> None:
        super().__init__(size, max_length)
        if size % 2:
            raise ValueError(f"size ({size}) must be even: each direction has half of it")
        self.embedding = CharacterEmbedding(len(characters), word_vector_size, size, dropout)
        self.lstm = nn.LSTM(size, size // 2, num_layers, batch_first=True, bidirectional=True)

    def forward(self, characters: Tensor, word_vectors: Tensor | None, mask: Tensor) -> Tensor:
        x = self.embedding(characters, word_vectors, mask)
        lengths = mask.sum((1, 2)).long().cpu()
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        output, _ = self.lstm(packed)
        return nn.utils.rnn.pad_packed_sequence(output, batch_first=True, total_length=x.shape[1])[0]
