"""Models split in two, and features from inside."""

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from layers import BlogEncoder, DIMEncoder, TiedLinear
from layers.reuse import clone, features, nodes, split
from tests.layers.reuse_tools import (
    IMAGES,
    Residual,
    ResidualNetwork,
    Shared,
    count,
    pointers,
    residual_network,
    transformer,
)


@pytest.fixture
def network() -> ResidualNetwork:
    return residual_network()


BLOCK = 2 * (6 * 6 * 9 + 6) + 12
STEM, CLASSIFIER = 6 * 3 * 9 + 6, 6 * 5 + 5


@pytest.mark.parametrize(
    ("cut", "behind"),
    [
        ("images", STEM + 3 * BLOCK + CLASSIFIER),
        ("stem", 3 * BLOCK + CLASSIFIER),
        ("blocks.0", 2 * BLOCK + CLASSIFIER),
        ("blocks.1.relu#2", BLOCK + CLASSIFIER),
        ("blocks", CLASSIFIER),
        ("mean", CLASSIFIER),
        ("classify", 0),
        ("output", 0),
    ],
)
def test_the_parts_compute_what_the_model_does_and_divide_its_weights(network, cut: str, behind: int):
    head, tail = split(network, cut)
    assert torch.equal(tail(head(IMAGES)), network(IMAGES))
    assert count(tail) == behind
    assert count(head) == STEM + 3 * BLOCK + CLASSIFIER - behind
    assert pointers(head) | pointers(tail) <= pointers(network)
    assert not pointers(head) & pointers(tail)


def test_the_identities_at_both_ends(network):
    head, tail = split(network, "images")
    assert head(IMAGES) is IMAGES
    head, tail = split(network, "output")
    logits = head(IMAGES)
    assert tail(logits) is logits


@pytest.mark.parametrize(
    ("cuts", "missing"),
    [
        ("blocks.1.norm", "blocks.0"),
        (["blocks.1.norm", "blocks.2.first"], "blocks.1"),
        ("blocks.0.second", "stem"),
    ],
)
def test_a_cut_that_a_skip_connection_crosses_says_what_is_missing(network, cuts, missing: str):
    with pytest.raises(ValueError, match=rf"the tail after .* also needs {missing}: add to the cuts"):
        split(network, cuts)


@pytest.mark.parametrize("cuts", [["blocks.1.norm", "blocks.0"], ["blocks.0", "blocks.1.norm"], ["stem", "blocks"]])
def test_several_cuts(network, cuts: list[str]):
    head, tail = split(network, cuts)
    values = head(IMAGES)
    assert isinstance(values, tuple)
    assert len(values) == 2
    assert torch.equal(tail(values), network(IMAGES))
    # Nothing before the last cut is computed again.
    assert not any(name.startswith(("stem", "blocks.0")) for name, _ in tail.named_parameters())


def test_a_second_input_is_missing_or_a_cut():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor, scale: Tensor) -> dict[str, Tensor]:
            return {"scaled": self.linear(x) * scale, "scale": scale}

    model = Two()
    with pytest.raises(ValueError, match="the tail after linear also needs scale"):
        split(model, "linear")
    head, tail = split(model, ["linear", "scale"])
    x, scale = torch.rand(2, 4), torch.rand(4)
    expected, found = model(x, scale), tail(head(x, scale))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with pytest.raises(ValueError, match=r"output of Two returns several values: name one of .*mul"):
        split(model, "output")


def test_gradients_reach_the_model_and_a_step_on_a_part_is_a_step_on_the_model(network):
    expected = torch.autograd.grad(network(IMAGES).square().sum(), [network.stem.weight, network.classify.weight])
    head, tail = split(network, "blocks.1")
    tail(head(IMAGES)).square().sum().backward()
    assert torch.equal(network.stem.weight.grad, expected[0])
    assert torch.equal(network.classify.weight.grad, expected[1])
    before = network.classify.weight.clone()
    torch.optim.SGD(tail.parameters(), lr=0.1).step()
    torch.testing.assert_close(network.classify.weight, before - 0.1 * expected[1])


