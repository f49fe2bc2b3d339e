"""Copies of models: with their weights, or re-initialised."""

import gc
import weakref
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

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
)
from layers.reuse import clone
from layers.transformers.positions import ImagePositions
from tests.layers.reuse_tools import IMAGES, Shared, count, pointers, residual_network, transformer


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


def test_a_parameter_that_nothing_initialises_is_refused():
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

    with pytest.raises(ValueError, match=r"nothing re-initialises 1\.scale: give Scale .* reset_parameters"):
        clone(nn.Sequential(nn.Linear(3, 3), Scale()), weights=False)
    assert clone(Scale()).scale.tolist() == [1, 1, 1]
    normalised = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 3)))
    with pytest.raises(ValueError, match=r"nothing re-initialises 0\.parametrizations\.\S+: remove the weight's param"):
        clone(normalised, weights=False)


def test_a_copy_does_not_keep_its_model_alive():
    model = nn.ModuleList([embedding := nn.Embedding(5, 3), TiedLinear(embedding)])
    copied, watched = clone(model), weakref.ref(embedding)
    del model, embedding
    gc.collect()
    assert watched() is None
    assert copied[1].embedding is copied[0]
