"""The pointwise part of an ON-LSTM step: its interface, its plain torch form, and the fastest form for a device."""

import functools
import warnings
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from . import cpu as on_lstm_cpu


class Gates(NamedTuple):
    """How the N = 2M + 4H rows of the weights are divided, and which master input gate is used.

    Rows: master input gate (M), master forget gate (M), output, cell, input, forget gate (H = M * chunk each).
    ``reverse``: the master input gate is the softmax summed from the right instead of 1 - cumsum.
    """

    levels: int
    chunk: int
    reverse: bool


class Steps(Protocol):
    """The pointwise part of one step; both methods write into given tensors."""

    def forward(
        self,
        zx: Tensor,
        zh: Tensor,
        c_before: Tensor,
        a: Tensor,
        c: Tensor,
        h: Tensor,
        distance_forget: Tensor,
        distance_input: Tensor,
    ) -> None:
        """Pre-activations zx + zh (B, N), c_before (B, H) -> activations a (B, N), c, h (B, H), distances (B,).

        ``a`` holds softmax probabilities for the master gates, gate values for the rest; it may be ``zx``.
        """

    def backward(
        self,
        a: Tensor,
        c_before: Tensor,
        c: Tensor,
        d_output: Tensor,
        dh_next: Tensor,
        dc: Tensor,
        d_distance_forget: Tensor,
        d_distance_input: Tensor,
        dz: Tensor,
    ) -> None:
        """Gradients of h (the sum d_output + dh_next), of c (B, H) and of the distances (B,) -> dz (B, N).

        ``dc``, the gradient of c, becomes that of ``c_before``.
        """


