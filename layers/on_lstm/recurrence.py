"""The ON-LSTM recurrence over a sequence: one autograd function with a backward derived by hand.

Two dtypes: matrix products (pre-activations, h and their gradients) are in that of the weights or of autocast; the
state and all pointwise arithmetic, above all cumax, are in float32 (float64 for float64 products).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from . import cpu as on_lstm_cpu
from . import graphs as on_lstm_graphs
from .steps import Gates, PlainSteps, Steps, steps_for

Product = Callable[[Tensor], Tensor]


def _forward_steps(product: Product, step: Steps, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    """zx (T, B, N), h and c before -> a (T, B, N), output, cells (T, B, H), distances (2, T, B)."""
    zx, h, c = inputs
    a, output, cells, distances = outputs
    for t in range(len(zx)):
        step.forward(zx[t], product(h), c, a[t % len(a)], cells[t], output[t], distances[0, t], distances[1, t])
        h, c = output[t], cells[t]


def _backward_steps(
    product: Product, step: Steps, inputs: Sequence[Tensor], outputs: Sequence[Tensor], dh_is_needed: bool = True
) -> None:
    """a, cells, d_output, d_distances, c before, gradients of h and c after -> dz, gradients of h and c before."""
    a, cells, d_output, d_distances, c_before, dh_after, dc_after = inputs
    dz, dh_before, dc = outputs
    dh = dh_after
    dc.copy_(dc_after)
    for t in reversed(range(len(a))):
        before = cells[t - 1] if t else c_before
        step.backward(a[t], before, cells[t], d_output[t], dh, dc, d_distances[0, t], d_distances[1, t], dz[t])
        if t or dh_is_needed:
            dh = product(dz[t])
    dh_before.copy_(dh)


def _forward_blocks(
    weight: Tensor, step: Steps, inputs: Sequence[Tensor], outputs: Sequence[Tensor], gates: Gates
) -> None:
    """``_forward_steps`` in blocks that are CUDA graphs."""
    zx, h, c = inputs
    a, output, cells, distances = outputs
    key = "forward", weight.shape, weight.device, weight.dtype, zx.shape[1], gates

    def block(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        _forward_steps(lambda x: x @ inputs[0].T, step, inputs[1:], outputs)

    new_weight = True
    for start in range(0, len(zx), on_lstm_graphs.STEPS):
        part = slice(start, start + on_lstm_graphs.STEPS)
        given = weight, zx[part], h, c
        results = a[part] if len(a) == len(zx) else a, output[part], cells[part], distances[:, part]
        if len(zx[part]) == on_lstm_graphs.STEPS:
            on_lstm_graphs.run((*key, len(a) == 1), block, given, results, new_weight)
            new_weight = False
        else:
            block(given, results)
        h, c = output[part][-1], cells[part][-1]


def _backward_blocks(
    weight: Tensor, step: Steps, inputs: Sequence[Tensor], outputs: Sequence[Tensor], gates: Gates
) -> None:
    """``_backward_steps`` in blocks that are CUDA graphs, from the last to the first."""
    a, cells, d_output, d_distances, c0, dh, dc = inputs
    dz, dh_before, dc_before = outputs
    key = "backward", weight.shape, weight.device, weight.dtype, a.shape[1], gates

    def block(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        _backward_steps(lambda x: x @ inputs[0], step, inputs[1:], outputs)

    new_weight = True
    for start in reversed(range(0, len(a), on_lstm_graphs.STEPS)):
        part = slice(start, start + on_lstm_graphs.STEPS)
        before = cells[start - 1] if start else c0
        given = weight, a[part], cells[part], d_output[part], d_distances[:, part], before, dh, dc
        results = dz[part], dh_before, dc_before
        if len(a[part]) == on_lstm_graphs.STEPS:
            on_lstm_graphs.run(key, block, given, results, new_weight)
            new_weight = False
        else:
            block(given, results)
        dh, dc = dh_before, dc_before


# ---------------------------------------------------------------------------------------------------------- autograd


class _Recurrence(torch.autograd.Function):
    """The arguments of ``_forward`` without ``keep`` -> output (T, B, H), last c (B, H), both distances (T, B)."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        saved, results = _forward(*arguments, keep=True)
        *tensors, ctx.dtype, ctx.gates = arguments
        ctx.save_for_backward(*tensors, *saved)
        return results

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        kept = ctx.saved_tensors  # read once: activation checkpointing gives them once
        tensors, saved = kept[:7], kept[7:]
        with torch.autocast(gradients[0].device.type, enabled=False), torch.cuda.device_of(gradients[0]):
            if torch.is_grad_enabled():  # the gradient will be differentiated
                needed = [tensor for tensor, need in zip(tensors, ctx.needs_input_grad, strict=False) if need]
                results = _by_operators(tensors, ctx.dtype, ctx.gates)
                of_needed = iter(torch.autograd.grad(results, needed, gradients, create_graph=True))
                found = tuple(next(of_needed) if need else None for need in ctx.needs_input_grad[:7])
            else:
                found = _backward(saved, gradients, ctx.needs_input_grad, ctx.gates)
        typed = (None if d is None else d.to(tensor.dtype) for d, tensor in zip(found, tensors, strict=True))
        return *typed, None, None


