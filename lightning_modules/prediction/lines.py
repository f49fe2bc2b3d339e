"""From the lines of a file to the lines of another one, in pieces: files may be of any size."""

import contextlib
import gzip
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Literal, NamedTuple, TypeVar

from readers.errors import DataError
from readers.files import GZIP, output_file
from readers.lines import TextFile

Item = TypeVar("Item")
Made = TypeVar("Made")
OnError = Literal["stop", "skip"]
BATCHES_PER_BLOCK = 16
CHUNK = 1 << 20  # bytes read at once


class LineCounts(NamedTuple):
    """What became of the lines of a file.

    Args:
        lines: all of them.
        bad: those that were skipped.
        before: those that an interrupted prediction had done.
    """

    lines: int
    bad: int
    before: int

    @property
    def remarks(self) -> str:
        """For the end of a summary: ``, 2 bad lines skipped``; empty if there is nothing to remark."""
        skipped = f", {self.bad} bad line{'s' * (self.bad != 1)} skipped" if self.bad else ""
        return skipped + (f", the first {self.before} lines were there already" if self.before else "")


class _Result(NamedTuple):
    """A line that needs no model."""

    text: str


def predict_lines(
    source: Path,
    output: Path,
    read: Callable[[str, str], Item | str],
    predict: Callable[[list[Item], int], list[str]],
    *,
    batch_size: int,
    size: Callable[[Item], int] = len,  # type: ignore[assignment]
    on_error: OnError = "stop",
    resume: bool = False,
    encoding: str = "utf-8",
    failed: Callable[[str], str] = lambda line: "",
) -> LineCounts:
    """Writes one line for each line of a file, with as much memory for a million lines as for a thousand.

    The lines are read, predicted and written in blocks of 16 batches, each sorted by size. What is done is in
    ``<output>.part`` until all is; an earlier output stays intact until then. One that ends in ``.gz`` is gzipped.

    Args:
        source: a text file, gzipped or not.
        output: the file to write, in UTF-8; a symbolic link stays, and ``<output>`` is where it leads.
        read: the item of a line, called with its text and what messages call it (``FILE, line 3``); or, as a ``str``,
            what is to be written for a line that needs no model (an empty one). It raises ValueError for a bad line.
        predict: what is to be written for each item of a batch, called with the items and how many lines and items
            came before them; without line ends.
        batch_size: items per batch.
        size: items of similar size make a batch.
        on_error: at a bad line ``stop``, or name it on standard error and ``skip`` it.
        resume: go on with the ``<output>.part`` of an interrupted prediction, if there is one.
        encoding: of the file that is read.
        failed: what is to be written for a skipped line, so that lines stay aligned; called with its text, which is
            empty where it can't be decoded.

    Raises:
        ValueError: ``batch_size`` is below 1; the file can't be read; or a line is bad: the message says where the
            lines before it are.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size ({batch_size}) must be at least 1")
    target = output_file(output)
    part, block_size, bad = Path(f"{target}.part"), BATCHES_PER_BLOCK * batch_size, 0
    with TextFile(source, encoding, "--encoding") as file, _progress(file) as (advance, show):
        lines = iter(file)
        done = before = _keep_whole_blocks(part, block_size) if resume else 0
        if sum(1 for _ in islice(lines, before)) < before:
            raise DataError(f"{part} has more lines than {source}: it is of another file; leave out --continue")

        def skip(error: ValueError) -> None:
            nonlocal bad
            if on_error == "stop":
                raise error
            bad += 1
            show(f"skipped: {error}")

        try:
            with open(part, "ab" if before else "wb") as written:
                for block in _blocks(_read_items(lines, source, read, skip, failed), block_size):
                    results = _predict_block(block, predict, batch_size, size, done)
                    text = "".join(f"{line}\n" for line in results).encode(errors="backslashreplace")
                    written.write(gzip.compress(text, mtime=0) if output.suffix == ".gz" else text)
                    written.flush()
                    done += len(block)
                    advance()
                os.fsync(written.fileno())
        except ValueError as error:
            if not done:
                part.unlink(missing_ok=True)
                raise
            or_skip = ", or leave such lines out with --on_error=skip" if on_error == "stop" else ""
            raise DataError(
                f"{error}; the {done} lines before it are in {part}: mend it and go on with --continue{or_skip}"
            ) from error
    part.replace(target)
    return LineCounts(done, bad, before)


def _read_items(
    lines: Iterator[tuple[int, str | DataError]],
    source: Path,
    read: Callable[[str, str], Item | str],
    skip: Callable[[ValueError], None],
    failed: Callable[[str], str],
) -> Iterator[Item | _Result]:
    """The items of lines; ``skip`` gets the error of a bad line."""
    for number, line in lines:
        try:
            if isinstance(line, DataError):
                raise line
            item = read(line.removesuffix("\r"), f"{source}, line {number}")
        except ValueError as error:
            skip(error)
            item = failed(line if isinstance(line, str) else "")
        yield _Result(item) if isinstance(item, str) else item


def _blocks(items: Iterator[Item | _Result], size: int) -> Iterator[list[Item | _Result]]:
    """Lists of ``size`` items; if reading fails, those before the error come first."""
    block: list[Item | _Result] = []
    try:
        for item in items:
            block.append(item)
            if len(block) == size:
                yield block
                block = []
    except ValueError:
        if block:
            yield block
        raise
    if block:
        yield block


def _predict_block(
    block: list[Item | _Result],
    predict: Callable[[list[Item], int], list[str]],
    batch_size: int,
    size: Callable[[Item], int],
    done: int,
) -> list[str]:
    """What is to be written for each item."""
    items = [item for item in block if not isinstance(item, _Result)]
    made = iter(in_batches(items, lambda part, first: predict(part, done + first), batch_size, size))
    return [item.text if isinstance(item, _Result) else next(made) for item in block]


def list_of_texts(texts: Iterable[str], function: str) -> list[str]:
    """Texts that ``function`` was called with.

    Raises:
        TypeError: it is a single text, or something among them is no text.
    """
    if isinstance(texts, str):
        raise TypeError(f'{function} takes a list of texts: {function}(["…"])')
    texts = list(texts)
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise TypeError(f"{function} takes a list of texts, but text {number} is of type {type(text).__name__}")
    return texts


def in_batches(
    items: Sequence[Item],
    predict: Callable[[list[Item], int], Sequence[Made]],
    batch_size: int,
    size: Callable[[Item], int] = len,  # type: ignore[assignment]
) -> list[Made]:
    """The result for each item; items of similar size share a batch: little padding.

    Args:
        predict: the results of some items, given these and how many came before.

    Raises:
        ValueError: ``batch_size`` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size ({batch_size}) must be at least 1")
    results: dict[int, Made] = {}
    order = sorted(range(len(items)), key=lambda place: size(items[place]))
    for start in range(0, len(order), batch_size):
        chunk = order[start : start + batch_size]
        results.update(zip(chunk, predict([items[place] for place in chunk], start), strict=True))
    return [results[place] for place in range(len(items))]


