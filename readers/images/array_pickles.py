"""Arrays from untrusted pickles: no code is run, and no memory is allocated that isn't filled."""

import codecs
import pickle
from typing import Any, BinaryIO

import numpy as np


def load_arrays(file: BinaryIO) -> Any:
    """The content of a pickle: NumPy arrays of numbers and plain values; Python 2's strings as bytes.

    Raises:
        pickle.UnpicklingError: it contains anything else. A damaged pickle may raise any exception.
    """
    return _ArrayUnpickler(file, encoding="bytes").load()


class _ArrayUnpickler(pickle._Unpickler):  # Python's own: it doesn't allocate what is only declared
    """Builds only NumPy arrays and plain values: other pickles may run any code when read."""

    def find_class(self, module: str, name: str) -> Any:
        # Old pickles use the old name of NumPy's core.
        known = KNOWN.get((module.replace("numpy.core.", "numpy._core."), name))
        if known is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which arrays do not need")
        return known


def _plain_dtype(name: str | bytes, *_: Any) -> np.dtype:
    """A numeric dtype: an array of objects could be built from any bytes."""
    dtype = np.dtype(name.decode() if isinstance(name, bytes) else name)
    if dtype.kind not in "biuf":
        raise pickle.UnpicklingError(f"it has an array of {dtype}")
    return dtype


def _empty_array(*_: Any) -> np.ndarray:
    """Receives the array's state, which comes next in the pickle."""
    return np.empty(0, np.uint8)


def _array_of_bytes(content: Any, dtype: np.dtype, shape: tuple[int, ...], order: str, *_: Any) -> np.ndarray:
    return np.frombuffer(content, dtype).reshape(shape, order=order)  # type: ignore[call-overload]


KNOWN = {
    ("_codecs", "encode"): codecs.encode,
    ("numpy", "dtype"): _plain_dtype,
    ("numpy", "ndarray"): "ndarray",  # only named, never called
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.numeric", "_frombuffer"): _array_of_bytes,
}
