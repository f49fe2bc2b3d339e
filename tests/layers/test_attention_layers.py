"""Self-attention layers, their patterns, positions, decoding, and the encoder built from them."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from layers.attention import (
    AtrousAttention,
    FixedAttention,
    FullAttention,
    LocalAttention,
    MultiheadSelfAttention,
    SparseAttention,
    rotate,
)

LAYERS = {
    "full": (FullAttention, {}),
    "atrous": (AtrousAttention, {"rate": 3}),
    "local": (LocalAttention, {"window": 2}),
    "dilated": (LocalAttention, {"window": 2, "dilation": 3}),
    "sparse": (SparseAttention, {"rate": 4}),
    "fixed": (FixedAttention, {"block": 6, "summary": 2}),
}


def make(name: str, **options: bool | float) -> MultiheadSelfAttention:
    torch.manual_seed(0)
    kind, numbers = LAYERS[name]
    return kind(12, 2, **numbers, **options)


def by_multihead_attention(layer: MultiheadSelfAttention, x: Tensor, padding: Tensor | None, causal: bool) -> list:
    """torch's layer with the same weights, and the pattern as its mask: output and weights of each head."""
    reference = nn.MultiheadAttention(12, 2, batch_first=True)
    reference.load_state_dict(layer.state_dict())
    return list(reference(x, x, x, padding, attn_mask=~layer.mask(x.shape[1], causal), average_attn_weights=False))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_layer_equals_torchs_multihead_attention_under_the_mask(name: str, causal: bool):
    layer, x = make(name), torch.randn(2, 23, 12)
    padding = torch.zeros(2, 23, dtype=torch.bool)
    # Every row still sees a key: torch's layer gives NaN for empty ones.
    padding[1, [5, 22]] = not causal and name == "full"
    output, weights = layer(x, x, x, key_padding_mask=padding, need_weights=True, is_causal=causal)
    expected, expected_weights = by_multihead_attention(layer, x, padding, causal)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(weights, expected_weights)
    assert layer(x)[1] is None


@pytest.mark.parametrize("batch_first", [True, False])
def test_one_sequence_and_mean_weights_in_the_order_of_torchs_arguments(batch_first: bool):
    layer = make("sparse", batch_first=batch_first)
    reference = nn.MultiheadAttention(12, 2, batch_first=batch_first)
    reference.load_state_dict(layer.state_dict())
    x, padding = torch.randn(23, 12), torch.zeros(23, dtype=torch.bool)
    padding[-3:] = True
    for average in (False, True):
        ours = layer(x, x, x, padding, True, None, average)
        torch.testing.assert_close(ours, reference(x, x, x, padding, True, ~layer.mask(23), average))
    assert layer(x)[1] is None
    calls: list[torch.Size] = []
    layer.register_forward_hook(lambda _, args, output: calls.append(output[0].shape))
    layer(x)
    assert calls == [x.shape]


def test_sequence_first():
    layer, x = make("sparse", batch_first=False), torch.randn(23, 2, 12)
    other = make("sparse")
    torch.testing.assert_close(layer(x)[0], other(x.transpose(0, 1))[0].transpose(0, 1))
    state = layer.init_state(2, 1)
    torch.testing.assert_close(
        layer.step(x[:1], state)[0], other.step(x[0][:, None], other.init_state(2, 1))[0].transpose(0, 1)
    )


