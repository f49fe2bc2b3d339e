"""Clipping on little data against Lightning's own, and none on more."""

from functools import partial

import pytest
import torch

from callbacks import PiecewiseLinearLR, SmallDataClipping
from tests.callbacks.chain_tools import GivenGradients, assert_same, random_gradients, run

SGD = partial(torch.optim.SGD, lr=0.1)


def weights(*rules, **options):
    module = GivenGradients(random_gradients(8), SGD)
    return run(module, PiecewiseLinearLR({3: 1.0}), *rules, **options).trajectory


@pytest.mark.parametrize(
    ("least", "options", "as_with"),
    [
        (9, {}, {"gradient_clip_val": 0.5}),
        (8, {}, {}),
        (3, {"accumulate_grad_batches": 4}, {"gradient_clip_val": 0.5, "accumulate_grad_batches": 4}),
        (2, {"accumulate_grad_batches": 4}, {"accumulate_grad_batches": 4}),
        (9, {"gradient_clip_val": 0.1}, {"gradient_clip_val": 0.1}),
    ],
)
def test_clips_where_an_epoch_is_short(least, options, as_with):
    for ours, theirs in zip(weights(SmallDataClipping(0.5, least), **options), weights(**as_with), strict=True):
        assert_same(ours, theirs)


def test_clipping_changes_these_updates():
    assert not torch.equal(weights()[-1]["linear.weight"], weights(gradient_clip_val=0.5)[-1]["linear.weight"])


@pytest.mark.parametrize("arguments", [{"norm": 0.0}, {"min_epoch_steps": 0}])
def test_arguments_out_of_range(arguments):
    with pytest.raises(ValueError, match=f"SmallDataClipping: {next(iter(arguments))} .* must be positive"):
        SmallDataClipping(**arguments)
