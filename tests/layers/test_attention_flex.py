"""The FlexAttention backend against dense attention, without a gradient on the CPU."""

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask

from layers.attention import (
    FixedAttention,
    LocalAttention,
    SparseAttention,
    fixed_attention,
    local_attention,
    sparse_attention,
)
from layers.attention.flex import block_mask

PATTERNS = {
    "local": (local_attention, LocalAttention, {"window": 9, "dilation": 2}),
    "sparse": (sparse_attention, SparseAttention, {"rate": 11}),
    "fixed": (fixed_attention, FixedAttention, {"block": 140, "summary": 3}),
    "distinct": (fixed_attention, FixedAttention, {"block": 16, "summary": 5, "distinct": True}),
}


def dense(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the mask's pairs in float64; empty rows are 0."""
    logits = (q.double() @ k.double().transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~mask, -1e9)
    return (logits.softmax(-1) * mask.any(-1, keepdim=True)) @ v.double()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", PATTERNS)
def test_equals_dense_attention(name: str, causal: bool):
    function, kind, numbers = PATTERNS[name]
    for n in (1, 200):  # within a block of the mask, and over several
        q, k, v = (torch.randn(2, 3, n, 8) for _ in range(3))
        padding = torch.rand(2, n) < 0.3
        padding[1] = True
        pattern = kind(24, 3, **numbers).mask(n, causal)
        for mask in (None, padding):
            seen = pattern if mask is None else pattern & ~mask[:, None, None]
            with torch.no_grad():
                ours = function(q, k, v, **numbers, causal=causal, key_padding_mask=mask, backend="flex")
            torch.testing.assert_close(ours.double(), dense(q, k, v, seen), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["local", "sparse", "fixed"])
def test_blocks_are_those_that_torch_finds(name: str):
    pattern = PATTERNS[name][1](32, 4, **PATTERNS[name][2]).patterns[0]
    for causal in (False, True):
        key = (pattern, 700, causal, torch.device("cpu"))
        ours = block_mask(*key)
        assert ours is block_mask(*key)
        theirs = create_block_mask(ours.mask_mod, None, None, 700, 700, device="cpu")
        assert torch.equal(ours.to_dense(), theirs.to_dense())
        assert torch.equal(ours.full_kv_num_blocks, theirs.full_kv_num_blocks)
    assert ours.sparsity() > 0  # some are empty


def test_a_layer_with_the_backend_equals_the_layer_without():
    torch.manual_seed(0)
    layer = SparseAttention(16, 2, rate=5, rotary=True, backend="flex")
    other = SparseAttention(16, 2, rate=5, rotary=True)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(2, 33, 16)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, is_causal=True)[0], other(x, is_causal=True)[0])
    with pytest.raises(ValueError, match="'flex' has no gradient on the CPU"):
        layer(x)


def test_what_it_lacks_is_refused():
    q = torch.zeros(1, 2, 6, 4)
    with pytest.raises(ValueError, match=r"'flex' has neither torch\.func nor forward-mode"), torch.no_grad():
        torch.func.jvp(lambda x: local_attention(x, q, q, window=2, backend="flex"), (q,), (q,))
    with pytest.raises(ValueError, match="'flex' has no dropout"):
        local_attention(q, q, q, window=2, dropout=0.1, backend="flex")
    with pytest.raises(ValueError, match="'flex' has no dropout"):
        LocalAttention(8, 2, dropout=0.1, backend="flex")
    with pytest.raises(ValueError, match=r"backend \('flexible'\) must be one of products, flex"):
        SparseAttention(8, 2, backend="flexible")
