"""Random changes of training images that leave the class as it is: torch operations on whole batches, on their device.

All draw from torch's default generator of the device, whose state a checkpoint restores, so a run that is resumed
sees the same images. Images go from one to the next as they are: whole numbers come in, after a crop or a change of
colours they are fractions. What changes colours leaves the opacity (the second or fourth channel) as it is.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)  # of red, green, blue: ITU-R BT.601


class Augmentation(ABC):
    """Base class of the augmentation slot."""

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor:
        """Changes each image at random.

        Args:
            images: (B, H, W, C) uint8, or float32 between 0 and 255; not changed in place.

        Returns:
            Of the same shape, uint8 or float32 between 0 and 255.
        """


class Composed(Augmentation):
    """Several augmentations, one after the other.

    Args:
        parts: in the order of their application.

    Raises:
        ValueError: if there is none.

    Example:
        data:
          class_path: ImageDataModule
          init_args:
            augmentation:
              class_path: Composed
              init_args:
                parts: [Crops, ColorJitter, Grey]
    """

    def __init__(self, parts: Sequence[Augmentation]) -> None:
        if not parts:
            raise ValueError("augmentation.parts is empty: name at least one augmentation")
        self.parts = list(parts)

    def __call__(self, images: Tensor) -> Tensor:
        for part in self.parts:
            images = part(images)
        return images


class MirrorShift(Augmentation):
    """Mirrors each image with probability 1/2 and shifts it by up to ``shift`` of its size, padding with black.

    Args:
        shift: largest shift, as a share of the height; at least one pixel.

    Raises:
        ValueError: if ``shift`` is not in [0, 1).

    Example:
        data:
          class_path: ImageDataModule
          init_args: {augmentation: MirrorShift}
    """

    def __init__(self, shift: float = 0.125) -> None:
        _check_share("shift", shift)
        self.shift = shift

    def __call__(self, images: Tensor) -> Tensor:
        count, height, width, channels = images.shape
        device = images.device
        padding = max(1, int(height * self.shift))
        both = torch.cat([images, images.flip(2)])
        both = F.pad(both, (0, 0, padding, padding, padding, padding)).contiguous()
        image = torch.arange(count, device=device) + count * torch.randint(0, 2, (count,), device=device)
        top, left = torch.randint(0, 2 * padding + 1, (2, count), device=device)
        # Each row of a crop is a run of numbers. Viewed as all runs of that length, the memory is a matrix with
        # overlapping rows, and the crops are a selection of them: one copy, many times faster than indexing pixels.
        padded_height, padded_width = height + 2 * padding, width + 2 * padding
        row = (image * padded_height + top)[:, None] + torch.arange(height, device=device)
        start = row * padded_width + left[:, None]
        runs = both.as_strided((both.numel() // channels - width + 1, width * channels), (channels, 1))
        return runs.index_select(0, start.flatten()).view(images.shape)


class Crops(Augmentation):
    """Cuts a rectangle out of each image and resizes it, bilinearly, to the size of the image.

    Its area is a uniform share of the image's between the two numbers of ``scale``, its ratio of width to height
    log-uniform between those of ``ratio``, its place uniform.

    Args:
        scale: smallest and largest share of the area.
        ratio: smallest and largest ratio of width to height; what reaches beyond the image is left out.
        mirror: mirror each crop with probability 1/2.

    Raises:
        ValueError: if ``scale`` is not in (0, 1], or ``scale`` or ``ratio`` is not ordered and positive.

    Source: Szegedy et al., arXiv 1409.4842, section 6. Where the rectangle doesn't fit, they draw again.

    Example:
        data:
          class_path: ImageDataModule
          init_args:
            augmentation:
              class_path: Crops
              init_args: {scale: [0.6, 1.0]}
    """

    def __init__(
        self, scale: tuple[float, float] = (0.3, 1.0), ratio: tuple[float, float] = (0.75, 4 / 3), mirror: bool = True
    ) -> None:
        _check_range("scale", scale, 1.0)
        _check_range("ratio", ratio, math.inf)
        self.scale, self.ratio, self.mirror = scale, ratio, mirror

    def __call__(self, images: Tensor) -> Tensor:
        area = _uniform(images, *self.scale)
        ratio = _uniform(images, *map(math.log, self.ratio)).exp()
        width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        # The image is the square from -1 to 1: a rectangle of half that size may move by the rest.
        x, y = (1 - width) * _uniform(images, -1, 1), (1 - height) * _uniform(images, -1, 1)
        if self.mirror:
            width = width * (1 - 2 * torch.randint(0, 2, (len(images),), device=images.device))
        zero = torch.zeros_like(x)
        boxes = torch.stack([torch.stack([width, zero, x], 1), torch.stack([zero, height, y], 1)], 1)
        channels_first = images.permute(0, 3, 1, 2).float()
        grid = F.affine_grid(boxes, list(channels_first.shape), align_corners=False)
        crops = F.grid_sample(channels_first, grid, padding_mode="border", align_corners=False)
        return crops.permute(0, 2, 3, 1).contiguous()


class ColorJitter(Augmentation):
    """Changes brightness, contrast, saturation and hue of each image, in this order.

    Brightness multiplies the pixels, contrast their differences from the image's mean, saturation those from the
    pixel's grey, each by a factor uniform in [1 - x, 1 + x]; hue turns the colours about the grey axis by up to that
    share of the circle. Images of one channel have neither saturation nor hue.

    Args:
        brightness, contrast, saturation: x, in [0, 1].
        hue: in [0, 0.5].

    Raises:
        ValueError: if one is out of its range.

    Example:
        data:
          class_path: ImageDataModule
          init_args:
            augmentation:
              class_path: ColorJitter
              init_args: {brightness: 0.4, hue: 0.0}
    """

    def __init__(
        self, brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4, hue: float = 0.1
    ) -> None:
        for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            _check_share(name, value, closed=True)
        if not 0 <= hue <= 0.5:
            raise ValueError(f"augmentation.hue ({hue}) must be in [0, 0.5]")
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue

    def __call__(self, images: Tensor) -> Tensor:
        return _with_colours(images, self._jittered)

    def _jittered(self, images: Tensor) -> Tensor:
        images = images * self._factor(images, self.brightness)
        mean = _grey(images).mean((1, 2, 3), keepdim=True)
        images = torch.lerp(mean, images, self._factor(images, self.contrast)).clamp(0, 255)
        if images.shape[-1] == 3:
            images = torch.lerp(_grey(images), images, self._factor(images, self.saturation))
            turn = _uniform(images, -self.hue, self.hue) * (2 * math.pi)
            images = _transformed(images, _rotations_about_grey(turn))
        return images.clamp(0, 255)

    @staticmethod
    def _factor(images: Tensor, amount: float) -> Tensor:
        return _uniform(images, 1 - amount, 1 + amount)[:, None, None, None]


class ChannelMixing(Augmentation):
    """Mixes the channels of each image by a random matrix: any colours become any others, edges stay edges.

        x <- 127.5 + M (x - 127.5),   M = (1 - strength) I + strength R,   R_ij ~ N(0, 1 / 2)

    Args:
        strength: in [0, 1].

    Raises:
        ValueError: if ``strength`` is out of its range.

    Example:
        data:
          class_path: ImageDataModule
          init_args:
            augmentation:
              class_path: ChannelMixing
              init_args: {strength: 0.5}
    """

    def __init__(self, strength: float = 1.0) -> None:
        _check_share("strength", strength, closed=True)
        self.strength = strength

    def __call__(self, images: Tensor) -> Tensor:
        return _with_colours(images, self._mixed)

    def _mixed(self, images: Tensor) -> Tensor:
        count, channels = images.shape[0], images.shape[-1]
        noise = torch.randn(count, channels, channels, device=images.device) * math.sqrt(0.5)
        own = torch.eye(channels, device=images.device)
        return (127.5 + _transformed(images - 127.5, torch.lerp(own, noise, self.strength))).clamp(0, 255)


class Grey(Augmentation):
    """Takes the colour from an image, with a probability: all channels become its luma.

    Args:
        probability: in [0, 1].

    Raises:
        ValueError: if ``probability`` is out of its range.

    Example:
        data:
          class_path: ImageDataModule
          init_args: {augmentation: Grey}
    """

    def __init__(self, probability: float = 0.2) -> None:
        _check_share("probability", probability, closed=True)
        self.probability = probability

    def __call__(self, images: Tensor) -> Tensor:
        chosen = _uniform(images, 0, 1) < self.probability
        return _with_colours(images, lambda colours: torch.where(chosen[:, None, None, None], _grey(colours), colours))


class Blur(Augmentation):
    """Blurs an image, with a probability, by a Gaussian; at the border its weights are those inside, scaled to sum 1.

    Args:
        probability: in [0, 1].
        sigma: smallest and largest standard deviation, as a share of the height.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        data:
          class_path: ImageDataModule
          init_args:
            augmentation:
              class_path: Blur
              init_args: {probability: 1.0}
    """

    def __init__(self, probability: float = 0.5, sigma: tuple[float, float] = (0.01, 0.04)) -> None:
        _check_share("probability", probability, closed=True)
        _check_range("sigma", sigma, 1.0)
        self.probability, self.sigma = probability, sigma

    def __call__(self, images: Tensor) -> Tensor:
        chosen = _uniform(images, 0, 1) < self.probability
        sigma = _uniform(images, *self.sigma) * images.shape[1]
        rows, columns = (_gaussian(sigma, images.shape[axis]) for axis in (1, 2))
        blurred = torch.einsum("byi,bxj,bijc->byxc", rows, columns, images.float())
        return torch.where(chosen[:, None, None, None], blurred.clamp(0, 255), images.float())


def _with_colours(images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The images with their one or three colours changed, as float32."""
    channels = images.shape[-1]
    colours, opacity = images.float().split([channels - (1 - channels % 2), 1 - channels % 2], dim=-1)
    return torch.cat([change(colours), opacity], -1) if opacity.numel() else change(colours)


