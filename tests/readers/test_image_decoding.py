import io
import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from datamodules.image_cache import ImageCache
from readers.errors import DataError
from readers.images.decoding import ImageArrays, decode_image, decode_images


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


def test_middle_square_of_an_upright_image():
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


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (5, 4, 4, 3), np.uint8)
    return ImageArrays(images, rng.integers(0, 2, 5), 3, ("cat", "dog"))


def never():
    raise AssertionError("the cache was not used")


def assert_same(left, right):
    assert np.array_equal(left.images, right.images)
    assert np.array_equal(left.labels, right.labels)
    assert (left.num_train, left.class_names) == (right.num_train, right.class_names)


def test_cache_hit():
    built = ImageCache({"a": 1}).load_or_build(arrays)
    found = ImageCache({"a": 1}).load_or_build(never)
    assert_same(found, arrays())
    assert isinstance(found.images, np.memmap)
    assert found.fingerprint == built.fingerprint != ""
    assert ImageCache({"a": 2}).load_or_build(lambda: arrays(1)).fingerprint != found.fingerprint
    assert ImageCache({"a": 3}).load_or_build(arrays).fingerprint == found.fingerprint


def test_writing_to_the_images_leaves_the_file_alone():
    ImageCache({}).load_or_build(arrays).images[:] = 0
    assert_same(ImageCache({}).load_or_build(never), arrays())


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "about.json"])
@pytest.mark.parametrize("damage", ["truncated", "altered", "empty", "missing", "other"])
def test_damaged_cache_is_built_again(name, damage):
    cache = ImageCache({})
    cache.load_or_build(arrays)
    path = cache.folder / name
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        other = b"[]" if name == "about.json" else data[:-1] + bytes([data[-1] ^ 1])
        path.write_bytes({"truncated": data[:-3], "altered": other, "empty": b"", "other": b"\x80nothing"}[damage])
    assert_same(cache.load_or_build(lambda: arrays(1)), arrays(1))
    assert_same(cache.load_or_build(never), arrays(1))


def test_processes_that_start_at_once():
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: ImageCache({}).load_or_build(arrays), range(32)):
            assert_same(found, arrays())
    assert sorted(os.listdir(ImageCache({}).folder)) == ["about.json", "images.npy", "labels.npy"]


def test_failed_write_leaves_nothing_behind(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(DataError, match=r"cannot write the cache folder .*: No space left on device; set XDG"):
        ImageCache({}).load_or_build(arrays)
    assert os.listdir(ImageCache({}).folder) == []


def test_unwritable_cache_names_the_way_out(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    with pytest.raises(DataError, match=r"cannot write the cache folder .*XDG_CACHE_HOME"):
        ImageCache({}).load_or_build(arrays)


def test_about_holds_plain_values():
    cache = ImageCache({})
    cache.load_or_build(arrays)
    assert json.loads((cache.folder / "about.json").read_text())["content"]["about"]["class_names"] == ["cat", "dog"]
