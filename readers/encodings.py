"""Texts in encodings other than UTF-8, and which one a text seems to have."""

import codecs
from pathlib import Path

from .errors import DataError

SAMPLE = 1 << 16  # bytes looked at


def check_encoding(encoding: str, option: str = "--data.encoding") -> str:
    """The canonical name of an encoding.

    Raises:
        DataError: Python has no such encoding for text.
    """
    try:
        b"text".decode(encoding, "replace")
        return codecs.lookup(encoding).name
    except (LookupError, ValueError) as error:
        raise DataError(f"{option}={encoding}: no such encoding; e.g. utf-8, gbk, big5, utf-16, latin-1") from error


def decode_text(
    data: bytes, where: Path | str, encoding: str = "utf-8", first_line: int = 1, option: str | None = None
) -> str:
    """The text of a file, or of a part of it.

    Args:
        data: the bytes.
        where: what messages call the file.
        encoding: its encoding.
        first_line: the number of the first line of ``data`` in the file.
        option: where the user names it, for messages that propose another one.

    Raises:
        DataError: it isn't in this encoding; the message names the line.
    """
    place = None
    try:
        text = data.decode(encoding)
    except UnicodeError as error:
        place = getattr(error, "start", 0)
    if place is None and not (encoding == "utf-8" and _is_wide(data)):
        return text
    place = data.find(b"\0") if place is None else place
    line = first_line + data.count(b"\n", 0, place)
    name = encoding.upper() if encoding.startswith("utf") else encoding
    way_out = "save the file as UTF-8" if encoding == "utf-8" else "name another one"
    guess = propose(data) if option else None
    proposal = f", or give {option}={guess}, which it seems to be" if guess not in (None, encoding) else ""
    raise DataError(f"{where}, line {line}: the byte 0x{data[place]:02x} is not {name}; {way_out}{proposal}")


def propose(data: bytes) -> str | None:
    """The encoding that a text seems to have; None: there is nothing to tell it by."""
    data = data[:SAMPLE]
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-32" if data.startswith(codecs.BOM_UTF32_LE) else "utf-16"
    if _is_wide(data):
        # The upper bytes of Latin letters are zero.
        return "utf-16-le" if data[1::2].count(0) > data[::2].count(0) else "utf-16-be"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)  # the last character may be cut
        return "utf-8"
    except UnicodeDecodeError:
        pass
    try:
        text = data.decode("gbk", "ignore" if len(data) == SAMPLE else "strict")
    except UnicodeDecodeError:
        text = ""
    # In Chinese nearly all characters are two bytes above 0xa0; accented letters are one, and a letter follows.
    wide = [sign for sign in text if ord(sign) > 0x7F]
    common = [sign for sign in wide if min(sign.encode("gbk")) > 0xA0]
    if wide and len(common) > 0.8 * len(wide):
        return "gbk"
    try:
        return "cp1252" if not any(ord(sign) < 32 and not sign.isspace() for sign in data.decode("cp1252")) else None
    except UnicodeDecodeError:
        return None


def _is_wide(data: bytes) -> bool:
    """Whether so many bytes are zero that they are halves of characters."""
    return 3 * data.count(0) >= max(len(data), 1)
