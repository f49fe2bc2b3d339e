"""The lines of a text file of any size, one at a time: plain or gzipped, in any encoding."""

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from .encodings import check_encoding, decode_text
from .errors import DataError
from .files import GZIP, user_path

CHUNK = 1 << 16  # bytes read at once
# How files begin that are no texts, as patterns.
OTHERS = {
    rb"PK\x03\x04": "a zip archive",
    rb"7z\xbc\xaf": "a 7z archive",
    rb"BZh[1-9]1AY&": "packed with bzip2",
    rb"\xfd7zXZ": "packed with xz",
    rb"\x28\xb5\x2f\xfd": "packed with zstd",
    rb"%PDF-[0-9]": "a PDF",
}
BYTES = "iso8859-1"  # each byte is a character, whatever the file is
WIDE = ("utf-16", "utf-32")  # the byte of a line's end is part of other characters there, too


class TextFile:
    """A text file, to be read line by line: ``with TextFile(path) as file: for number, line in file: ...``.

    Iterating yields the number of each line, from 1, and its text without its line feed. Where a line can't be
    decoded, the error comes in place of its text, so that whoever reads may go on behind it.

    Args:
        path: the file; gzipped or not, its first bytes tell.
        encoding: any that Python knows. A byte order mark is left out.
        option: where the user names the encoding, for messages that propose another one.

    Attributes:
        size: of the file in bytes.

    Raises:
        DataError: it can't be read or unpacked (also while iterating), or there is no such encoding.
    """

    def __init__(self, path: Path | str, encoding: str = "utf-8", option: str = "--data.encoding") -> None:
        self.path, self.option = user_path(path), option
        self.encoding = check_encoding(encoding, option)
        try:
            self._raw = open(self.path, "rb")  # noqa: SIM115
            self.size = self.path.stat().st_size
            start = self._raw.peek(8)
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror}") from error
        other = next((name for pattern, name in OTHERS.items() if re.match(pattern, start)), None)
        if other and self.encoding != BYTES:
            self._raw.close()
            raise DataError(f"{self.path} is {other}: give the text in it, plain or gzipped")
        packed = start.startswith(GZIP)
        self._file: IO[bytes] = gzip.GzipFile(fileobj=self._raw) if packed else self._raw  # type: ignore[assignment]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._raw.close()

    def __iter__(self) -> Iterator[tuple[int, str | DataError]]:
        lines = self._wide_lines() if self.encoding.startswith(WIDE) else self._lines()
        try:
            for number, line in enumerate(lines, 1):
                if isinstance(line, str):
                    line = line.removesuffix("\n")
                    line = line.removeprefix("\ufeff") if number == 1 else line
                yield number, line
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{self.path} is broken: gzip cannot unpack it ({error})") from error
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror}") from error

    def _lines(self) -> Iterator[str | DataError]:
        first = self._file.peek(1)  # type: ignore[attr-defined]
        lines = _ended_by_returns(self._file) if b"\r" in first[:-1] and b"\n" not in first else self._file
        for number, line in enumerate(lines, 1):
            try:
                yield decode_text(line, self.path, self.encoding, number, self.option)
            except DataError as error:
                yield error

    def _wide_lines(self) -> Iterator[str]:
        done = 0
        try:
            for line in io.TextIOWrapper(self._file, self.encoding, newline="\n"):
                yield line
                done += 1
        except UnicodeError as error:  # with no way to tell where the next line begins
            where = f"{self.path}, after line {done}"
            raise DataError(f"{where}: not {self.encoding}; name another encoding by {self.option}") from error

    @property
    def position(self) -> int:
        """How far the file is read, in bytes."""
        return self._raw.tell() if self._raw.seekable() else 0


def _ended_by_returns(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a text that ends them with carriage returns alone, as the old Macintosh did."""
    rest = b""
    while chunk := file.read(CHUNK):
        *lines, rest = re.split(b"\r\n?|\n", rest + chunk)
        yield from lines
    if rest:
        yield rest


def iterate_lines(path: Path | str, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Yields number and text of each line, without its end.

    Raises:
        DataError: the file can't be read, or a line can't be decoded; the message names it.
    """
    with TextFile(path, encoding) as file:
        for number, line in file:
            if isinstance(line, DataError):
                raise line
            yield number, line.removesuffix("\r")
