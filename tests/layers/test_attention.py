"""Attention functions against dense attention under the mask of the definition."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from layers.attention import atrous_attention, fixed_attention, full_attention, local_attention, sparse_attention
from layers.attention import attend as attend_module
from layers.attention import patterns as patterns_module
from layers.attention.fused import fused_atrous_attention, fused_attention
from layers.attention.kernels import FlashCPU, Products
from layers.attention.masks import key_bias
from layers.attention.plans import plan

# name: (function, its numbers, whether query i sees key j)
PATTERNS = {
    "full": (full_attention, {}, lambda i, j: True),
    "atrous": (atrous_attention, {"rate": 7}, lambda i, j: (i - j) % 7 == 0),
    "atrous 1": (atrous_attention, {"rate": 1}, lambda i, j: True),
    "local": (local_attention, {"window": 5}, lambda i, j: abs(i - j) <= 5),
    "dilated": (local_attention, {"window": 2, "dilation": 3}, lambda i, j: abs(i - j) in (0, 3, 6)),
    "sparse": (sparse_attention, {"rate": 8}, lambda i, j: abs(i - j) <= 8 or (i - j) % 8 == 0),
    "sparse 1": (sparse_attention, {"rate": 1}, lambda i, j: True),
    "fixed": (fixed_attention, {"block": 8, "summary": 2}, lambda i, j: i // 8 == j // 8 or j % 8 >= 6),
}
Rule = Callable[[int, int], bool]


def dense(q: Tensor, k: Tensor, v: Tensor, rule: Rule, causal: bool, padding: Tensor | None = None) -> Tensor:
    """Softmax over the rule's pairs in float64, the rule evaluated pair by pair; empty rows are 0."""
    batch, heads, n, size = q.shape
    mask = torch.tensor([[rule(i, j) and (j <= i or not causal) for j in range(n)] for i in range(n)])
    mask = mask.expand(batch, heads, n, n)
    if padding is not None:
        mask = mask & ~padding[:, None, None, :]
    logits = (q.double() @ k.double().transpose(-1, -2) / math.sqrt(size)).masked_fill(~mask, -1e9)
    weights = logits.softmax(-1) * mask.any(-1, keepdim=True)
    return weights @ v.double()


def inputs(
    batch: int, heads: int, n: int, size: int, dtype: torch.dtype = torch.float32, seed: int = 0
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, heads, n, size, generator=generator).to(dtype).requires_grad_() for _ in range(3)]


def random_padding(batch: int, n: int, seed: int = 0) -> Tensor:
    """Half of the keys, the first of each row (so that causal rows are empty), and the whole last row."""
    padding = torch.rand(batch, n, generator=torch.Generator().manual_seed(seed)) < 0.5
    padding[:, 0] = True
    padding[-1] = True
    return padding


def assert_same(ours: Tensor, theirs: Tensor, tensors: list[Tensor], tolerance: float = 1e-5) -> None:
    """Values, and gradients of a weighted sum, differ by at most the tolerance."""
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    assert ours.dtype == tensors[0].dtype
    assert (ours.double() - theirs).abs().max() <= tolerance
    mine = torch.autograd.grad((ours.float() * weights).sum(), tensors, retain_graph=True)
    reference = torch.autograd.grad((theirs.float() * weights).sum(), tensors)
    for ours_part, part in zip(mine, reference, strict=True):
        assert not ours_part.isnan().any()
        assert (ours_part.double() - part.double()).abs().max() <= tolerance


@pytest.fixture(params=["flash", "products"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's kernel, and that of other devices in chunks small enough to split tiles and rows."""
    chosen = FlashCPU() if request.param == "flash" else Products(most_logits=150)
    monkeypatch.setattr(attend_module, "_kernel", lambda q, dropout, seed: chosen)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.usefixtures("kernel")
def test_equals_dense_attention_with_the_mask(name: str, causal: bool, padded: bool):
    function, numbers, rule = PATTERNS[name]
    for n in (1, 3, 16, 45, 64):  # below, between and multiples of rate and block
        q, k, v = inputs(2, 2, n, 8)
        padding = random_padding(2, n) if padded else None
        ours = function(q, k, v, **numbers, causal=causal, key_padding_mask=padding)
        assert_same(ours, dense(q, k, v, rule, causal, padding), [q, k, v])


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["atrous", "local", "sparse", "fixed"]),
    n=st.integers(1, 90),
    first=st.integers(1, 100),
    second=st.integers(1, 12),
    size=st.integers(1, 9),
    causal=st.booleans(),
    padded=st.booleans(),
)
def test_equals_dense_attention_at_any_size(
    kind: str, n: int, first: int, second: int, size: int, causal: bool, padded: bool
):
    summary = min(first, second)
    function, numbers, rule = {
        "atrous": (atrous_attention, {"rate": first}, lambda i, j: (i - j) % first == 0),
        "local": (
            local_attention,
            {"window": first, "dilation": second},
            lambda i, j: (i - j) % second == 0 and abs(i - j) <= first * second,
        ),
        "sparse": (sparse_attention, {"rate": first}, lambda i, j: abs(i - j) <= first or (i - j) % first == 0),
        "fixed": (
            fixed_attention,
            {"block": first, "summary": summary},
            lambda i, j: i // first == j // first or j % first >= first - summary,
        ),
    }[kind]
    q, k, v = inputs(2, 1, n, size, seed=n)
    padding = random_padding(2, n) if padded else None
    ours = function(q, k, v, **numbers, causal=causal, key_padding_mask=padding)
    assert_same(ours, dense(q, k, v, rule, causal, padding), [q, k, v])


