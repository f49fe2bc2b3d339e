"""Arrays from pickles, which may come from anywhere: no code is run, and no memory taken that isn't filled."""

import codecs
import pickle
from typing import Any, BinaryIO

import numpy as np


def load_arrays(file: BinaryIO) -> Any:
    """What a pickle holds: numpy arrays of numbers and plain values; strings of Python 2 as bytes.

    Raises:
        pickle.UnpicklingError: it asks for anything else; a damaged pickle may raise any exception.
    """
    return _ArrayUnpickler(file, encoding="bytes").load()


class _ArrayUnpickler(pickle._Unpickler):  # Python's own: it doesn't make room for what is only announced
    """Builds numpy arrays and plain values, and nothing else: a pickle may otherwise run any code when it is read."""

    def find_class(self, module: str, name: str) -> Any:
        # Old pickles name numpy's core by its old name.
        known = KNOWN.get((module.replace("numpy.core.", "numpy._core."), name))
        if known is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which arrays have no need of")
        return known


def _plain_dtype(name: str | bytes, *_: Any) -> np.dtype:
    """A dtype of numbers: an array of objects could be made of any bytes."""
    dtype = np.dtype(name.decode() if isinstance(name, bytes) else name)
    if dtype.kind not in "biuf":
        raise pickle.UnpicklingError(f"it has an array of {dtype}")
    return dtype


def _empty_array(*_: Any) -> np.ndarray:
    """What the state of an array, the next in a pickle, is put into."""
    return np.empty(0, np.uint8)


def _array_of_bytes(content: Any, dtype: np.dtype, shape: tuple[int, ...], order: str, *_: Any) -> np.ndarray:
    return np.frombuffer(content, dtype).reshape(shape, order=order)


KNOWN = {
    ("_codecs", "encode"): codecs.encode,
    ("numpy", "dtype"): _plain_dtype,
    ("numpy", "ndarray"): "ndarray",  # only named, and never called
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.numeric", "_frombuffer"): _array_of_bytes,
}
