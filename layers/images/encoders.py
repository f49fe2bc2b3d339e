"""Image encoders: from an image to a local feature map, a feature vector and a code."""

import copy
from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..weights.normalization import reset_parameters
from .keras_layers import GlorotLinear, KerasBlock


class EncoderOutput(NamedTuple):
    """Output of an ``Encoder``.

    Shapes:
        local: (B, C, h, w) feature map that the local objective scores against the code.
        conv: (B, C', h', w') the last convolutional map, which probes read (the same as ``local`` in the blog's
            encoder).
        fc: (B, F) the feature vector before the code.
        mean: (B, d) the code; with a stochastic encoder the mean of the code's distribution.
        logvar: (B, d) log-variance of the code's distribution, None for a deterministic encoder.
    """

    local: Tensor
    conv: Tensor
    fc: Tensor
    mean: Tensor
    logvar: Tensor | None


class Encoder(nn.Module, ABC):
    """Base class of the encoder slot.

    Attributes:
        code_size: d, length of the code.
        local_size: C, channels of the local map.
        stochastic: whether the encoder outputs a distribution N(mean, exp(logvar)) instead of a point.
    """

    code_size: int
    local_size: int
    stochastic: bool

    @abstractmethod
    def forward(self, images: Tensor) -> EncoderOutput:
        """Encodes images (B, 3, H, W), or with the number of channels that it was built for."""

    @abstractmethod
    def global_network(self, units: int) -> nn.Module:
        """A new network with the layers that follow the local map, ending in ``units``: (B, C, h, w) -> (B, units).

        DIM(G) scores its output against the code.
        """

    def portable_arguments(self) -> dict[str, Any]:
        """The arguments that build this encoder on another machine, where they differ from those given."""
        return {}

    def reset_parameters(self) -> None:
        """Re-initialises all weights: the encoder is untrained again."""
        for module in self.modules():
            if module is not self and hasattr(module, "reset_parameters"):
                reset_parameters(module)


