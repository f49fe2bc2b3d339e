"""ONLSTM against the formula step by step, on every path that computes it; LSTM against nn.LSTM."""

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from layers import LSTM, ONLSTM, RecurrentLayer
from layers.on_lstm import cpu as on_lstm_cpu
from layers.on_lstm import recurrence as on_lstm
from layers.on_lstm.steps import Gates, master_gates, steps_for

GATES = ["paper", "reverse_cumsum"]


@pytest.fixture(params=["compiled", "plain"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each implementation of the pointwise part on a CPU."""
    if request.param == "plain":
        monkeypatch.setattr(on_lstm_cpu, "compiled", lambda: None)
    elif on_lstm_cpu.compiled() is None:
        pytest.skip("no C++ compiler")
    kind = type(steps_for(torch.device("cpu"), torch.float32, Gates(2, 2, False), 1)).__name__
    assert kind == {"compiled": "CompiledSteps", "plain": "PlainSteps"}[request.param]
    return request.param


def naive_layer(
    x: Tensor, h: Tensor, c: Tensor, weights: list[Tensor], chunk: int, input_gate: str
) -> tuple[Tensor, ...]:
    """Section 2.1 of the specification, a step at a time: outputs, last c, distances (T, B)."""
    w, u, b, v = weights
    size = h.shape[-1]
    levels = size // chunk
    outputs, forgets, inputs = [], [], []
    for step in x:
        z = step @ w.T + b + h @ u.T + v
        p = z[:, :levels].softmax(-1)
        below = torch.stack([p[:, :k].sum(-1) for k in range(levels + 1)], -1)  # sums of the first k
        master_input = 1 - (below[:, 1:] if input_gate == "paper" else below[:, :-1])
        q = z[:, levels : 2 * levels].softmax(-1)
        master_forget = torch.stack([q[:, : k + 1].sum(-1) for k in range(levels)], -1)
        forgets.append(1 - master_forget.mean(-1))
        inputs.append(master_input.mean(-1))
        o, g, i, f = z[:, 2 * levels :].split(size, -1)
        wide_input, wide_forget = (m.repeat_interleave(chunk, -1) for m in (master_input, master_forget))
        overlap = wide_forget * wide_input
        f_hat = f.sigmoid() * overlap + (wide_forget - overlap)
        i_hat = i.sigmoid() * overlap + (wide_input - overlap)
        c = f_hat * c + i_hat * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs), c, torch.stack(forgets), torch.stack(inputs)


def naive(layer: ONLSTM, x: Tensor, state: tuple[Tensor, Tensor], masks: list[Tensor] | None = None) -> list[Tensor]:
    """All layers: output, h, c, distance_forget, distance_input."""
    hs, cs, forgets, inputs = [], [], [], []
    for k in range(layer.num_layers):
        weights = [getattr(layer, f"{name}_l{k}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        if masks is not None:
            weights[1] = weights[1] * masks[k]
        x, c, forget, written = naive_layer(x, state[0][k], state[1][k], weights, layer.chunk_size, layer.input_gate)
        for values, value in ((hs, x[-1]), (cs, c), (forgets, forget), (inputs, written)):
            values.append(value)
    return [x, *map(torch.stack, (hs, cs, forgets, inputs))]


def flat(result: tuple) -> list[Tensor]:
    output, (h, c), (forget, written) = result
    return [output, h, c, forget, written]


def random_state(layer: RecurrentLayer, batch: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    shape = layer.num_layers, batch, layer.hidden_size
    return torch.randn(shape, dtype=dtype).requires_grad_(), torch.randn(shape, dtype=dtype).requires_grad_()


def assert_same_with_gradients(ours: list[Tensor], theirs: list[Tensor], inputs: list[Tensor]) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    weights = [torch.randn_like(tensor) for tensor in ours]
    torch.testing.assert_close(
        torch.autograd.grad(ours, inputs, weights),
        torch.autograd.grad(theirs, inputs, weights),
        atol=2e-5,
        rtol=1e-5,
    )


# ------------------------------------------------------------------------------------------------ equal to the formula


@pytest.mark.parametrize("input_gate", GATES)
@pytest.mark.parametrize("layers", [1, 3])
def test_equals_the_formula_forward_and_backward(path: str, layers: int, input_gate: str):
    layer = ONLSTM(11, 40, layers, chunk_size=5, input_gate=input_gate)
    x, state = torch.randn(9, 6, 11, requires_grad=True), random_state(layer, 6)
    assert_same_with_gradients(flat(layer(x, state)), naive(layer, x, state), [x, *state, *layer.parameters()])


def test_states_carried_over_windows(path: str):
    layer = ONLSTM(6, 20, 2, chunk_size=4)
    x, state = torch.randn(12, 3, 6, requires_grad=True), random_state(layer, 3)
    first, carried, distances = layer(x[:5], state)
    second, last, more = layer(x[5:], carried)
    ours = [torch.cat([first, second]), *last, *(torch.cat(pair, 1) for pair in zip(distances, more, strict=True))]
    assert_same_with_gradients(ours, naive(layer, x, state), [x, *state, *layer.parameters()])


def test_batch_first_transposes_only_input_and_output():
    layer = ONLSTM(6, 20, 2)
    turned = copy.deepcopy(layer)
    turned.batch_first = True
    x = torch.randn(5, 3, 6)
    ours = flat(turned(x.transpose(0, 1)))
    torch.testing.assert_close([ours[0].transpose(0, 1), *ours[1:]], flat(layer(x)))
    assert ours[3].shape == (2, 5, 3)


def test_no_state_is_a_zero_state_and_no_grad_changes_nothing(path: str):
    layer, x = ONLSTM(6, 20, 2), torch.randn(5, 3, 6)
    with torch.no_grad():
        ours = flat(layer(x))
    torch.testing.assert_close(ours, flat(layer(x, (torch.zeros(2, 3, 20), torch.zeros(2, 3, 20)))), atol=0, rtol=0)
    assert not any(tensor.requires_grad for tensor in ours)


@pytest.mark.parametrize("input_gate", GATES)
def test_gradcheck_in_float64(path: str, input_gate: str):
    layer = ONLSTM(3, 6, chunk_size=2, input_gate=input_gate).double()
    names, values = zip(*layer.named_parameters(), strict=True)
    state = random_state(layer, 2, torch.float64)

    def run(x: Tensor, h: Tensor, c: Tensor, *parameters: Tensor) -> list[Tensor]:
        return flat(functional_call(layer, dict(zip(names, parameters, strict=True)), (x, (h, c))))

    x = torch.randn(3, 2, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(run, (x, *state, *values))
    # Beside a way around the layer a derivative that it lacks would be taken for zero.
    assert torch.autograd.gradgradcheck(
        lambda x, *others: (run(x, *others)[0] + x.sum(-1, keepdim=True), *run(x, *others)[1:]), (x, *state, *values)
    )


def test_gradients_are_the_same_where_they_are_differentiated(path: str):
    layer, x = ONLSTM(6, 20, 2, chunk_size=4), torch.randn(5, 3, 6, requires_grad=True)
    output, (_, c), distances = layer(x)
    loss = (output.square().sum() + c.sum() + distances[0].square().sum()) / 10
    leaves = [x, *layer.parameters()]
    plain = torch.autograd.grad(loss, leaves, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, leaves, create_graph=True), plain)


@pytest.mark.parametrize("learned", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"])
def test_gradients_of_single_parameters(learned: str):
    layer, x = ONLSTM(4, 8, chunk_size=2), torch.randn(6, 2, 4)
    layer(x)[0].square().sum().backward()
    expected = layer.get_parameter(learned).grad
    layer.zero_grad()
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(name == learned)
    layer(x)[0].square().sum().backward()
    torch.testing.assert_close(layer.get_parameter(learned).grad, expected)
    assert sum(parameter.grad is not None for parameter in layer.parameters()) == 1


def test_backward_twice_gives_the_same_gradient(path: str):
    layer = ONLSTM(5, 20, 2)
    loss = layer(torch.randn(6, 3, 5))[0].sum()
    first = torch.autograd.grad(loss, list(layer.parameters()), retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, list(layer.parameters())), first, atol=0, rtol=0)


def test_activation_checkpointing_gives_the_same_gradients(path: str):
    layer, x = ONLSTM(5, 20, 2), torch.randn(6, 3, 5, requires_grad=True)
    inputs = [x, *layer.parameters()]
    expected = torch.autograd.grad(layer(x)[0].sum(), inputs)
    again = checkpoint(lambda x: layer(x)[0], x, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(again.sum(), inputs), expected, atol=0, rtol=0)


def test_saturated_and_huge_inputs_stay_finite_and_nan_stays_nan(path: str):
    layer = ONLSTM(4, 20)
    x = torch.randn(6, 3, 4) * 1e4
    x.requires_grad_()
    state = random_state(layer, 3)
    assert_same_with_gradients(flat(layer(x, state)), naive(layer, x, state), [x, *state])
    x = torch.zeros(2, 3, 4)
    x[0, 1, 2] = float("nan")
    assert layer(x)[0].isnan().any((0, 2)).tolist() == [False, True, False]


def test_a_large_layer_equals_the_formula(path: str):
    """Weights large enough to be packed, a batch large enough for threads."""
    layer = ONLSTM(20, 240)
    x, state = torch.randn(6, 20, 20, requires_grad=True), random_state(layer, 20)
    assert layer.weight_hh_l0.numel() > on_lstm_cpu.LARGE_WEIGHT
    ours, theirs = flat(layer(x, state)), naive(layer, x, state)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    weights = [torch.randn_like(tensor) for tensor in ours]
    inputs = [x, *state, *layer.parameters()]
    found, expected = (torch.autograd.grad(results, inputs, weights) for results in (ours, theirs))
    for gradient, true in zip(found, expected, strict=True):
        assert (gradient - true).norm() < 1e-5 * true.norm()


# ----------------------------------------------------------------------------------------------------- gates and levels


@pytest.mark.parametrize("input_gate", GATES)
def test_one_hot_master_gates_reproduce_the_table(path: str, input_gate: str):
    """Section 2.2, exactly: with these numbers the arithmetic has no rounding."""
    levels, chunk = 6, 2
    size = levels * chunk
    layer = ONLSTM(1, size, chunk_size=chunk, input_gate=input_gate)
    before = torch.arange(1.0, size + 1) / 8
    new = torch.tensor([1.0, -1.0]).repeat(levels)
    slot = torch.arange(levels).repeat_interleave(chunk) + 1
    for d_forget in range(1, levels + 1):
        for d_input in range(1, levels + 1):
            bias = torch.zeros(layer.bias_ih_l0.shape)  # output, input and forget gate: sigmoid(0) = 1/2
            bias[d_input - 1] = bias[levels + d_forget - 1] = 1e4
            bias[2 * levels + size : 2 * levels + 2 * size] = new * 1e4  # tanh is 1 or -1
            with torch.no_grad():
                for parameter in layer.parameters():
                    parameter.zero_()
                layer.bias_ih_l0.copy_(bias)
                c = layer(torch.zeros(1, 1, 1), (torch.zeros(1, 1, size), before.view(1, 1, -1)))[1][1].flatten()
            last = d_input if input_gate == "reverse_cumsum" else d_input - 1
            if d_forget <= last:
                expected = torch.where(slot < d_forget, new, torch.where(slot <= last, (before + new) / 2, before))
            else:
                expected = torch.where(slot <= last, new, torch.where(slot < d_forget, torch.zeros(size), before))
            assert torch.equal(c, expected), (d_forget, d_input)


def test_distance_is_the_expected_level(path: str):
    """E[d_f] = n distance_forget + 1, and the same from the right for the input gate."""
    layer, levels = ONLSTM(7, 24, chunk_size=3), 8
    x, (h, c) = torch.randn(1, 5, 7), random_state(layer, 5)
    forget, written = layer(x, (h, c))[2]
    z = x[0] @ layer.weight_ih_l0.T + layer.bias_ih_l0 + h[0] @ layer.weight_hh_l0.T + layer.bias_hh_l0
    level = torch.arange(1.0, levels + 1)
    torch.testing.assert_close(levels * forget[0, 0] + 1, z[:, levels : 2 * levels].softmax(-1) @ level)
    torch.testing.assert_close(levels * written[0, 0] + 1, z[:, :levels].softmax(-1) @ level)


@pytest.mark.parametrize("input_gate", GATES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_master_gates_are_monotone_within_0_and_1(path: str, input_gate: str, dtype: torch.dtype):
    levels, chunk, batch = 115, 2, 8
    layer = ONLSTM(16, levels * chunk, chunk_size=chunk, input_gate=input_gate)
    state = torch.randn(batch, levels * chunk), torch.randn(batch, levels * chunk)
    gates = Gates(levels, chunk, input_gate == "reverse_cumsum")
    with torch.no_grad():
        saved, _ = on_lstm._forward(3 * torch.randn(7, batch, 16), *state, *layer.weights(0), dtype, gates, keep=True)
    probabilities = saved[5][..., : 2 * levels].unflatten(-1, (2, levels))
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(7, batch, 2))
    falling, rising = master_gates(probabilities, gates.reverse)
    assert (rising.diff() >= 0).all()
    assert (falling.diff() <= 0).all()
    for gate in (rising, falling):
        assert gate.min() >= 0
        assert gate.max() <= 1
    # Not saturated at the start: many levels take part.
    assert 0.2 < rising.mean() < 0.8


# ------------------------------------------------------------------------------------------------------------ precision


@pytest.mark.parametrize("input_gate", GATES)
def test_bfloat16_autocast(path: str, input_gate: str):
    """Products in bfloat16, gates and state in float32: close to the formula in float32, forward and backward."""
    layer = ONLSTM(12, 40, 2, chunk_size=4, input_gate=input_gate)
    x, state = torch.randn(8, 5, 12, requires_grad=True), random_state(layer, 5)
    with torch.autocast("cpu", torch.bfloat16):
        ours = flat(layer(x, state))
    assert [tensor.dtype for tensor in ours] == [torch.bfloat16] + 4 * [torch.float32]
    assert torch.equal(ours[0][-1].float(), ours[1][-1])
    theirs = naive(layer, x, state)
    torch.testing.assert_close([ours[0].float(), *ours[1:]], theirs, atol=3e-2, rtol=2e-2)
    inputs = [x, *state, *layer.parameters()]
    weights = [torch.randn_like(tensor) for tensor in theirs]
    found = torch.autograd.grad([ours[0].float(), *ours[1:]], inputs, weights)
    for gradient, expected in zip(found, torch.autograd.grad(theirs, inputs, weights), strict=True):
        assert gradient.dtype == torch.float32
        assert (gradient - expected).norm() < 0.02 * expected.norm()


def test_compiled_and_plain_steps_agree_in_bfloat16(monkeypatch: pytest.MonkeyPatch):
    layer, x = ONLSTM(12, 40, chunk_size=4), torch.randn(8, 5, 12)
    results = []
    for step in ("compiled", "plain"):
        if step == "plain":
            monkeypatch.setattr(on_lstm_cpu, "compiled", lambda: None)
        with torch.autocast("cpu", torch.bfloat16):
            results.append(layer(x)[1][1])
        layer.zero_grad()
        results[-1].square().sum().backward()
        results[-1] = [results[-1].detach(), layer.weight_hh_l0.grad]
    torch.testing.assert_close(*results, atol=5e-3, rtol=2e-2)


def test_a_bfloat16_layer():
    layer = ONLSTM(6, 20).bfloat16()
    output, (h, c), distances = layer(torch.randn(4, 3, 6).bfloat16())
    assert {tensor.dtype for tensor in (output, h, c)} == {torch.bfloat16}
    assert distances[0].dtype == torch.float32


# ---------------------------------------------------------------------------------------------------------- DropConnect


def test_dropconnect_is_one_mask_per_call_without_rescaling(path: str):
    """The mask, read off the gradient's zeros, reproduces all steps of the call."""
    layer = ONLSTM(5, 20, 2, dropconnect=0.4)
    x, state = torch.randn(7, 4, 5, requires_grad=True), random_state(layer, 4)
    ours = flat(layer(x, state))
    gradients = torch.autograd.grad(ours[0].sum(), [layer.weight_hh_l0, layer.weight_hh_l1], retain_graph=True)
    masks = [(gradient != 0).float() for gradient in gradients]
    for mask in masks:
        assert 0.5 < mask.mean() < 0.7
    assert_same_with_gradients(ours, naive(layer, x, state, masks), [x, *state, *layer.parameters()])
    assert not torch.equal(layer(x, state)[0], ours[0])  # the next call draws another mask


@pytest.mark.parametrize("cell", [ONLSTM, LSTM])
def test_dropconnect_in_evaluation_is_its_mean_in_training(cell: type[RecurrentLayer]):
    layer = cell(5, 20, dropconnect=0.3)
    mean = torch.stack([layer.weights(0)[1].detach() for _ in range(2000)]).mean(0)
    plain = cell(5, 20)
    plain.load_state_dict(layer.state_dict())
    with torch.no_grad():
        plain.weight_hh_l0 *= 0.7
    layer.eval()
    # Standard deviation of the mean: |w| sqrt(p (1 - p) / 2000), |w| < 0.23.
    torch.testing.assert_close(mean, plain.weight_hh_l0.detach(), atol=5 * 0.23 * (0.21 / 2000) ** 0.5, rtol=0)
    x = torch.randn(6, 3, 5)
    torch.testing.assert_close(layer(x)[0], plain.eval()(x)[0])
    torch.testing.assert_close(layer(x)[0], layer(x)[0], atol=0, rtol=0)


# ----------------------------------------------------------------------------------------------------------- the layers


def test_parameters_have_the_names_shapes_and_range_of_nn_lstm():
    layer = ONLSTM(400, 1150, 2)
    rows = 2 * 115 + 4 * 1150
    shapes = {name: tuple(parameter.shape) for name, parameter in layer.named_parameters()}
    assert list(shapes) == [name for name, _ in nn.LSTM(4, 5, 2).named_parameters()]
    assert shapes["weight_ih_l0"] == (rows, 400)
    assert shapes["weight_ih_l1"] == shapes["weight_hh_l0"] == shapes["weight_hh_l1"] == (rows, 1150)
    assert shapes["bias_ih_l0"] == shapes["bias_hh_l1"] == (rows,)
    bound = 1150**-0.5
    for parameter in layer.parameters():
        assert parameter.abs().max() <= bound
        assert parameter.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_parameter_count_of_the_paper():
    layers = [ONLSTM(400, 1150), ONLSTM(1150, 1150), ONLSTM(1150, 400)]
    embedding_and_bias = 10_000 * 400 + 10_000
    assert sum(p.numel() for layer in layers for p in layer.parameters()) + embedding_and_bias == 25_232_180


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_lstm_equals_nn_lstm(layers: int, batch_first: bool):
    ours, theirs = LSTM(5, 8, layers, batch_first=batch_first), nn.LSTM(5, 8, layers, batch_first=batch_first)
    ours.load_state_dict(theirs.state_dict())
    x, state = torch.randn(4, 3, 5), random_state(ours, 4 if batch_first else 3)
    output, last, distances = ours(x, state)
    expected, expected_last = theirs(x, state)
    assert distances is None
    torch.testing.assert_close([output, *last], [expected, *expected_last])
    output.square().sum().backward()
    expected.square().sum().backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_lstm_has_the_same_dropconnect():
    layer, x = LSTM(5, 20, dropconnect=0.4), torch.randn(7, 4, 5)
    output, _, _ = layer(x)
    output.sum().backward()
    reference = nn.LSTM(5, 20)
    reference.load_state_dict(layer.state_dict())
    with torch.no_grad():
        reference.weight_hh_l0 *= layer.weight_hh_l0.grad != 0
    torch.testing.assert_close(output, reference(x)[0])
    assert 0.5 < (layer.weight_hh_l0.grad != 0).float().mean() < 0.7


def test_copies_give_the_same_numbers():
    layer, x = ONLSTM(5, 20, 2, input_gate="reverse_cumsum"), torch.randn(4, 3, 5)
    layer(x)
    expected = flat(layer(x))
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    loaded = ONLSTM(5, 20, 2, input_gate="reverse_cumsum")
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded):
        torch.testing.assert_close(flat(twin(x)), expected, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_size": 25}, r"hidden_size \(25\) must be a multiple of chunk_size \(10\)"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"input_gate": "su"}, r"input_gate \(su\) must be 'paper' or 'reverse_cumsum'"),
        ({"dropconnect": 1.5}, r"dropconnect \(1.5\)"),
        ({"chunk_size": True}, r"chunk_size \(True\) must be a number: nn.LSTM's bias is no argument here"),
        ({"dropconnect": True}, r"dropconnect \(True\) must be a number in \[0, 1\]"),
        ({"num_layers": 0}, r"num_layers \(0\)"),
    ],
)
def test_bad_arguments_give_one_line(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message) as error:
        ONLSTM(**{"input_size": 4, "hidden_size": 20, **arguments})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("cell", [ONLSTM, LSTM])
def test_bad_shapes_give_one_line(cell: type[RecurrentLayer]):
    layer = cell(4, 20)
    for shape in ((5, 2, 3), (5, 4), (0, 2, 4)):
        with pytest.raises(ValueError, match=r"input .* must be a non-empty \(T, B, 4\)"):
            layer(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"state c .* = \(1, 2, 20\)"):
        layer(torch.zeros(5, 2, 4), (torch.zeros(1, 2, 20), torch.zeros(1, 3, 20)))
    packed = nn.utils.rnn.pack_padded_sequence(torch.randn(3, 2, 4), torch.tensor([3, 2]))
    with pytest.raises(TypeError, match="give it padded"):
        layer(packed)
    with pytest.raises(TypeError, match=r"state must be the pair \(h, c\)"):
        layer(torch.randn(3, 2, 4), torch.zeros(1, 2, 20))
