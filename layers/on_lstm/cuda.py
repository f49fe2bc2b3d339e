"""ON-LSTM's pointwise steps on CUDA, as Triton kernels.

Imported only for CUDA tensors; Triton comes with torch's CUDA builds. Each program handles one row of the batch.
"""

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def _softmax(zx, zh, k, M: tl.constexpr):
    z = tl.load(zx + k, mask=k < M, other=float("-inf")).to(tl.float32)
    z += tl.load(zh + k, mask=k < M, other=0).to(tl.float32)
    e = tl.exp(z - tl.max(z, 0))
    return e / tl.sum(e, 0)


@triton.jit
def _master_gates(p_input, p_forget, REVERSE: tl.constexpr):
    if REVERSE:
        master_input = tl.minimum(tl.cumsum(p_input, 0, reverse=True), 1.0)
    else:
        master_input = 1 - tl.minimum(tl.cumsum(p_input, 0), 1.0)
    return master_input, tl.minimum(tl.cumsum(p_forget, 0), 1.0)


@triton.jit
def _forward(
    zx,
    zh,
    c_before,
    a,
    c,
    h,
    distance_forget,
    distance_input,
    M: tl.constexpr,
    C: tl.constexpr,
    REVERSE: tl.constexpr,
    LEVELS: tl.constexpr,  # M and C rounded up to powers of two
    CHUNK: tl.constexpr,
):
    b = tl.program_id(0)
    H: tl.constexpr = M * C
    row = b * (2 * M + 4 * H)
    k = tl.arange(0, LEVELS)
    i = tl.arange(0, CHUNK)
    p_input = _softmax(zx + row, zh + row, k, M)
    p_forget = _softmax(zx + row + M, zh + row + M, k, M)
    master_input, master_forget = _master_gates(p_input, p_forget, REVERSE)
    tl.store(distance_forget + b, 1 - tl.sum(tl.where(k < M, master_forget, 0.0), 0) / M)
    tl.store(distance_input + b, tl.sum(tl.where(k < M, master_input, 0.0), 0) / M)

    j = k[:, None] * C + i[None, :]
    inside = (k < M)[:, None] & (i < C)[None, :]
    at = row + 2 * M + j
    o = tl.sigmoid(tl.load(zx + at, mask=inside).to(tl.float32) + tl.load(zh + at, mask=inside).to(tl.float32))
    at_g = at + H
    g = _tanh(tl.load(zx + at_g, mask=inside).to(tl.float32) + tl.load(zh + at_g, mask=inside).to(tl.float32))
    at_i = at + 2 * H
    write = tl.sigmoid(tl.load(zx + at_i, mask=inside).to(tl.float32) + tl.load(zh + at_i, mask=inside).to(tl.float32))
    at_f = at + 3 * H
    keep = tl.sigmoid(tl.load(zx + at_f, mask=inside).to(tl.float32) + tl.load(zh + at_f, mask=inside).to(tl.float32))
    mi, mf = master_input[:, None], master_forget[:, None]
    overlap = mi * mf
    before = tl.load(c_before + b * H + j, mask=inside)
    state = (keep * overlap + (mf - overlap)) * before + (write * overlap + (mi - overlap)) * g
    # In float32 ``a`` is the memory of ``zx``, of which several warps read the same part: all before one writes.
    tl.debug_barrier()
    tl.store(a + row + k, p_input, mask=k < M)
    tl.store(a + row + M + k, p_forget, mask=k < M)
    tl.store(a + at, o, mask=inside)
    tl.store(a + at_g, g, mask=inside)
    tl.store(a + at_i, write, mask=inside)
    tl.store(a + at_f, keep, mask=inside)
    tl.store(c + b * H + j, state, mask=inside)
    tl.store(h + b * H + j, (o * _tanh(state)).to(h.dtype.element_ty), mask=inside)


@triton.jit
def _store_softmax_backward(dz, p, dp, k, M: tl.constexpr):
    value = p * (dp - tl.sum(p * dp, 0))
    tl.store(dz + k, value.to(dz.dtype.element_ty), mask=k < M)