@pytest.mark.parametrize(
    ("name", "numbers", "count", "causal_count"),
    [  # from the description of the technique: n = 100 with distance 7, n = 64 with distance 8
        ("atrous", (100, 7), 1430, (1430 + 100) // 2),
        ("local", (100, 7), 1444, (1444 + 100) // 2),
        ("sparse", (100, 7), 2588, 1344),
        ("atrous", (64, 8), 512, (512 + 64) // 2),
        ("local", (64, 8), 1016, (1016 + 64) // 2),
        ("sparse", (64, 8), 1352, (1352 + 64) // 2),
    ],
)
def test_counts_of_pairs(name: str, numbers: tuple[int, int], count: int, causal_count: int):
    n, distance = numbers
    layer = LAYERS[name][0](4, 1, **{"window" if name == "local" else "rate": distance})
    assert layer.pairs(n) == count
    assert layer.pairs(n, causal=True) == causal_count


@pytest.mark.parametrize("n", [1, 2, 5, 6, 17, 40])
@pytest.mark.parametrize("name", LAYERS)
def test_mask_is_the_definition_and_its_pairs_are_counted(name: str, n: int):
    rule: Callable[[int, int], bool] = {
        "full": lambda i, j: True,
        "atrous": lambda i, j: (i - j) % 3 == 0,
        "local": lambda i, j: abs(i - j) <= 2,
        "dilated": lambda i, j: abs(i - j) in (0, 3, 6),
        "sparse": lambda i, j: (i - j) % 4 == 0 or abs(i - j) <= 4,
        "fixed": lambda i, j: i // 6 == j // 6 or j % 6 >= 4,
    }[name]
    layer = make(name)
    for causal in (False, True):
        expected = [[rule(i, j) and (j <= i or not causal) for j in range(n)] for i in range(n)]
        assert layer.mask(n, causal).tolist() == expected
        assert layer.pairs(n, causal) == sum(map(sum, expected))


@pytest.mark.parametrize(("block", "summary", "heads"), [(9, 3, 4), (8, 3, 4), (6, 1, 2)])  # two heads share; some end
def test_distinct_sub_blocks_of_the_fixed_pattern(block: int, summary: int, heads: int):
    layer, x = FixedAttention(8, heads, block=block, summary=summary, distinct=True), torch.randn(2, 31, 8)
    for causal in (False, True):
        mask = layer.mask(31, causal)
        for head in range(heads):
            last = block - head % (block // summary) * summary
            seen = [
                [i // block == j // block or last - summary <= j % block < last for j in range(31)] for i in range(31)
            ]
            expected = torch.tensor(seen).tril() if causal else torch.tensor(seen)
            assert torch.equal(mask[head], expected)
            assert layer.patterns[head % len(layer.patterns)].pairs(31, causal) == expected.sum()
        reference = nn.MultiheadAttention(8, heads, batch_first=True)
        reference.load_state_dict(layer.state_dict())
        expected, _ = reference(x, x, x, attn_mask=~mask.repeat(2, 1, 1))
        torch.testing.assert_close(layer(x, is_causal=causal)[0], expected)
    state, outputs = layer.init_state(2, 31), []
    for i in range(31):
        output, state = layer.step(x[:, i : i + 1], state)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, 1), expected)


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_steps_equal_the_causal_forward(name: str, rotary: bool):
    layer, x = make(name, rotary=rotary), torch.randn(2, 31, 12)
    state = layer.init_state(2, 31)
    outputs = []
    for i in range(31):
        output, state = layer.step(x[:, i : i + 1], state)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, 1), layer(x, is_causal=True)[0])
    with pytest.raises(ValueError, match=r"max_length \(31\)"):
        layer.step(x[:, :1], state)


@pytest.mark.parametrize("first", [1, 2, 12, 30])
@pytest.mark.parametrize("name", LAYERS)
def test_prefill_equals_that_many_steps(name: str, first: int):
    layer, x = make(name, rotary=True), torch.randn(2, 31, 12)
    output, state = layer.prefill(x[:, :first], layer.init_state(2, 31))
    outputs = [output]
    for i in range(first, 31):
        output, state = layer.step(x[:, i : i + 1], state)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, 1), layer(x, is_causal=True)[0])
    with pytest.raises(ValueError, match="empty state of at least 3 positions; this one has 31 of 31"):
        layer.prefill(x[:, :3], state)
    sequence_first = make(name, rotary=True, batch_first=False)
    output, _ = sequence_first.prefill(x[:, :first].transpose(0, 1), sequence_first.init_state(2, 31))
    torch.testing.assert_close(output.transpose(0, 1), outputs[0])


def test_decoding_keeps_only_the_windows_keys():
    assert make("local").init_state(1, 1000).keys.shape[2] == 3
    assert make("dilated").init_state(1, 1000).keys.shape[2] == 7
    assert make("dilated").init_state(1, 5).keys.shape[2] == 5


@pytest.mark.parametrize("name", LAYERS)
def test_a_step_reads_only_the_patterns_keys(name: str):
    layer, x = make(name), torch.randn(1, 20, 12)
    state = layer.init_state(1, 20)
    for i in range(19):
        _, state = layer.step(x[:, i : i + 1], state)
    slots = state.keys.shape[2]
    unseen = {j % slots for j in range(20)} - {int(j) % slots for j in layer.mask(20, True)[19].nonzero()}
    state.keys[:, :, sorted(unseen)] = torch.nan
    state.values[:, :, sorted(unseen)] = torch.nan
    torch.testing.assert_close(layer.step(x[:, 19:], state)[0], layer(x, is_causal=True)[0][:, 19:])


def test_rotary_positions_match_the_formula():
    x, positions = torch.randn(2, 3, 6), [0, 5, 11]
    output = rotate(x, torch.tensor(positions))
    for row in range(2):
        for place, position in enumerate(positions):
            for pair in range(3):
                number = complex(*x[row, place, 2 * pair : 2 * pair + 2].tolist())
                angle = position * 10_000 ** (-2 * pair / 6)
                turned = number * complex(math.cos(angle), math.sin(angle))
                expected = torch.tensor([turned.real, turned.imag])
                torch.testing.assert_close(output[row, place, 2 * pair : 2 * pair + 2], expected)


def test_rotary_attention_depends_only_on_distances():
    x = torch.randn(12)
    logits = rotate(x.expand(20, 12), torch.arange(20)) @ rotate(x.expand(20, 12), torch.arange(20)).T
    torch.testing.assert_close(logits[:-1, :-1], logits[1:, 1:], atol=1e-4, rtol=1e-4)
    assert rotate(x.expand(1, 12).bfloat16(), torch.tensor([3])).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LAYERS)
