"""Standard output and error of a command, which goes on where nobody reads them."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

# The reader of a pipe has gone, or the terminal.
GONE = (errno.EPIPE, errno.EIO)


@contextlib.contextmanager
def outlives_readers() -> Iterator[None]:
    """Within it, a command goes on silently once whoever reads what it says has gone (``| head``, a closed terminal),
    or where nobody ever did (``>&-``). Characters that a stream can't encode are escaped."""
    before = sys.stdout, sys.stderr
    streams = [_Outlives(stream) for stream in before]
    sys.stdout, sys.stderr = streams  # type: ignore[assignment]
    try:
        yield
    finally:
        for stream in streams:
            stream.end()
        sys.stdout, sys.stderr = before


class _Outlives:
    """A stream that goes nowhere once its pipe is broken."""

    def __init__(self, stream: Any) -> None:
        # Where the stream was closed, this takes its number: the next file that is opened would get what libraries say.
        self._stream = open(os.devnull, "w") if stream is None else stream  # noqa: SIM115
        self._errors = getattr(self._stream, "errors", None)
        self._escape("backslashreplace")

    def end(self) -> None:
        self.flush()  # not at the end of the process, where a broken pipe would be its status
        self._escape(self._errors)

    def _escape(self, errors: str | None) -> None:
        if isinstance(self._stream, io.TextIOWrapper):
            self._stream.reconfigure(errors=errors)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        return self._try(lambda: self._stream.write(text)) or len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except OSError as error:
            if error.errno not in GONE:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # what is still in its buffer goes there, too
            os.close(nowhere)
