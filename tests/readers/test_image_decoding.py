import io
import json
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from readers.errors import DataError
from readers.images import decoding
from readers.images.decoding import decode_all, decode_image, decode_images
from readers.images.one_image import decode_chunk
from readers.images.ranges import BY_BITS, BY_FILE, BY_VALUES


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


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_lab_image_is_that_of_its_colours(channels):
    lab = ImageCms.applyTransform(
        Image.new("RGB", (8, 8), (200, 60, 20)),
        ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"),
    )
    plain = encode(Image.new("RGB", (8, 8), (200, 60, 20)))
    found, expected = (decode_image("", data, 8, channels).astype(int) for data in (encode(lab, "TIFF"), plain))
    assert abs(found - expected).max() < 8


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


# Other ranges of values than those of 8 bits.


def grey(values, kind="PNG", **options):
    """Decoded pixels (8, 8) and what decided their range."""
    chunk = decode_chunk([("it", encode(Image.fromarray(np.asarray(values)), kind, **options))], 8, 1)
    assert not chunk.unreadable
    return chunk.pixels[0, :, :, 0], next(iter(chunk.scaled), None)


RAMP = np.linspace(0, 1, 64).reshape(8, 8)


@pytest.mark.parametrize(("largest", "bits"), [(200, 8), (700, 10), (4095, 12), (9000, 14), (65535, 16)])
def test_the_bits_that_the_values_need(largest, bits):
    values = (RAMP * largest).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        pixels, by = grey(values, kind)
        assert np.array_equal(pixels, values >> (bits - 8))
        assert by == (None if bits == 16 else BY_BITS)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (RAMP * 4096 - 1024, "int32"),  # Hounsfield units
        (RAMP * 300 + 32768, "uint16"),  # with an offset
        (RAMP * 7 - 3.5, "float32"),
        (RAMP * 1e6, "int32"),
    ],
)
def test_smallest_to_largest_value(values, kind):
    values = values.astype(kind)
    low, high = values.min(), values.max()
    expected = (values.astype(float) - low) / (float(high) - float(low)) * 255
    pixels, by = grey(values, "TIFF")
    assert np.abs(pixels - expected).max() <= 0.5 + 1e-6
    assert by == BY_VALUES


def test_fractions_are_not_stretched():
    values = (RAMP / 2).astype(np.float32)
    values[0, 0] = np.nan
    pixels, _ = grey(values, "TIFF")
    assert np.abs(pixels - np.nan_to_num(values) * 255).max() <= 0.5 + 1e-4
    assert not grey(np.full((8, 8), np.nan, np.float32), "TIFF")[0].any()


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def deep_png(values, colour_type, before=b""):
    """A PNG of 16 bits from (H, W, C)."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))
    data = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + before + data + png_chunk(b"IEND", b"")


def test_what_the_file_says():
    values = (RAMP * 600).astype(np.uint16)
    chunk = decode_chunk([("", deep_png(values[..., None], 0, png_chunk(b"sBIT", b"\x0c")))], 8, 1)
    assert np.array_equal(chunk.pixels[0, :, :, 0], values >> 4)
    assert dict(chunk.scaled) == {BY_FILE: 1}
    for tags, low, high in (({280: 100, 281: 900}, 100, 900), ({270: "ImageJ=1.54\nmin=50.0\nmax=450.0\n"}, 50, 450)):
        pixels, by = grey(values, "TIFF", tiffinfo=tags)
        assert np.abs(pixels - np.clip((values - float(low)) / (high - low), 0, 1) * 255).max() <= 0.5
        assert by == BY_FILE
    pgm = b"P5 8 8 1023\n" + values.astype(">u2").tobytes()
    pixels = decode_image("", pgm, 8, channels=1)[:, :, 0]
    assert np.abs(pixels - values / 1023 * 255).max() <= 1


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_twelve_bits(channels):
    colours = np.random.default_rng(0).integers(0, 4096, (8, 8, channels))
    decoded = decode_image("", deep_png(colours, {3: 2, 4: 6}[channels]), 8, channels)
    if channels == 3:
        assert np.array_equal(decoded, colours >> 4)
    else:  # where it is opaque; elsewhere Pillow's colours depend on the opacity
        assert np.array_equal(decoded[..., 3], colours[..., 3] >> 4)
    full = colours * 16
    assert np.array_equal(decode_image("", deep_png(full[..., :3], 2), 8), full[..., :3] >> 8)


def test_grey_and_opacity_of_twelve_bits():
    values = np.random.default_rng(0).integers(0, 4096, (8, 8, 2))
    assert np.array_equal(decode_image("", deep_png(values, 4), 8, channels=2), values >> 4)
    opaque = np.where([False, True], 65535, values)
    assert np.array_equal(decode_image("", deep_png(opaque, 4), 8, channels=1), values[..., :1] >> 4)


def plain_tiff(values, photometric=1):
    """A TIFF of (8, 8) in the file's own type, which Pillow would not write."""
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    bits = 8 * values.dtype.itemsize
    tags = {256: 8, 257: 8, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 8, 279: values.nbytes, 339: kind}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    start = struct.pack("<I", 8 + values.nbytes)
    return b"II*\0" + start + values.tobytes() + struct.pack("<H", len(tags)) + directory + bytes(4)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((RAMP * 4e9).astype(np.uint32), RAMP),
        ((RAMP * 255 - 128).astype(np.int8), RAMP),
        ((RAMP * 4095).astype(np.int16), RAMP),
    ],
)
def test_types_that_pillow_takes_for_others(values, expected):
    assert np.abs(decode_image("", plain_tiff(values), 8, channels=1)[..., 0] - expected * 255).max() <= 2