def test_autocast_is_near_float32(name: str, dtype: torch.dtype):
    layer, x = make(name, rotary=True), torch.randn(2, 23, 12)
    with torch.autocast("cpu", dtype):
        output, _ = layer(x)
        dropped, _ = layer(x, key_padding_mask=torch.ones(2, 23, dtype=torch.bool))
    assert output.dtype == dtype
    torch.testing.assert_close(output.float(), layer(x)[0], atol=0.03, rtol=0)
    assert not dropped.any()
    output.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


@pytest.mark.parametrize("name", LAYERS)
def test_a_row_without_keys_is_just_the_bias_and_has_no_gradient(name: str):
    layer, x = make(name), torch.randn(2, 23, 12, requires_grad=True)
    padding = torch.zeros(2, 23, dtype=torch.bool)
    padding[0] = True
    output, weights = layer(x, key_padding_mask=padding, need_weights=True)
    assert torch.equal(output[0], layer.out_proj.bias.expand(23, 12))
    assert not weights[0].any()
    (gradient,) = torch.autograd.grad(output.square().sum(), x)
    assert not gradient[0].any()
    assert gradient[1].isfinite().all()
    padding[0, 20:] = False  # padded queries that see a key are like any other
    assert layer(x, key_padding_mask=padding)[0][0, 20:].any()


def test_dropout_acts_only_in_training():
    layer, x = make("sparse", dropout=0.5), torch.randn(2, 23, 12)
    torch.testing.assert_close(layer.eval()(x)[0], make("sparse")(x)[0])
    assert not torch.allclose(layer.train()(x)[0], layer.eval()(x)[0])


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (r"num_heads \(5\) must divide embed_dim \(12\)", lambda layer, x: FullAttention(12, 5)),
        ("rotary needs heads of an even size", lambda layer, x: FullAttention(12, 4, rotary=True)),
        (r"dropout \(1.5\)", lambda layer, x: FullAttention(12, 4, dropout=1.5)),
        (r"rate \(0\)", lambda layer, x: AtrousAttention(12, 4, rate=0)),
        (r"window \(0\)", lambda layer, x: LocalAttention(12, 4, window=0)),
        (r"summary \(9\)", lambda layer, x: FixedAttention(12, 4, block=8, summary=9)),
        ("is self-attention", lambda layer, x: layer(x, x.clone())),
        ("is self-attention", lambda layer, x: layer(x, value=x.clone())),
        ("takes no attn_mask", lambda layer, x: layer(x, attn_mask=torch.ones(7, 7))),
        (r"query \(1, 2, 7, 12\)", lambda layer, x: layer(x[None])),
        (r"query \(1, 7, 3\)", lambda layer, x: layer(x[0, :, :3])),
        (r"query \(2, 7, 3\)", lambda layer, x: layer(x[..., :3])),
        (r"key_padding_mask \(2, 6\)", lambda layer, x: layer(x, key_padding_mask=torch.ones(2, 6) > 0)),
        (r"key_padding_mask.*float32", lambda layer, x: layer(x, key_padding_mask=torch.ones(2, 7))),
        (r"max_length \(0\)", lambda layer, x: layer.init_state(2, 0)),
        ("x has 2 sequences, the state 3", lambda layer, x: layer.prefill(x, layer.init_state(3, 9))),
        ("at least 7 positions; this one has 0 of 6", lambda layer, x: layer.prefill(x, layer.init_state(2, 6))),
        (r"one position of each sequence, \(2, 1\)", lambda layer, x: layer.step(x, layer.init_state(2, 9))),
    ],
)
def test_invalid_input_is_refused_in_one_line(message: str, call: Callable):
    with pytest.raises(ValueError, match=message) as error:
        call(make("local"), torch.randn(2, 7, 12))
    assert "\n" not in str(error.value)