def test_the_parts_share_the_mode_of_the_layers(network):
    head, _ = split(network.train(), "blocks.0")
    before = network.blocks[0].norm.running_mean.clone()
    head(IMAGES)
    assert int(network.blocks[0].norm.num_batches_tracked) == 2
    assert not torch.equal(network.blocks[0].norm.running_mean, before)
    head.eval()
    assert not network.blocks[0].norm.training


def test_a_layer_that_is_called_twice_has_two_nodes_and_counts_once():
    model = Shared()
    assert nodes(model) == ["x", "norm#1", "linear#1", "norm#2", "linear#2"]
    for name in ("linear", "alias"):
        with pytest.raises(ValueError, match=rf"Shared calls {name} 2 times: name one of linear#1, linear#2"):
            split(model, name)
    head, tail = split(model, "norm#2")
    assert count(model) == count(head) == 4 * 4 + 4 + 2 * 4
    assert count(tail) == 4 * 4 + 4
    assert len(torch.optim.SGD(model.parameters(), lr=1.0).param_groups[0]["params"]) == 4
    x = torch.rand(8, 4)
    expected = copy.deepcopy(model)(x)
    assert torch.equal(tail(head(x)), expected)
    # The running statistics moved once per call, so twice.
    assert int(model.norm.num_batches_tracked) == 2
    model.eval()
    assert torch.equal(tail(head(x)), model(x))


def test_running_statistics_of_a_shared_norm_move_once_per_call():
    model = Shared()
    x = torch.rand(8, 4)
    with torch.no_grad():
        normed = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()
        second = model.linear(normed).mean(0)
        features(model, "linear#2")(x)
    torch.testing.assert_close(model.norm.running_mean, 0.9 * 0.1 * x.mean(0) + 0.1 * second)


def test_features_are_the_activations(network):
    seen = {}
    names = ["stem", "blocks.1", "blocks.2.norm"]
    hooks = [
        network.get_submodule(name).register_forward_hook(lambda _, __, value, name=name: seen.update({name: value}))
        for name in names
    ]
    network(IMAGES)
    for hook in hooks:
        hook.remove()
    model = features(network, names)
    found = model(IMAGES)
    assert list(found) == names
    assert all(torch.equal(found[name], seen[name]) for name in names)
    assert count(model) == STEM + 2 * BLOCK + 6 * 6 * 9 + 6 + 12
    assert pointers(model) < pointers(network)


def test_unknown_names(network):
    with pytest.raises(ValueError, match=r"ResidualNetwork has no node 'block\.1' to cut at; nearest: blocks\.1"):
        split(network, "block.1")
    with pytest.raises(ValueError, match="no node 'unused'"):
        features(network, "unused")
    with pytest.raises(ValueError, match="named twice"):
        split(network, ["stem", "stem"])
    with pytest.raises(ValueError, match=r"leaf_modules: ResidualNetwork has no module 'stm'; nearest: stem"):
        split(network, "stem", leaf_modules=["stm"])
    for function in (split, features):
        with pytest.raises(ValueError, match=r"nodes\(ResidualNetwork\) lists the places"):
            function(network, [])


def test_leaf_modules_are_one_node_by_path_or_class(network):
    for leaf_modules in (["blocks.1"], [Residual]):
        names = nodes(network, leaf_modules)
        assert "blocks.1" in names
        assert not any(name.startswith("blocks.1.") for name in names)
        head, tail = split(network, "blocks.1", leaf_modules)
        assert torch.equal(tail(head(IMAGES)), network(IMAGES))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) if x.sum() > 0 else self.linear(-x)