def _uniform(images: Tensor, low: float, high: float) -> Tensor:
    """A number (B,) float32 for each image."""
    return torch.empty(len(images), device=images.device).uniform_(low, high)


def _grey(images: Tensor) -> Tensor:
    """(B, H, W, 1): the luma of three channels, else the mean."""
    channels = images.shape[-1]
    weights = LUMA if channels == 3 else (1 / channels,) * channels
    return (images * torch.tensor(weights, device=images.device)).sum(-1, keepdim=True)


def _transformed(images: Tensor, matrices: Tensor) -> Tensor:
    """Each pixel multiplied by its image's matrix (B, C, C)."""
    return torch.bmm(images.flatten(1, 2), matrices.transpose(1, 2)).view(images.shape)


def _rotations_about_grey(angle: Tensor) -> Tensor:
    """(B, 3, 3): turns of the colours about (1, 1, 1), angles (B,) in radians (Rodrigues' formula)."""
    axis = math.sqrt(1 / 3)
    cross = torch.tensor([[0, -axis, axis], [axis, 0, -axis], [-axis, axis, 0]], device=angle.device)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return cos * torch.eye(3, device=angle.device) + sin * cross + (1 - cos) / 3


def _gaussian(sigma: Tensor, size: int) -> Tensor:
    """(B, size, size): the weights of each place for each place, sum 1."""
    place = torch.arange(size, device=sigma.device, dtype=torch.float32)
    return (-0.5 * ((place[:, None] - place) / sigma[:, None, None]).square()).softmax(-1)


def _check_share(name: str, value: float, closed: bool = False) -> None:
    if not (0 <= value < 1 or (closed and value == 1)):
        raise ValueError(f"augmentation.{name} ({value}) must be in [0, 1{']' if closed else ')'}")


def _check_range(name: str, values: tuple[float, float], most: float) -> None:
    if len(values) != 2 or not 0 < values[0] <= values[1] <= most:
        limit = "positive" if most == math.inf else f"in (0, {most:g}]"
        raise ValueError(f"augmentation.{name} ({values}) must be two numbers {limit}, the lower one first")