@triton.jit
def _backward(
    a,
    c_before,
    c,
    d_output,
    dh_next,
    dc,
    d_distance_forget,
    d_distance_input,
    dz,
    M: tl.constexpr,
    C: tl.constexpr,
    REVERSE: tl.constexpr,
    LEVELS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    b = tl.program_id(0)
    H: tl.constexpr = M * C
    row = b * (2 * M + 4 * H)
    k = tl.arange(0, LEVELS)
    i = tl.arange(0, CHUNK)
    p_input = tl.load(a + row + k, mask=k < M, other=0)
    p_forget = tl.load(a + row + M + k, mask=k < M, other=0)
    master_input, master_forget = _master_gates(p_input, p_forget, REVERSE)
    mi, mf = master_input[:, None], master_forget[:, None]
    overlap = mi * mf

    j = k[:, None] * C + i[None, :]
    inside = (k < M)[:, None] & (i < C)[None, :]
    at = row + 2 * M + j
    o = tl.load(a + at, mask=inside, other=0)
    g = tl.load(a + at + H, mask=inside, other=0)
    write = tl.load(a + at + 2 * H, mask=inside, other=0)
    keep = tl.load(a + at + 3 * H, mask=inside, other=0)
    t = _tanh(tl.load(c + b * H + j, mask=inside, other=0))
    dh = tl.load(d_output + b * H + j, mask=inside, other=0).to(tl.float32)
    dh += tl.load(dh_next + b * H + j, mask=inside, other=0).to(tl.float32)
    d_state = tl.load(dc + b * H + j, mask=inside, other=0) + dh * o * (1 - t * t)
    d_keep = d_state * tl.load(c_before + b * H + j, mask=inside, other=0)
    d_write = d_state * g
    type_of_z = dz.dtype.element_ty
    tl.store(dz + at, (dh * t * o * (1 - o)).to(type_of_z), mask=inside)
    written = write * overlap + (mi - overlap)
    tl.store(dz + at + H, (d_state * written * (1 - g * g)).to(type_of_z), mask=inside)
    tl.store(dz + at + 2 * H, (d_write * overlap * write * (1 - write)).to(type_of_z), mask=inside)
    tl.store(dz + at + 3 * H, (d_keep * overlap * keep * (1 - keep)).to(type_of_z), mask=inside)
    tl.store(dc + b * H + j, d_state * (keep * overlap + (mf - overlap)), mask=inside)

    d_overlap = d_keep * (keep - 1) + d_write * (write - 1)
    d_forget = tl.sum(d_keep + d_overlap * mi, 1) - tl.load(d_distance_forget + b) / M
    d_input = tl.sum(d_write + d_overlap * mf, 1) + tl.load(d_distance_input + b) / M
    d_forget = tl.where(k < M, d_forget, 0.0)
    d_input = tl.where(k < M, d_input, 0.0)
    dp_input = tl.cumsum(d_input, 0) if REVERSE else -tl.cumsum(d_input, 0, reverse=True)
    _store_softmax_backward(dz + row, p_input, dp_input, k, M)
    _store_softmax_backward(dz + row + M, p_forget, tl.cumsum(d_forget, 0, reverse=True), k, M)


class TritonSteps:
    """``Steps`` by Triton; tensors must be contiguous, shapes and dtypes are not checked again."""

    def __init__(self, levels: int, chunk: int, reverse: bool, batch: int) -> None:
        self._grid = (batch,)
        powers = triton.next_power_of_2(levels), triton.next_power_of_2(chunk)
        self._constants = levels, chunk, reverse, *powers
        self._warps = max(1, min(8, powers[0] * powers[1] // 256))

    def forward(self, *tensors: Tensor) -> None:
        _forward[self._grid](*tensors, *self._constants, num_warps=self._warps)

    def backward(self, *tensors: Tensor) -> None:
        _backward[self._grid](*tensors, *self._constants, num_warps=self._warps)
