"""The attention layers where torch expects its own: its encoder, its compiler, its export, derivatives of gradients."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from layers.attention import (
    AtrousAttention,
    FixedAttention,
    FullAttention,
    LocalAttention,
    MultiheadSelfAttention,
    SparseAttention,
    atrous_attention,
    fixed_attention,
    full_attention,
    local_attention,
    sparse_attention,
)
from layers.attention import attend as attend_module
from layers.attention.fused import fused_attention
from layers.attention.kernels import Products
from layers.attention.masks import key_bias
from layers.attention.patterns import Fixed, Local, Pattern, Sparse
from layers.attention.plans import plan
from layers.attention.rotary import kept_rotary_table

LAYERS = {
    "full": (FullAttention, {}),
    "atrous": (AtrousAttention, {"rate": 3}),
    "local": (LocalAttention, {"window": 2, "dilation": 2}),
    "sparse": (SparseAttention, {"rate": 4}),
    "fixed": (FixedAttention, {"block": 6, "summary": 2}),
    "distinct": (FixedAttention, {"block": 6, "summary": 2, "distinct": True}),
}


def make(name: str, **options: Any) -> MultiheadSelfAttention:
    torch.manual_seed(0)
    kind, numbers = LAYERS[name]
    return kind(8, 4, **numbers, **options)


def some_padding(batch: int, n: int) -> Tensor:
    padding = torch.zeros(batch, n, dtype=torch.bool)
    padding[1, n - 4 :] = True
    return padding


# ------------------------------------------------------------------------------------------------ torch's encoder


def encoders(replaced_before: bool, norm_first: bool) -> tuple[nn.TransformerEncoder, nn.TransformerEncoder, Tensor]:
    """torch's encoder with local attention, its own with the same weights, and what a query must not see."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 4, 16, dropout=0.0, batch_first=True, norm_first=norm_first)
    theirs = nn.TransformerEncoder(layer, 2)
    ours = nn.TransformerEncoder(layer, 2)
    for block in ours.layers:
        block.self_attn = LocalAttention(8, 4, window=2)
    if replaced_before:
        ours = nn.TransformerEncoder(ours.layers[0], 2)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs.train(), ~LocalAttention(8, 4, window=2).mask(11)


@pytest.mark.filterwarnings(
    "ignore:enable_nested_tensor", "ignore:Support for mismatched", "ignore:The PyTorch API of nested"
)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("replaced_before", [True, False])
def test_in_torchs_encoder(replaced_before: bool, norm_first: bool, training: bool):
    ours, theirs, hidden = encoders(replaced_before, norm_first)
    x, padding = torch.randn(2, 11, 8), some_padding(2, 11)
    causal = torch.ones(11, 11, dtype=torch.bool).triu(1)
    ours.train(training)
    paddings = (None, padding, torch.zeros(2, 11).masked_fill(padding, -torch.inf))
    masks = (None, causal, nn.Transformer.generate_square_subsequent_mask(11))
    for mask, ours_padding, with_grad in product(masks, paddings, (True, False)):
        real = ~padding if ours_padding is not None else torch.ones_like(padding)
        unseen = hidden if mask is None else hidden | causal
        expected = theirs(x, mask=unseen, src_key_padding_mask=None if ours_padding is None else padding)
        for is_causal in (None, mask is not None):
            with torch.set_grad_enabled(with_grad):
                output = ours(x, mask=mask, src_key_padding_mask=ours_padding, is_causal=is_causal)
            torch.testing.assert_close(output[real], expected[real])


@pytest.mark.parametrize("norm_first", [True, False])
def test_torchs_layer_gives_the_same_in_train_and_eval(norm_first: bool):
    layer = nn.TransformerEncoderLayer(8, 4, 16, dropout=0.0, batch_first=True, norm_first=norm_first)
    layer.self_attn = make("sparse")
    x, padding = torch.randn(2, 11, 8), some_padding(2, 11)
    for mask in (None, padding, torch.zeros(2, 11).masked_fill(padding, -torch.inf)):
        with torch.no_grad():
            torch.testing.assert_close(
                layer.eval()(x, src_key_padding_mask=mask), layer.train()(x, src_key_padding_mask=mask)
            )


