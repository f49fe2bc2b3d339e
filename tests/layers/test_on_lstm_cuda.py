"""The Triton kernels without a GPU: compiled ahead of time for sm_80 and sm_90, and interpreted against float64."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import pytest
import torch

from layers.on_lstm.steps import Gates, PlainSteps
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="needs triton (Linux)")

# Levels and chunk: one warp, several, tiles smaller than the threads, odd sizes, the largest row of registers.
SIZES = [(3, 2), (20, 10), (1, 512), (10, 64), (32, 128), (115, 10), (65, 63), (4096, 1)]
KERNELS = {
    "forward": {
        "z": ("zx", "zh", "h"),
        "state": ("c_before", "a", "c", "distance_forget", "distance_input"),
        "order": ("zx", "zh", "c_before", "a", "c", "h", "distance_forget", "distance_input"),
    },
    "backward": {
        "z": ("d_output", "dh_next", "dz"),
        "state": ("a", "c_before", "c", "dc", "d_distance_forget", "d_distance_input"),
        "order": ("a", "c_before", "c", "d_output", "dh_next", "dc", "d_distance_forget", "d_distance_input", "dz"),
    },
}


def compile_kernel(kind: str, dtype: str, sizes: tuple[int, int], reverse: bool, capability: int, aligned: bool):
    """PTX of a kernel and the number of its warps."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from layers.on_lstm import cuda

    kernel = {"forward": cuda._forward, "backward": cuda._backward}[kind]
    names = KERNELS[kind]
    types = {name: f"*{dtype}" if name in names["z"] else "*fp32" for name in names["order"]}
    steps = cuda.TritonSteps(*sizes, reverse, 1)
    constants = dict(zip(("M", "C", "REVERSE", "LEVELS", "CHUNK"), steps._constants, strict=True))
    source = ASTSource(
        kernel,
        signature={**types, **dict.fromkeys(constants, "constexpr")},
        constexprs=constants,
        attrs={(place,): [["tt.divisibility", 16]] for place in range(len(types))} if aligned else {},
    )
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": steps._warps})
    return made.asm["ptx"], steps._warps


def spilled_bytes(ptx: str, capability: int, folder: Path) -> int:
    """Bytes of registers that the assembler stores in memory for want of room."""
    import triton

    assembler = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    (folder / "kernel.ptx").write_text(ptx)
    said = subprocess.run(
        [
            assembler,
            "-v",
            "--gpu-name",
            f"sm_{capability}{'a' * (capability == 90)}",
            "kernel.ptx",
            "-o",
            "kernel.cubin",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return sum(int(number) for number in re.findall(r"(\d+) bytes spill", said.stdout + said.stderr))


def parameter_of(ptx: str) -> dict[str, int]:
    """The kernel's parameter that each 64-bit register's address goes back to."""
    found: dict[str, int] = {}
    for line in ptx.splitlines():
        if load := re.search(r"ld\.param\.b64\s+(%rd\d+), \[\w+_param_(\d+)\]", line):
            found[load[1]] = int(load[2])
        elif step := re.search(r"\s(?:add|mad|cvta|mov|sub)\S*\s+(%rd\d+), (.*);", line):
            sources = [found[register] for register in re.findall(r"%rd\d+", step[2]) if register in found]
            if sources:
                found[step[1]] = sources[0]
    return found


CASES = [
    *product(["forward", "backward"], ["fp32", "bf16", "fp16"], [(20, 10), (10, 64)], [False, True], [80], [True]),
    *product(["forward", "backward"], ["fp32"], SIZES, [False], [90], [True, False]),
    *product(["forward", "backward"], ["fp32", "bf16", "fp16"], [(32, 128)], [True], [80, 90], [False]),
]


@pytest.mark.parametrize(("kind", "dtype", "sizes", "reverse", "capability", "aligned"), CASES)
def test_compiled_without_spills_and_with_a_barrier(kind, dtype, sizes, reverse, capability, aligned, tmp_path):
    ptx, warps = compile_kernel(kind, dtype, sizes, reverse, capability, aligned)
    assert spilled_bytes(ptx, capability, tmp_path) == 0
    if kind == "backward" or warps == 1:
        return
    owner = parameter_of(ptx)
    events = []  # loads of zx, stores to a, barriers, in the order of the program
    for line in ptx.splitlines():
        if access := re.search(r"(ld|st)\.global\S*\s.*?\[\s*(%rd\d+)", line):
            place = owner[access[2]]
            name = KERNELS[kind]["order"][place]
            events.append({("ld", "zx"): "read", ("st", "a"): "write"}.get((access[1], name), ""))
        elif "bar.sync" in line:
            events.append("barrier")
    last_read = max(place for place, event in enumerate(events) if event == "read")
    first_write = events.index("write")
    assert "barrier" in events[last_read:first_write]


def interpreted(levels: int, chunk: int, reverse: bool, dtype: torch.dtype) -> None:
    """Compares a step of both kernels, ``a`` being ``zx`` in float32, with plain torch in float64."""
    from layers.on_lstm.cuda import TritonSteps

    torch.manual_seed(levels)
    gates, batch, hidden = Gates(levels, chunk, reverse), 2, levels * chunk
    rows = 2 * levels + 4 * hidden
    given = [torch.randn(batch, n).to(dtype) for n in (rows, rows, hidden, hidden)]
    states = [torch.randn(batch, n) for n in (hidden, hidden)]
    d_distances = torch.randn(2, batch)
    found = []
    for step, cast in ((TritonSteps(*gates, batch), torch.clone), (PlainSteps(gates), torch.Tensor.double)):
        zx, zh, d_output, dh_next = map(cast, given)
        c_before, dc = map(cast, states)
        a = zx if zx.dtype == c_before.dtype else torch.full_like(zx, torch.nan, dtype=c_before.dtype)
        c, h, dz = torch.full_like(c_before, torch.nan), torch.full_like(d_output, torch.nan), torch.empty_like(zh)
        distances = torch.full((2, batch), torch.nan, dtype=c_before.dtype)
        step.forward(zx, zh, c_before, a, c, h, *distances)
        step.backward(a, c_before, c, d_output, dh_next, dc, *cast(d_distances), dz)
        found.append([tensor.double() for tensor in (a, c, h, distances, dz, dc)])
    tolerance = 2e-5 if dtype == torch.float32 else 2e-2
    for ours, exact in zip(*found, strict=True):
        torch.testing.assert_close(ours, exact, atol=tolerance, rtol=tolerance)


def test_interpreted_against_float64():
    # In a process of its own: the variable is read when triton is first imported.
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, __file__], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-2:] == ["18", "agree"]


if __name__ == "__main__":
    number = 0
    sizes = [(1, 1), (1, 7), (3, 2), (5, 3), (20, 10), (65, 3)]
    for size, dtype in product(sizes, (torch.float32, torch.bfloat16, torch.float16)):
        interpreted(*size, number % 2 == 1, dtype)
        number += 1
    print(number, "agree")
