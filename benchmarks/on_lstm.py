"""ON-LSTM: forward and backward at the paper's size, against the plain loop over the steps and nn.LSTM."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._timing import interleaved, medians, place
from experiment.cli import has_native_bfloat16
from layers.on_lstm import LSTM, ONLSTM

# The word language model of the paper: three layers, chunks of 10, batches of 20 in windows of 70.
SIZES, BATCH, LENGTH = ((400, 1150), (1150, 1150), (1150, 400)), 20, 70


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Medians of interleaved rounds of forward and backward, and of forward alone, on the CPU or the first GPU.

    The rows in bfloat16 come where the hardware computes in it.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes, length = (((40, 110), (110, 40)), 10) if quick else (SIZES, LENGTH)
    x = torch.randn(length, BATCH, sizes[0][0], device=device, requires_grad=True)
    torch.manual_seed(0)
    ours = nn.ModuleList(ONLSTM(*size) for size in sizes).to(device)
    lstm = nn.ModuleList(LSTM(*size) for size in sizes).to(device)
    loop = nn.ModuleList(NaiveONLSTM(layer) for layer in ours)
    cases = {
        "ours": (ours, nullcontext()),
        "loop": (loop, nullcontext()),
        "lstm": (lstm, nullcontext()),
        "ours bf16": (ours, torch.autocast(device.type, torch.bfloat16)),
        "loop bf16": (loop, torch.autocast(device.type, torch.bfloat16)),
        "lstm bf16": (lstm, torch.autocast(device.type, torch.bfloat16)),
    }
    if not has_native_bfloat16(device.type):  # emulated it takes minutes, and torch's own LSTM refuses
        cases = {name: case for name, case in cases.items() if "bf16" not in name}
    arms = {name: partial(forward_and_backward, layers, x, precision) for name, (layers, precision) in cases.items()}
    arms |= {f"{name} forward": partial(forward_alone, cases[name][0], x) for name in ("ours", "lstm")}
    median = medians(interleaved(arms, 1 if quick else 5))
    pairs = [
        ("fp32", "ours", "step by step, fp32", "loop"),
        ("fp32", "ours", "nn.LSTM, fp32", "lstm"),
        ("forward alone, fp32", "ours forward", "nn.LSTM, fp32", "lstm forward"),
        ("bf16 autocast", "ours bf16", "step by step, fp32", "loop"),
        ("bf16 autocast", "ours bf16", "step by step, bf16 autocast", "loop bf16"),
        ("bf16 autocast", "ours bf16", "nn.LSTM, bf16 autocast", "lstm bf16"),
    ]
    size = "-".join(str(number) for number in [sizes[0][0], *(size[1] for size in sizes)])
    return [
        {
            "benchmark": "on_lstm",
            "case": f"{size}, {case}",
            "peer": peer,
            "ratio": median[theirs] / median[mine],
            "ours_ms": median[mine] * 1e3,
            "peer_ms": median[theirs] * 1e3,
            "device": place(device),
        }
        for case, mine, peer, theirs in pairs
        if mine in median and theirs in median
    ]


def forward_and_backward(layers: nn.ModuleList, x: Tensor, precision: AbstractContextManager) -> None:
    """Gradients of the input and of all weights."""
    layers.zero_grad(set_to_none=True)
    with precision:
        output = x
        for layer in layers:
            output = layer(output)[0]
        loss = output.float().square().mean()
    loss.backward()


@torch.inference_mode()
def forward_alone(layers: nn.ModuleList, x: Tensor) -> None:
    """As in evaluation and prediction."""
    for layer in layers:
        x = layer(x)[0]


class NaiveONLSTM(nn.Module):
    """The formula step by step with autograd: both products, softmax, gates, for each word anew."""

    def __init__(self, layer: ONLSTM) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> tuple[Tensor]:
        layer = self.layer
        size, levels = layer.hidden_size, layer.hidden_size // layer.chunk_size
        h = c = x.new_zeros(x.shape[1], size, dtype=torch.float32)
        outputs = []
        for step in x:
            z = nn.functional.linear(step, layer.weight_ih_l0, layer.bias_ih_l0)
            z = (z + nn.functional.linear(h, layer.weight_hh_l0, layer.bias_hh_l0)).float()
            to_write, to_keep, o, g, i, f = z.split([levels, levels, size, size, size, size], -1)
            master_input = (1 - to_write.softmax(-1).cumsum(-1)).repeat_interleave(layer.chunk_size, -1)
            master_forget = to_keep.softmax(-1).cumsum(-1).repeat_interleave(layer.chunk_size, -1)
            overlap = master_input * master_forget
            forget = f.sigmoid() * overlap + (master_forget - overlap)
            write = i.sigmoid() * overlap + (master_input - overlap)
            c = forget * c + write * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        return (torch.stack(outputs),)
