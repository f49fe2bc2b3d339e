"""ON-LSTM on the CPU: pointwise steps compiled from on_lstm.cpp on first use, matrix products with packed weights."""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("on_lstm.cpp")
TYPES = ("float32", "float64", "bfloat16")
LARGE_WEIGHT = 100_000  # entries; measured on an AMD EPYC (AVX-512) with a batch of 20
# The second set is for compilers without OpenMP threads or -march=native.
FLAGS = (
    ["-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math"],
    ["-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math"],
)


@functools.cache
def compiled() -> ctypes.CDLL | None:
    """The compiled steps, or None if they can't be built; tried once per process.

    The compiler is ``$CXX``, or g++, c++, clang++. The library is kept in the user's cache folder, named after source,
    flags and processor. Processes may build at the same time: each writes a file of its own and moves it into place.
    """
    for flags in FLAGS:
        # RuntimeError: a user without a home folder.
        with contextlib.suppress(OSError, RuntimeError, subprocess.SubprocessError, AttributeError):
            return _declare(ctypes.CDLL(str(_built(flags))))
    return None


def _built(flags: list[str]) -> Path:
    """Path of the shared library with these flags; builds it if it is missing."""
    source = SOURCE.read_bytes()
    key = hashlib.sha256(b"\0".join([source, " ".join(flags).encode(), _processor(), _openmp().encode()])).hexdigest()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scientific-spaces-lightning"
    library = folder / f"on_lstm-{key[:16]}.so"
    if library.is_file():
        return library
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "c++", "clang++")), None)
    if compiler is None:
        raise FileNotFoundError("no C++ compiler")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        new = Path(scratch) / "on_lstm.so"
        command = [*compiler.split(), *flags, "-std=c++17", "-shared", "-fPIC", str(SOURCE), "-o", str(new)]
        if "-fopenmp" in flags and _openmp():
            # torch's own OpenMP library: a second one would bring a second thread pool, spinning against the first.
            command.append(_openmp())
        subprocess.run(command, capture_output=True, check=True, timeout=300)
        os.replace(new, library)
    return library


@functools.cache
def _openmp() -> str:
    """Path of the OpenMP library bundled with torch; empty if it uses the system's."""
    return next((str(path) for path in (Path(torch.__file__).parent / "lib").glob("libgomp*")), "")


def _processor() -> bytes:
    """What ``-march=native`` depends on; a home folder may be shared by different machines."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
        return b"".join(sorted({line for line in lines if line.startswith((b"flags", b"Features", b"model"))}))
    return " ".join(platform.uname()).encode()


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    for kind in TYPES:
        for direction, pointers in (("forward", 8), ("backward", 9)):
            function = getattr(library, f"{direction}_{kind}")
            function.argtypes = [ctypes.c_void_p] * pointers + [ctypes.c_int64] * 5
            function.restype = None
    return library


def supports(dtype: torch.dtype) -> bool:
    """Whether there are compiled steps for products of this dtype."""
    return str(dtype).removeprefix("torch.") in TYPES and compiled() is not None


class CompiledSteps:
    """``Steps`` by the compiled functions; tensors must be contiguous, shapes and dtypes are not checked again."""

    def __init__(self, dtype: torch.dtype, levels: int, chunk: int, reverse: bool, batch: int) -> None:
        library, kind = compiled(), str(dtype).removeprefix("torch.")
        self._functions = getattr(library, f"forward_{kind}"), getattr(library, f"backward_{kind}")
        # Waking a thread does not pay for fewer than a few thousand neurons.
        threads = min(torch.get_num_threads(), batch, 1 + batch * levels * chunk // 4096)
        self._numbers = batch, levels, chunk, int(reverse), threads

    def forward(self, *tensors: Tensor) -> None:
        self._functions[0](*[tensor.data_ptr() for tensor in tensors], *self._numbers)

    def backward(self, *tensors: Tensor) -> None:
        self._functions[1](*[tensor.data_ptr() for tensor in tensors], *self._numbers)


# ----------------------------------------------------------------------------------------------------------- products


@functools.cache
def _onednn(dtype: torch.dtype) -> Callable[..., Tensor] | None:
    """oneDNN's linear operator if torch has it for this dtype. It is private, hence the trial."""
    if dtype in (torch.float32, torch.bfloat16) and torch.backends.mkldnn.is_available():
        with contextlib.suppress(AttributeError, RuntimeError, TypeError):
            linear = functools.partial(torch.ops.mkldnn._linear_pointwise, attr="none", scalars=[], algorithm="")
            weight = torch.ones(16, 16, dtype=dtype)
            packed = torch.ops.mkldnn._reorder_linear_weight(weight.T, 2)
            if torch.equal(linear(weight[:2], packed, None), weight[:2] * 16):
                return linear
    return None


def _usable(tensor: Tensor) -> Callable[..., Tensor] | None:
    return _onednn(tensor.dtype) if tensor.device.type == "cpu" and torch.backends.mkldnn.enabled else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias for matrices; by oneDNN on the CPU, where its float32 product may be the faster one."""
    onednn = _usable(x)
    return onednn(x, weight, bias) if onednn else torch.nn.functional.linear(x, weight, bias)


def product_with(weight: Tensor, times: int, batch: int) -> Callable[[Tensor], Tensor]:
    """The function x -> x @ weight.T for x (batch, K), to be called ``times`` times with one weight (N, K).

    A product with a small batch is bound by reading the weight, which oneDNN lays out once in reading order. For a
    small weight its operator takes longer to call than that saves.
    """
    onednn = _usable(weight)
    if onednn and times > 3 and weight.numel() > LARGE_WEIGHT:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, batch)
        return lambda x: onednn(x, packed, None)
    return lambda x: x @ weight.T
