"""Shared by the fuzz tests: broken files, what a reader may do with them, and how many examples to run.

By default each test runs a few examples, the same ones every time. To fuzz longer, with new examples each time:

    FUZZ_EXAMPLES=20000 pytest tests/fuzz -k treebank
"""

import contextlib
import os
import re
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from readers.errors import DataError

LONGER = int(os.environ.get("FUZZ_EXAMPLES", "0"))
MORE_MEMORY = 2 << 30  # bytes that a reader of a small file may allocate
MORE_SECONDS = 60  # of CPU time, after which a reader of a small file counts as hanging
LONGEST_MESSAGE = 1000
NASTY_NUMBERS = [
    *b"0 -1 -0 01 1e3 1e308 1e-320 1e999 nan inf -inf 0x10 1_0 +1 1. .5 1e --1 1,5 2147483648 4294967296".split(),
    *b"1000000000000 9223372036854775807 9223372036854775808 18446744073709551616".split(),
    *(b"9" * 400, b"9" * 5000, "٣".encode()),
]
NASTY_BYTES = [
    *(b"\0", b"\n", b"\n\n", b"\r", b"\r\n", b"\t", b" ", b"  ", b"\x0b", b"\x0c", b"\x1c", b"\x1b[31m"),
    *(b"\x85", b"\xff", b"\xc3", b"\xed\xa0\x80"),  # not UTF-8
    *(sign.encode() for sign in ("\ufeff", "\u00a0", "\u2028", "é", "中", "\U0001f600")),
    *b'( ) (( )) [ ] { } " "" \' \\ \\u0000 \\ud800 , ; : * # % < > & null true NaN -Infinity <eos> <unk>'.split(),
    *NASTY_NUMBERS,
]

T = TypeVar("T")


class Boom:
    """Fails the test when unpickled."""

    def __init__(self, how: Any = pytest.fail, *arguments: Any) -> None:
        self.how, self.arguments = how, arguments or ("code of a pickle was run",)

    def __reduce__(self):
        return self.how, self.arguments


def fuzz(examples: int) -> settings:
    """The given number of examples, the same every time, or ``FUZZ_EXAMPLES`` new ones."""
    return settings(
        max_examples=LONGER or examples,
        derandomize=not LONGER,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def broken(draw: st.DrawFn, whole: st.SearchStrategy[bytes], arbitrary: bool = True) -> bytes:
    """A file that is whole, or nearly so, or (with ``arbitrary``) any bytes."""
    if arbitrary and draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=60))
    data = draw(whole)
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 3]))):
        data = draw(st.sampled_from(BREAKS))(draw, data)
    return data


def _cut(draw: st.DrawFn, data: bytes) -> bytes:
    return data[: draw(st.integers(0, len(data)))]


def _put_in(draw: st.DrawFn, data: bytes) -> bytes:
    place = draw(st.integers(0, len(data)))
    return data[:place] + draw(st.sampled_from(NASTY_BYTES)) + data[place:]


def _leave_out(draw: st.DrawFn, data: bytes) -> bytes:
    place = draw(st.integers(0, len(data)))
    return data[:place] + data[place + draw(st.integers(1, 8)) :]


def _repeat(draw: st.DrawFn, data: bytes) -> bytes:
    place = draw(st.integers(0, len(data)))
    end = place + draw(st.integers(1, 8))
    return data[:place] + data[place:end] * draw(st.sampled_from([2, 3, 100, 3000])) + data[end:]


def _flip(draw: st.DrawFn, data: bytes) -> bytes:
    if not data:
        return data
    place = draw(st.integers(0, len(data) - 1))
    return data[:place] + bytes([draw(st.integers(0, 255))]) + data[place + 1 :]


def _change_number(draw: st.DrawFn, data: bytes) -> bytes:
    numbers = list(re.finditer(rb"-?[0-9]+(\.[0-9]+)?", data))
    if not numbers:
        return data
    found = draw(st.sampled_from(numbers))
    return data[: found.start()] + draw(st.sampled_from(NASTY_NUMBERS)) + data[found.end() :]


def _change_line(draw: st.DrawFn, data: bytes) -> bytes:
    """Drops, moves or repeats a line."""
    lines = data.split(b"\n")
    line = lines.pop(draw(st.integers(0, len(lines) - 1)))
    how = draw(st.integers(0, 2))
    if how:
        lines.insert(draw(st.integers(0, len(lines))), line)
    if how == 2:
        lines.append(line)
    return b"\n".join(lines)


def _other_ends(draw: st.DrawFn, data: bytes) -> bytes:
    return data.replace(b"\n", draw(st.sampled_from([b"\r\n", b"\r", b"\n\n", b" \n\t", "\u2028".encode()])))


def _other_encoding(draw: st.DrawFn, data: bytes) -> bytes:
    encoding = draw(st.sampled_from(["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "gb18030"]))
    return data.decode(errors="replace").encode(encoding, "replace")


BREAKS = [_cut, _put_in, _put_in, _leave_out, _repeat, _flip, _change_number, _change_number]
BREAKS += [_change_line, _other_ends, _other_encoding]


def outcome(read: Callable[[], T], path: Path, errors: Any = DataError, line: bool = False) -> T | None:
    """The result of reading a file; None if it is rejected, in one line that names the file.

    Any other exception, more than ``MORE_MEMORY`` and more than ``MORE_SECONDS`` are failures.

    Args:
        read: reads it.
        path: the file.
        errors: the exceptions allowed.
        line: the message must name the line.
    """
    try:
        with bounded():
            return read()
    except errors as error:
        check_message(str(error), path, line)
        return None


def check_message(message: str, path: Path, line: bool = False) -> None:
    assert len(message.splitlines()) == 1, f"not one line: {message!r}"
    assert message.isprintable(), f"control characters: {message!r}"
    assert len(message) <= LONGEST_MESSAGE, f"{len(message)} characters: {message[:LONGEST_MESSAGE]}"
    assert path.name in message, f"no file named: {message}"
    packed = message.endswith("give the text in it, plain or gzipped")  # which has no lines
    assert not line or packed or re.search(r"line [0-9]+", message), f"no line named: {message}"


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Limits additional memory and CPU time."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = signal.signal(signal.SIGVTALRM, _hangs)
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE_MEMORY, hard))
    signal.setitimer(signal.ITIMER_VIRTUAL, MORE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGVTALRM, before)


def _hangs(*_: object) -> None:
    raise AssertionError(f"still reading after {MORE_SECONDS} seconds")
