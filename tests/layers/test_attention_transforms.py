"""Attention under torch.func and in forward mode, against a formula in operators that they know."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

from layers.attention.plans import plan
from layers.attention.rotary import kept_rotary_table
from tests.layers.test_attention_in_torch import FUNCTIONS, LAYERS, make, some_padding


def by_formula(mask: Tensor, padding: Tensor) -> Any:
    """Attention under a mask, in operators that torch.func knows."""

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen = mask & ~padding[:, None, None]
        logits = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill(~seen, -1e30)
        weights = (logits - logits.amax(-1, keepdim=True)).exp() * seen
        return weights / weights.sum(-1, keepdim=True).clamp(min=1e-300) @ v

    return attention


@pytest.mark.parametrize("name", LAYERS)
def test_transforms_and_forward_mode_match_the_formula(name: str):
    def with_q(attention: Any) -> Any:
        return lambda q: attention(q, k, v)

    def loss(attention: Any) -> Any:
        return lambda q: attention(q, k, v).square().sum()

    (kind, numbers), n = LAYERS[name], 13
    function = {**FUNCTIONS, "distinct": FUNCTIONS["fixed"]}[name][0]
    q, k, v = (torch.randn(2, 4, n, 2, dtype=torch.float64) for _ in range(3))
    padding = some_padding(2, n)
    padding[0, :2] = True
    options = {**numbers, "causal": True, "key_padding_mask": padding}
    attentions = [
        lambda *tensors: function(*tensors, **options),
        by_formula(kind(8, 4, **numbers).mask(n, True), padding),
    ]
    found = []
    for attention in attentions:
        with forward_ad.dual_level():
            tangent = forward_ad.unpack_dual(attention(forward_ad.make_dual(q, k), k, v)).tangent
        found.append(
            [
                tangent,
                torch.func.jvp(attention, (q, k, v), (v, q, k))[1],
                torch.func.vmap(torch.func.grad(loss(attention)))(torch.stack([q, k])),
                torch.func.jvp(torch.func.grad(loss(attention)), (q,), (k,))[1],
                torch.func.vmap(with_q(attention))(torch.stack([k, v])),
            ]
        )
    assert found[0][0] is not None
    torch.testing.assert_close(*found)


def test_logits_are_not_rounded_under_autocast():
    """Where they are, a row's highest is off by more than exp() can take."""
    q, k, v = (torch.randn(1, 1, 13, 8) for _ in range(3))

    def attention(q: Tensor) -> Tensor:
        return FUNCTIONS["local"][0](q, 1e4 * k, v, window=3)

    expected = torch.func.jvp(attention, (q,), (v,))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(torch.func.jvp(attention, (q,), (v,)), expected)


def test_per_sample_gradients_and_dropout_of_a_layer():
    layer, x = make("distinct", rotary=True), torch.randn(3, 9, 8)
    parameters = dict(layer.named_parameters())

    def loss(parameters: dict[str, Tensor], sequence: Tensor, padding: Tensor) -> Tensor:
        options = {"key_padding_mask": padding, "is_causal": True}
        return torch.func.functional_call(layer, parameters, (sequence,), options)[0].square().sum()

    paddings = torch.zeros(3, 9).masked_fill(torch.arange(9) > 6, -torch.inf)
    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, x, paddings)
    for number in range(3):
        (expected,) = torch.autograd.grad(loss(parameters, x[number], paddings[number]), [layer.in_proj_weight])
        torch.testing.assert_close(each["in_proj_weight"][number], expected)
    random = make("sparse", dropout=0.5)
    outputs = torch.func.vmap(lambda y: random(y)[0], randomness="different")(x[:1].expand(2, 9, 8))
    assert not torch.equal(*outputs)


def test_what_transforms_and_fake_tensors_made_is_not_kept():
    layer = make("sparse", rotary=True)
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.randn(1, 41, 8, requires_grad=True)
        output, _ = layer(x, key_padding_mask=torch.zeros(1, 41))
        torch.autograd.grad(output.sum(), x, create_graph=True)
    torch.func.grad(lambda y: layer(y)[0].sum())(torch.randn(1, 41, 8))
    device = torch.device("cpu")
    kept = [*kept_rotary_table(41, 2, device)]
    branches = plan(layer.patterns[0], 41, False, device, torch.float32)
    kept += [piece.bias for branch in branches for piece in branch if piece.bias is not None]
    assert all(type(x) is Tensor and not torch._C._functorch.is_functorch_wrapped_tensor(x) for x in kept)
