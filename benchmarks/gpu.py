"""A GPU in eight minutes: every experiment for two steps, kernels against references, times against peers.

Rows of checks hold the error that is allowed over the one found: above 1 is right. Without a GPU all of it runs in
small sizes, so that the script is known to work before it is run on a GPU.
"""

import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import attention, infomax, on_lstm
from benchmarks._timing import place
from experiment.errors import run_main
from layers.attention import atrous_attention, fixed_attention, full_attention, local_attention, sparse_attention
from layers.attention.patterns import Atrous, Fixed, Full, Local, Pattern, Sparse
from layers.on_lstm import ONLSTM
from layers.on_lstm.recurrence import recurrence
from layers.on_lstm.steps import Gates, PlainSteps, steps_for

NAME = "gpu"
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SECONDS = 8 * 60
Row = dict[str, Any]

# An experiment with the data that it can make itself; what needs another run's checkpoint or a model of the hub is left
# to the tests.
LEFT_OUT = ("feature_probe_cifar10", "triples_ske_bert", "infomap")


def run(quick: bool = False) -> list[Row]:
    """Checks first, then times, as many as fit into the eight minutes; small ones where there is no GPU."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    small = quick or device.type == "cpu"
    started, rows = time.monotonic(), []
    parts: list[Callable[[], Iterator[Row]]] = [
        partial(kernel_rows, device, small),
        partial(attention_rows, device, small),
        partial(step_rows, device, small),
        partial(lstm_times, small),
        partial(infomax_times, small),
        partial(attention_times, small),
    ]
    for part in parts:
        for row in part():
            rows.append({"benchmark": NAME} | row | {"device": place(device)})
            print(f"{rows[-1]['case']} | {rows[-1]['peer']} | {rows[-1]['ratio']:.3g}", flush=True)
            if time.monotonic() - started > SECONDS:
                print("eight minutes are over: the rest is left out", flush=True)
                return rows
    return rows


# -------------------------------------------------------------------------------------------------------------- checks


def check(case: str, peer: str, found: list[Tensor], exact: list[Tensor], allowed: float) -> Row:
    """A row that says how far a tensor is at most from the exact one, relative to its norm."""
    errors = []
    for ours, theirs in zip(found, exact, strict=True):
        ours, theirs = ours.detach().double().cpu(), theirs.detach().double().cpu()
        errors.append(float((ours - theirs).norm() / theirs.norm().clamp(min=1e-300)))
    error = max(errors) if all(value == value for value in errors) else float("inf")
    return {"case": case, "peer": peer, "ratio": allowed / max(error, 1e-300), "error": error, "allowed": allowed}


def kernel_rows(device: torch.device, small: bool) -> Iterator[Row]:
    """ON-LSTM's pointwise kernels, and the whole recurrence (in blocks, by graphs), against float64."""
    sizes = [(3, 2), (20, 10)] if small else [(3, 2), (20, 10), (1, 512), (40, 10), (115, 10), (65, 63), (4096, 1)]
    for levels, chunk in sizes:
        for dtype, allowed in ((torch.float32, 1e-4), (torch.bfloat16, 2e-2)):
            for reverse in (False, True):
                gates = Gates(levels, chunk, reverse)
                case = f"steps ({levels}, {chunk}), {str(dtype).split('.')[-1]}, reverse {reverse}"
                found, exact = (one_step(gates, dtype, device, double) for double in (False, True))
                yield check(case, "plain torch, float64", found, exact, allowed)
    for dtype, allowed in ((torch.float32, 1e-4), (torch.bfloat16, 5e-2)):
        ours = [recurrence_gradients(device, dtype, round) for round in range(4)]  # the third is a graph's
        exact = [recurrence_gradients(device, torch.float64, round) for round in range(4)]
        for number, (found, wanted) in enumerate(zip(ours, exact, strict=True), 1):
            case = f"recurrence, window {number}, {str(dtype).split('.')[-1]}"
            yield check(case, "plain torch, float64", found, wanted, allowed)


def one_step(gates: Gates, dtype: torch.dtype, device: torch.device, double: bool) -> list[Tensor]:
    """What a step and its backward write, by the kernels of the device or by plain torch in float64."""
    generator = torch.Generator().manual_seed(0)
    batch, hidden = 8, gates.levels * gates.chunk
    rows = 2 * gates.levels + 4 * hidden

    def drawn(*shape: int, of_state: bool = False) -> Tensor:
        values = torch.randn(shape, generator=generator).to(torch.float32 if of_state else dtype).to(device)
        return values.double() if double else values

    zx, zh, d_output, dh = drawn(batch, rows), drawn(batch, rows), drawn(batch, hidden), drawn(batch, hidden)
    c_before, dc, d_distances = (
        drawn(*shape, of_state=True) for shape in ((batch, hidden), (batch, hidden), (2, batch))
    )
    a = zx if zx.dtype == c_before.dtype else torch.empty_like(zx, dtype=c_before.dtype)
    c, h, dz = torch.empty_like(c_before), torch.empty_like(d_output), torch.empty_like(zh)
    distances = torch.empty_like(d_distances)
    step = PlainSteps(gates) if double else steps_for(device, dtype, gates, batch)
    step.forward(zx, zh, c_before, a, c, h, *distances)
    step.backward(a, c_before, c, d_output, dh, dc, *d_distances, dz)
    return [tensor.clone() for tensor in (a, c, h, distances, dz, dc)]


