"""Copies of models: with their weights, or re-initialised."""

import gc
import weakref
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from layers import (
    DGCNN,
    GCN,
    GIN,
    DotScore,
    FullAttention,
    GraphSAGE,
    MultiheadSelfAttention,
    ObjectHead,
    SubjectHead,
    TiedLinear,
    normalize_weights,
)
from layers.reuse import clone
from layers.transformers.positions import ImagePositions
from tests.layers.reuse_tools import IMAGES, Shared, count, pointers, residual_network, transformer
from tests.layers.test_reuse_untraced import hugging_face


def test_a_clone_with_weights_computes_the_same_and_shares_nothing():
    network = residual_network()
    cloned = clone(network)
    assert torch.equal(cloned(IMAGES), network(IMAGES))
    assert not pointers(cloned) & pointers(network)
    assert not cloned.training


def test_a_clone_without_weights_is_re_initialised():
    network = residual_network()
    torch.manual_seed(3)
    cloned = clone(network, weights=False)
    assert not cloned.training
    for (name, new), old in zip(cloned.named_parameters(), network.parameters(), strict=True):
        assert new.isfinite().all()
        assert new.shape == old.shape
        if "norm" not in name:
            assert not torch.equal(new, old)
    norm = cloned.blocks[0].norm
    assert int(norm.num_batches_tracked) == 0
    assert not norm.running_mean.any()
    # A uniform distribution of torch's width.
    assert 0.9 * 100**-0.5 < cloned.unused.weight.abs().max() <= 100**-0.5


@pytest.mark.parametrize("weights", [True, False])
def test_sharing_inside_survives(weights: bool):
    shared = clone(Shared(), weights)
    assert shared.alias is shared.linear
    model = transformer()
    cloned = clone(model, weights)
    assert cloned.output.embedding is cloned.embedding
    assert cloned.embedding is not model.embedding
    assert count(cloned) == count(model)


def test_a_models_own_scheme_has_the_last_word():
    cloned = clone(transformer(tie_embedding=False), weights=False)
    assert not cloned.output.weight.any()
    assert not cloned.blocks[0].attention.out_proj.bias.any()
    assert cloned.blocks[0].attention.in_proj_weight.std() < 0.1
    attention = clone(FullAttention(8, 2), weights=False)
    assert isinstance(attention, MultiheadSelfAttention)
    assert attention.in_proj_weight.abs().max() <= (6 / 32) ** 0.5
    assert clone(nn.MultiheadAttention(8, 2), weights=False).in_proj_weight.isfinite().all()


OWN_SCHEMES = {
    "transformer": partial(transformer, False),
    "image_positions": lambda: ImagePositions(6, 40),
    "encoder": lambda: DGCNN([str(i) for i in range(90)], 5, 30, size=16, dilations=(1,)),
    "subjects": lambda: SubjectHead(16, 0),
    "objects": lambda: ObjectHead(16, 12, 0, 2),
    "scores": lambda: DotScore(20, 40, units=32),
    "graph_convolutions": lambda: GCN(30, 5),
    "graph_isomorphism": lambda: GIN(30, 5),
    "graph_mean": lambda: GraphSAGE(30, 5),
}


@pytest.mark.parametrize("make", OWN_SCHEMES.values(), ids=OWN_SCHEMES)
def test_a_clone_of_our_layers_starts_as_they_do(make):
    """Not with torch's schemes for the layers inside: the spread of each weight shows it."""
    torch.manual_seed(5)
    model = make()
    fresh = dict(make().named_parameters())
    for name, drawn in clone(model, weights=False).named_parameters():
        assert drawn.any() == fresh[name].any(), name
        if drawn.numel() >= 100:
            assert not torch.equal(drawn, fresh[name]) or not drawn.any(), name
            assert drawn.std().item() == pytest.approx(fresh[name].std().item(), rel=0.25), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_a_parameter_that_nothing_initialises_is_refused(dtype):
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3, dtype=dtype))

    with pytest.raises(ValueError, match=r"nothing re-initialises 1\.scale: give Scale .* reset_parameters"):
        clone(nn.Sequential(nn.Linear(3, 3), Scale()), weights=False)
    assert clone(Scale()).scale.tolist() == [1, 1, 1]


class Gain(nn.Module):
    """A function of a weight with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((), 2.0))

    def forward(self, weight):
        return self.gain * weight

    def right_inverse(self, weight):
        return weight / self.gain


class Initialised(nn.Module):
    """Its own scheme for a layer inside."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.norm, self.head = nn.Linear(30, 40), nn.BatchNorm1d(40), nn.Linear(40, 30)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.head.weight, 0.5)


