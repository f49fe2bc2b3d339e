"""Image decoders: from a code to an image."""

import math
from abc import ABC, abstractmethod

from torch import Tensor, nn

from .keras_layers import GlorotConv2d, GlorotLinear, KerasBlock


class Decoder(nn.Module, ABC):
    """Base class of the decoder slot, ``Callable[[int, int], Decoder]``: (code_size, image_size) -> decoder."""

    @abstractmethod
    def forward(self, codes: Tensor) -> Tensor:
        """Codes (B, d) to images (B, 3, S, S) with values in [0, 1]."""


class ConvolutionalDecoder(Decoder):
    """The counterpart of ``BlogEncoder``: it doubles the side where the encoder halves it.

    A linear layer gives a small map with ``channels`` channels (4x4 if the image's side is 4 * 2^n); blocks
    [Conv 3x3 - BatchNorm - LeakyReLU(0.2) - nearest-neighbour upsampling] double its side and halve its channels up to
    the image's size; a last convolution and a sigmoid give the three colours.

    Args:
        code_size: length of the code.
        image_size: side of the images in pixels.
        channels: channels of the small map, divisible by 2^n.
        out_channels: channels of the images; given by the module.

    Raises:
        ValueError: if ``channels`` can't be halved often enough.

    Example:
        model:
          class_path: AutoEncoder
          init_args:
            decoder:
              class_path: ConvolutionalDecoder
              init_args: {channels: 64}
    """

    def __init__(self, code_size: int, image_size: int = 32, channels: int = 256, out_channels: int = 3) -> None:
        super().__init__()
        side, blocks = image_size, 0
        while side % 2 == 0 and side > 4:
            side, blocks = side // 2, blocks + 1
        if channels < 1 or channels % (1 << blocks):
            raise ValueError(f"channels ({channels}) must be divisible by {1 << blocks}")
        layers: list[nn.Module] = [
            GlorotLinear(code_size, channels * side * side),
            nn.Unflatten(1, (channels, side, side)),
        ]
        for block in range(blocks):
            layers += [KerasBlock(channels >> block, channels >> (block + 1)), nn.Upsample(scale_factor=2)]
        self.layers = nn.Sequential(*layers, GlorotConv2d(channels >> blocks, out_channels, 3, padding=1), nn.Sigmoid())

    def forward(self, codes: Tensor) -> Tensor:
        return self.layers(codes)


class DenseDecoder(Decoder):
    """One linear layer and a sigmoid, the decoder of the article's autoencoder: sigmoid(W z + b).

    Source: kexue.fm/archives/6311.

    Args:
        code_size: length of the code.
        image_size: side of the images in pixels.
        out_channels: channels of the images; given by the module.

    Example:
        import torch

        from layers import DenseDecoder

        decoder = DenseDecoder(code_size=100, image_size=32)
        images = decoder(torch.randn(8, 100))  # (8, 3, 32, 32), in [0, 1]
    """

    def __init__(self, code_size: int, image_size: int = 32, out_channels: int = 3) -> None:
        super().__init__()
        shape = (out_channels, image_size, image_size)
        self.layers = nn.Sequential(GlorotLinear(code_size, math.prod(shape)), nn.Sigmoid(), nn.Unflatten(1, shape))

    def forward(self, codes: Tensor) -> Tensor:
        return self.layers(codes)
