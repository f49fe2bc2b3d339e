"""Base of the self-attention layers: projections, masks, weights for plots, step-by-step decoding."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..dropout import check_probability
from .functional import Backend, check_backend, pattern_attention
from .masks import check_padding, key_bias, means_causal
from .patterns import Pattern, check_positive
from .rotary import rotate_sequence
from .tiles import bias_of


@dataclass
class AttentionState:
    """The key-value cache of decoding.

    Args:
        keys: (B, H, S, D), D the size of a head; position p is in slot p mod S.
        values: likewise.
        max_length: the most positions that may be read.
        length: positions read so far.
    """

    keys: Tensor
    values: Tensor
    max_length: int
    length: int = 0


class MultiheadSelfAttention(nn.Module, ABC):
    """Base class of the attention slot ``Callable[[int, int], MultiheadSelfAttention]``: (embed_dim, num_heads).

        q, k, v = W_in x + b_in;    y = W_out [attention of each head] + b_out

    Parameters have the names, shapes and initialisation of ``nn.MultiheadAttention``, whose ``state_dict`` loads.

    Args:
        embed_dim: size of input and output.
        num_heads: number of heads; must divide ``embed_dim``.
        pattern: which keys a query sees; or several patterns, which the heads take in turn.
        dropout: dropout rate of the attention weights.
        bias: whether the projections have a bias.
        batch_first: input is (B, N, embed_dim), else (N, B, embed_dim).
        rotary: apply rotary positions to queries and keys (``layers.attention.rotate``).
        backend: what computes the attention.

    Raises:
        ValueError: if a number is out of range.
    """

    in_proj_bias: nn.Parameter | None
    # Read by nn.TransformerEncoderLayer, whose inference path is dense attention: this keeps it from taking that.
    _qkv_same_embed_dim = False

    @abstractmethod
    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        pattern: Pattern | Sequence[Pattern],
        dropout: float = 0.0,
        bias: bool = True,
        batch_first: bool = True,
        rotary: bool = False,
        backend: Backend = "products",
    ) -> None:
        super().__init__()
        check_positive("embed_dim", embed_dim)
        check_positive("num_heads", num_heads)
        check_probability("dropout", dropout)
        check_backend(backend, dropout)
        if embed_dim % num_heads:
            raise ValueError(f"num_heads ({num_heads}) must divide embed_dim ({embed_dim})")
        if rotary and embed_dim // num_heads % 2:
            raise ValueError(
                f"rotary needs heads of an even size, but embed_dim / num_heads is {embed_dim // num_heads}"
            )
        self.embed_dim, self.num_heads, self.backend = embed_dim, num_heads, backend
        self.patterns = (pattern,) if isinstance(pattern, Pattern) else tuple(pattern[:num_heads])
        self.dropout, self.batch_first, self.rotary = dropout, batch_first, rotary
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.register_parameter("in_proj_bias", nn.Parameter(torch.zeros(3 * embed_dim)) if bias else None)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the input projection's weights and zeroes the biases; the output projection draws its own weights."""
        nn.init.xavier_uniform_(self.in_proj_weight)
        if self.in_proj_bias is not None:
            nn.init.zeros_(self.in_proj_bias)
            nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = False,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attention of a sequence to itself; the arguments are those of ``nn.MultiheadAttention``, in its order.

        Args:
            query: (B, N, embed_dim), or (N, B, embed_dim) without ``batch_first``; or one sequence (N, embed_dim).
            key: None, or the query itself.
            value: likewise.
            key_padding_mask: (B, N), or (N,) for one sequence, True for keys that no query sees; or floats, -inf for
                these, else 0. Padded queries are computed like any other.
            need_weights: also return the weights of each head, for plots; takes N^2 memory.
            attn_mask: None or torch's causal mask (N, N), which means ``is_causal``: else the pattern is the mask.
            average_attn_weights: of the weights return the mean over the heads.
            is_causal: position i sees only j <= i.

        Returns:
            The output, shaped like the query; the weights (B, H, N, N) without dropout, their mean (B, N, N), or None.

        Raises:
            ValueError: if key or value is not the query, on another ``attn_mask``, or on a wrong shape or dtype.
        """
        name = type(self).__name__
        if (key is not None and key is not query) or (value is not None and value is not query):
            raise ValueError(f"{name} is self-attention: leave out key and value, or pass the query itself")
        if query.is_nested:
            return self._nested(query, is_causal), None
        if query.dim() == 2:
            return self._one_sequence(query, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal)
        self._check_input("query", query)
        x = query if self.batch_first else query.transpose(0, 1)
        check_padding(key_padding_mask, *x.shape[:2])
        causal = means_causal(attn_mask, x.shape[1], is_causal, name)
        q, k, v = self._heads(x)
        dropout = self.dropout if self.training else 0.0
        output = self._join(self._attention(q, k, v, causal, key_padding_mask, dropout))
        weights = None
        if need_weights:
            bias = bias_of(self.mask(x.shape[1], causal).to(x.device))
            padding = key_bias(key_padding_mask, torch.float32)
            weights = dense_weights(q, k, bias if padding is None else bias + padding[:, None, None])
        return output, weights.mean(1) if weights is not None and average_attn_weights else weights

    def _one_sequence(self, x: Tensor, key_padding_mask: Tensor | None, *options: Any) -> tuple[Tensor, Tensor | None]:
        """The output and the weights of a sequence (N, embed_dim)."""
        batch = 0 if self.batch_first else 1
        padding = None if key_padding_mask is None else key_padding_mask[None]
        output, weights = self.forward(x.unsqueeze(batch), None, None, padding, *options)  # hooks see one call
        return output.squeeze(batch), None if weights is None else weights[0]

    def _nested(self, x: Tensor, causal: bool) -> Tensor:
        """The output for a nested tensor, in which ``nn.TransformerEncoder`` hands over padded input in eval."""
        lengths = torch.tensor([len(sequence) for sequence in x.unbind()], device=x.device)
        padded = x.to_padded_tensor(0.0)
        seen = torch.arange(padded.shape[1], device=x.device) < lengths[:, None]
        output, _ = self.forward(padded, key_padding_mask=~seen, is_causal=causal)
        return torch._nested_tensor_from_mask(output, seen, mask_check=False)

    def _attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        causal: bool,
        key_padding_mask: Tensor | None = None,
        dropout: float = 0.0,
    ) -> Tensor:
        patterns = self.patterns if len(self.patterns) > 1 else self.patterns[0]
        return pattern_attention(q, k, v, patterns, causal, key_padding_mask, dropout, self.backend)

    def mask(self, n: int, causal: bool = False) -> Tensor:
        """The pattern as a matrix, for plots and tests: (n, n) bool, True where query i (row) sees key j.

        Where heads have different patterns, (H, n, n).
        """
        masks = [pattern.mask(n, causal) for pattern in self.patterns]
        return masks[0] if len(masks) == 1 else torch.stack([masks[h % len(masks)] for h in range(self.num_heads)])

    def pairs(self, n: int, causal: bool = False) -> int:
        """Number of query-key pairs in the pattern over n positions; of the first head where heads differ."""
        return self.patterns[0].pairs(n, causal)

    def init_state(self, batch_size: int, max_length: int) -> AttentionState:
        """An empty state for decoding up to ``max_length`` positions, with the weights' dtype and device."""
        check_positive("batch_size", batch_size)
        check_positive("max_length", max_length)
        slots = max(pattern.memory(max_length) for pattern in self.patterns)
        shape = (batch_size, self.num_heads, slots, self.embed_dim // self.num_heads)
        return AttentionState(self.in_proj_weight.new_zeros(shape), self.in_proj_weight.new_zeros(shape), max_length)

    @torch.no_grad()
    def prefill(self, x: Tensor, state: AttentionState) -> tuple[Tensor, AttentionState]:
        """The causal outputs at the first N positions in one call, equal to N steps from an empty state.

        Args:
            x: (B, N, embed_dim), or (N, B, embed_dim) without ``batch_first``.
            state: from ``init_state``; updated in place.

        Returns:
            The outputs, shaped like x; the state.

        Raises:
            ValueError: if the state is not empty or too small, or on a wrong shape.
        """
        self._check_input("x", x)
        x = x if self.batch_first else x.transpose(0, 1)
        length, slots = x.shape[1], state.keys.shape[2]
        if len(x) != len(state.keys):
            raise ValueError(f"x has {len(x)} sequences, the state {len(state.keys)}")
        if state.length or length > state.max_length:
            raise ValueError(
                f"prefill needs an empty state of at least {length} positions; this one has {state.length} of "
                f"{state.max_length}"
            )
        q, k, v = self._heads(x)
        # A ring buffer keeps only the last positions.
        kept = torch.arange(max(0, length - slots), length, device=x.device)
        state.keys[:, :, kept % slots] = k[:, :, kept].to(state.keys.dtype)
        state.values[:, :, kept % slots] = v[:, :, kept].to(state.values.dtype)
        state.length = length
        return self._join(self._attention(q, k, v, True)), state

    @torch.no_grad()
    def step(self, x: Tensor, state: AttentionState) -> tuple[Tensor, AttentionState]:
        """The causal output at the next position, from the keys that its query sees; without gradient or dropout.

        Args:
            x: (B, 1, embed_dim), or (1, B, embed_dim) without ``batch_first``.
            state: from ``init_state`` or the previous step; updated in place.

        Returns:
            The output, shaped like x; the state.

        Raises:
            ValueError: if the state is full, or on a wrong shape.
        """
        self._check_input("x", x)
        x = x if self.batch_first else x.transpose(0, 1)
        if x.shape[:2] != (len(state.keys), 1):
            raise ValueError(
                f"a step takes one position of each sequence, ({len(state.keys)}, 1), not {tuple(x.shape[:2])}"
            )
        if state.length >= state.max_length:
            raise ValueError(f"the state is full: max_length ({state.max_length}) positions have been read")
        position, slots = state.length, state.keys.shape[2]
        q, k, v = self._heads(x, position, state.max_length)
        state.keys[:, :, position % slots] = k[:, :, 0].to(state.keys.dtype)
        state.values[:, :, position % slots] = v[:, :, 0].to(state.values.dtype)
        state.length += 1
        seen = [(pattern.visible(position) % slots).to(x.device) for pattern in self.patterns]
        heads = torch.empty_like(q)
        for number, index in enumerate(seen):
            part = slice(number, None, len(seen))
            keys, values = (kept[:, part].index_select(2, index).to(q.dtype) for kept in (state.keys, state.values))
            heads[:, part] = F.scaled_dot_product_attention(q[:, part], keys, values)
        return self._join(heads), state

    def _check_input(self, name: str, x: Tensor) -> None:
        if x.dim() != 3 or x.shape[-1] != self.embed_dim or 0 in x.shape:
            order = "(B, N, " if self.batch_first else "(N, B, "
            raise ValueError(f"{name} {tuple(x.shape)} must be a non-empty {order}embed_dim = {self.embed_dim})")

    def _heads(self, x: Tensor, first: int = 0, length: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, embed_dim) -> queries, keys, values (B, H, N, D); x begins at the first of ``length`` positions."""
        projected = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = projected.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if self.rotary:
            q, k = rotate_sequence(q, first, length), rotate_sequence(k, first, length)
        return q, k, v

    def _join(self, heads: Tensor) -> Tensor:
        """(B, H, N, D) -> the output."""
        output = self.out_proj(heads.transpose(1, 2).flatten(2))
        return output if self.batch_first else output.transpose(0, 1)

    def extra_repr(self) -> str:
        return f"{self.embed_dim}, {self.num_heads}, {', '.join(map(str, self.patterns))}"


def dense_weights(q: Tensor, k: Tensor, bias: Tensor) -> Tensor:
    """The attention weights (B, H, N, N), for plots; bias: broadcastable to them, -inf where a key is not seen."""
    logits = q.float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5 + bias
    return logits.softmax(-1).masked_fill((bias == -torch.inf).all(-1, keepdim=True), 0)
