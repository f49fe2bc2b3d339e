"""Readers of images: files, folders, CIFAR-10's pickles, parquet."""

import io
import os
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from readers.errors import DataError
from readers.images import read_image_files
from readers.images.decoding import decode_image
from readers.images.sources import open_source
from tests.fuzz.fuzzing import Boom, broken, fuzz, outcome
from tests.fuzz.test_fuzz_texts import make_no_file

PIXELS = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)


def saved(kind: str, mode: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(file, kind, **options)
    return file.getvalue()


FILES = [
    *(saved("PNG", mode) for mode in ("RGB", "P", "1", "LA", "I;16")),
    *(saved(kind, mode) for kind, mode in (("JPEG", "RGB"), ("JPEG", "CMYK"), ("GIF", "P"), ("BMP", "L"))),
    *(saved(kind, mode) for kind, mode in (("PPM", "RGB"), ("WEBP", "RGBA"), ("TIFF", "F"))),
    saved("TIFF", "RGB", compression="tiff_lzw"),
]


def huge_png(width: int, height: int) -> bytes:
    """A PNG that declares so many pixels and contains hardly any."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@fuzz(120)
@given(data=broken(st.sampled_from(FILES)), suffix=st.sampled_from([".png", ".jpg"]))
@example(data=huge_png(100_000, 100_000), suffix=".png")
@example(data=huge_png(2**31 - 1, 1), suffix=".png")
@example(data=huge_png(1, 80_000_000), suffix=".png")
@example(data=b"P6 100000 100000 255\n", suffix=".png")
@example(data=b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n%%EndComments\nshowpage\n", suffix=".png")
def test_image(tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str):
    path = tmp_path_factory.mktemp("image") / f"it{suffix}"
    path.write_bytes(data)
    pixels = outcome(lambda: decode_image(str(path), path, 8), path)
    if pixels is not None:
        assert pixels.shape == (8, 8, 3)
        assert pixels.dtype == np.uint8


@pytest.mark.parametrize("number", range(len(FILES)))
def test_whole_images_are_read(number: int):
    assert decode_image("it", FILES[number], 4).shape == (4, 4, 3)


def test_postscript_is_rejected(tmp_path: Path):
    """Pillow would run Ghostscript for it."""
    path = tmp_path / "it.png"
    Image.fromarray(PIXELS).save(path, "EPS")
    with pytest.raises(DataError, match=r"it\.png: cannot identify"):
        decode_image(str(path), path, 4)


@pytest.mark.parametrize("make", ["loop", "dangling", "pipe"])
def test_paths_without_images(tmp_path: Path, make: str):
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(FILES[0])
    path = tmp_path / "it.png"
    if make == "pipe":
        os.mkfifo(path)
    else:
        make_no_file(path, make)

    def read():
        source = open_source(str(tmp_path))
        source.key()
        return source.read(4)

    assert outcome(read, path) is None
    assert outcome(lambda: list(read_image_files(tmp_path, 4, 2)), path) is None


# --------------------------------------------------------------------------------------------------- CIFAR-10's pickles


def batch(data: Any, labels: Any, protocol: int = 2) -> bytes:
    return pickle.dumps({b"data": data, b"labels": labels}, protocol)


IMAGES = np.arange(2 * 3072).astype(np.uint8).reshape(2, -1)
WHOLE = batch(IMAGES, [0, 1])
STRANGE = [
    batch(Boom(), [0, 1]),
    batch(IMAGES, [0, 2]),
    batch(IMAGES, [0, -1]),
    batch(IMAGES, [0, 10**30]),
    batch(IMAGES, [[0, 1]]),
    batch(IMAGES, None),
    batch(IMAGES, [0.5, "x"]),
    batch([[300] * 3072] * 2, [0, 1]),
    batch(IMAGES[:0], []),
    batch(np.array([object(), 1], object), [0, 1]),
    batch(IMAGES.astype(complex), [0, 1]),
    batch({}, [0, 1]),
    # An array of objects at an address that the file chooses.
    b"cnumpy\nndarray\n((K\x01tcnumpy\ndtype\n(U\x02O8K\x00K\x01tRU\x0812345678tR.",
    b"cnumpy\ndtype\n(U\x02O8K\x00K\x01tR.",
    b"\x80\x02Nr\xff\xff\xff\xff.",  # room for four billion memos
    b"\x80\x04\x8e" + struct.pack("<Q", 10**12) + b"x",  # a string of 10^12 bytes
    b"(" * 100_000,
    b"]" * 100_000 + b"a" * 99_999 + b".",
]


@fuzz(60)
@given(data=broken(st.sampled_from([WHOLE, *STRANGE])), name=st.sampled_from(["data_batch_2", "batches.meta"]))
@example(data=STRANGE[0], name="batches.meta")
@example(data=pickle.dumps({b"label_names": 3}), name="batches.meta")
@example(data=pickle.dumps({"label_names": ["a", b"\xff"]}), name="batches.meta")
def test_cifar10(tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str):
    folder = tmp_path_factory.mktemp("cifar")
    for number in range(1, 6):
        (folder / f"data_batch_{number}").write_bytes(WHOLE)
    (folder / "test_batch").write_bytes(WHOLE)
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"a", b"b"]}))
    (folder / name).write_bytes(data)
    read = outcome(lambda: open_source(str(folder)).read(32), folder)
    if read is not None:
        assert read.images.shape == (len(read.labels), 32, 32, 3)
        assert 0 <= read.labels.min() <= read.labels.max() < len(read.class_names)
    if data == WHOLE and name == "data_batch_2":
        assert read is not None
        np.testing.assert_array_equal(read.images[2].transpose(2, 0, 1).ravel(), IMAGES[0])


@pytest.mark.parametrize("number", range(len(STRANGE)))
def test_strange_pickles_are_rejected(tmp_path: Path, number: int):
    test = test_cifar10.hypothesis.inner_test
    factory = type("Factory", (), {"mktemp": staticmethod(lambda _: tmp_path)})
    test(factory, STRANGE[number], "data_batch_2")
    with pytest.raises(DataError):
        open_source(str(tmp_path)).read(32)


# ---------------------------------------------------------------------------------------------------------- parquet


def parquet(**columns: list[Any]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


def encoded(*images: bytes | None) -> list[dict[str, Any] | None]:
    return [{"bytes": image, "path": None} for image in images]


PARQUETS = {
    "whole": parquet(image=encoded(FILES[0], FILES[1]), label=[0, 1]),
    "no-label": parquet(image=encoded(FILES[0], FILES[1]), label=[None, 1]),
    "text-label": parquet(image=encoded(FILES[0], FILES[1]), label=["a", "b"]),
    "negative-label": parquet(image=encoded(FILES[0], FILES[1]), label=[-1, 1]),
    "no-image": parquet(image=[None, *encoded(FILES[0])], label=[0, 1]),
    "no-bytes": parquet(image=encoded(None, FILES[0]), label=[0, 1]),
    "no-column": parquet(picture=[1, 2]),
    "numbers": parquet(image=[1, 2], label=[0, 1]),
    "empty": parquet(image=encoded()[:0], label=[]),
    "cut": parquet(image=encoded(FILES[0], FILES[1]), label=[0, 1])[:-20],
    "nothing": b"",
}


@pytest.mark.parametrize("name", PARQUETS)
def test_parquet_is_read_or_rejected(tmp_path: Path, name: str):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-0.parquet").write_bytes(PARQUETS[name])
    read = outcome(lambda: open_source(str(tmp_path / "data")).read(8), tmp_path)
    assert (read is not None) == (name in ("whole", "text-label", "no-label", "negative-label"))
