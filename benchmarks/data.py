"""Images a second of the in-memory image loader against decoding every item in a plain torch DataLoader.

Both yield normalised float32 training batches of 64 on the CPU. The peer is the usual recipe: a ``Dataset`` that holds
the encoded images in memory, and for each item opens, decodes, converts and scales one. Both run on one torch thread
(as each of the peer's workers does), so that other jobs on the machine do not decide. Data: the JPEG copy of CIFAR-10
at ``../shared/data/cifar10`` where it lies there (encoded again as JPEG), else the procedural sample (as PNG).

And the memory of a run on a text of 100 million words, see ``_text_memory.py``.
"""

import io
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules import ImageDataModule
from datamodules.augmentation import MirrorShift
from datamodules.batches import ImageBatch

REAL_DATA = Path(__file__).parents[1] / "../shared/data/cifar10"
BATCH_SIZE = 64
PIXEL_RANGE = (-0.5, 0.5)


class EncodedImages(Dataset):
    """The peer: (3, 32, 32) float32 image and label of one item, decoded when asked for."""

    def __init__(self, encoded: list[bytes], augment: bool) -> None:
        self.encoded = encoded
        self.augment = augment

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = torch.from_numpy(np.array(Image.open(io.BytesIO(self.encoded[index])).convert("RGB"))).permute(2, 0, 1)
        if self.augment:
            size = image.shape[-1]
            padding = size // 8
            padded = torch.nn.functional.pad(image, (padding,) * 4)
            top, left = torch.randint(0, 2 * padding + 1, (2,)).tolist()
            image = padded[:, top : top + size, left : left + size]
            if torch.rand(()) < 0.5:
                image = image.flip(2)
        low, high = PIXEL_RANGE
        return image.float() / 255 * (high - low) + low, 0


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Rows with the ratio (the peer's time over ours) and the images a second of both; and one of memory.

    Args:
        quick: fewer rounds and images, for a look or a test.
    """
    data = ImageDataModule(
        source=str(REAL_DATA) if REAL_DATA.is_dir() and not quick else "sample",
        batch_size=BATCH_SIZE,
        pixel_range=PIXEL_RANGE,
        sample_train_size=1000 if quick else 5000,
        sample_test_size=10,
    )
    data.prepare_data()
    data.setup()
    peer_batches = 4 if quick else 30
    encoded = _encoded(data, peer_batches * BATCH_SIZE * 2)
    rows = []
    for augment in (False, True):
        for workers in (0, 2):
            our_rate, peer_rate = _interleaved(
                lambda augment=augment: _our_batches(data, augment),
                lambda augment=augment, workers=workers: _peer_batches(encoded, augment, workers),
                peer_batches=peer_batches,
                rounds=2 if quick else 7,
            )
            rows.append(
                {
                    "benchmark": "data",
                    "case": f"{'augmented' if augment else 'plain'} training batches of {BATCH_SIZE}, {_name(data)}",
                    "peer": f"DataLoader, each item decoded, {workers} workers",
                    "ratio": our_rate / peer_rate,
                    "images_per_second": our_rate,
                    "peer_images_per_second": peer_rate,
                }
            )
    return rows + _rows_of_texts(quick)


def _rows_of_texts(quick: bool) -> list[dict[str, Any]]:
    """Rows of the memory of texts; none in a project that kept images alone."""
    if not Path(__file__).with_name("_text_memory.py").is_file():
        return []
    from benchmarks import _text_memory

    return _text_memory.rows(quick)


def _name(data: ImageDataModule) -> str:
    return "sample (PNG)" if data.source == "sample" else "CIFAR-10 (JPEG copy)"


def _encoded(data: ImageDataModule, count: int) -> list[bytes]:
    """About ``count`` training images as they would lie in files."""
    kind, options = ("PNG", {}) if data.source == "sample" else ("JPEG", {"quality": 85})
    encoded = []
    for images, _ in data.train_dataloader():
        for image in images.numpy():
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, kind, **options)
            encoded.append(buffer.getvalue())
        if len(encoded) >= count:
            break
    return encoded


def _our_batches(data: ImageDataModule, augment: bool) -> Iterator[Tensor]:
    for images, _ in data.train_dataloader():
        yield ImageBatch.from_pixels(MirrorShift()(images) if augment else images, PIXEL_RANGE).images


def _peer_batches(encoded: list[bytes], augment: bool, workers: int) -> Iterator[Tensor]:
    loader = DataLoader(
        EncodedImages(encoded, augment), batch_size=BATCH_SIZE, shuffle=True, drop_last=True, num_workers=workers
    )
    for images, _ in loader:
        yield images


def _interleaved(
    ours: Callable[[], Iterator[Tensor]], peer: Callable[[], Iterator[Tensor]], peer_batches: int, rounds: int
) -> tuple[float, float]:
    """Median images a second of both, measured in turn so that a busy machine hits both alike."""
    rates: tuple[list[float], list[float]] = ([], [])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(rounds):
        for rate, make, batches in ((rates[0], ours, 20 * peer_batches), (rates[1], peer, peer_batches)):
            iterator = make()
            next(iterator)  # starting workers and drawing an order are not what is measured
            started = time.perf_counter()
            count = sum(len(images) for images in islice(iterator, batches))
            rate.append(count / (time.perf_counter() - started))
            iterator.close()
    torch.set_num_threads(threads)
    return statistics.median(rates[0]), statistics.median(rates[1])
