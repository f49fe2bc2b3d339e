"""The batch types: the contract between the datamodules and the LightningModules."""

from typing import NamedTuple

from torch import Tensor


class ImageBatch(NamedTuple):
    """A batch of images on the device, normalised, ready for an encoder.

    Shapes:
        images: (B, 3, H, W) float, values in the datamodule's ``pixel_range``; ``channels_last`` in memory.
        labels: (B,) int64, the class of each image; -1 where the data has no classes.
    """

    images: Tensor
    labels: Tensor
