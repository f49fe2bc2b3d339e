"""Arrays kept in the user's cache folder: written whole or not at all, checked when read."""

import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from readers.errors import DataError

Stored = tuple[dict[str, NDArray[Any]], dict[str, Any]]  # arrays by name, and plain values about them


class ArrayCache:
    """Named arrays and plain values on disk, in a folder of their own for each ``key``.

    A file is written under another name and then moved into place, the description last, so that a killed or a
    second process never leaves or sees half a file; processes that write at once write the same bytes. What was
    truncated or altered since is recognised by its checksum and built again.

    Args:
        kind: name of the folder that holds all caches of this kind.
        version: to be raised when the same key would give other content.
        key: plain values that determine the content.

    Attributes:
        folder: where they are.

    Raises:
        DataError: the user has no home folder, and ``XDG_CACHE_HOME`` doesn't name another place.
    """

    def __init__(self, kind: str, version: int, key: dict[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps([version, key], sort_keys=True).encode()).hexdigest()[:24]
        self.folder = _cache_home() / "scientific-spaces-lightning" / kind / digest

    def load_or_build(self, build: Callable[[], Stored]) -> Stored:
        """What is stored, or ``build()`` after storing it; arrays are memory-mapped, copied where they are written to.

        Raises:
            DataError: the cache folder cannot be written.
        """
        stored = self.load()
        if stored is None:
            built = build()
            self.write(*built)
            stored = self.load() or built
        return stored

    def load(self) -> Stored | None:
        """What is stored, or None where there is nothing or it is damaged."""
        try:
            described = json.loads((self.folder / "about.json").read_text(encoding="utf-8"))
            if zlib.crc32(_text(described["content"])) != described["checksum"]:
                return None
            arrays = {}
            for name, checksum in described["content"]["checksums"].items():
                # Copy on write: torch wants writable memory, and the file must not change.
                arrays[name] = np.load(self.folder / f"{name}.npy", mmap_mode="c")
                if zlib.crc32(arrays[name]) != checksum:
                    return None
            return arrays, described["content"]["about"]
        except Exception:  # of what is damaged, any part may be missing or strange
            return None

    def write(self, arrays: dict[str, NDArray[Any]], about: dict[str, Any]) -> None:
        """Store arrays and what is known about them.

        Raises:
            DataError: the cache folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            checksums = {}
            for name, array in arrays.items():
                array = np.ascontiguousarray(array)
                checksums[name] = zlib.crc32(array)
                self._replace(f"{name}.npy", lambda file, array=array: np.save(file, array))
            content = {"checksums": checksums, "about": about}
            described = {"checksum": zlib.crc32(_text(content)), "content": content}
            self._replace("about.json", lambda file: file.write(_text(described)))
        except OSError as error:
            raise DataError(
                f"cannot write the cache folder {self.folder}: {error.strerror}; "
                "set XDG_CACHE_HOME to a folder that can be written and has room"
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
        raise DataError("you have no home folder to keep a cache in: set XDG_CACHE_HOME to a folder") from error


def _text(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
