"""Layers with the defaults of Keras, used by the articles' encoders and scores."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


class GlorotConv2d(nn.Conv2d):
    """A convolution initialised as in Keras: Glorot uniform weight, zero bias."""

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class GlorotLinear(nn.Linear):
    """A linear layer initialised likewise."""

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)


class KerasBlock(nn.Sequential):
    """Conv 3x3 - BatchNorm - LeakyReLU(0.2) with the defaults of Keras: (B, in, H, W) -> (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            GlorotConv2d(in_channels, out_channels, 3, padding=1),
            # Keras defines momentum the other way round: its 0.99 is torch's 0.01.
            nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01),
            nn.LeakyReLU(0.2),
        )


def glorot_mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers of these sizes with ReLU between them, initialised as in Keras."""
    layers: list[nn.Module] = []
    for in_features, out_features in pairwise(sizes):
        layers += [GlorotLinear(in_features, out_features), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