def recurrence_gradients(device: torch.device, dtype: torch.dtype, seed: int) -> list[Tensor]:
    """Output and gradients of a window of 25 steps: two blocks and a rest."""
    torch.manual_seed(seed)
    layer = ONLSTM(24, 40, chunk_size=10).double()
    x = torch.randn(25, 6, 24, dtype=torch.float64)
    layer, x = layer.to(device, dtype), x.to(device, dtype).requires_grad_()
    weights = (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0)
    zeros = x.new_zeros(6, 40)
    output, _, distances = recurrence(x, zeros, zeros, weights, Gates(4, 10, False))
    loss = output.double().square().mean() + distances[0].double().mean() - distances[1].double().square().mean()
    return [output, *torch.autograd.grad(loss, [x, *weights])]


PATTERNS: list[tuple[Callable[..., Tensor], Pattern]] = [
    (full_attention, Full()),
    (partial(atrous_attention, rate=8), Atrous(8)),
    (partial(local_attention, window=16), Local(16)),
    (partial(sparse_attention, rate=16), Sparse(16)),
    (partial(fixed_attention, block=16, summary=4), Fixed(16, 4)),
]


def attention_rows(device: torch.device, small: bool) -> Iterator[Row]:
    """Each pattern, causal or not, with padding or not, forward and backward, against the N x N matrix in float64."""
    lengths = [50] if small else [50, 128, 1000]
    for function, pattern in PATTERNS:
        for n in lengths:
            for causal in (False, True):
                for padded in (False, True):
                    for dtype, allowed in ((torch.float32, 1e-4), (torch.bfloat16, 3e-2)):
                        torch.manual_seed(n)
                        given = [torch.randn(2, 2, n, 32).to(device, dtype).requires_grad_() for _ in range(3)]
                        padding = torch.zeros(2, n, dtype=torch.bool, device=device)
                        padding[1, n // 2 :] = padded
                        output = function(*given, causal=causal, key_padding_mask=padding if padded else None)
                        found = [output, *torch.autograd.grad(output.float().square().sum(), given)]
                        doubles = [tensor.detach().double().requires_grad_() for tensor in given]
                        wanted = dense(*doubles, pattern.mask(n, causal).to(device) & ~padding[:, None, None])
                        exact = [wanted, *torch.autograd.grad(wanted.square().sum(), doubles)]
                        case = f"{pattern}, N = {n}, causal {causal}, padding {padded}, {str(dtype).split('.')[-1]}"
                        yield check(case, "N x N matrix, float64", found, exact, allowed)


def dense(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention by the N x N matrix; a row without a key is 0."""
    logits = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~mask, -torch.inf)
    return logits.softmax(-1).masked_fill(~mask.any(-1, keepdim=True), 0) @ v


def step_rows(device: torch.device, small: bool) -> Iterator[Row]:
    """Two steps, a validation and a test of every experiment with data of its own: mixed-up devices end it."""
    from experiment.train import train  # not for the list of benchmarks

    names = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    names = [name for name in names if not name.startswith(LEFT_OUT)]
    for name in ["on_lstm_sample"] if small else names:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            options = ["--trainer.max_steps=2", "--trainer.num_sanity_val_steps=0", "--trainer.log_every_n_steps=1"]
            options += ["--data.source=sample"] * ("logic" not in name)
            words = ["-c", str(CONFIGS / f"{name}.yaml"), "-c", str(CONFIGS / "with" / "debug.yaml"), *options]
            started, said = time.perf_counter(), io.StringIO()
            os.environ.pop("PL_GLOBAL_SEED", None)
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                status = run_main(train, [*words, "--run_dir=run"])
            seconds = time.perf_counter() - started
        message = said.getvalue().strip().splitlines()[-1:] if status else []
        row = {"case": f"two steps of {name}", "peer": "no error", "ratio": float(status == 0), "seconds": seconds}
        yield row | ({"error": message[0]} if message else {})


# --------------------------------------------------------------------------------------------------------------- times


def renamed(rows: list[Row]) -> Iterator[Row]:
    """The rows of another benchmark as ours."""
    for row in rows:
        yield {**row, "benchmark": NAME, "case": f"{row['benchmark']}: {row['case']}"}


def lstm_times(small: bool) -> Iterator[Row]:
    """ON-LSTM against cuDNN's LSTM and the step-by-step form."""
    yield from renamed(on_lstm.run(quick=small))


def infomax_times(small: bool) -> Iterator[Row]:
    """Deep InfoMax's training step in bfloat16 against plain float32."""
    for name in infomax.CONFIGS[:1] if small else infomax.CONFIGS:
        yield from renamed(infomax.training_steps(name, 1 if small else 15))


def attention_times(small: bool) -> Iterator[Row]:
    """The patterns against flash attention and FlexAttention."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for n in [256] if small else [1024, 4096, 8192]:
        seconds = attention.step_seconds(n, device, 1 if small else 7)
        yield from renamed(attention.time_rows(n, seconds, device))
