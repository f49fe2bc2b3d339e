"""Weights normalised before use, against loops from the formulas, singular values, and torch's own forms."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from layers import normalize_weights, remove_weight_normalization
from layers.weights.functions import L2Normalization, SpectralNormalization, Standardization
from layers.weights.normalization import KINDS, reset_parameters


def article(weight, dim=0, iterations=5):
    """The article's loop, in Keras' layout: a matrix (in, out), row vectors u (1, in) and v (1, out)."""
    kernel = weight.movedim(dim, -1).reshape(-1, weight.shape[dim]) if weight.dim() > 1 else weight.reshape(1, -1)
    u = torch.ones(1, kernel.shape[0], dtype=weight.dtype)
    for _ in range(iterations):
        v = u @ kernel
        v = v / v.square().sum().sqrt()
        u = v @ kernel.T
        u = u / u.square().sum().sqrt()
    return weight / (u @ kernel @ v.T).squeeze()


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ------------------------------------------------------------------------------------------------------------ formulas


@pytest.mark.parametrize(("shape", "dim"), [((7, 5), 0), ((6, 4, 3, 2), 0), ((6, 4, 3, 2), 1), ((5, 1), 0), ((9,), 0)])
def test_spectral_is_the_articles_loop(shape, dim):
    weight = randn(*shape)
    used = SpectralNormalization(dim)(weight)
    torch.testing.assert_close(used, article(weight, dim), rtol=0, atol=1e-12)
    if len(shape) == 1:
        assert used.norm() == pytest.approx(1, abs=1e-12)


def spectral_norm(matrix):
    return torch.linalg.matrix_norm(matrix, 2).item()


@pytest.mark.parametrize(
    ("iterations", "low", "high", "mean_low", "mean_high"),
    [(1, 0.6, 0.9, 0.70, 0.83), (5, 0.86, 0.99, 0.90, 0.96), (20, 0.95, 1.0, 0.97, 1.0), (100, 0.99, 1.0, 0.998, 1.0)],
)
def test_sigma_is_as_close_to_the_true_one_as_the_iterations_allow(iterations, low, high, mean_low, mean_high):
    ratios = []
    for shape in ((100, 50), (784, 100), (256, 1152)):
        for seed in range(4):
            weight = randn(*shape, seed=seed)
            sigma = weight.norm() / SpectralNormalization(0, iterations)(weight).norm()
            ratios.append(sigma.item() / spectral_norm(weight))
    assert low < min(ratios) <= max(ratios) < high + 1e-9
    assert mean_low < sum(ratios) / len(ratios) < mean_high + 1e-9


@pytest.mark.parametrize("shape", [(4, 3), (3, 2, 2), (5,)])
def test_the_gradient_flows_through_all_iterations(shape):
    weight = randn(*shape).requires_grad_()
    assert torch.autograd.gradcheck(SpectralNormalization(0), weight)
    (ours,) = torch.autograd.grad(SpectralNormalization(0)(weight).square().sum() + weight[0].sum(), weight)
    (loop,) = torch.autograd.grad(article(weight).square().sum() + weight[0].sum(), weight)
    torch.testing.assert_close(ours, loop, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "function", [L2Normalization(), Standardization(), L2Normalization(1), Standardization(1)], ids=str
)
def test_other_gradients(function):
    assert torch.autograd.gradcheck(function, randn(4, 3, 2).requires_grad_())


def test_weights_in_which_the_iteration_finds_nothing_stay_finite():
    zero_rows = torch.tensor([[1.0, -1.0], [-2.0, 2.0]], requires_grad=True)
    used = SpectralNormalization()(zero_rows)
    assert spectral_norm(used) == pytest.approx(1)  # the Frobenius norm, here the right one
    used[0, 0].backward()
    assert zero_rows.grad.isfinite().all()
    for function in (SpectralNormalization(), L2Normalization(), Standardization()):
        assert torch.equal(function(torch.zeros(3, 2)), torch.zeros(3, 2))


@pytest.mark.parametrize("dim", [0, 1])
def test_per_unit_forms_against_a_loop(dim):
    weight = randn(4, 3, 2)
    units = [unit.flatten() for unit in weight.unbind(dim)]
    norm_one = [unit / sum(x * x for x in unit) ** 0.5 for unit in units]
    standard = []
    for unit in units:
        mean = sum(unit) / len(unit)
        standard.append((unit - mean) / (sum((x - mean) ** 2 for x in unit) / len(unit) + 1e-5) ** 0.5)
    for function, expected in ((L2Normalization(dim), norm_one), (Standardization(dim), standard)):
        rows = function(weight).movedim(dim, 0).flatten(1)
        torch.testing.assert_close(rows, torch.stack(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", [lambda: nn.Linear(5, 4), lambda: nn.ConvTranspose2d(3, 4, 2)])
def test_torchs_own_forms_and_their_checkpoints_agree(make):
    transposed = isinstance(make(), nn.ConvTranspose2d)
    for kind, theirs in (
        ("spectral_persistent", parametrizations.spectral_norm),
        ("weight_norm", partial(parametrizations.weight_norm, dim=int(transposed))),
    ):
        reference, ours = theirs(make()), normalize_weights(make(), {"weight$": kind})
        assert ours.state_dict().keys() == reference.state_dict().keys()
        ours.load_state_dict(reference.state_dict())
        for _ in range(3):  # each use in training is one iteration
            assert torch.equal(ours.weight, reference.weight)
        assert torch.equal(ours.eval().weight, reference.eval().weight)


def test_a_transposed_convolution_has_its_units_in_the_second_dimension():
    layer = normalize_weights(nn.ConvTranspose2d(3, 4, 2).double(), {"weight": "l2"})
    assert [unit.norm().item() for unit in layer.weight.unbind(1)] == pytest.approx([1.0] * 4)
    layer = normalize_weights(nn.ConvTranspose2d(3, 4, 2).double(), {"weight": "spectral"})
    torch.testing.assert_close(layer.weight, article(layer.parametrizations.weight.original, 1), rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------------------------------------ precision


@pytest.mark.parametrize("kind", KINDS)
def test_computed_in_float32_under_autocast_and_for_bfloat16_weights(kind):
    layer = nn.Linear(64, 48)
    exact = normalize_weights(copy.deepcopy(layer), {"weight": kind}).eval()
    if kind == "spectral_persistent":  # its start is random
        exact.parametrizations.weight[0].follow(exact.parametrizations.weight.original)
    with torch.autocast("cpu", torch.bfloat16):
        below = exact.weight
        assert exact(torch.randn(2, 64)).dtype == torch.bfloat16
    assert below.dtype == torch.float32
    assert torch.equal(below, exact.weight)
    half = copy.deepcopy(exact).bfloat16()
    raw = copy.deepcopy(half).float()  # the same rounded weights, in float32
    assert half.weight.dtype == torch.bfloat16
    torch.testing.assert_close(half.weight, raw.weight.bfloat16(), rtol=2**-7, atol=0)
    assert half(torch.randn(2, 64).bfloat16()).isfinite().all()
    for buffer in half.parametrizations.weight.buffers():
        assert buffer.dtype == torch.float32


# -------------------------------------------------------------------------------------------------------------- choice


class Net(nn.Module):
    """A shared embedding, a reused layer, layers with units in either dimension, recurrent weights."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(6, 5)
        self.output = nn.Linear(5, 6)
        self.output.weight = self.embedding.weight
        self.hidden = nn.Linear(5, 5)
        self.again = self.hidden
        self.norm = nn.BatchNorm1d(5)
        self.recurrent = nn.LSTM(5, 5, batch_first=True)

    def forward(self, words):
        x = self.recurrent(self.again(self.hidden(self.embedding(words))).tanh())[0]
        return self.output(self.norm(x.flatten(0, 1)))


