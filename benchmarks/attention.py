"""Sparse patterns of attention, forward and backward: time and memory against dense attention and other packages."""

import math
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks._processes import in_a_process, knows_its_memory, own_bytes
from benchmarks._timing import interleaved, medians, place
from callbacks.pictures.base import FAINT, INK, PALETTE, new_figure
from layers.attention import atrous_attention, fixed_attention, local_attention, sparse_attention

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "attention"
HEADS, SIZE, DISTANCE = 4, 64, 64  # as is usual for a small model; window, rate and block are the same
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
OURS: dict[str, Attention] = {
    "atrous": partial(atrous_attention, rate=DISTANCE),
    "local": partial(local_attention, window=DISTANCE),
    "sparse": partial(sparse_attention, rate=DISTANCE),
    "fixed": partial(fixed_attention, block=DISTANCE, summary=8),
}
BEST = "sparse at rate sqrt(N / 2)"
PEERS = {"dense": "scaled_dot_product_attention", "math": "attention with the N x N matrix"}


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Medians of interleaved rounds in float32, one sequence, not causal, on the CPU or the first GPU.

    Memory is what a step adds to inputs and libraries, each attention in a process of its own; the first round of
    times, and a small step before memory is taken, warm up. Growth rows compare exponents: how time or memory grows
    with N, log2 of the factor from N to 2 N; sparse there has its best rate, sqrt(N / 2).
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    lengths = [256, 512] if quick else [1024, 2048, 4096, 8192, 16384]
    rows, seconds = [], {}
    for n in lengths:
        rounds = 1 if quick else 3 if n > 4096 else 7
        seconds[n] = step_seconds(n, device, rounds)
        rows += time_rows(n, seconds[n], device)
    rows += growth_rows("time", {n: medians(seconds[n]) for n in lengths[-2:]})
    if device.type == "cpu" and not knows_its_memory():
        return rows
    if quick:
        added = {name: added_bytes(name, 512, device) for name in ("local", "dense", "math")}
        return rows + memory_rows(512, added, device)
    names = [*OURS, BEST, "dense"]
    added = {n: {name: added_bytes(name, n, device) for name in names} for n in lengths}
    for n in lengths[:-1]:  # the N x N matrices of the longest are too large for small machines
        added[n]["math"] = added_bytes("math", n, device)
        rows += memory_rows(n, added[n], device)
    rows += memory_rows(lengths[-1], added[lengths[-1]], device)
    return rows + growth_rows("memory", {n: added[n] for n in lengths[-2:]})