def master_gates(probabilities: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """Master input and forget gate (..., M) from their softmax probabilities (..., 2, M), in this order.

    As sums of positive numbers both are monotone; the clamp keeps rounding from lifting them above 1.
    """
    of_input, of_forget = probabilities.unbind(-2)
    if reverse:
        master_input = of_input.flip(-1).cumsum(-1).flip(-1).clamp(max=1)
    else:
        master_input = 1 - of_input.cumsum(-1).clamp(max=1)
    return master_input, of_forget.cumsum(-1).clamp(max=1)


class PlainSteps:
    """``Steps`` in plain torch, for every device and dtype."""

    def __init__(self, gates: Gates) -> None:
        self.gates = gates

    def _parts(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Views of (B, N): master gates (B, 2, M), then output, cell, input, forget gate (B, M, C)."""
        levels, chunk, _ = self.gates
        masters, rest = rows.split([2 * levels, 4 * levels * chunk], -1)
        return masters.view(-1, 2, levels), *rest.view(-1, 4, levels, chunk).unbind(1)

    def _forget_and_write(
        self, masters: Tensor, input: Tensor, forget: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Master input and forget gate, their overlap (B, M, 1); how much of c is kept and how much is written."""
        master_input, master_forget = (gate.unsqueeze(-1) for gate in master_gates(masters, self.gates.reverse))
        overlap = master_input * master_forget
        kept = forget * overlap + (master_forget - overlap)
        return master_input, master_forget, overlap, kept, input * overlap + (master_input - overlap)

    @staticmethod
    def _activate(
        masters: Tensor, output: Tensor, cell: Tensor, input: Tensor, forget: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        return masters.softmax(-1), output.sigmoid(), cell.tanh(), input.sigmoid(), forget.sigmoid()

    def differentiable(self, z: Tensor, c_before: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pre-activations z (B, N), c_before (B, H) -> c, h (B, H), distances (B,), by operators with derivatives."""
        return self._update(self._activate(*self._parts(z)), c_before)

    def _update(self, activations: tuple[Tensor, ...], c_before: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        masters, output, cell, input, forget = activations
        master_input, master_forget, _, kept, written = self._forget_and_write(masters, input, forget)
        state = kept * c_before.view_as(cell) + written * cell
        distances = 1 - master_forget.mean((1, 2)), master_input.mean((1, 2))
        return state.flatten(1), (output * state.tanh()).flatten(1), *distances

    def forward(self, zx, zh, c_before, a, c, h, distance_forget, distance_input) -> None:
        a.copy_(zx.to(a.dtype) + zh)
        parts = self._parts(a)
        for part, activated in zip(parts, self._activate(*parts), strict=True):
            part.copy_(activated)
        for place, value in zip((c, h, distance_forget, distance_input), self._update(parts, c_before), strict=True):
            place.copy_(value)

    def backward(self, a, c_before, c, d_output, dh_next, dc, d_distance_forget, d_distance_input, dz) -> None:
        levels = self.gates.levels
        masters, output, cell, input, forget = self._parts(a)
        master_input, master_forget, overlap, kept, written = self._forget_and_write(masters, input, forget)
        d_masters, d_o, d_g, d_i, d_f = self._parts(dz)
        dh, tanh = (d_output.to(a.dtype) + dh_next).view_as(cell), c.view_as(cell).tanh()
        d_state = dc.view_as(cell) + dh * output * (1 - tanh * tanh)
        d_kept, d_written = d_state * c_before.view_as(cell), d_state * cell
        d_o.copy_(dh * tanh * output * (1 - output))
        d_g.copy_(d_state * written * (1 - cell * cell))
        d_i.copy_(d_written * overlap * input * (1 - input))
        d_f.copy_(d_kept * overlap * forget * (1 - forget))
        dc.view_as(cell).copy_(d_state * kept)

        d_overlap = d_kept * (forget - 1) + d_written * (input - 1)
        d_forget = (d_kept + d_overlap * master_input).sum(-1) - d_distance_forget.unsqueeze(-1) / levels
        d_input = (d_written + d_overlap * master_forget).sum(-1) + d_distance_input.unsqueeze(-1) / levels
        # A probability counts in its own level and all above it; in the reversed sum, in all below it.
        dp_forget = d_forget.flip(-1).cumsum(-1).flip(-1)
        dp_input = d_input.cumsum(-1) if self.gates.reverse else -d_input.flip(-1).cumsum(-1).flip(-1)
        dp = torch.stack([dp_input, dp_forget], 1)
        d_masters.copy_(masters * (dp - (masters * dp).sum(-1, keepdim=True)))


def steps_for(device: torch.device, dtype: torch.dtype, gates: Gates, batch: int) -> Steps:
    """The fastest steps that work here for products of this dtype."""
    if device.type == "cpu" and on_lstm_cpu.supports(dtype):
        return on_lstm_cpu.CompiledSteps(dtype, *gates, batch)
    if device.type == "cuda":
        triton_steps = _triton_steps(device, dtype)
        if triton_steps and gates.levels * gates.chunk <= 4096:  # a row must fit into registers
            return triton_steps(*gates, batch)
        if triton_steps:
            warn_once(f"ON-LSTM with more than 4096 units ({gates.levels * gates.chunk}) runs without its kernels")
    return PlainSteps(gates)


@functools.cache
def warn_once(text: str) -> None:
    """Says why something runs in a slower form, once of each cause."""
    warnings.warn(text, stacklevel=2)


@functools.cache
def _triton_steps(device: torch.device, dtype: torch.dtype) -> Callable[..., Steps] | None:
    """The Triton kernels, if they are available and agree with plain torch in a small trial on this device."""
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return None
    gates, batch, hidden = Gates(3, 2, False), 2, 6
    zx, zh, *h = (torch.linspace(-2, 2, batch * n, device=device).to(dtype).view(batch, n) for n in (30, 30, 6, 6, 6))
    try:  # Triton may be missing, or the C compiler that it needs, or support for this device
        from .cuda import TritonSteps

        found = []
        for step in (TritonSteps(*gates, batch), PlainSteps(gates)):
            a, dz = torch.empty_like(zx, dtype=torch.float32), torch.empty_like(zx)
            c_before, c, dc = torch.ones(3, batch, hidden, device=device)
            distances = torch.ones(2, batch, device=device)
            step.forward(zx, zh, c_before, a, c, h[0], distances[0], distances[1])
            step.backward(a, c_before, c, h[1], h[2], dc, distances[0], distances[1], dz)
            found.append([tensor.float() for tensor in (a, c, h[0], distances, dz, dc)])
        torch.testing.assert_close(*found, atol=2e-2, rtol=2e-2)
    except Exception as error:  # whatever the cause, plain torch works
        cause = (str(error).strip().splitlines() or [""])[0][:200]
        warn_once(f"ON-LSTM runs without its kernels on {device}, in {dtype}: {type(error).__name__}: {cause}")
        return None
    return TritonSteps