class ByMode(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(self.linear(x), training=self.training)


def test_what_cannot_be_traced_is_one_node_inside_a_model_and_refused_as_the_model():
    model = nn.Sequential(nn.Linear(3, 3), Branching(), nn.Linear(3, 3))
    assert nodes(model) == ["input_1", "0", "1", "2"]
    head, tail = split(model, "1")
    for x in (torch.ones(2, 3), -torch.ones(2, 3)):
        assert torch.equal(tail(head(x)), model(x))
    with pytest.raises(
        ValueError, match=r"the forward of Branching can't be traced \(test_reuse\.py:\d+: .*module of its own"
    ):
        split(Branching(), "linear")
    assert not [name for name in vars(model) if "tensor_constant" in name]


def test_a_forward_that_depends_on_the_mode_is_run_refused_or_a_leaf():
    model = nn.Sequential(nn.Linear(3, 3), ByMode())
    with pytest.raises(ValueError, match=r"forward of 1 differs between training .*leaf_modules \(\['1'\]\)"):
        split(model, ["0", "1"])
    assert model.training
    head, tail = split(model, "0")
    head(torch.ones(4, 3))
    torch.manual_seed(1)
    expected = model(torch.ones(4, 3))
    torch.manual_seed(1)
    assert torch.equal(tail(head(torch.ones(4, 3))), expected)
    head, tail = split(model.eval(), "0", leaf_modules=["1"])
    assert torch.equal(tail(head(torch.ones(2, 3))), model(torch.ones(2, 3)))
    with pytest.raises(ValueError, match="the forward of ByMode differs between training"):
        split(ByMode(), "linear")


@pytest.mark.parametrize(
    "make", [lambda: BlogEncoder(8, 6, channels=8), lambda: DIMEncoder(8, code_size=6, stochastic=True)]
)
def test_every_place_of_our_encoders_gives_what_the_encoder_does(make):
    encoder = make().eval()
    images = torch.rand(2, 3, 8, 8)
    expected = encoder(images)
    named = {"local": "local_layers", "mean": "mean", "logvar": "logvar"}
    named["fc"] = "global_layers" if isinstance(encoder, BlogEncoder) else "fc_layers"
    named["conv"] = "local_layers" if isinstance(encoder, BlogEncoder) else "conv_layers"
    found = features(encoder, list(named.values()))(images)
    for field, name in named.items():
        assert torch.equal(found[name], getattr(expected, field))
    head, tail = split(encoder, "local_layers")
    for field, value in zip(expected._fields, tail(head(images)), strict=True):
        assert torch.equal(value, getattr(expected, field))


def test_transformer_blocks_and_the_tied_weight_of_a_tail():
    model = transformer().eval()
    tokens = torch.randint(11, (2, 6))
    for cut in ("embedding", "blocks.0", "blocks.1", "norm", "output"):
        head, tail = split(model, cut)
        assert torch.equal(tail(head(tokens)), model(tokens)), cut
    head, tail = split(model, "blocks.0")
    # The tail's output layer reads the embedding: the model's own weight is among its parameters.
    assert tail.embedding.weight is model.embedding.weight
    assert count(tail) == count(model.blocks[1]) + count(model.norm) + count(model.embedding) + 11
    with pytest.raises(ValueError, match=r"after blocks\.1\.attention also needs blocks\.0:"):
        split(model, "blocks.1.attention")
    copied = copy.deepcopy(tail)
    assert torch.equal(copied(head(tokens)), model(tokens))
    assert not pointers(copied) & pointers(model)


def test_a_normalised_layer_stays_one_node():
    model = nn.Sequential(nn.Linear(3, 4), parametrizations.weight_norm(nn.Linear(4, 4)), nn.ReLU())
    assert nodes(model) == ["input_1", "0", "1", "2"]


def test_parts_can_be_saved_whole(network):
    head, _ = split(network, "blocks.0")
    file = io.BytesIO()
    torch.save(head.state_dict(), file)
    file.seek(0)
    other, _ = split(clone(network, weights=False).eval(), "blocks.0")
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(IMAGES), head(IMAGES))


def test_a_tied_layer_with_no_embedding_in_the_part_is_one_node():
    embedding = nn.Embedding(5, 3)
    model = nn.Sequential(nn.Linear(3, 3), TiedLinear(embedding))
    head, tail = split(model, "0")
    x = torch.rand(2, 3)
    assert torch.equal(tail(head(x)), model(x))
    assert tail.get_submodule("1") is model[1]