@pytest.mark.parametrize("is_causal", [False, True])
def test_a_mask_that_is_not_causal_is_refused(is_causal: bool):
    layer, x = make("local"), torch.randn(1, 5, 8)
    causal = nn.Transformer.generate_square_subsequent_mask(5)
    for mask in (
        causal.T,
        causal * 0,
        causal[None],
        causal[:4, :4],
        causal.isinf().tril(),
        ~causal.isinf(),
        causal + 1,
    ):
        with pytest.raises(ValueError, match="takes no attn_mask but the causal one of") as error:
            layer(x, attn_mask=mask, is_causal=is_causal)
        assert "\n" not in str(error.value)
    torch.testing.assert_close(layer(x, attn_mask=causal.double())[0], layer(x, is_causal=True)[0])


def test_floats_in_a_padding_mask_are_added_to_the_logits():
    layer, x = make("full"), torch.randn(2, 9, 8)
    reference = nn.MultiheadAttention(8, 4, batch_first=True)
    reference.load_state_dict(layer.state_dict())
    mask = -torch.rand(2, 9)
    mask[1, 3], mask[1, 5] = -torch.inf, torch.finfo(torch.float32).min
    output, weights = layer(x, key_padding_mask=mask, need_weights=True)
    expected, expected_weights = reference(x, x, x, key_padding_mask=mask, average_attn_weights=False)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(weights, expected_weights)


# ------------------------------------------------------------------------------------------- compiler and export


@pytest.mark.parametrize("name", LAYERS)
def test_compiled_as_one_graph_it_equals_eager(name: str):
    layer, x, padding = make(name, rotary=True), torch.randn(2, 13, 8, requires_grad=True), some_padding(2, 13)
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for options in ({}, {"is_causal": True, "key_padding_mask": padding}):
        ours, expected = compiled(x, **options)[0], layer(x, **options)[0]
        torch.testing.assert_close(ours, expected)
        leaves = [x, *layer.parameters()]
        for part, expected_part in zip(
            torch.autograd.grad(ours.square().sum(), leaves),
            torch.autograd.grad(expected.square().sum(), leaves),
            strict=True,
        ):
            torch.testing.assert_close(part, expected_part)


def test_compiled_dropout_and_causal_mask():
    layer, x = make("sparse", dropout=0.5), torch.randn(2, 13, 8)
    causal = nn.Transformer.generate_square_subsequent_mask(13)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.manual_seed(0)
    expected, _ = layer(x, attn_mask=causal)
    torch.manual_seed(0)
    torch.testing.assert_close(compiled(x, attn_mask=causal, is_causal=True)[0], expected)
    assert not torch.equal(compiled(x)[0], compiled(x)[0])
    with pytest.raises(Exception, match="pass is_causal=True"):
        torch.compile(make("sparse"), fullgraph=True, backend="aot_eager")(x, attn_mask=causal)


@pytest.mark.parametrize("name", LAYERS)
def test_exported_it_takes_other_lengths(name: str):
    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = make(name, rotary=True)

        def forward(self, x: Tensor, padding: Tensor) -> Tensor:
            return self.attention(x, key_padding_mask=padding, is_causal=True)[0]

    length = torch.export.Dim("length", min=2, max=512)
    shapes = {"x": {1: length}, "padding": {1: length}}
    exported = torch.export.export(Causal(), (torch.randn(2, 13, 8), some_padding(2, 13)), dynamic_shapes=shapes)
    x, padding = torch.randn(2, 29, 8), some_padding(2, 29)
    torch.testing.assert_close(exported.module()(x, padding), Causal()(x, padding))


# ------------------------------------------------------------------------------------------- second derivatives

