"""Many images to one array: in several processes, with a progress bar, resumable after an interruption."""

import contextlib
import errno
import json
import os
import pickle
import subprocess
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .one_image import Chunk, EncodedImage, check_readable, decode_chunk
from .one_image import decode_image as decode_image

CHUNK_IMAGES, CHUNK_BYTES = 64, 1 << 22  # decoded at once by one process; fewer images of more bytes
FEWEST_FOR_PROCESSES = 1000  # images: starting a process takes longer than decoding fewer
MOST_PROCESSES = 32
SECONDS_BEFORE_BAR = 1
IMAGES, JOURNAL = "images.partial.npy", "decoded.jsonl"  # in the folder of a decoding under way

Decode = Callable[[list[EncodedImage], int, int], Chunk]


class Decoded(NamedTuple):
    """All images.

    Args:
        images: (N, S, S, C) uint8; a file mapped to memory if a folder was given.
        unreadable: row and reason of each image that can't be decoded; its pixels are 0.
        scaled: how many images were scaled to 8 bits, by what decided their range.
    """

    images: NDArray[np.uint8]
    unreadable: tuple[tuple[int, str], ...]
    scaled: dict[str, int]


def decode_images(encoded: Iterable[EncodedImage], count: int, size: int, channels: int = 3) -> NDArray[np.uint8]:
    """Decode ``count`` images to (count, size, size, channels) uint8 on all cores.

    Raises:
        DataError: images cannot be read; the message names all of them.
    """
    decoded = decode_all(encoded, count, size, channels)
    check_readable([reason for _, reason in decoded.unreadable])
    return decoded.images


