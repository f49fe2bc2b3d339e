"""How the loops of the search are compiled.

LLVM optimises what a function calls again with each caller, so a deep tree of calls compiles for long. Hence steps that
are called in few places are ``part`` of their caller, and ``inner`` functions have no entry from Python.
"""

from typing import Any

import numba

OPTIONS: Any = {"nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
inner = numba.njit(**OPTIONS)
unchecked = numba.njit(error_model="numpy", **OPTIONS)  # no test for division by zero
part = numba.njit(nogil=True, inline="always")