def test_constants_of_the_forward_are_in_the_parts():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.second(self.first(x + torch.arange(3.0)) * torch.arange(3.0))

    model, x = Shifted(), torch.randn(2, 3)
    names = set(vars(model))
    head, tail = split(model, "first")
    assert torch.equal(tail(head(x)), model(x))
    assert set(vars(model)) == names


def test_operations_in_place():
    class Lost(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            h = self.layer(x)
            torch.relu_(h)
            return h * 2

    with pytest.raises(ValueError, match="Lost: relu_ changes its input in place and its result is not used"):
        split(Lost(), "layer")
    model, x = nn.Sequential(nn.Linear(3, 5), nn.ReLU(inplace=True), nn.Linear(5, 2)), torch.randn(4, 3)
    both = features(model, ["0", "1"])(x)
    assert torch.equal(both["0"], model[0](x))
    assert torch.equal(both["1"], model[:2](x))
    head, tail = split(model, "0")
    value = head(x).detach().requires_grad_()  # the caller's own: the tail doesn't change it
    assert torch.equal(tail(value), model(x))
    assert torch.equal(value, model[0](x))


class Gated(nn.Module):
    """Can't be traced, and works in place on its input."""

    def forward(self, x):
        return x.relu_() if x.sum() > -1e9 else x


@pytest.mark.parametrize("view", [nn.Flatten(), nn.Identity(), nn.Dropout(0.0)])
@pytest.mark.parametrize("change", [nn.ReLU(inplace=True), Gated()])
def test_a_tail_leaves_its_value_alone_where_a_view_of_it_is_changed(view, change):
    model, x = nn.Sequential(nn.Linear(3, 5), view, change, nn.Linear(5, 2)), torch.randn(4, 3)
    head, tail = split(model, "0")
    value = head(x).detach()
    again = pickle.loads(pickle.dumps(tail))
    for part in (tail, copy.deepcopy(tail), again, split(tail, "2")[0]):
        part(value)
        assert torch.equal(value, model[0](x))
    assert torch.equal(again(value), model(x))


def test_a_tail_without_operations_in_place_copies_nothing():
    tail = split(nn.Sequential(nn.Linear(3, 5), nn.Flatten(), nn.ReLU(), nn.Linear(5, 2)), "0")[1]
    assert [node.op for node in tail.graph.nodes] == ["placeholder", *["call_module"] * 3, "output"]
    torch.jit.script(tail)


def test_a_tail_of_a_tuple_whose_part_is_changed_in_place():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.relu = nn.LSTM(3, 4), nn.ReLU(inplace=True)

        def forward(self, x):
            return self.relu(self.lstm(x)[0])

    model, x = Recurrent(), torch.randn(5, 2, 3)
    head, tail = split(model, "lstm")
    value = head(x)
    assert torch.equal(tail(value), model(x))
    assert torch.equal(value[0], model.lstm(x)[0])


def test_a_node_that_hides_a_tied_weight_is_refused():
    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(5, 3)
            self.top = nn.Sequential(nn.Linear(3, 3), TiedLinear(self.embedding))

        def forward(self, tokens):
            return self.top(self.embedding(tokens))

    model, tokens = Language(), torch.tensor([[0, 4]])
    _, tail = split(model, "top.0")
    assert any(parameter is model.embedding.weight for parameter in tail.parameters())
    assert torch.equal(tail(model.top[0](model.embedding(tokens))), model(tokens))
    with pytest.raises(ValueError, match="top is one node, but the embedding of its TiedLinear lies outside"):
        split(model, "embedding", leaf_modules=["top"])


def test_non_persistent_buffers_stay_so():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)
            self.register_buffer("scale", torch.ones(3), persistent=False)
            self.register_buffer("shift", torch.ones(3))

        def forward(self, x):
            return self.layer(x * self.scale + self.shift)

    head, _ = split(Scaled(), "layer")
    assert set(head.state_dict()) == {"layer.weight", "layer.bias", "shift"}
    assert set(dict(head.named_buffers())) == {"scale", "shift"}