WORDS = torch.arange(12).view(3, 4) % 6


def test_what_a_pattern_means_for_each_kind():
    def normalized(kind, pattern="."):
        names = dict(normalize_weights(Net(), {pattern: kind}).named_parameters())
        return {name.split(".parametrizations.")[0] + "." + name.split(".")[-2] for name in names if "original" in name}

    matrices = {"embedding.weight", "hidden.weight", "recurrent.weight_ih_l0", "recurrent.weight_hh_l0"}
    for kind in ("weight_norm", "l2", "standardized"):
        assert normalized(kind) == matrices  # no vectors, no biases
    for kind in ("spectral", "spectral_persistent"):
        assert normalized(kind) == matrices | {"norm.weight"}  # the scale, too
    everything = matrices | {"norm.weight", "norm.bias", "hidden.bias", "output.bias"}
    everything |= {"recurrent.bias_ih_l0", "recurrent.bias_hh_l0"}
    assert normalized("torch.tanh") == everything
    assert normalized("l2", "type:Embedding") == {"embedding.weight"}
    assert normalized("l2", r"^output\.weight$") == {"embedding.weight"}  # by its second name


@pytest.mark.parametrize("kind", [*KINDS, "torch.tanh", torch.tanh])
def test_normalising_twice_changes_nothing_even_for_reused_and_shared_layers(kind):
    net = Net()
    parameters = len(list(net.parameters()))
    normalize_weights(net, {"weight": kind}).eval()
    expected, keys = net(WORDS), net.state_dict().keys()
    normalize_weights(net, {"weight": kind})
    assert torch.equal(net(WORDS), expected)
    assert net.state_dict().keys() == keys
    assert net.output.parametrizations.weight is net.embedding.parametrizations.weight
    count = len(list(net.parameters()))
    assert count == parameters + (4 if kind == "weight_norm" else 0)
    net.train()(WORDS).square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


