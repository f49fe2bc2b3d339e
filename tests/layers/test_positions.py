import pytest
import torch

from layers.transformers.positions import ImagePositions, TokenPositions, bytes_of_images, images_of_bytes


def test_an_images_position_is_the_sum_of_row_column_and_colour():
    positions = ImagePositions(5, 8)
    values = positions(torch.arange(75))
    assert positions.length == 75
    for row, column, colour in [(0, 0, 0), (0, 1, 2), (2, 4, 1), (4, 4, 2)]:
        expected = positions.rows.weight[row] + positions.columns.weight[column] + positions.colours.weight[colour]
        torch.testing.assert_close(values[(row * 5 + column) * 3 + colour], expected)


@pytest.mark.parametrize("make", [lambda: TokenPositions(2000, 64), lambda: ImagePositions(64, 64)])
def test_positions_start_as_in_the_paper(make):
    tables = [part.weight for part in make().children()]
    for table in tables:
        spread = 0.3 if len(table) == 3 else 0.05
        assert table.std().item() == pytest.approx(0.125 / (64 * len(tables)) ** 0.5, rel=spread)


def test_too_long_a_sequence_is_refused():
    TokenPositions(5, 4).check(5)
    with pytest.raises(ValueError, match="a sequence of 6 tokens is longer than the 5 positions"):
        TokenPositions(5, 4).check(6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("pixel_range", [(-0.5, 0.5), (-1.0, 1.0)])
def test_every_byte_survives(dtype, pixel_range):
    low, high = pixel_range
    # As a datamodule makes them: bytes (B, H, W, 3), each value somewhere.
    pixels = torch.arange(256 * 3).remainder(256).view(1, 16, 16, 3).to(torch.uint8)
    images = (pixels.permute(0, 3, 1, 2).float() / 255 * (high - low) + low).to(dtype)
    values = bytes_of_images(images, pixel_range)
    assert torch.equal(values, pixels.flatten(1).long())
    again = images_of_bytes(values, 16, pixel_range)
    torch.testing.assert_close(again, images.float(), rtol=0, atol=4e-3 if dtype == torch.bfloat16 else 1e-3)


def test_bytes_are_ordered_row_by_row_with_colours_innermost():
    images = torch.zeros(1, 3, 4, 4)
    images[0, 2, 1, 3] = 200 / 255  # blue, second row, last column
    (place,) = bytes_of_images(images, (0.0, 1.0))[0].nonzero().tolist()
    assert place == [(1 * 4 + 3) * 3 + 2]
