"""Arrays from untrusted ``npz`` files."""

import io
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .files import check_unpacked_size


def read_arrays(file: Path | io.BytesIO, where: str, names: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of an ``npz`` file, numbers and strings; pickles are never loaded.

    Args:
        file: the file, or its content.
        where: what messages call it.
        names: the arrays to read; None: all.

    Raises:
        DataError: it can't be read, holds anything else, or unpacks to more than memory may hold.
    """
    try:
        size = file.stat().st_size if isinstance(file, Path) else len(file.getbuffer())
        with zipfile.ZipFile(file) as archive:
            check_unpacked_size(sum(member.file_size for member in archive.infolist()), size, where)
        if not isinstance(file, Path):
            file.seek(0)
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files if names is None or name in names}
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray) or not array.dtype.itemsize:
                raise DataError(f"{where}: {name} is not an array of numbers or strings")
            if array.dtype.kind == "U":
                "".join(array.ravel().tolist()).encode()  # an array may hold invalid characters
    except DataError:
        raise
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise DataError(f"cannot read {where}: {error.strerror}") from error
    except Exception as error:  # zipfile, what it unpacks with, and NumPy raise nearly everything on broken files
        raise DataError(f"{where} is not an npz of plain arrays: save numbers and strings, not objects") from error
    return arrays
