import io

import numpy as np
import pytest
from PIL import Image

from readers.errors import DataError
from readers.images.decoding import decode_image, decode_images


def encode(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(size=(8, 8), channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, channels), np.uint8)


def test_decodes_exactly_and_in_order():
    arrays = [noise(seed=seed) for seed in range(600)]
    encoded = ((str(index), encode(Image.fromarray(array))) for index, array in enumerate(arrays))
    assert np.array_equal(decode_images(encoded, 600, 8), np.stack(arrays))


def test_colour_modes():
    grey = noise(channels=1)[:, :, 0]
    assert np.array_equal(decode_image("", encode(Image.fromarray(grey)), 8), np.repeat(grey[:, :, None], 3, 2))
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    assert np.array_equal(decode_image("", encode(deep), 8), np.repeat(grey[:, :, None], 3, 2))
    clear = Image.fromarray(np.zeros((8, 8, 4), np.uint8))
    assert (decode_image("", encode(clear), 8) == 255).all()
    palette = Image.fromarray(noise()).quantize(16)
    assert np.array_equal(decode_image("", encode(palette), 8), np.asarray(palette.convert("RGB")))


def test_central_square_of_an_upright_image():
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200
    assert (decode_image("", encode(Image.fromarray(wide)), 8) == 200).all()
    half = np.zeros((16, 16, 3), np.uint8)
    half[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # the camera was upside down
    upright = decode_image("", encode(Image.fromarray(half), "JPEG", exif=exif.tobytes()), 16)
    assert upright[12:].mean() > 250
    assert upright[:4].mean() < 5


def test_large_jpeg_is_reduced_without_aliasing():
    fine = np.indices((1024, 1024)).sum(0) % 2 * 255
    image = decode_image("", encode(Image.fromarray(fine.astype(np.uint8)), "JPEG", quality=95), 32)
    assert np.abs(image.astype(int) - 127).max() < 8


@pytest.mark.parametrize("data", [b"", b"no image", encode(Image.fromarray(noise((64, 64))), "JPEG")[:900]])
def test_corrupt_image_is_named_in_one_line(data):
    with pytest.raises(DataError, match=r"cannot read the image cat.jpg: .*; repair or remove it") as caught:
        decode_images([("ok", encode(Image.fromarray(noise()))), ("cat.jpg", data)], 2, 8)
    assert "\n" not in str(caught.value)
