"""Arrays kept in the user's cache folder: written atomically, verified when read."""

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from readers.errors import DataError

Stored = tuple[dict[str, NDArray[Any]], dict[str, Any]]  # arrays by name, and plain values that describe them


class ArrayCache:
    """Named arrays and plain values on disk, in one folder per ``key``.

    Each file is written under another name and then moved into place, the description last, so that a killed process
    never leaves half a file, and a concurrent one never sees one; concurrent writers write the same bytes. Checksums
    detect files that were truncated or altered; these are rebuilt.

    Args:
        kind: name of the folder for all caches of this kind.
        version: raise it when the same key would give different content.
        key: plain values that determine the content.

    Attributes:
        folder: the folder of this cache.

    Raises:
        DataError: the user has no home folder, and ``XDG_CACHE_HOME`` is not set.
    """

    def __init__(self, kind: str, version: int, key: dict[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps([version, key], sort_keys=True).encode()).hexdigest()[:24]
        self.folder = _cache_home() / "scientific-spaces-lightning" / kind / digest

    def load_or_build(self, build: Callable[[], Stored]) -> Stored:
        """The stored content, or that of ``build()`` after storing it; arrays are memory-mapped, copied on write.

        Raises:
            DataError: the cache folder cannot be written.
        """
        stored = self.load()
        if stored is None:
            with self._one_at_a_time():
                stored = self.load()  # another process may have built it meanwhile
                if stored is None:
                    built = build()
                    self.write(*built)
                    stored = self.load() or built
        return stored

    def workspace(self) -> Path:
        """A folder for temporary files, on the disk of the cache.

        Raises:
            DataError: it cannot be written.
        """
        with self.writing():
            self.folder.parent.mkdir(parents=True, exist_ok=True)
        return self.folder.parent

    @contextlib.contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        """Of several processes that build the same, all but one wait for it."""
        with self.writing():
            lock = open(self.workspace() / f"{self.folder.name}.lock", "w")  # noqa: SIM115
        with lock:
            with contextlib.suppress(OSError):  # where the file system has no locks, each builds
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def load(self) -> Stored | None:
        """The stored content, or None if it is missing or damaged."""
        try:
            described = json.loads((self.folder / "about.json").read_text(encoding="utf-8"))
            if zlib.crc32(_text(described["content"])) != described["checksum"]:
                return None
            arrays = {}
            for name, checksum in described["content"]["checksums"].items():
                # Copy on write: torch needs writable memory, and the file must not change.
                arrays[name] = np.load(self.folder / f"{name}.npy", mmap_mode="c")
                if zlib.crc32(arrays[name].data) != checksum:
                    return None
            return arrays, described["content"]["about"]
        except Exception:  # in damaged content, anything may be missing or wrong
            return None

    def write(self, arrays: dict[str, NDArray[Any]], about: dict[str, Any]) -> None:
        """Store arrays and the values that describe them. An array that is a file in ``folder`` is moved, not copied.

        Raises:
            DataError: the cache folder cannot be written.
        """
        with self.writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            checksums = {}
            for name, array in arrays.items():
                file = getattr(array, "filename", None)
                array = np.ascontiguousarray(array)
                checksums[name] = zlib.crc32(array.data)
                if file is not None and Path(file).parent == self.folder:
                    os.replace(file, self.folder / f"{name}.npy")
                else:
                    self._replace(f"{name}.npy", partial(np.save, arr=array))
            content = {"checksums": checksums, "about": about}
            described = {"checksum": zlib.crc32(_text(content)), "content": content}
            self._replace("about.json", lambda file: file.write(_text(described)))

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Errors of the operating system become a DataError that names the folder."""
        try:
            yield
        except OSError as error:
            raise DataError(
                f"cannot write the cache folder {self.folder}: {error.strerror}; "
                "set XDG_CACHE_HOME to a writable folder with enough space"
            ) from error

    def _replace(self, name: str, write: Callable[[Any], Any]) -> None:
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=f"{name}.", delete=False) as file:
            try:
                write(file)
                file.close()
                os.replace(file.name, self.folder / name)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise


def _cache_home() -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(given) if given else Path.home() / ".cache"
    except RuntimeError as error:
        raise DataError("there is no home folder for the cache: set XDG_CACHE_HOME to a folder") from error


def _text(value: Any) -> bytes:
    # Names of files that are not UTF-8 are escaped as JSON has it.
    return json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace")