@pytest.mark.parametrize("name", ["atrous", "local", "sparse", "fixed"])
def test_wide_heads_and_many_tiles(name: str):
    function, numbers, rule = PATTERNS[name]
    q, k, v = inputs(1, 1, 211, 256)
    assert_same(function(q, k, v, **numbers), dense(q, k, v, rule, False), [q, k, v])


def test_pieces_are_split_into_parts_of_bounded_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        attend_module,
        "plan",
        lambda *key: [[part for piece in branch for part in piece.split(150)] for branch in plan(*key)],
    )
    q, k, v = inputs(1, 2, 211, 4)
    ours = sparse_attention(q, k, v, rate=10)
    assert_same(ours, dense(q, k, v, lambda i, j: abs(i - j) <= 10 or (i - j) % 10 == 0, False), [q, k, v])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.usefixtures("kernel")
def test_fixed_attention_in_chunks_of_queries(causal: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(patterns_module, "FIXED_ROWS", 17)
    function, numbers, rule = PATTERNS["fixed"]
    q, k, v = inputs(2, 1, 103, 4)
    padding = random_padding(2, 103)
    ours = function(q, k, v, **numbers, causal=causal, key_padding_mask=padding)
    assert_same(ours, dense(q, k, v, rule, causal, padding), [q, k, v])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.usefixtures("kernel")
def test_half_precision_is_close_to_dense_attention_on_the_rounded_inputs(dtype: torch.dtype, name: str, causal: bool):
    function, numbers, rule = PATTERNS[name]
    q, k, v = inputs(2, 1, 45, 16, dtype)
    tolerance = 0.03 if dtype == torch.bfloat16 else 0.004
    assert_same(function(q, k, v, **numbers, causal=causal), dense(q, k, v, rule, causal), [q, k, v], tolerance)


@pytest.mark.parametrize("name", ["full", "atrous", "local", "dilated", "sparse", "fixed"])
@pytest.mark.usefixtures("kernel")
def test_gradients_match_finite_differences(name: str):
    function, numbers, _ = PATTERNS[name]
    q, k, v = (x.detach().double().requires_grad_() for x in inputs(1, 1, 13, 2))
    padding = torch.zeros(1, 13, dtype=torch.bool)
    padding[0, :3] = True
    for causal in (False, True):
        assert torch.autograd.gradcheck(
            lambda q, k, v, causal=causal: function(q, k, v, **numbers, causal=causal, key_padding_mask=padding),
            (q, k, v),
        )


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_gpu_paths_through_torchs_attention_equal_dense_attention(causal: bool, padded: bool):
    q, k, v = inputs(2, 2, 30, 4)
    padding = random_padding(2, 30) if padded else None
    bias = key_bias(padding, q.dtype)
    for rate in (4, 5, 40):
        ours = fused_atrous_attention(q, k, v, rate, causal, bias, 0.0)
        assert_same(ours, dense(q, k, v, lambda i, j, rate=rate: (i - j) % rate == 0, causal, padding), [q, k, v])
    ours = fused_attention(q, k, v, causal, bias, 0.0)
    assert_same(ours, dense(q, k, v, lambda i, j: True, causal, padding), [q, k, v])


# ---------------------------------------------------------------------------------- five bugs of the predecessor


@pytest.mark.parametrize("name", PATTERNS)
def test_non_causal_attention_is_not_uniform(name: str):
    function, numbers, _ = PATTERNS[name]
    n = 57
    # Keys that query 28 sees, far ones if the pattern has any.
    places = {"atrous": [28, 0, 56], "sparse": [28, 4, 25]}.get(name, [28, 25, 31])
    logits = torch.full((n,), -1e4)
    logits[places] = torch.tensor([0.3, 2.0, -1.0])
    q = torch.ones(1, 1, n, 1)
    v = torch.eye(n)[None, None]
    k = logits[None, None, :, None]
    pad = torch.zeros(1, 1, n, n - 1)
    output = function(torch.cat([q, pad], -1) * math.sqrt(n), torch.cat([k, pad], -1), v, **numbers)
    expected = torch.tensor([0.148, 0.811, 0.040])
    torch.testing.assert_close(output[0, 0, 28, places], expected, atol=1e-3, rtol=0)


def reached(function: Callable, n: int, query: int, **numbers: int) -> list[int]:
    """The keys whose values change the query's output, each with equal weight."""
    v = torch.eye(n)[None, None]
    weights = function(torch.zeros(1, 1, n, n), torch.zeros(1, 1, n, n), v, **numbers)[0, 0, query]
    seen = weights.nonzero().flatten()
    torch.testing.assert_close(weights[seen], torch.full((len(seen),), 1 / len(seen)))  # none is counted twice
    return seen.tolist()


def test_sparse_attention_sees_neighbours_and_counts_the_centre_once():
    assert reached(sparse_attention, 41, 20, rate=4) == [0, 4, 8, 12, *range(16, 25), 28, 32, 36, 40]


def test_no_padding_is_attended_to():
    assert reached(local_attention, 20, 0, window=3) == [0, 1, 2, 3]
    assert reached(local_attention, 20, 19, window=3) == [16, 17, 18, 19]
    for n in (12, 13, 14, 15):  # a multiple of the rate, and not
        assert reached(atrous_attention, n, n - 1, rate=3) == list(range((n - 1) % 3, n, 3))
        assert reached(atrous_attention, n, 0, rate=3) == list(range(0, n, 3))


def test_fixed_attention_sees_last_keys_of_blocks():
    assert reached(fixed_attention, 22, 9, block=8, summary=2) == [6, 7, *range(8, 16)]
    assert reached(fixed_attention, 24, 9, block=8, summary=2) == [6, 7, *range(8, 16), 22, 23]
    assert reached(fixed_attention, 24, 12, block=8, summary=2, causal=True) == [6, 7, *range(8, 13)]


# ------------------------------------------------------------------------------------------------- dropout, refusals


@pytest.mark.parametrize("name", ["full", "atrous", "local", "sparse", "fixed"])
def test_dropout_zeroes_weights_and_scales_the_others(name: str):
    function, numbers, rule = PATTERNS[name]
    n = 60
    q, k, _ = (x.detach() for x in inputs(1, 1, n, n))
    v = torch.eye(n)[None, None]
    torch.manual_seed(0)
    ratio = (function(q, k, v, **numbers, dropout=0.25) / dense(q, k, v, rule, False).float())[0, 0]
    seen = torch.tensor([[rule(i, j) for j in range(n)] for i in range(n)])
    values = ratio[seen]
    kept = values > 0.5
    torch.testing.assert_close(values[kept], torch.full_like(values[kept], 4 / 3))
    assert not values[~kept].any()
    assert abs(kept.float().mean() - 0.75) < 4 * math.sqrt(0.25 * 0.75 / len(kept))


@pytest.mark.parametrize("name", ["full", "dilated", "sparse", "fixed"])
def test_gradient_uses_the_same_dropout_as_the_value(name: str):
    function, numbers, _ = PATTERNS[name]
    q, k, v = (x.detach().double().requires_grad_() for x in inputs(1, 2, 11, 2))

    def same_zeros(*tensors: Tensor) -> Tensor:
        torch.manual_seed(0)
        return function(*tensors, **numbers, dropout=0.4)

    assert torch.autograd.gradcheck(same_zeros, (q, k, v))
    torch.manual_seed(1)
    assert not torch.equal(function(q, k, v, **numbers, dropout=0.4), same_zeros(q, k, v))


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (r"rate \(0\) must be", lambda x: atrous_attention(x, x, x, rate=0)),
        (r"rate \(2.5\) must be", lambda x: sparse_attention(x, x, x, rate=2.5)),
        (r"window \(-1\) must be", lambda x: local_attention(x, x, x, window=-1)),
        (r"dilation \(0\) must be", lambda x: local_attention(x, x, x, window=1, dilation=0)),
        (r"summary \(5\) must be at most block \(4\)", lambda x: fixed_attention(x, x, x, block=4, summary=5)),
        (r"dropout \(1\) must be", lambda x: full_attention(x, x, x, dropout=1)),
        (r"q \(2, 6, 4\).*must be", lambda x: full_attention(x[0], x[0], x[0])),
        (r"k \(1, 2, 5, 4\).*must be like q", lambda x: full_attention(x, x[:, :, 1:], x)),
        (r"v .*float64.*must be like q", lambda x: full_attention(x, x, x.double())),
        (
            r"key_padding_mask \(1, 5\).*\(1, 6\)",
            lambda x: full_attention(x, x, x, key_padding_mask=torch.ones(1, 5) > 0),
        ),
        (r"key_padding_mask.*torch.float32", lambda x: full_attention(x, x, x, key_padding_mask=torch.ones(1, 6))),
    ],
)
def test_invalid_input_is_refused_in_one_line(message: str, call: Callable[[Tensor], Tensor]):
    with pytest.raises(ValueError, match=message) as error:
        call(torch.zeros(1, 2, 6, 4))
    assert "\n" not in str(error.value)
