"""The path and the content of a user's file, which may be gzipped."""

import contextlib
import gzip
import io
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from .encodings import decode_text
from .errors import DataError

GZIP, BYTE_ORDER_MARK = b"\x1f\x8b", b"\xef\xbb\xbf"
# A small file may unpack to any size. Texts and arrays stay far below this ratio, unless they are almost empty.
LARGEST_UNPACKED, LARGEST_RATIO = 1 << 30, 200  # bytes that are always allowed; multiple of the packed size
CHUNK = 1 << 24  # bytes unpacked at once


def user_path(path: Path | str) -> Path:
    """A path as a user writes it, with a leading ``~`` or ``~name`` replaced by the home folder.

    Raises:
        DataError: there is no such home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"{path}: there is no home folder {Path(path).parts[0]}; give the full path") from error


def output_file(path: Path | str) -> Path:
    """The file that a new one replaces when it is complete: where symbolic links lead, which stay as they are.

    Raises:
        DataError: what is there is no file but a folder, a pipe or a device, or links lead in a circle.
    """
    path = Path(path)
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    if target.is_symlink() or (path.exists() and not path.is_file()):
        raise DataError(f"{path} is not a file: name a file to write")
    return target


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A path for a new file, which replaces the one at ``path`` when it is complete; after an error that one stays.

    Raises:
        DataError: as ``output_file``.
    """
    target = output_file(path)
    part = target.with_name(f"{target.name}.part")
    try:
        yield part
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def stamps(root: Path, paths: Iterable[Path], may_fail: bool = False) -> list[tuple[str, int, int]]:
    """Relative path, size in bytes and modification time of each file.

    Args:
        may_fail: of files that can't be read, size and time are -1.

    Raises:
        DataError: a file can't be read.
    """
    stamps = []
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            if may_fail:
                stamps.append((path.relative_to(root).as_posix(), -1, -1))
                continue
            raise DataError(f"cannot read {path}: {error.strerror}; repair or remove it") from error
        stamps.append((path.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns))
    return stamps


def read_contents(path: Path) -> bytes:
    """The bytes of a file, unpacked if it is gzipped (its first bytes tell).

    Raises:
        DataError: it can't be read, is truncated, or is small and unpacks to more than memory may hold.
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
    """Rejects a file that is made to fill the memory.

    Args:
        size: bytes that the file unpacks to.
        packed: size of the file in bytes.
        where: what messages call it.

    Raises:
        DataError: ``size`` exceeds both ``LARGEST_UNPACKED`` and ``LARGEST_RATIO`` times ``packed``.
    """
    if size > max(LARGEST_UNPACKED, LARGEST_RATIO * packed):
        raise DataError(
            f"{where} unpacks to {size:,} bytes or more, over {LARGEST_RATIO} times its own {packed:,}: if that is "
            "intended, unpack it, or save it without compression"
        )


def check_utf8(data: bytes, path: Path) -> None:
    """Rejects anything but UTF-8 text.

    Raises:
        DataError: the data is not UTF-8 or has a zero byte; the message names the line.
    """
    nul = data.find(b"\0")
    if nul >= 0:
        line = data.count(b"\n", 0, nul) + 1
        raise DataError(f"{path}, line {line}: a zero byte, which text never has; save the file as UTF-8")
    if not data.isascii():
        decode_text(data, path)


def with_line_feeds(data: bytes) -> bytes:
    """The text, whose lines may end in carriage returns alone, as in Excel's CSV for the Macintosh."""
    return data if b"\n" in data else data.replace(b"\r", b"\n")


def bare_suffix(path: Path) -> str:
    """The suffix of a file's name in lower case, without ``.gz``."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix
