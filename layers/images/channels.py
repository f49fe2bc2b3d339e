"""Encoders and decoders for images with other than three channels."""

from collections.abc import Callable
from typing import TypeVar

Part = TypeVar("Part")

RGB = 3


def for_channels(slot: Callable[..., Part], *sizes: int, **channels: int) -> Part:
    """The part of a slot, for images with so many channels.

    Args:
        slot: a class, or what builds one; it is called with the sizes, and with ``channels`` unless they are three.
        sizes: its arguments.
        channels: its argument for the number of channels, one.

    Raises:
        ValueError: it has no such argument.

    Example:
        from layers import BlogEncoder
        from layers.images.channels import for_channels

        encoder = for_channels(BlogEncoder, 32, in_channels=1)
    """
    ((name, number),) = channels.items()
    if number == RGB:
        return slot(*sizes)
    try:
        return slot(*sizes, **channels)
    except TypeError as error:
        if name not in str(error):
            raise
        part = getattr(slot, "__name__", "this part of the model")
        raise ValueError(
            f"{part} is for images of {RGB} channels, the data's have {number}: set data.channels={RGB}, or give it an "
            f"argument {name}"
        ) from error
