"""Character encoders for the triple extractor's slot: DGCNN, BiLSTM, and any of Hugging Face's."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import cast

import torch
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


class HuggingFaceEncoder(SequenceEncoder):
    """A pretrained Hugging Face transformer that reads single characters, such as Chinese BERT or RoBERTa.

    Each character is one token of the model's own vocabulary, between its two special tokens; characters
    missing from it become its unknown token. Word vectors are not used.

    Source: kexue.fm/archives/7161.

    Args:
        characters: the vocabulary; passed by the module that owns the encoder, as are the next two.
        word_vector_size: must be 0.
        max_length: longest input in characters.
        model: name on the hub, or folder, of model and tokenizer. Loading a checkpoint needs it again, for the
            configuration.

    Raises:
        ValueError: if the model is not available or reads fewer than ``max_length`` characters, or word vectors are
            given.
        ImportError: if transformers is not installed.

    Example:
        model:
          class_path: TripleExtractor
          init_args:
            encoder:
              class_path: HuggingFaceEncoder
              init_args: {model: hfl/chinese-roberta-wwm-ext}
    """

    tokens: Tensor

    def __init__(
        self,
        characters: Sequence[str],
        word_vector_size: int,
        max_length: int,
        model: str = "hfl/chinese-roberta-wwm-ext",
    ) -> None:
        if word_vector_size:
            raise ValueError("HuggingFaceEncoder reads no word vectors: remove data.vectors_file")
        try:
            import transformers
        except ImportError:
            raise ImportError('HuggingFaceEncoder needs transformers: pip install "transformers>=4.40"') from None
        transformers.utils.logging.disable_progress_bar()
        try:
            network = transformers.AutoModel.from_pretrained(model)
            tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"encoder.model: {model} cannot be loaded ({' '.join(str(error).split())[:120]}); connect to the "
                "network, or give a folder with a model and its tokenizer"
            ) from error
        super().__init__(network.config.hidden_size, max_length)
        limit = getattr(network.config, "max_position_embeddings", max_length + 2) - 2
        if max_length > limit:
            raise ValueError(f"{model} reads at most {limit} characters: set data.max_length={limit}")
        self.network = network
        tokens = cast(list[int | None], tokenizer.convert_tokens_to_ids(list(characters)))
        unknown, padding = tokenizer.unk_token_id, tokenizer.pad_token_id
        tokens = [unknown if token is None else token for token in tokens]
        tokens[:2] = [padding, unknown]
        self.register_buffer("tokens", torch.tensor(tokens), persistent=False)
        self.first, self.last, self.padding = tokenizer.cls_token_id, tokenizer.sep_token_id, padding

    def forward(self, characters: Tensor, word_vectors: Tensor | None, mask: Tensor) -> Tensor:
        rows = torch.arange(len(characters), device=characters.device)
        lengths = mask.sum((1, 2)).long()
        tokens = nn.functional.pad(self.tokens[characters], (1, 1), value=self.padding)
        tokens[:, 0] = self.first
        tokens[rows, lengths + 1] = self.last
        places = torch.arange(tokens.shape[1], device=tokens.device)
        attended = (places <= lengths[:, None] + 1).long()
        output = self.network(input_ids=tokens, attention_mask=attended).last_hidden_state
        return output[:, 1:-1] * mask.to(output.dtype)