def decode_all(
    encoded: Iterable[EncodedImage], count: int, size: int, channels: int = 3, folder: Path | None = None
) -> Decoded:
    """Decode ``count`` images on all cores, in processes of their own if they are many.

    Args:
        encoded: the images.
        count: their number.
        size: height and width in pixels to resize them to.
        channels: see ``decode_image``.
        folder: where to write them; None: into memory. A decoding of the same images that was interrupted there goes
            on: what it had finished is kept.

    Raises:
        DataError: a process ended.
        OSError: the folder can't be written.
    """
    store = _Store(count, size, channels, folder)
    length = max(1, min(CHUNK_IMAGES, CHUNK_BYTES // (size * size * channels)))
    workers = max(1, min(_cores(), MOST_PROCESSES, -(-count // length)))
    with contextlib.closing(store), _bar(count) as advance:
        chunks = _chunks(iter(encoded), length)
        lock, stop = threading.Lock(), threading.Event()

        def next_chunk() -> tuple[int, list[EncodedImage]] | None:
            for start, chunk in chunks:
                if not store.has(start, len(chunk)):
                    return start, chunk
                advance(len(chunk))
            return None

        def work() -> None:
            with _decoder(in_process=count >= FEWEST_FOR_PROCESSES) as decode:
                while not stop.is_set():
                    with lock:
                        item = next_chunk()
                    if item is None:
                        return
                    result = decode(item[1], size, channels)
                    with lock:
                        store.put(item[0], result)
                        advance(len(item[1]))

        with ThreadPoolExecutor(workers) as pool:
            tasks = [pool.submit(work) for _ in range(workers)]
            try:
                wait(tasks, return_when=FIRST_EXCEPTION)
            finally:
                stop.set()
        for task in tasks:
            task.result()
    return Decoded(store.images, tuple(sorted(store.unreadable)), dict(store.scaled))


def forget_progress(folder: Path) -> None:
    """Removes what ``decode_all`` needs to go on with an interrupted decoding."""
    (folder / JOURNAL).unlink(missing_ok=True)


def _cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _chunks(encoded: Iterator[EncodedImage], length: int) -> Iterator[tuple[int, list[EncodedImage]]]:
    """Runs of images, each with the row of its first."""
    start = 0
    while chunk := list(islice(encoded, length)):
        yield start, chunk
        start += len(chunk)


@contextlib.contextmanager
def _bar(count: int) -> Iterator[Callable[[int], None]]:
    """A progress bar, shown where decoding takes longer than a moment."""
    from tqdm import tqdm

    # In a file, where each state of the bar is a line, now and then is enough.
    every = 0.2 if sys.stderr.isatty() else 10
    with tqdm(total=count, desc="Decoding", unit=" images", delay=SECONDS_BEFORE_BAR, mininterval=every) as bar:
        yield bar.update


@contextlib.contextmanager
def _decoder(in_process: bool) -> Iterator[Decode]:
    """``decode_chunk`` in a process of its own, or in this one.

    The process imports NumPy and Pillow only, and not the script that runs; it shares no memory with this one.
    """
    if not in_process:
        yield decode_chunk
        return
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", f"{__package__}.decode_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # Ctrl-C is this process's business
    )
    questions, answers = process.stdin, process.stdout
    assert questions is not None
    assert answers is not None

    def decode(chunk: list[EncodedImage], size: int, channels: int) -> Chunk:
        try:
            pickle.dump((chunk, size, channels), questions, protocol=pickle.HIGHEST_PROTOCOL)
            questions.flush()
            return pickle.load(answers)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            raise DataError(
                f"the process that decodes images ended with status {process.wait()} at one of {chunk[0][0]} … "
                f"{chunk[-1][0]}: is there enough memory, or is one of them damaged?"
            ) from error

    try:
        yield decode
    finally:
        with contextlib.suppress(BrokenPipeError):
            questions.close()
        answers.close()
        process.wait()


class _Store:
    """The decoded images, and which of them are there; in a file, both outlive the process.

    A line of the journal says that a chunk is in the file, with its checksum: a file that was not written to the end,
    as when the power fails, is found out.
    """

    def __init__(self, count: int, size: int, channels: int, folder: Path | None) -> None:
        self.unreadable: list[tuple[int, str]] = []
        self.scaled: Counter[str] = Counter()
        self._done: dict[int, int] = {}  # length of each chunk, by its first row
        shape = (count, size, size, channels)
        self._journal = None
        if folder is None or not count:  # an empty file can't be mapped
            self.images = np.empty(shape, np.uint8)
            return
        folder.mkdir(parents=True, exist_ok=True)
        images = _existing(folder / IMAGES, shape)
        if images is None:
            (folder / JOURNAL).unlink(missing_ok=True)
            images = _new_file(folder / IMAGES, shape)
        self.images = images
        self._journal = (folder / JOURNAL).open("a+", encoding="utf-8")
        self._read_journal()

    def _read_journal(self) -> None:
        assert self._journal is not None
        self._journal.seek(0)
        for line in self._journal:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that was cut
                entry = json.loads(line)
                start, length = entry["start"], entry["images"]
                if zlib.crc32(self.images[start : start + length].data) == entry["checksum"]:
                    self._done[start] = length
                    self.scaled.update(entry["scaled"])
        self._journal.write("\n")  # ends a line that was cut

    def has(self, start: int, length: int) -> bool:
        """Whether these images are there already."""
        return self._done.get(start) == length

    def put(self, start: int, chunk: Chunk) -> None:
        """Keep a chunk's images. Those with images that can't be read are tried again after an interruption."""
        length = len(chunk.pixels)
        self.images[start : start + length] = chunk.pixels
        self.unreadable += [(start + index, reason) for index, reason in chunk.unreadable]
        self.scaled.update(chunk.scaled)
        if self._journal is not None and not chunk.unreadable:
            checksum = zlib.crc32(chunk.pixels.data)
            entry = {"start": start, "images": length, "checksum": checksum, "scaled": dict(chunk.scaled)}
            self._journal.write(json.dumps(entry) + "\n")
            self._journal.flush()

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()


def _existing(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """The file of a decoding that was interrupted."""
    try:
        images = np.lib.format.open_memmap(path, mode="r+")
    except (OSError, ValueError):
        return None
    return images if images.shape == shape and images.dtype == np.uint8 else None


def _new_file(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        # Now: on a full disk, writing to the mapped memory later would end the process.
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):  # this disk can't
                    raise
    return images
