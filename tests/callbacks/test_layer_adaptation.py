import math
from functools import partial

import pytest
import torch

from callbacks import LayerAdaptation, WeightDecay
from tests.callbacks.chain_tools import (
    GOLDEN,
    GivenGradients,
    MemoryLogger,
    assert_same,
    golden_trajectory,
    random_gradients,
    run,
)

ADAM = partial(torch.optim.Adam, lr=0.02)
SGD = partial(torch.optim.SGD, lr=0.1)


def test_on_adam_with_decay_it_is_lamb():
    module = GivenGradients(GOLDEN["grads"], partial(torch.optim.Adam, lr=0.02, eps=1e-6))
    # The list is not in the order of the phases.
    recorded = run(module, LayerAdaptation(exclude=[]), WeightDecay(0.01, exclude=[]))
    for actual, expected in zip(recorded.trajectory, golden_trajectory("Lamb"), strict=True):
        assert_same(actual, expected, atol=1e-13)


def norm(values):
    return math.sqrt(sum(value * value for value in values))


def test_decay_comes_before_the_ratio():
    gradients = random_gradients(1)
    module = GivenGradients(gradients, SGD)
    old = module.linear.weight.detach().flatten().tolist()
    got = run(module, LayerAdaptation(exclude=[]), WeightDecay(0.7, exclude=[])).trajectory[0]
    step = [-0.1 * g for g in gradients[0]["linear.weight"].flatten().tolist()]
    decayed = [dx - 0.1 * 0.7 * theta for dx, theta in zip(step, old, strict=True)]
    right = [t + dx * 0.1 * norm(old) / norm(decayed) for t, dx in zip(old, decayed, strict=True)]
    wrong = [t + dx * 0.1 * norm(old) / norm(step) - 0.07 * t for t, dx in zip(old, step, strict=True)]
    assert got["linear.weight"].flatten().tolist() == pytest.approx(right, abs=1e-14)
    assert got["linear.weight"].flatten().tolist() != pytest.approx(wrong, abs=1e-4)


def test_on_sgd_every_tensor_moves_by_its_own_length_times_lr():
    module = GivenGradients(random_gradients(6), SGD)
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    for step, after in enumerate(run(module, LayerAdaptation(exclude=[])).trajectory):
        for name, value in after.items():
            if step == 0 and name == "norm.bias":  # starts at 0 and takes the plain step
                continue
            assert (value - before[name]).norm().item() == pytest.approx(0.1 * before[name].norm().item(), rel=1e-12)
        before = after


def test_a_zero_tensor_and_a_zero_update_take_the_plain_step():
    gradients = [{"linear.weight": torch.ones(4, 3), "linear.bias": torch.zeros(4), "norm.weight": torch.ones(4)}]
    init = {"linear.weight": torch.zeros(4, 3), "linear.bias": torch.ones(4)}
    recorded = run(GivenGradients(gradients, SGD, init), LayerAdaptation(exclude=[])).trajectory[0]
    assert torch.equal(recorded["linear.weight"], torch.full((4, 3), -0.1, dtype=torch.float64))
    assert torch.equal(recorded["linear.bias"], torch.ones(4, dtype=torch.float64))


def test_learning_rate_0_moves_nothing():
    gradients = random_gradients(3)
    make_scheduler = partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda step: float(step > 0))
    module = GivenGradients(gradients, ADAM, scheduler=make_scheduler)
    start = module.linear.weight.detach().clone()
    trajectory = run(module, LayerAdaptation()).trajectory
    assert torch.equal(trajectory[0]["linear.weight"], start)
    assert not torch.equal(trajectory[1]["linear.weight"], start)


def test_norms_of_bfloat16_weights_are_computed_in_float32():
    gradients = [{"linear.weight": torch.full((4, 3), 1.0)}]
    init = {"linear.weight": torch.full((4, 3), 300.0)}
    module = GivenGradients(gradients, partial(torch.optim.SGD, lr=0.5), init).bfloat16()
    after = run(module, LayerAdaptation(exclude=[])).trajectory[0]["linear.weight"]
    # dx = -0.5 is below bfloat16's spacing of 2 at 300: nothing moves, and no ratio of rounding errors appears.
    assert torch.equal(after, torch.full((4, 3), 300.0, dtype=torch.bfloat16))
    module = GivenGradients([{"linear.weight": torch.full((4, 3), 64.0)}], partial(torch.optim.SGD, lr=0.5), init)
    after = run(module.bfloat16(), LayerAdaptation(exclude=[])).trajectory[0]["linear.weight"]
    assert torch.equal(after, torch.full((4, 3), 150.0, dtype=torch.bfloat16))


def test_logs_the_trust_ratios():
    gradients = random_gradients(1)
    module = GivenGradients(gradients, SGD)
    lengths = {name: parameter.detach().norm().item() for name, parameter in module.named_parameters()}
    logger = MemoryLogger()
    run(module, LayerAdaptation(exclude=[], log=True), logger=logger, log_every_n_steps=1)
    (row,) = (row for row in logger.rows if "train/trust_ratio_mean" in row)
    ratios = [length / gradients[0][name].norm().item() if length else 1 for name, length in lengths.items()]
    assert row["train/trust_ratio_mean"] == pytest.approx(sum(ratios) / len(ratios), rel=1e-6)
    assert row["train/trust_ratio_min"] == pytest.approx(min(ratios), rel=1e-6)
    assert row["train/trust_ratio_max"] == pytest.approx(max(ratios), rel=1e-6)


def test_nothing_chosen_is_bit_identical():
    gradients = random_gradients(5, absent=0.3)
    with_rule = run(GivenGradients(gradients, ADAM), LayerAdaptation(include=[])).trajectory
    for actual, expected in zip(with_rule, run(GivenGradients(gradients, ADAM)).trajectory, strict=True):
        assert_same(actual, expected)