FUNCTIONS = {
    "full": (full_attention, {}),
    "atrous": (atrous_attention, {"rate": 3}),
    "local": (local_attention, {"window": 2}),
    "sparse": (sparse_attention, {"rate": 3}),
    "fixed": (fixed_attention, {"block": 3, "summary": 1, "distinct": True}),
}


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_second_derivatives_match_finite_differences(name: str, dropout: float):
    function, numbers = FUNCTIONS[name]
    q, k, v = (torch.randn(1, 2, 7, 2, dtype=torch.float64, requires_grad=True) for _ in range(3))
    padding = torch.zeros(1, 7, dtype=torch.bool)
    padding[0, :2] = True

    def same_zeros(*tensors: Tensor) -> Tensor:
        torch.manual_seed(0)
        return function(*tensors, **numbers, causal=True, key_padding_mask=padding, dropout=dropout)

    assert torch.autograd.gradgradcheck(same_zeros, (q, k, v))
    output = same_zeros(q, k, v)
    plain = torch.autograd.grad(output.square().sum(), (q, k, v), retain_graph=True)
    for ours, expected in zip(
        torch.autograd.grad(output.square().sum(), (q, k, v), create_graph=True), plain, strict=True
    ):
        torch.testing.assert_close(ours, expected)


def test_second_derivative_beside_a_residual_equals_torchs():
    layer, x = make("full").double(), torch.randn(1, 10, 8, dtype=torch.float64, requires_grad=True)
    reference = nn.MultiheadAttention(8, 4, batch_first=True).double()
    reference.load_state_dict(layer.state_dict())
    norms = []
    for attention in (layer, reference):
        y = x + attention(x, x, x)[0]
        (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        norms.append(torch.autograd.grad(gradient.square().sum(), x)[0])
    torch.testing.assert_close(*norms)


# ----------------------------------------------------------------------------------------------------- what is kept


def test_masks_and_tables_of_the_next_step_are_the_same_objects():
    for name in ("local", "sparse", "fixed"):
        pattern = make(name).patterns[0]
        key = (pattern, 23, True, torch.device("cpu"), torch.float32)
        assert plan(*key) is plan(*key)
        biases = [piece.bias for branch in plan(*key) for piece in branch]
        assert any(bias is not None for bias in biases)
        assert plan(pattern, 24, *key[2:]) is not plan(*key)
    assert kept_rotary_table(23, 2, torch.device("cpu")) is kept_rotary_table(23, 2, torch.device("cpu"))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("pattern", [Local(64), Sparse(64), Fixed(64, 8)], ids=str)
def test_what_is_kept_does_not_grow_with_the_square_of_the_length(pattern: Pattern, causal: bool):
    kept = []
    for n in (3000, 24_000):
        branches = plan(pattern, n, causal, torch.device("cpu"), torch.float32)
        biases = [piece.bias for branch in branches for piece in branch if piece.bias is not None]
        kept.append(sum({x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in biases}.values()))
    assert kept[1] <= 1.5 * kept[0]


class Made(TorchDispatchMode):
    """Names of operators that make indices, upload, or wait for a device, also inside of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.__name__.split(".")[0]
        if name in {"arange", "nonzero", "_local_scalar_dense", "lift_fresh", "_to_copy"}:
            self.names.append(name)
        ours = {"attend": attend_module._attend, "attend_backward": attend_module._attend_backward}.get(name)
        if ours is None:
            return function(*args, **(kwargs or {}))
        with self:
            return ours._init_fn(*args)


@pytest.mark.parametrize("name", LAYERS)
def test_a_step_makes_no_indices_and_waits_for_no_device(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attend_module, "_kernel", lambda q, dropout, seed: Products(2**20))  # as on a GPU
    layer, x, padding = make(name, rotary=True), torch.randn(2, 23, 8), some_padding(2, 23)
    with Made() as made:
        plan.__wrapped__(Sparse(4), 23, False, x.device, x.dtype)
    assert made.names  # what a first step does
    layer(x, key_padding_mask=padding)
    with Made() as made:
        layer(x, key_padding_mask=padding)[0].sum().backward()
    assert made.names == []


def test_what_inference_mode_made_serves_training():
    layer, x = make("local", rotary=True), torch.randn(1, 37, 8)
    with torch.inference_mode():
        layer(x)
    layer(x)[0].sum().backward()


def test_causal_attention_with_padding_makes_no_square_mask():
    n, sizes = 64, []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            sizes.extend(x.shape for x in (result if isinstance(result, tuple) else (result,)) if isinstance(x, Tensor))
            return result

    q = torch.randn(2, 2, n, 8)
    with Sizes():
        fused_attention(q, q, q, True, key_bias(some_padding(2, n), q.dtype), 0.0)
    assert sizes
    assert all(shape[-2:] != (n, n) for shape in sizes)
