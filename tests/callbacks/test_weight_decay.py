from functools import partial

import pytest
import torch

from callbacks import WeightDecay
from tests.callbacks.chain_tools import GOLDEN, GivenGradients, assert_same, golden_trajectory, random_gradients, run

ADAM = partial(torch.optim.Adam, lr=0.02)


def test_on_adam_it_is_adamw():
    recorded = run(GivenGradients(GOLDEN["grads"], ADAM), WeightDecay(0.1, exclude=[]))
    for actual, expected in zip(recorded.trajectory, golden_trajectory("AdamW"), strict=True):
        assert_same(actual, expected, atol=1e-14)


def test_against_torch_adamw_in_float32():
    gradients = random_gradients(20)
    recorded = run(GivenGradients(gradients, ADAM).float(), WeightDecay(0.01, exclude=[]))
    reference = run(GivenGradients(gradients, partial(torch.optim.AdamW, lr=0.02, weight_decay=0.01)).float())
    assert_same(recorded.trajectory[-1], reference.trajectory[-1], atol=1e-6)


def test_on_sgd_with_a_rate_that_changes_every_step_it_is_sgdw():
    gradients = random_gradients(9)
    make_scheduler = partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda step: 1 / (1 + step))
    module = GivenGradients(gradients, partial(torch.optim.SGD, lr=0.1, momentum=0.9), scheduler=make_scheduler)
    start = module.linear.weight.detach().tolist()
    recorded = run(module, WeightDecay(0.3, exclude=[]))
    for row in range(4):
        for column in range(3):
            theta, velocity = start[row][column], None
            for step, given in enumerate(gradients):
                lr, g = 0.1 / (1 + step), given["linear.weight"][row, column].item()
                velocity = g if velocity is None else 0.9 * velocity + g
                theta = theta - lr * velocity - lr * 0.3 * theta
            assert recorded.trajectory[-1]["linear.weight"][row, column].item() == pytest.approx(theta, abs=1e-14)


def test_a_parameter_without_gradient_does_not_decay():
    gradients = [{name: g for name, g in step.items() if name != "embedding.weight"} for step in random_gradients(3)]
    module = GivenGradients(gradients, ADAM)
    before = module.embedding.weight.detach().clone()
    run(module, WeightDecay(0.5, exclude=[]))
    assert torch.equal(module.embedding.weight, before)


def test_default_exclusion_leaves_norms_and_biases_alone():
    gradients = random_gradients(4)
    with_decay = run(GivenGradients(gradients, ADAM), WeightDecay(0.5)).trajectory[-1]
    without = run(GivenGradients(gradients, ADAM)).trajectory[-1]
    differing = {name for name in without if not torch.equal(with_decay[name], without[name])}
    assert differing == {"linear.weight", "embedding.weight"}


def test_two_rates_for_two_parts():
    gradients = random_gradients(4)
    both = run(
        GivenGradients(gradients, ADAM),
        WeightDecay(0.5, include=["linear"], exclude=[]),
        WeightDecay(0.1, ["embed"], []),
    ).trajectory[-1]
    for rate, part in ((0.5, "linear.weight"), (0.1, "embedding.weight")):
        alone = run(GivenGradients(gradients, ADAM), WeightDecay(rate, exclude=[])).trajectory[-1]
        assert torch.equal(both[part], alone[part])


def test_rate_0_is_bit_identical():
    gradients = random_gradients(5, absent=0.3)
    with_rule = run(GivenGradients(gradients, ADAM), WeightDecay(0.0)).trajectory
    for actual, expected in zip(with_rule, run(GivenGradients(gradients, ADAM)).trajectory, strict=True):
        assert_same(actual, expected)


def test_double_decay_gives_a_warning():
    module = GivenGradients(random_gradients(1), partial(torch.optim.AdamW, lr=0.02, weight_decay=0.03))
    with pytest.warns(UserWarning, match=r"AdamW\(weight_decay=0.03\) decays twice: set weight_decay: 0 in AdamW"):
        run(module, WeightDecay(0.01))


@pytest.mark.parametrize("rate", [-0.1, float("inf"), float("nan")])
def test_bad_rates_are_refused(rate):
    with pytest.raises(ValueError, match=r"WeightDecay: rate \(.*\) must be at least 0 and finite"):
        WeightDecay(rate)


def test_an_error_about_a_mistyped_name_has_the_nearest_one():
    with pytest.raises(ValueError, match=r"WeightDecay: include entry 'linaer' .* nearest one is 'linear\."):
        run(GivenGradients(random_gradients(1), ADAM), WeightDecay(include=["linaer"]))