class Scaled(nn.Module):
    """A callable with a parameter, a buffer, and an inverse."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, weight):
        return weight * self.scale

    def right_inverse(self, weight):
        return weight / self.scale.detach()


def test_callables_by_path_as_object_and_with_a_state_of_their_own():
    plain = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net = normalize_weights(copy.deepcopy(plain), {"weight": Scaled})
    assert torch.equal(net[0].weight, plain[0].weight)  # by its inverse
    assert net[0].parametrizations.weight[0].function is not net[1].parametrizations.weight[0].function
    assert sum("scale" in name for name, _ in net.named_parameters()) == 2
    net = normalize_weights(copy.deepcopy(plain), {"weight": "torch.tanh"})
    assert torch.equal(net[0].weight, plain[0].weight.tanh())
    net = normalize_weights(copy.deepcopy(plain), {"weight": Scaled()})
    assert torch.equal(net[1].weight, plain[1].weight)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({"hiden": "l2"}, r"pattern 'hiden' matches no parameter; the nearest one is 'hidden.weight'"),
        ({"type:Linaer": "l2"}, r"the nearest class is 'type:Linear'"),
        ({"hidden": "spectrl"}, r"kind 'spectrl' is none of spectral, .*the nearest is 'spectral'"),
        ({"hidden": "torch.no_such_thing"}, r"no import path of a callable"),
        ({"hidden": "no_such_module.thing"}, r"no import path of a callable"),
        ({"hidden": 3}, r"kind 3 is none of"),
        ({"bias$": "l2"}, r"'bias\$' matches only what 'l2' leaves alone"),
        ({"norm": "l2"}, r"'norm' matches only what 'l2' leaves alone"),
        ({"(": "l2"}, r"must be a regular expression"),
        ({"hidden": "l2", "weight$": "spectral"}, r"patterns 'hidden' and 'weight\$' both match 'weight'"),
    ],
)
def test_mistakes_are_named_and_change_nothing(kinds, message):
    net = Net()
    with pytest.raises(ValueError, match=message):
        normalize_weights(net, kinds)
    assert not any("parametrizations" in name for name, _ in net.named_parameters())


def test_another_kind_on_top_is_refused():
    net = normalize_weights(Net(), {"hidden": "l2"})
    with pytest.raises(ValueError, match=r"'weight' of a Linear is already 'l2', not 'spectral'"):
        normalize_weights(net, {"hidden": "spectral"})
    with pytest.raises(ValueError, match=r"is already '_WeightNorm', not 'l2'"):
        normalize_weights(parametrizations.weight_norm(nn.Linear(2, 2)), {"weight": "l2"})


# --------------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("kind", [*KINDS, Scaled])
def test_plain_checkpoints_into_normalised_models_and_back(kind):
    kinds = {"weight" if kind is Scaled else ".": kind}
    plain, net = Net().eval(), normalize_weights(Net(), kinds)
    state = {name: value.clone() for name, value in plain.state_dict().items()}
    net.load_state_dict(plain.state_dict())  # strict
    assert all(torch.equal(plain.state_dict()[name], value) for name, value in state.items())
    expected = copy.deepcopy(plain)
    normalize_weights(expected, kinds)
    if kind != "spectral_persistent":  # its estimates start at random
        assert torch.equal(net.eval()(WORDS), expected(WORDS))
    if kind in ("weight_norm", Scaled):
        torch.testing.assert_close(net.eval()(WORDS), plain(WORDS))
    for _ in range(3):
        net.train()(WORDS)
    used = net.eval()(WORDS)
    back = Net().eval()
    removed = remove_weight_normalization(copy.deepcopy(net))
    assert torch.equal(removed(WORDS), used)
    assert removed.output.weight is removed.embedding.weight
    assert [type(module) for module in removed.modules()] == [type(module) for module in Net().modules()]
    assert not any(module._load_state_dict_pre_hooks for module in removed.modules())
    back.load_state_dict(removed.state_dict())
    assert torch.equal(back(WORDS), used)
    # The copy's removal left the original unchanged, and its own checkpoint loads.
    assert torch.equal(net(WORDS), used)
    twin = normalize_weights(Net(), kinds).eval()
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin(WORDS), used)


def test_a_persistent_estimate_fits_the_weights_that_were_loaded():
    plain, net = nn.Linear(40, 30), normalize_weights(nn.Linear(40, 30), {"weight": "spectral_persistent"})
    net.load_state_dict(plain.state_dict())
    assert spectral_norm(net.eval().weight) == pytest.approx(1, abs=0.02)


def test_a_missing_or_misshapen_weight_is_reported():
    net = normalize_weights(nn.Linear(3, 2), {"weight": "spectral_persistent"})
    with pytest.raises(RuntimeError, match=r"Missing key.*weight.original"):
        net.load_state_dict({"bias": torch.zeros(2)})
    with pytest.raises(RuntimeError, match=r"size mismatch for parametrizations.weight.original"):
        net.load_state_dict({"weight": torch.zeros(3, 3), "bias": torch.zeros(2)})


def test_removal_keeps_the_parameter_that_an_optimizer_knows():
    net = normalize_weights(Net(), {"hidden": "spectral"})
    trained = net.hidden.parametrizations.weight.original
    assert remove_weight_normalization(net).hidden.weight is trained
    frozen = nn.Linear(2, 2).requires_grad_(False)
    removed = remove_weight_normalization(normalize_weights(frozen, {"weight": "weight_norm"}))
    assert isinstance(removed.weight, nn.Parameter)
    assert not removed.weight.requires_grad


def test_a_copy_can_be_normalised_further():
    net = normalize_weights(nn.Linear(3, 3), {"weight": "l2"})
    twin = normalize_weights(copy.deepcopy(net), {"bias": "torch.tanh"})
    assert torch.equal(twin.bias, net.bias.tanh())
    assert isinstance(net.bias, nn.Parameter)


@pytest.mark.parametrize("kind", [*KINDS, "torch.tanh"])
@pytest.mark.parametrize("make", [lambda: nn.Linear(6, 5), lambda: nn.LSTM(4, 3)], ids=["linear", "lstm"])
def test_weights_are_re_initialised_below_the_normalisation(kind, make):
    torch.manual_seed(1)
    layer = normalize_weights(make(), {"weight": kind})
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(7.0)
    reset_parameters(layer)
    for parameter in layer.parameters():
        assert parameter.requires_grad
        assert not (parameter == 7).any()
    if kind == "spectral_persistent" and isinstance(layer, nn.Linear):
        assert spectral_norm(layer.eval().weight) == pytest.approx(1, abs=0.05)


def test_a_scale_is_re_initialised():
    norm = normalize_weights(nn.BatchNorm1d(4), {"weight": "spectral"})
    with torch.no_grad():
        norm.parametrizations.weight.original.fill_(7.0)
    reset_parameters(norm)
    assert norm.parametrizations.weight.original.tolist() == [1.0] * 4
    assert norm.weight.tolist() == [0.5] * 4


@pytest.mark.parametrize(
    ("kind", "reason"), [("weight_norm", "all weights of a unit are 0"), ("spectral_persistent", "all weights are 0")]
)
def test_a_weight_without_direction_is_refused_by_name_before_any_is_changed(kind, reason):
    layers = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    nn.init.zeros_(layers[1].weight)
    with pytest.raises(ValueError, match=f"weight_normalization: 1.weight: {kind}: {reason}"):
        normalize_weights(layers, {"weight": kind})
    assert {name for name, _ in layers.named_parameters()} == {"0.weight", "0.bias", "1.weight", "1.bias"}