def picture(rows: list[dict[str, Any]]) -> "Figure":
    """Time and memory of a step over N, from the rows of ``run``: both axes in logarithms, one curve a pattern."""
    figure = new_figure(10, 4.6)
    panels = (("time", "ms", "milliseconds a step"), ("memory", "MiB", "MiB added by a step"))
    for axes, (what, unit, label) in zip(figure.subplots(1, 2), panels, strict=True):
        for number, (name, points) in enumerate(_curves(rows, what, unit).items()):
            style = {"color": INK, "linestyle": "--"} if name in PEERS.values() else {"color": PALETTE[number]}
            if name == PEERS["math"]:
                style["linestyle"] = ":"
            axes.plot(*zip(*sorted(points.items()), strict=True), marker="o", markersize=3, label=name, **style)
        axes.set(xscale="log", yscale="log")
        lengths = sorted({row["n"] for row in rows if row.get("what") == what})
        axes.set_xticks(lengths, [f"{n:,}" for n in lengths], minor=False)
        axes.minorticks_off()
        axes.set_xlabel("sequence length N", color=INK)
        axes.set_ylabel(label, color=INK)
        axes.grid(color=FAINT, alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    # Of both panels, and outside of them, where it hides no curve.
    curves = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    figure.legend(handles=curves.values(), loc="outside upper center", ncols=4, frameon=False, fontsize="small")
    return figure


def _curves(rows: list[dict[str, Any]], what: str, unit: str) -> dict[str, dict[int, float]]:
    """The curve of each name, ours first: its value at each N."""
    ours: dict[str, dict[int, float]] = {}
    peers: dict[str, dict[int, float]] = {}
    for row in rows:
        if row.get("what") == what:
            ours.setdefault(row["pattern"], {})[row["n"]] = row[f"our_{unit}"]
            if row["peer"] in PEERS.values():
                peers.setdefault(row["peer"], {})[row["n"]] = row[f"peer_{unit}"]
    return {**ours, **peers}


# --------------------------------------------------------------------------------------------------------------- peers


def attention(name: str, n: int) -> Attention:
    """The attention of this name for sequences of n."""
    if name == "dense":
        return F.scaled_dot_product_attention
    if name == "math":
        return n_by_n
    if name == BEST:
        return partial(sparse_attention, rate=max(1, round(math.sqrt(n / 2))))
    return OURS[name]


def n_by_n(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention that holds the N x N matrix."""
    with sdpa_kernel(SDPBackend.MATH):
        return F.scaled_dot_product_attention(q, k, v)


def local_attention_package() -> Attention | None:
    """lucidrains' local-attention with the same window, or None where it is not installed."""
    try:
        from local_attention import LocalAttention
    except ImportError:
        print("local-attention is not installed, so it is left out: pip install '.[bench]'")
        return None
    return LocalAttention(
        DISTANCE, look_backward=1, look_forward=1, exact_windowsize=True, use_rotary_pos_emb=False, autopad=True
    )


def flex_attention(pattern: str, n: int, device: torch.device) -> Attention:
    """FlexAttention, compiled, with the same mask: for a GPU."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def near(batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (i - j).abs() <= DISTANCE

    def far(batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (i - j) % DISTANCE == 0

    def either(batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return near(batch, head, i, j) | far(batch, head, i, j)

    mask = {"local": near, "atrous": far, "sparse": either}[pattern]
    blocks = create_block_mask(mask, None, None, n, n, device=device)
    return partial(torch.compile(flex_attention), block_mask=blocks)


# ---------------------------------------------------------------------------------------------------------------- time


def step_seconds(n: int, device: torch.device, rounds: int) -> dict[str, list[float]]:
    """Seconds of a step of each attention; of processor time where there is one thread."""
    arms = {**OURS, BEST: attention(BEST, n), "dense": attention("dense", n)}
    package = local_attention_package()
    if package is not None:
        arms["local-attention, local"] = package
    if device.type == "cuda":
        for pattern in ("local", "atrous", "sparse"):
            arms[f"FlexAttention, {pattern}"] = flex_attention(pattern, n, device)
    step = one_step(n, device)
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    return interleaved({name: partial(step, arm) for name, arm in arms.items()}, rounds, clock=clock)


def one_step(n: int, device: torch.device) -> Callable[[Attention], None]:
    """Makes inputs; returns a function that does one forward and backward of an attention with them."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, HEADS, n, SIZE, device=device, requires_grad=True) for _ in range(3))
    gradient = torch.randn(1, HEADS, n, SIZE, device=device)

    def step(arm: Attention) -> None:
        q.grad = k.grad = v.grad = None
        arm(q, k, v).backward(gradient)

    return step


def time_rows(n: int, seconds: dict[str, list[float]], device: torch.device) -> list[dict[str, Any]]:
    """Each pattern against dense attention, and each package against the same pattern."""
    pairs = [(pattern, "dense", PEERS["dense"]) for pattern in (*OURS, BEST)]
    pairs += [(name.split(", ")[1], name, name.split(", ")[0]) for name in seconds if ", " in name]
    rows = []
    for pattern, peer, title in pairs:
        ours, theirs = seconds[pattern], seconds[peer]
        rows.append(
            {
                "benchmark": NAME,
                "case": f"time, {pattern}, N = {n}",
                "peer": title,
                "what": "time",
                "pattern": pattern,
                "n": n,
                # The median over rounds, within which both ran under the same load.
                "ratio": statistics.median(b / a for a, b in zip(ours, theirs, strict=True)),
                "our_ms": 1e3 * statistics.median(ours),
                "peer_ms": 1e3 * statistics.median(theirs),
                "device": place(device),
            }
        )
    return rows


def growth_rows(what: str, measured: dict[int, dict[str, float]]) -> list[dict[str, Any]]:
    """Exponents of growth between two lengths, one twice the other."""
    small, large = measured
    exponents = {
        name: max(math.log2(measured[large][name] / measured[small][name]), 0.01) for name in ("local", BEST, "dense")
    }
    return [
        {
            "benchmark": NAME,
            "case": f"growth of {what}, {name}, N = {small} to {large}",
            "peer": PEERS["dense"],
            "ratio": exponents["dense"] / exponents[name],
            "our_exponent": exponents[name],
            "peer_exponent": exponents["dense"],
        }
        for name in ("local", BEST)
    ]


# -------------------------------------------------------------------------------------------------------------- memory


def memory_rows(n: int, added: dict[str, float], device: torch.device) -> list[dict[str, Any]]:
    """Bytes that a step of each adds, as rows."""
    return [
        {
            "benchmark": NAME,
            "case": f"memory, {pattern}, N = {n}",
            "peer": title,
            "what": "memory",
            "pattern": pattern,
            "n": n,
            "ratio": added[peer] / added[pattern],
            "our_MiB": added[pattern] / 2**20,
            "peer_MiB": added[peer] / 2**20,
            "device": place(device),
        }
        for pattern in (*OURS, BEST)
        if pattern in added
        for peer, title in PEERS.items()
        if peer in added
    ]


def added_bytes(name: str, n: int, device: torch.device) -> int:
    """What a step adds at its peak, in a process of its own."""
    code = f"from benchmarks.attention import report_added_bytes as f; f({name!r}, {n}, {str(device)!r})"
    return int(in_a_process(code, OMP_NUM_THREADS=str(torch.get_num_threads())))


def report_added_bytes(name: str, n: int, device_name: str) -> None:
    """Prints what a step adds to this process, which is new."""
    device, arm = torch.device(device_name), attention(name, n)
    one_step(2 * DISTANCE, device)(arm)
    step = one_step(n, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step(arm)
        print(torch.cuda.max_memory_allocated(device) - before)
        return
    with suppress(OSError):  # forgets the peak of importing; where that is not allowed it is lower than a step's
        Path("/proc/self/clear_refs").write_text("5")
    before = own_bytes("VmRSS")
    step(arm)
    print(max(own_bytes("VmHWM") - before, 1))