class BlogEncoder(Encoder):
    """The encoder of Su Jianlin's article 6024, for 32x32 and 64x64 images (and 4 * 2^n in general).

    Blocks [Conv 3x3 - BatchNorm - LeakyReLU(0.2) - MaxPool 2x2] halve the image down to a 4x4 map C, the local map;
    two more blocks without pooling and a global max pooling give the feature vector; two linear heads give the mean and
    log-variance of the code. 32x32: 64, 128, 256 channels; 64x64: 32, 64, 128, 256. Batch normalisation and
    initialisation are those of Keras (momentum 0.99, eps 1e-3, Glorot uniform, zero biases).

    Source: kexue.fm/archives/6024 and bojone/infomax.

    Args:
        image_size: side of the images in pixels, 4 * 2^n.
        code_size: length of the code.
        channels: channels of the last convolutions; each earlier pooled block has half as many as the next.
        stochastic: add a head for the log-variance, which the Gaussian prior needs.
        in_channels: channels of the images; given by the module.

    Raises:
        ValueError: if ``image_size`` is not 4 * 2^n, n >= 1, or ``channels`` can't be halved often enough.

    Example:
        model:
          encoder:
            class_path: BlogEncoder
            init_args: {channels: 64, code_size: 32}
    """

    def __init__(
        self,
        image_size: int = 32,
        code_size: int = 256,
        channels: int = 256,
        stochastic: bool = True,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        blocks = (image_size // 4).bit_length() - 1
        if blocks < 1 or image_size != 4 << blocks:
            raise ValueError(f"image_size ({image_size}) must be 8, 16, 32, 64, ... (4 * 2^n) for BlogEncoder")
        if channels % (1 << (blocks - 1)):
            raise ValueError(f"channels ({channels}) must be divisible by {1 << (blocks - 1)}")
        self.code_size, self.local_size, self.stochastic = code_size, channels, stochastic
        sizes = [in_channels] + [channels >> (blocks - 1 - i) for i in range(blocks)]
        self.local_layers = nn.Sequential(
            *[
                nn.Sequential(KerasBlock(in_channels, out_channels), nn.MaxPool2d(2))
                for in_channels, out_channels in pairwise(sizes)
            ]
        )
        self.global_layers = self._global_layers()
        self.mean = GlorotLinear(channels, code_size)
        self.logvar = GlorotLinear(channels, code_size) if stochastic else None

    def _global_layers(self) -> nn.Sequential:
        return nn.Sequential(
            KerasBlock(self.local_size, self.local_size),
            KerasBlock(self.local_size, self.local_size),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
        )

    def forward(self, images: Tensor) -> EncoderOutput:
        local = self.local_layers(images)
        fc = self.global_layers(local)
        logvar = self.logvar(fc) if self.logvar is not None else None
        return EncoderOutput(local=local, conv=local, fc=fc, mean=self.mean(fc), logvar=logvar)

    def global_network(self, units: int) -> nn.Module:
        return nn.Sequential(self._global_layers(), GlorotLinear(self.local_size, units))


class DIMEncoder(Encoder):
    """The encoder of the DIM paper for small images (``basic32x32``, Table 1 of the paper).

    Three [Conv 4x4, stride 2 - BatchNorm - ReLU] with 64, 128, 256 channels, a linear layer of 1024 with BatchNorm
    and ReLU, a linear layer to the code. The local map is the second convolution (8x8x128 of a 32x32 image).

    Source: Hjelm et al., arXiv 1808.06670; rdevon/DIM ``configs/convnets.py``.

    Args:
        image_size: side of the images in pixels, a multiple of 8.
        code_size: length of the code.
        stochastic: add a head for the log-variance, which the Gaussian prior needs; the paper's has none.
        in_channels: channels of the images; given by the module.

    Raises:
        ValueError: if ``image_size`` is not a multiple of 8.

    Example:
        model:
          encoder:
            class_path: DIMEncoder
            init_args: {code_size: 64}
    """

    def __init__(
        self, image_size: int = 32, code_size: int = 64, stochastic: bool = False, in_channels: int = 3
    ) -> None:
        super().__init__()
        if image_size % 8 or image_size <= 0:
            raise ValueError(f"image_size ({image_size}) must be a multiple of 8 for DIMEncoder")
        self.code_size, self.local_size, self.stochastic = code_size, 128, stochastic
        self.image_size = image_size
        self.local_layers = nn.Sequential(_stride_block(in_channels, 64), _stride_block(64, 128))
        self.conv_layers = _stride_block(128, 256)
        self.fc_layers = self._fc_layers()
        self.mean = nn.Linear(1024, code_size)
        self.logvar = nn.Linear(1024, code_size) if stochastic else None

    def _fc_layers(self) -> nn.Sequential:
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(256 * (self.image_size // 8) ** 2, 1024, bias=False),
            nn.BatchNorm1d(1024),
            nn.ReLU(),
        )

    def forward(self, images: Tensor) -> EncoderOutput:
        local = self.local_layers(images)
        conv = self.conv_layers(local)
        fc = self.fc_layers(conv)
        logvar = self.logvar(fc) if self.logvar is not None else None
        return EncoderOutput(local=local, conv=conv, fc=fc, mean=self.mean(fc), logvar=logvar)

    def global_network(self, units: int) -> nn.Module:
        return nn.Sequential(_stride_block(128, 256), self._fc_layers(), nn.Linear(1024, units))


class DenseEncoder(Encoder):
    """One linear layer with ReLU, the encoder of the article's autoencoder: relu(W x + b).

    There are no convolutions, so the local map is the image itself.

    Source: kexue.fm/archives/6311.

    Args:
        image_size: side of the images in pixels.
        code_size: length of the code.
        in_channels: channels of the images; given by the module.

    Example:
        model:
          class_path: AutoEncoder
          init_args:
            encoder: DenseEncoder
            decoder: DenseDecoder
    """

    stochastic = False

    def __init__(self, image_size: int = 32, code_size: int = 100, in_channels: int = 3) -> None:
        super().__init__()
        self.code_size, self.local_size = code_size, in_channels
        self.num_values = in_channels * image_size**2
        self.layers = nn.Sequential(nn.Flatten(), GlorotLinear(self.num_values, code_size), nn.ReLU())

    def forward(self, images: Tensor) -> EncoderOutput:
        code = self.layers(images)
        return EncoderOutput(local=images, conv=images, fc=code, mean=code, logvar=None)

    def global_network(self, units: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), GlorotLinear(self.num_values, units))


def _stride_block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


@torch.no_grad()
def untrained_copy(encoder: Encoder, seed: int = 0) -> Encoder:
    """An encoder of the same architecture, on the same device, with freshly initialised weights, in evaluation mode.

    The same seed gives the same weights; the global random state does not change.
    """
    untrained = copy.deepcopy(encoder)
    # Drawn on the CPU, from its generator only, so that the baseline is the same on every device.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        device = next(untrained.parameters()).device
        untrained.cpu().reset_parameters()
        untrained.to(device)
    return untrained.eval()