def _keep_whole_blocks(part: Path, block_size: int) -> int:
    """Cuts off what follows the last whole block, so that the others are made as they would have been without an
    interruption; returns the number of lines kept."""
    if not part.is_file():
        return 0
    kept_lines = kept_bytes = lines = 0
    with open(part, "r+b") as file:
        for count, end in _members(file) if file.peek(2)[:2] == GZIP else _whole_lines(file):
            lines += count
            if lines % block_size == 0:
                kept_lines, kept_bytes = lines, end
        file.truncate(kept_bytes)
    return kept_lines


def _whole_lines(file: IO[bytes]) -> Iterator[tuple[int, int]]:
    """Yields 1 and the place behind it for each line that has an end."""
    end = 0
    for line in file:
        end += len(line)
        if line.endswith(b"\n"):
            yield 1, end


def _members(file: IO[bytes]) -> Iterator[tuple[int, int]]:
    """Yields, for each whole gzip member, how many lines it has and the place behind it."""
    end, data = 0, b""
    while True:
        unpacker, lines = zlib.decompressobj(wbits=31), 0
        while not unpacker.eof:
            if not (data := data or file.read(CHUNK)):
                return
            try:
                lines += unpacker.decompress(data).count(b"\n")
            except zlib.error:
                return
            end += len(data) - len(unpacker.unused_data)
            data = unpacker.unused_data
        yield lines, end


@contextlib.contextmanager
def _progress(file: TextFile) -> Iterator[tuple[Callable[[], None], Callable[[str], None]]]:
    """On a terminal, a bar of how much of a file is read.

    Yields:
        A function that moves it, and one that shows a line on standard error.
    """
    if not sys.stderr.isatty():
        yield lambda: None, lambda line: print(line, file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("predicting", total=file.size or None)
        yield (
            lambda: progress.update(task, completed=file.position),
            lambda line: progress.console.print(line, markup=False, highlight=False),
        )
