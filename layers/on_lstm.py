"""The ON-LSTM recurrence over a sequence as one autograd function with a hand-derived backward."""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Gates(NamedTuple):
    """How the N = 2M + 4H rows of the weights divide, and which master input gate is meant.

    Rows: master input gate (M), master forget gate (M), output, cell, input, forget gate (H = M * chunk each).
    """

    chunk: int
    reverse: bool  # master input gate = reverse cumsum of the softmax (Su) instead of 1 - cumsum (paper)

    def levels(self, hidden: int) -> int:
        return hidden // self.chunk


def master_gates(probabilities: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """Master input and forget gate (..., M) of the softmax probabilities (..., 2, M), in that order.

    Sums of positive numbers only, so both are monotone; rounding must not lift them above 1.
    """
    of_input, of_forget = probabilities.unbind(-2)
    if reverse:
        master_input = of_input.flip(-1).cumsum(-1).flip(-1).clamp(max=1)
    else:
        master_input = 1 - of_input.cumsum(-1).clamp(max=1)
    return master_input, of_forget.cumsum(-1).clamp(max=1)


# --------------------------------------------------------------------------------------- pointwise part, plain torch


def plain_forward(z: Tensor, c: Tensor, gates: Gates) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One step: pre-activations z (B, N), overwritten by the activations, and c (B, H) -> h, c, both distances (B,)."""
    batch, hidden = c.shape
    levels = gates.levels(hidden)
    masters = z[:, : 2 * levels].view(batch, 2, levels)
    masters.copy_(masters.softmax(-1))
    master_input, master_forget = master_gates(masters, gates.reverse)
    output, cell, keep_input, keep_forget = z[:, 2 * levels :].view(batch, 4, levels, gates.chunk).unbind(1)
    output.sigmoid_()
    cell.tanh_()
    keep_input.sigmoid_()
    keep_forget.sigmoid_()
    overlap = master_input * master_forget
    forget = (master_forget - overlap).unsqueeze(-1) + keep_forget * overlap.unsqueeze(-1)
    write = (master_input - overlap).unsqueeze(-1) + keep_input * overlap.unsqueeze(-1)
    c = forget * c.view(batch, levels, gates.chunk) + write * cell
    h = output * c.tanh()
    return h.flatten(1), c.flatten(1), 1 - master_forget.mean(-1), master_input.mean(-1)


def plain_backward(
    a: Tensor, c_before: Tensor, c: Tensor, dh: Tensor, dc: Tensor, distances: tuple[Tensor, Tensor], gates: Gates
) -> tuple[Tensor, Tensor]:
    """Backward of one step: activations a (B, N), gradients of h, c (B, H) and of the distances -> dz, d c_before."""
    batch, hidden = c.shape
    levels = gates.levels(hidden)
    shape = (batch, levels, gates.chunk)
    masters = a[:, : 2 * levels].view(batch, 2, levels)
    master_input, master_forget = master_gates(masters, gates.reverse)
    output, cell, keep_input, keep_forget = a[:, 2 * levels :].view(batch, 4, *shape[1:]).unbind(1)
    c_before, dh = c_before.view(shape), dh.view(shape)
    tanh = c.view(shape).tanh()
    overlap = (master_input * master_forget).unsqueeze(-1)
    forget = (master_forget.unsqueeze(-1) - overlap) + keep_forget * overlap
    write = (master_input.unsqueeze(-1) - overlap) + keep_input * overlap

    dc = dc.view(shape) + dh * output * (1 - tanh * tanh)
    d_forget, d_write = dc * c_before, dc * cell
    dz = torch.empty_like(a)
    d_output, d_cell, d_keep_input, d_keep_forget = dz[:, 2 * levels :].view(batch, 4, *shape[1:]).unbind(1)
    d_output.copy_(dh * tanh * output * (1 - output))
    d_cell.copy_(dc * write * (1 - cell * cell))
    d_keep_input.copy_(d_write * overlap * keep_input * (1 - keep_input))
    d_keep_forget.copy_(d_forget * overlap * keep_forget * (1 - keep_forget))

    d_overlap = (d_forget * (keep_forget - 1) + d_write * (keep_input - 1)).sum(-1)
    d_master_forget = d_forget.sum(-1) + d_overlap * master_input - (distances[0] / levels).unsqueeze(-1)
    d_master_input = d_write.sum(-1) + d_overlap * master_forget + (distances[1] / levels).unsqueeze(-1)
    # A probability counts in the gate's own level and all above it (reverse: below it).
    dp_forget = d_master_forget.flip(-1).cumsum(-1).flip(-1)
    dp_input = d_master_input.cumsum(-1) if gates.reverse else -d_master_input.flip(-1).cumsum(-1).flip(-1)
    dp = torch.stack([dp_input, dp_forget], 1)
    dz[:, : 2 * levels].view(batch, 2, levels).copy_(masters * (dp - (masters * dp).sum(-1, keepdim=True)))
    return dz, (dc * forget).flatten(1)


# ------------------------------------------------------------------------------------------------------ the recurrence


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h0: Tensor,
        c0: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor,
        bias_hh: Tensor,
        gates: Gates,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        activations, output, cells, distances = _forward(x, h0, c0, weight_ih, weight_hh, bias_ih + bias_hh, gates)
        ctx.save_for_backward(x, h0, c0, weight_ih, weight_hh, activations, output, cells)
        ctx.gates = gates
        return output, cells[-1].clone(), *distances

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_output: Tensor, dc: Tensor, *d_distances: Tensor) -> tuple[Tensor | None, ...]:
        x, h0, c0, weight_ih, weight_hh, activations, output, cells = ctx.saved_tensors
        needs_x, needs_h0, needs_c0, needs_ih, needs_hh, needs_bias, needs_bias2 = ctx.needs_input_grad[:7]
        dz = torch.empty_like(activations)
        dh = torch.zeros_like(h0)
        for t in reversed(range(len(x))):
            dh = dh + d_output[t]
            before = cells[t - 1] if t else c0
            dz[t], dc = plain_backward(
                activations[t], before, cells[t], dh, dc, (d_distances[0][t], d_distances[1][t]), ctx.gates
            )
            if t or needs_h0:
                dh = dz[t] @ weight_hh
        rows = dz.flatten(0, 1)
        d_bias = rows.sum(0) if needs_bias or needs_bias2 else None
        return (
            (rows @ weight_ih).view_as(x) if needs_x else None,
            dh if needs_h0 else None,
            dc if needs_c0 else None,
            rows.T @ x.flatten(0, 1) if needs_ih else None,
            rows.T @ torch.cat([h0.unsqueeze(0), output[:-1]]).flatten(0, 1) if needs_hh else None,
            d_bias if needs_bias else None,
            d_bias if needs_bias2 else None,
            None,
        )


def _forward(
    x: Tensor, h0: Tensor, c0: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, gates: Gates
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
    z = torch.nn.functional.linear(x, weight_ih, bias)
    shape = (*x.shape[:2], h0.shape[-1])
    output, cells = x.new_empty(shape), x.new_empty(shape)
    distances = x.new_empty(shape[:2]), x.new_empty(shape[:2])
    h, c = h0, c0
    for t in range(len(x)):
        z[t].addmm_(h, weight_hh.T)
        h, c, distances[0][t], distances[1][t] = plain_forward(z[t], c, gates)
        output[t], cells[t] = h, c
    return z, output, cells, distances


def recurrence(
    x: Tensor, h0: Tensor, c0: Tensor, weights: tuple[Tensor, Tensor, Tensor, Tensor], gates: Gates
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """x (T, B, I), h0 and c0 (B, H), weights -> output (T, B, H), last c (B, H), both distances (T, B).

    The weights are weight_ih (N, I), weight_hh (N, H), bias_ih and bias_hh (N,).
    """
    device = x.device.type
    with torch.autocast(device, enabled=False):
        dtype = weights[0].dtype
        output, c, *distances = _Recurrence.apply(x.to(dtype), h0.to(dtype), c0.to(dtype), *weights, gates)
    return output, c, (distances[0], distances[1])