def _by_operators(tensors: Sequence[Tensor], dtype: torch.dtype, gates: Gates) -> tuple[Tensor, ...]:
    """The results of ``_Recurrence`` by torch's operators, whose gradients have derivatives; much slower."""
    x, h, c0, weight_ih, weight_hh, bias_ih, bias_hh = tensors
    of_state = torch.promote_types(dtype, torch.float32)
    x, h, weight_ih, weight_hh = (tensor.to(dtype) for tensor in (x, h, weight_ih, weight_hh))
    c, steps = c0.to(of_state), PlainSteps(gates)
    rows = []
    for zx in F.linear(x, weight_ih, (bias_ih + bias_hh).to(dtype)):
        c, h, *distances = steps.differentiable((zx + F.linear(h, weight_hh)).to(of_state), c)
        h = h.to(dtype)
        rows.append((h, *distances))
    output, *distances = (torch.stack(column) for column in zip(*rows, strict=True))
    return output, c, *distances


def _forward(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    dtype: torch.dtype,
    gates: Gates,
    *,
    keep: bool,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """What the backward pass needs (scratch unless ``keep``), and the results."""
    x, h0, weight_ih, weight_hh = (tensor.to(dtype).contiguous() for tensor in (x, h0, weight_ih, weight_hh))
    of_state = torch.promote_types(dtype, torch.float32)
    c0 = c0.to(of_state).contiguous()
    length, batch, hidden = *x.shape[:2], h0.shape[-1]
    zx = on_lstm_cpu.linear(x.flatten(0, 1), weight_ih, (bias_ih + bias_hh).to(dtype)).view(length, batch, -1)
    a = zx if dtype == of_state else torch.empty_like(zx if keep else zx[:1], dtype=of_state)
    output, cells = x.new_empty(length, batch, hidden), c0.new_empty(length, batch, hidden)
    distances = c0.new_empty(2, length, batch)
    step = steps_for(x.device, dtype, gates, batch)
    if x.is_cuda:
        _forward_blocks(weight_hh, step, (zx, h0, c0), (a, output, cells, distances), gates)
    else:
        product = on_lstm_cpu.product_with(weight_hh, length, batch)
        _forward_steps(product, step, (zx, h0, c0), (a, output, cells, distances))
    results = output, cells[-1].clone(), distances[0].clone(), distances[1].clone()
    return (x, h0, c0, weight_ih, weight_hh, a, output, cells), results


def _backward(
    saved: tuple[Tensor, ...], gradients: tuple[Tensor, ...], needed: tuple[bool, ...], gates: Gates
) -> tuple[Tensor | None, ...]:
    """Gradients of the first seven arguments of ``_Recurrence``, None for those not needed."""
    x, h0, c0, weight_ih, weight_hh, a, output, cells = saved
    d_output, d_distances = gradients[0].contiguous(), torch.stack(gradients[2:])
    length, batch = x.shape[:2]
    dz, dh, dc = torch.empty_like(a, dtype=x.dtype), torch.empty_like(h0), torch.empty_like(c0)
    step = steps_for(x.device, x.dtype, gates, batch)
    inputs = a, cells, d_output, d_distances, c0, torch.zeros_like(h0), gradients[1]
    if x.is_cuda:
        _backward_blocks(weight_hh, step, inputs, (dz, dh, dc), gates)
    else:
        product = on_lstm_cpu.product_with(weight_hh.T, length, batch)
        _backward_steps(product, step, inputs, (dz, dh, dc), dh_is_needed=needed[1])
    rows = dz.flatten(0, 1)
    d_bias = rows.sum(0, dtype=dc.dtype) if needed[5] or needed[6] else None
    return (
        on_lstm_cpu.linear(rows, weight_ih.T).view_as(x) if needed[0] else None,
        dh if needed[1] else None,
        dc if needed[2] else None,
        on_lstm_cpu.linear(rows.T, x.flatten(0, 1).T) if needed[3] else None,
        on_lstm_cpu.linear(rows.T, torch.cat([h0.unsqueeze(0), output[:-1]]).flatten(0, 1).T) if needed[4] else None,
        d_bias if needed[5] else None,
        d_bias if needed[6] else None,
    )


@torch.compiler.disable
def recurrence(
    x: Tensor, h0: Tensor, c0: Tensor, weights: tuple[Tensor, Tensor, Tensor, Tensor], gates: Gates
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """x (T, B, I), h0 and c0 (B, H), weights -> output (T, B, H), last c (B, H), both distances (T, B).

    The weights are weight_ih (N, I), weight_hh (N, H), bias_ih and bias_hh (N,).
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weights[0].dtype
    arguments = (x, h0, c0, *weights)
    with torch.autocast(device, enabled=False), torch.cuda.device_of(x):
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in arguments):
            output, c, *distances = _Recurrence.apply(*arguments, dtype, gates)
        else:
            _, (output, c, *distances) = _forward(*arguments, dtype, gates, keep=False)
    return output, c, (distances[0], distances[1])
