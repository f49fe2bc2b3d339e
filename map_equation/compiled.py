"""How the loops of the search are compiled.

LLVM optimises what a function calls again with each caller, so a deep tree of calls compiles for long. Hence steps that
are called in few places are ``part`` of their caller, and ``inner`` functions have no entry from Python.
"""

import gc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

# No tests for division by zero.
OPTIONS: Any = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
inner = numba.njit(**OPTIONS)
part = numba.njit(nogil=True, inline="always")

# So many visits before a node's turn, its row is fetched, and twice as many before, where the row begins.
AHEAD = 3


@contextmanager
def collection_paused() -> Iterator[None]:
    """No garbage collection: looking again and again at what Numba makes takes a fifth of the time it compiles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def sources(folder: Path) -> int:
    """A number that changes with any Python file in the folder and below.

    What Numba keeps on disk depends on the file of the compiled function, not on the functions that it calls. It also
    depends on the values that the function closes over, so this is one of them.
    """
    return zlib.crc32(b"".join(path.read_bytes() for path in sorted(folder.rglob("*.py"))))


def _prefetch(typingctx, array, index):
    """Asks the processor for ``array[index]`` (of a matrix: the row's first entry), which is read soon."""

    def generate(context, builder, signature, args):
        kind, _ = signature.args
        struct = context.make_array(kind)(context, builder, args[0])
        strides = cgutils.unpack_tuple(builder, struct.strides, kind.ndim)
        start = builder.bitcast(struct.data, ir.IntType(8).as_pointer())
        place = builder.gep(start, [builder.mul(args[1], strides[0])])
        number = ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), number, number, number]),
            "llvm.prefetch.p0",
        )
        builder.call(function, [place, number(0), number(3), number(1)])  # to be read, to be kept, data
        return context.get_dummy_value()

    return numba.types.void(array, numba.types.int64), generate


prefetch: Any = intrinsic(_prefetch)