@pytest.mark.parametrize("kind", ["spectral", "spectral_persistent", "weight_norm", "l2", "standardized", "torch.tanh"])
def test_a_clone_of_normalised_weights_is_drawn_as_the_plain_model_is(kind: str):
    torch.manual_seed(0)
    model = normalize_weights(Initialised(), {"^hidden.weight|^head.weight": kind})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = Initialised()
    torch.manual_seed(7)
    cloned = clone(model, weights=False)
    torch.manual_seed(7)
    expected = clone(plain, weights=False)
    assert torch.equal(expected.head.weight, torch.full((30, 40), 0.5))
    normalize_weights(expected, {"^hidden.weight|^head.weight": kind})
    assert cloned.state_dict().keys() == model.state_dict().keys()
    for name, value in cloned.state_dict().items():
        if not name.endswith(("_u", "_v")):
            assert torch.equal(value, expected.state_dict()[name]), name
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    if kind == "spectral_persistent":
        norm = torch.linalg.matrix_norm(cloned.eval().hidden.weight, 2).item()
        assert norm == pytest.approx(1, rel=0.03)


def test_a_clone_of_torchs_parametrizations_and_of_shared_weights():
    layer = parametrizations.spectral_norm(parametrizations.weight_norm(nn.Linear(6, 5)), "bias")
    cloned = clone(nn.Sequential(layer), weights=False)[0]
    assert cloned.weight.abs().max() <= 6**-0.5
    assert not torch.equal(cloned.weight, layer.weight)
    assert torch.linalg.vector_norm(cloned.bias).item() == pytest.approx(1)
    model = normalize_weights(transformer(), {"embedding": "l2"})
    cloned = clone(model, weights=False)
    assert cloned.output.embedding is cloned.embedding
    assert torch.allclose(cloned.embedding.weight.norm(dim=1), torch.ones(11))
    assert not pointers(cloned) & pointers(model)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("older", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_a_clone_of_torchs_older_normalised_weights(older):
    network, x = nn.Sequential(older(nn.Linear(6, 40)), nn.Linear(40, 2)), torch.randn(3, 6)
    network(x)  # leaves a weight that has a graph
    copied = clone(network)
    assert torch.equal(copied.eval()(x), network.eval()(x))
    torch.manual_seed(0)
    cloned = clone(network.train(), weights=False)
    plain = nn.Sequential(nn.Linear(6, 40), nn.Linear(40, 2))
    torch.manual_seed(0)
    plain = clone(plain, weights=False)
    assert torch.equal(cloned[1].weight, plain[1].weight)
    if older is nn.utils.weight_norm:
        torch.testing.assert_close(cloned(x), plain(x))
        assert torch.equal(cloned[0].weight_v, plain[0].weight)
    else:
        assert torch.equal(cloned[0].weight_orig, plain[0].weight)
    cloned(x).sum().backward()
    assert network[0].bias.grad is None


@pytest.mark.parametrize("name", ["ViT", "GPT2"])
def test_a_clone_of_hugging_faces_models_follows_their_scheme(name):
    model = hugging_face(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)
    cloned = clone(model, weights=False)
    for path, parameter in cloned.named_parameters():
        assert not (parameter == 7).any(), path
    matrix = next(p for path, p in cloned.named_parameters() if p.dim() == 2 and "proj" in path)
    assert 0.005 < matrix.std() < 0.03  # theirs (0.02, or less by depth); Linear by itself has 0.14


def test_a_scheme_with_other_arguments_is_not_hugging_faces():
    class Scaled(nn.Linear):
        def _init_weights(self, std=0.1):
            self.weight.fill_(std)

    torch.manual_seed(0)
    cloned = clone(Scaled(3, 3), weights=False)
    assert not (cloned.weight == cloned.weight[0, 0]).all()


def test_a_clone_of_a_parametrization_without_an_inverse():
    class Symmetric(nn.Module):
        def forward(self, weight):
            return weight.triu() + weight.triu(1).mT

    layer = nn.Linear(3, 3)
    parametrize.register_parametrization(layer, "weight", Symmetric())
    cloned = clone(layer, weights=False)
    assert torch.equal(cloned.weight, cloned.weight.mT)
    assert not torch.equal(cloned.weight, layer.weight)


def test_what_a_normalisation_has_of_its_own_is_initialised_or_refused():
    model = normalize_weights(nn.Sequential(nn.Linear(3, 3)), {"weight": Gain()})
    with pytest.raises(ValueError, match=r"re-initialises 0\.parametrizations\.weight\.\S+gain: give Gain"):
        clone(model, weights=False)
    Gain.reset_parameters = lambda self: nn.init.constant_(self.gain, 3.0)
    try:
        cloned = clone(model, weights=False)
    finally:
        del Gain.reset_parameters
    assert cloned[0].parametrizations.weight[0].function.gain == 3
    assert 0 < cloned[0].weight.abs().max() <= 3**-0.5


def test_a_copy_does_not_keep_its_model_alive():
    model = nn.ModuleList([embedding := nn.Embedding(5, 3), TiedLinear(embedding)])
    copied, watched = clone(model), weakref.ref(embedding)
    del model, embedding
    gc.collect()
    assert watched() is None
    assert copied[1].embedding is copied[0]
