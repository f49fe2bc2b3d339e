"""Attention within dense tiles, forward and backward: torch's flash kernel on the CPU, matrix products elsewhere.

A kernel's tensors are q, out, grad (G, R, m, D), k, v (G, R, n, D), lse (G, R, m) and bias, None or 0 and -inf,
broadcastable to (G, R, m, n). lse = logsumexp_j of the logits q k / sqrt(D) + bias; out = exp(logits - lse) v.
The backward pass needs lse and out of the whole softmax, of which the tile may be only a part.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

Gradients = tuple[Tensor, Tensor, Tensor]


class Kernel(ABC):
    """Attention in tiles."""

    @abstractmethod
    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool) -> tuple[Tensor, Tensor]:
        """out and lse; a row that sees nothing has out 0 and lse -inf."""

    @abstractmethod
    def backward(
        self,
        grad: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        bias: Tensor | None,
        causal: bool,
    ) -> Gradients:
        """The tile's share of the gradients of q, k, v; lse is finite (any value where a row sees nothing)."""

    def keep(self, q: Tensor, k: Tensor) -> Tensor | None:
        """The dropout factors of all weights (G, R, m, n), 0 or 1 / (1 - dropout); None without dropout."""
        return None


class FlashCPU(Kernel):
    """The kernel behind ``scaled_dot_product_attention`` on the CPU, which also returns lse. No dropout.

    Its operators are private, but unchanged since torch 2.3.
    """

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool) -> tuple[Tensor, Tensor]:
        operator = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, lse = operator(q, k, v, 0.0, causal, attn_mask=bias)
        if bias is not None:  # the operator's result for empty rows is undocumented
            empty = empty_rows(bias, causal)
            if empty.any():
                out = out.masked_fill(empty.unsqueeze(-1), 0)
                lse = lse.masked_fill(empty, -torch.inf)
        return out, lse

    def backward(
        self,
        grad: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        bias: Tensor | None,
        causal: bool,
    ) -> Gradients:
        operator = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        return operator(grad, q, k, v, out, lse, 0.0, causal, attn_mask=bias)


def empty_rows(bias: Tensor, causal: bool) -> Tensor:
    """Rows that see nothing: bool, broadcastable to (G, R, m)."""
    seen = bias > -torch.inf
    if not causal:
        return ~seen.any(-1)
    if bias.shape[-2] == 1:  # row i sees columns up to i
        return seen.squeeze(-2).cumsum(-1) == 0
    return ~seen.tril().any(-1)


class Products(Kernel):
    """The formulas as matrix products, softmax in float32 (float64 for float64), in chunks of logits.

    Args:
        most_logits: how many are held at once, unless a single row has more.
        dropout: probability below 1 that a weight is zeroed; the others are divided by 1 - dropout.
        generator: draws the dropout; from the same state backward draws the same zeros as forward.
    """

    def __init__(self, most_logits: int, dropout: float = 0.0, generator: torch.Generator | None = None) -> None:
        self.most_logits, self.dropout, self.generator = most_logits, dropout, generator

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool) -> tuple[Tensor, Tensor]:
        out = torch.empty_like(q)
        lse = q.new_empty(q.shape[:-1], dtype=wide(q.dtype))
        for tile, rows in self._parts(q, k):
            logits = self._logits(q, k, bias, causal, tile, rows)
            part = logits.logsumexp(-1)
            weights = logits.sub_(finite(part).unsqueeze(-1)).exp_()
            keep = self._keep(weights)
            out[tile][:, :, rows] = product(weights if keep is None else weights.mul_(keep), v[tile])
            lse[tile][:, :, rows] = part
        return out, lse

    def backward(
        self,
        grad: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        bias: Tensor | None,
        causal: bool,
    ) -> Gradients:
        kind = wide(q.dtype)
        grad_q = q.new_empty(q.shape, dtype=kind)
        grad_k, grad_v = (x.new_zeros(x.shape, dtype=kind) for x in (k, v))
        for tile, rows in self._parts(q, k):
            here = (tile, slice(None), rows)
            weights = self._logits(q, k, bias, causal, tile, rows).sub_(lse[here].unsqueeze(-1)).exp_()
            keep = self._keep(weights)
            kept = weights if keep is None else weights * keep
            grad_v[tile] += product(kept.transpose(-1, -2), grad[here])
            grad_weights = product(grad[here], v[tile].transpose(-1, -2))
            if keep is not None:
                grad_weights.mul_(keep)
            mean = (grad[here].to(kind) * out[here]).sum(-1, keepdim=True)
            grad_logits = grad_weights.sub_(mean).mul_(weights).mul_(q.shape[-1] ** -0.5)
            grad_q[here] = product(grad_logits, k[tile])
            grad_k[tile] += product(grad_logits.transpose(-1, -2), q[here])
        return grad_q, grad_k, grad_v

    def keep(self, q: Tensor, k: Tensor) -> Tensor | None:
        if not self.dropout:
            return None
        keep = q.new_empty((*q.shape[:-1], k.shape[-2]), dtype=wide(q.dtype))
        for tile, rows in self._parts(q, k):
            part = keep[tile][:, :, rows]
            part.copy_(self._draw(part))
        return keep

    def _parts(self, q: Tensor, k: Tensor) -> Iterator[tuple[slice, slice]]:
        """Slices of the tiles and of their rows."""
        (tiles, heads, m, _), n = q.shape, k.shape[-2]
        rows = min(m, max(1, self.most_logits // (heads * n)))
        count = max(1, self.most_logits // (heads * n * m))
        for tile in range(0, tiles, count):
            for row in range(0, m, rows):
                yield slice(tile, tile + count), slice(row, row + rows)

    def _logits(self, q: Tensor, k: Tensor, bias: Tensor | None, causal: bool, tile: slice, rows: slice) -> Tensor:
        logits = product(q[tile, :, rows], k[tile].transpose(-1, -2)).mul_(q.shape[-1] ** -0.5)
        if bias is not None:
            part = bias[tile] if len(bias) > 1 else bias
            logits += part[:, :, rows] if part.shape[2] > 1 else part
        if causal:
            i = torch.arange(q.shape[2], device=q.device)[rows, None]
            logits.masked_fill_(torch.arange(k.shape[2], device=q.device) > i, -torch.inf)
        return logits

    def _keep(self, weights: Tensor) -> Tensor | None:
        """The dropout factors of the weights, 0 or 1 / (1 - dropout); None without dropout."""
        return self._draw(weights) if self.dropout else None

    def _draw(self, weights: Tensor) -> Tensor:
        keep = torch.empty_like(weights).bernoulli_(1 - self.dropout, generator=self.generator)
        return keep.div_(1 - self.dropout)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which values of this dtype are summed."""
    return torch.promote_types(dtype, torch.float32)


def finite(lse: Tensor) -> Tensor:
    """lse with 0 where a row sees nothing, so that exp(-inf - lse) is 0 there and not NaN."""
    return lse.masked_fill(lse == -torch.inf, 0)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product (G, R, m, K) x (G, R, K, n) -> (G, R, m, n), accumulated and returned in float32 or wider.

    On a GPU both factors are cast to the narrower dtype, whose products are faster.
    """
    narrow = a.dtype if b.dtype == wide(b.dtype) else b.dtype
    kind = wide(narrow)
    if narrow == kind or not a.is_cuda:
        return a.to(kind) @ b.to(kind)
    shape = (*a.shape[:-1], b.shape[-1])
    return torch.bmm(a.to(narrow).flatten(0, 1), b.to(narrow).flatten(0, 1), out_dtype=kind).view(shape)
