"""Models shared by the tests of splitting and of cloning."""

import torch
from torch import Tensor, nn

from layers import FullAttention, LocalAttention
from layers.transformers.positions import TokenPositions
from layers.transformers.sparse_transformer import SparseTransformerNetwork

IMAGES = torch.rand(3, 3, 9, 9, generator=torch.Generator().manual_seed(1))


class Residual(nn.Module):
    """conv - bn - relu - conv, and the input added; ``relu`` is called twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.second(self.relu(self.norm(self.first(x)))))


class ResidualNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.blocks = nn.Sequential(Residual(6), Residual(6), Residual(6))
        self.unused = nn.Linear(100, 100)
        self.classify = nn.Linear(6, 5)

    def forward(self, images: Tensor) -> Tensor:
        h = self.blocks(self.stem(images))
        return self.classify(h.mean((2, 3)))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def pointers(module: nn.Module) -> set[int]:
    return {tensor.data_ptr() for tensor in [*module.parameters(), *module.buffers()]}


def residual_network() -> ResidualNetwork:
    torch.manual_seed(0)
    network = ResidualNetwork()
    network(torch.rand(4, 3, 9, 9))  # moves the running statistics
    return network.eval()


class Shared(nn.Module):
    """One BatchNorm and one linear layer, each used twice, one of them under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.alias = self.linear

    def forward(self, x: Tensor) -> Tensor:
        return self.alias(self.norm(self.linear(self.norm(x))))


def transformer(tie_embedding: bool = True) -> SparseTransformerNetwork:
    return SparseTransformerNetwork(
        11,
        8,
        [FullAttention, LocalAttention],
        num_heads=2,
        feedforward_size=12,
        dropout=0.1,
        positions=TokenPositions(9, 8),
        start=True,
        tie_embedding=tie_embedding,
    )
