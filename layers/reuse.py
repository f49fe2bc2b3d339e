"""Reuse of layers: weights that two places of a model share."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TiedLinear(nn.Module):
    """A linear layer that reads the weight of an embedding:

        y = x E^T + b,   E (num_embeddings, embedding_dim), b (num_embeddings,), zero at first

    It holds the embedding, not a copy of its parameter: the weight appears once among ``parameters()`` and once in the
    ``state_dict`` of a model that registers the embedding too, gets both gradients, and stays tied after ``.to()``,
    ``copy.deepcopy`` of the model, or a change of the embedding's weight.

    Shapes: x (..., embedding_dim) -> (..., num_embeddings).

    Source: kexue.fm/archives/6985, trick 4 (``EmbeddingDense``), without its softmax.

    Args:
        embedding: the embedding whose weight is used.
        bias: add a bias of its own.
    """

    def __init__(self, embedding: nn.Embedding, bias: bool = True) -> None:
        super().__init__()
        # In a list: the embedding is a reference, not a child, so its weight has one name in the state_dict.
        self._embedding = [embedding]
        self.bias = nn.Parameter(torch.zeros(embedding.num_embeddings)) if bias else None

    @property
    def embedding(self) -> nn.Embedding:
        """The embedding whose weight is used."""
        return self._embedding[0]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.embedding.weight, self.bias)

    def extra_repr(self) -> str:
        num_embeddings, dim = self.embedding.weight.shape
        return f"in_features={dim}, out_features={num_embeddings}, bias={self.bias is not None}"
