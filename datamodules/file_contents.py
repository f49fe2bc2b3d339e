"""What a file holds, gzipped or not."""

import gzip
import zlib
from pathlib import Path

from datamodules.errors import DataError

GZIP, BYTE_ORDER_MARK = b"\x1f\x8b", b"\xef\xbb\xbf"


def read_contents(path: Path) -> bytes:
    """The bytes of a file; of a gzipped one (known by its first bytes) those that were packed.

    Raises:
        DataError: it can't be read, or breaks off.
    """
    try:
        data = path.read_bytes()
        if data.startswith(GZIP):
            data = gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is broken: gzip cannot unpack it ({error})") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    return data.removeprefix(BYTE_ORDER_MARK)


def check_utf8(data: bytes, path: Path) -> None:
    """Refuses text that isn't UTF-8.

    Raises:
        DataError: it isn't; the message names the line.
    """
    if data.isascii():
        return
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: the byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from error


def bare_suffix(path: Path) -> str:
    """The ending of a file's name in lower case, without ``.gz``."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix
