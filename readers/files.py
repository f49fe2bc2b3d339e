"""Where a user's file is and what it holds, gzipped or not."""

import gzip
import io
import zlib
from pathlib import Path

from .errors import DataError

GZIP, BYTE_ORDER_MARK = b"\x1f\x8b", b"\xef\xbb\xbf"
# A small file may unpack to any size. Texts and arrays don't come near this ratio, unless they hold hardly anything.
LARGEST_UNPACKED, LARGEST_RATIO = 1 << 30, 200  # bytes that are always allowed; times the packed size
CHUNK = 1 << 24  # bytes unpacked at once


def user_path(path: Path | str) -> Path:
    """A path as a user writes it, with the home folder in place of ``~`` or ``~name`` at its beginning.

    Raises:
        DataError: there is no such home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"{path}: there is no home folder {Path(path).parts[0]}; write the whole path") from error


def stamps(root: Path, paths: list[Path]) -> list[tuple[str, int, int]]:
    """Relative path, size in bytes and time of the last change of each file."""
    stamps = []
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}; repair or remove it") from error
        stamps.append((path.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns))
    return stamps


def read_contents(path: Path) -> bytes:
    """The bytes of a file; of a gzipped one (known by its first bytes) those that were packed.

    Raises:
        DataError: it can't be read, breaks off, or is small and unpacks to more than memory may hold.
    """
    try:
        data = path.read_bytes()
        if data.startswith(GZIP):
            data = _unpack(data, path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is broken: gzip cannot unpack it ({error})") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    return data.removeprefix(BYTE_ORDER_MARK)


def _unpack(packed: bytes, path: Path) -> bytes:
    parts, size = [], 0
    with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
        while part := file.read(CHUNK):
            parts.append(part)
            size += len(part)
            check_unpacked_size(size, len(packed), str(path))
    return b"".join(parts)


def check_unpacked_size(size: int, packed: int, where: str) -> None:
    """Refuses what is made to fill the memory.

    Args:
        size: bytes that a file unpacks to.
        packed: its own bytes.
        where: what to call it in a message.

    Raises:
        DataError: it is more than ``LARGEST_UNPACKED`` and than ``LARGEST_RATIO`` times the file's own size.
    """
    if size > max(LARGEST_UNPACKED, LARGEST_RATIO * packed):
        raise DataError(
            f"{where} unpacks to {size:,} bytes or more, over {LARGEST_RATIO} times its own {packed:,}: if that is "
            "meant, unpack it, or save it without compression"
        )


def decode_utf8(data: bytes, where: Path | str, first_line: int = 1) -> str:
    """The text of a file, or of a part of it.

    Args:
        data: the bytes.
        where: what to call the file in a message.
        first_line: the number of the first line of ``data`` in the file.

    Raises:
        DataError: it isn't UTF-8; the message names the line.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = first_line + data.count(b"\n", 0, error.start)
        raise DataError(
            f"{where}, line {line}: the byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from error


def read_lines(file: Path) -> list[str]:
    """The lines of a UTF-8 text file.

    Raises:
        DataError: it cannot be read, or is not UTF-8; the message names the line.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
    return decode_utf8(data, file).removeprefix("\ufeff").split("\n")


def read_text_lines(path: Path | str) -> list[str]:
    """The lines of a UTF-8 text file as a user sees them, without what ends them.

    Raises:
        DataError: as ``read_lines``.
    """
    lines = [line.removesuffix("\r") for line in read_lines(user_path(path))]
    return lines[:-1] if lines[-1] == "" else lines


def check_utf8(data: bytes, path: Path) -> None:
    """Refuses what is no text in UTF-8.

    Raises:
        DataError: it isn't, or has a zero byte; the message names the line.
    """
    nul = data.find(b"\0")
    if nul >= 0:
        line = data.count(b"\n", 0, nul) + 1
        raise DataError(f"{path}, line {line}: a zero byte, which no text has; save the file as UTF-8")
    if not data.isascii():
        decode_utf8(data, path)


def bare_suffix(path: Path) -> str:
    """The ending of a file's name in lower case, without ``.gz``."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix
