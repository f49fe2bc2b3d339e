"""An output layer that shares the weight of an embedding."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TiedLinear(nn.Module):
    """A linear layer that reads the weight of an embedding:

        y = x E^T + b,   E (num_embeddings, embedding_dim), b (num_embeddings,), zero at first

    It refers to the embedding instead of registering it: in a model that registers the embedding too, the weight
    appears once among ``parameters()`` and once in the ``state_dict``, gets both gradients, and stays tied after
    ``.to()``. Only the bias is the layer's own: ``layer.parameters()`` and ``layer.state_dict()`` contain it, and
    ``layer.to(...)`` moves it; the embedding belongs to the model.

    A copy refers to the embedding's copy if ``copy.deepcopy`` copies that too (as in a whole model, whichever of the
    two comes first), else to the same embedding: a copy of the layer alone is a second head on it.

    Shapes: x (..., embedding_dim) -> (..., num_embeddings).

    Source: kexue.fm/archives/6985, trick 4 (``EmbeddingDense``), without its softmax.

    Args:
        embedding: the embedding whose weight is used.
        bias: add a bias.
    """

    def __init__(self, embedding: nn.Embedding, bias: bool = True) -> None:
        super().__init__()
        # In a list, as a reference and not a child, so that its weight has one name in the state_dict.
        self._embedding = [embedding]
        # The memo of a deep copy that may still be in progress: copies so far, by the id of the original.
        self._copied: dict[int, Any] | None = None
        self.bias = nn.Parameter(torch.zeros(embedding.num_embeddings)) if bias else None

    @property
    def embedding(self) -> nn.Embedding:
        """The embedding whose weight is used."""
        if self._copied is not None:
            self._embedding, self._copied = [self._copied.get(id(self._embedding[0]), self._embedding[0])], None
        return self._embedding[0]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.embedding.weight, self.bias)

    def reset_parameters(self) -> None:
        """Zeroes the bias; the weight is the embedding's to initialise."""
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @torch.no_grad()
    def tie(self, embedding: nn.Embedding) -> None:
        """Ties the layer to another embedding, or to the same one after its number of rows has changed.

        The bias is kept for the rows that both have and is 0 for new ones. If its length changes it is a new
        parameter: build the optimizer afterwards.
        """
        self._embedding, self._copied = [embedding], None
        rows = len(embedding.weight)
        if self.bias is not None and len(self.bias) != rows:
            bias = self.bias.new_zeros(rows)
            kept = min(rows, len(self.bias))
            bias[:kept] = self.bias[:kept]
            self.bias = nn.Parameter(bias, requires_grad=self.bias.requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> "TiedLinear":
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        kept = {"_embedding": [self.embedding], "_copied": memo}
        state = {name: value for name, value in self.__dict__.items() if name not in kept}
        copied.__dict__.update(copy.deepcopy(state, memo), **kept)
        return copied

    def __getstate__(self) -> dict[str, Any]:
        """For pickling: the embedding resolved, without the memo of a deep copy."""
        return {**self.__dict__, "_embedding": [self.embedding], "_copied": None}

    def extra_repr(self) -> str:
        num_embeddings, dim = self.embedding.weight.shape
        return f"in_features={dim}, out_features={num_embeddings}, bias={self.bias is not None}"