def test_white_is_zero():
    for kind, white in ((np.uint8, 255), (np.uint16, 4095)):
        values = (RAMP * white).astype(kind)
        pixels = decode_image("", plain_tiff(values, photometric=0), 8, channels=1)[..., 0]
        assert np.array_equal(pixels, 255 - (values >> (0 if kind == np.uint8 else 4)))


def test_a_tiff_that_pillow_does_not_read():
    with pytest.raises(DataError, match="it: Pillow does not read this kind of TIFF"):
        decode_image("it", plain_tiff(RAMP), 8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_numbers_of_channels(channels):
    image = Image.fromarray(noise(channels=4))
    decoded = decode_image("", encode(image), 8, channels)
    if channels % 2:
        on_white = Image.alpha_composite(Image.new("RGBA", (8, 8), "white"), image)
        expected = np.asarray(on_white.convert("L" if channels == 1 else "RGB"))
    else:
        expected = np.asarray(image.convert("LA" if channels == 2 else "RGBA"))
    assert np.array_equal(decoded, expected.reshape(8, 8, channels))
    assert decode_image("", encode(image), 5, channels).shape == (5, 5, channels)


# Many images.

MANY = [(f"{seed}.png", encode(Image.fromarray(noise((4, 4), seed=seed)))) for seed in range(1100)]
MANY[700] = ("bad.png", b"broken")


def test_processes_and_threads_agree(monkeypatch):
    by_processes = decode_all(iter(MANY), len(MANY), 4)
    monkeypatch.setattr(decoding, "FEWEST_FOR_PROCESSES", 10**6)
    by_threads = decode_all(iter(MANY), len(MANY), 4)
    assert np.array_equal(by_processes.images, by_threads.images)
    assert by_processes.unreadable == by_threads.unreadable
    assert [row for row, _ in by_processes.unreadable] == [700]
    assert all(np.array_equal(by_threads.images[row], noise((4, 4), seed=row)) for row in (0, 699, 701, 1099))


def test_an_interrupted_decoding_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "FEWEST_FOR_PROCESSES", 10**6)
    whole = decode_all(iter(MANY), len(MANY), 4)

    def cut():
        yield from MANY[:500]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode_all(cut(), len(MANY), 4, folder=tmp_path)
    done = [json.loads(line)["start"] for line in (tmp_path / decoding.JOURNAL).read_text().split("\n") if line]
    assert done
    with (tmp_path / decoding.JOURNAL).open("a") as journal:
        journal.write('{"start": 640, "ima')  # cut by the interruption
    damaged = np.lib.format.open_memmap(tmp_path / decoding.IMAGES, mode="r+")
    damaged[done[0]] ^= 1  # a page that never reached the disk
    damaged.flush()
    decoded = []

    def recorded(chunk, *sizes):
        decoded.extend(name for name, _ in chunk)
        return decode_chunk(chunk, *sizes)

    monkeypatch.setattr(decoding, "decode_chunk", recorded)
    resumed = decode_all(iter(MANY), len(MANY), 4, folder=tmp_path)
    assert np.array_equal(resumed.images, whole.images)
    assert resumed.unreadable == whole.unreadable
    kept = {f"{row}.png" for start in done[1:] for row in range(start, start + decoding.CHUNK_IMAGES)}
    assert not kept & set(decoded)
    assert len(decoded) == len(MANY) - len(kept)
    decoded.clear()
    decode_all(iter(MANY), len(MANY), 4, folder=tmp_path)
    assert "bad.png" in decoded  # tried again, perhaps it was repaired
    assert len(decoded) == decoding.CHUNK_IMAGES


def test_a_process_that_is_killed_is_reported():
    with decoding._decoder(in_process=True) as decode, pytest.raises(DataError, match=r"status .* at one of a … b: is"):
        decode([("a", Killing()), ("b", b"")], 4, 3)


class Killing:
    """Ends the process that unpickles it, as a lack of memory does."""

    def __reduce__(self):
        return os._exit, (9,)
