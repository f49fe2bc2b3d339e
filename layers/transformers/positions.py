"""Learned position embeddings, for text and for images read byte by byte."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, fx, nn

# Initial standard deviation of every embedding and weight, times the square root of its fan-in: Child et al.
INITIAL_SCALE = 0.125
COLOURS = 3


class Positions(nn.Module, ABC):
    """Base class of the position embeddings.

    Attributes:
        length: number of positions.
    """

    length: int

    @abstractmethod
    def forward(self, places: Tensor) -> Tensor:
        """(T,) int64 positions, counted from 0 -> (T, embed_dim)."""

    def check(self, count: int) -> None:
        """Raises ValueError if a sequence of ``count`` tokens is longer than the positions."""
        _check_count(count, self.length)


@fx.wrap  # a traced graph has no branches: the tracer keeps this as one operation
def _check_count(count: int, length: int) -> None:
    if count > length:
        raise ValueError(f"a sequence of {count} tokens is longer than the {length} positions")


class TokenPositions(Positions):
    """One vector for each position.

    Args:
        length: longest sequence in tokens.
        embed_dim: size of the vectors.
    """

    def __init__(self, length: int, embed_dim: int) -> None:
        super().__init__()
        self.length = length
        self.table = _table(length, embed_dim, 1)

    def reset_parameters(self) -> None:
        """Re-initialises the vectors."""
        _draw(self.table, 1)

    def forward(self, places: Tensor) -> Tensor:
        return self.table(places)


class ImagePositions(Positions):
    """The sum of a row, a column and a colour vector, for the bytes of an image read row by row, colours innermost.

    Args:
        image_size: height and width in pixels.
        embed_dim: size of the vectors.
    """

    def __init__(self, image_size: int, embed_dim: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.length = image_size * image_size * COLOURS
        self.rows = _table(image_size, embed_dim, 3)
        self.columns = _table(image_size, embed_dim, 3)
        self.colours = _table(COLOURS, embed_dim, 3)

    def reset_parameters(self) -> None:
        """Re-initialises the vectors."""
        for table in (self.rows, self.columns, self.colours):
            _draw(table, 3)

    def forward(self, places: Tensor) -> Tensor:
        pixels = places // COLOURS
        return (
            self.rows(pixels // self.image_size)
            + self.columns(pixels % self.image_size)
            + self.colours(places % COLOURS)
        )


def _table(count: int, embed_dim: int, num_tables: int) -> nn.Embedding:
    table = nn.Embedding(count, embed_dim)
    _draw(table, num_tables)
    return table


def _draw(table: nn.Embedding, num_tables: int) -> None:
    """From N(0, 0.125 / sqrt(embed_dim * num_tables)): the sum of all tables has the tokens' variance."""
    nn.init.normal_(table.weight, std=INITIAL_SCALE / (table.embedding_dim * num_tables) ** 0.5)


def bytes_of_images(images: Tensor, pixel_range: tuple[float, float]) -> Tensor:
    """The exact bytes that images were made from: row by row from the top, each pixel as red, green, blue.

    Args:
        images: (B, 3, H, W) float.
        pixel_range: the values of the bytes 0 and 255 in ``images``.

    Returns:
        (B, H * W * 3) int64, 0 to 255.

    Raises:
        ValueError: there are not three channels.
    """
    if images.shape[1] != COLOURS:
        raise ValueError(f"images of {COLOURS} channels are needed, got {images.shape[1]}: set data.channels={COLOURS}")
    low, high = pixel_range
    levels = (images.float() - low) * (255 / (high - low))
    return levels.round().clamp(0, 255).long().permute(0, 2, 3, 1).flatten(1)


def images_of_bytes(values: Tensor, image_size: int, pixel_range: tuple[float, float]) -> Tensor:
    """The inverse of ``bytes_of_images``: (B, S * S * 3) integers -> (B, 3, S, S) float32."""
    low, high = pixel_range
    pixels = values.unflatten(1, (image_size, image_size, COLOURS)).permute(0, 3, 1, 2)
    return pixels.to(torch.float32) * ((high - low) / 255) + low
