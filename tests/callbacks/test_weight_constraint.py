"""Constraints after the step: their results, when they act, and their place in the chain."""

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from callbacks import AveragedWeights, GradientAccumulation, Lookahead, WeightConstraint, WeightDecay
from layers import normalize_weights
from layers.graphs.networks import Projection
from tests.callbacks.chain_tools import GivenGradients, assert_same, index_loader, random_gradients, run, weights_of
from tests.tools import quiet_trainer

SGD = partial(torch.optim.SGD, lr=0.3, momentum=0.8)
EVERYTHING = {"include": None, "exclude": []}


def max_norm(rows, limit):
    """Unit by unit."""
    constrained = []
    for row in rows:
        norm = sum(x * x for x in row) ** 0.5
        constrained.append([x * limit / norm if norm > limit else x for x in row])
    return constrained


def unit_norm(rows, _):
    return [[x / (sum(y * y for y in row) ** 0.5 or 1.0) for x in row] for row in rows]


LOOPS = {
    "max_norm": max_norm,
    "unit_norm": unit_norm,
    "non_negative": lambda rows, _: [[x if x > 0 else 0.0 for x in row] for row in rows],
    "clip": lambda rows, limit: [[min(max(x, -limit), limit) for x in row] for row in rows],
    "torch.tanh": lambda rows, _: torch.tensor(rows, dtype=torch.float64).tanh().tolist(),
}


def constrain(weights, name, limit):
    loop = LOOPS[name]
    return {
        key: torch.tensor(
            loop(value.tolist(), limit) if value.dim() > 1 else loop([value.tolist()], limit)[0], dtype=torch.float64
        )
        for key, value in weights.items()
    }


class Reference:
    """SGD with momentum, a constraint and Lookahead, as a loop over plain tensors."""

    def __init__(self, weights, name, limit, lookahead=None):
        self.weights, self.name, self.limit, self.lookahead = weights, name, limit, lookahead
        self.momentum, self.slow, self.steps = {}, dict(weights), 0

    def step(self, gradients):
        for name, gradient in gradients.items():
            kept = self.momentum.get(name)
            self.momentum[name] = gradient if kept is None else 0.8 * kept + gradient
            self.weights[name] = self.weights[name] - 0.3 * self.momentum[name]
        self.steps += 1
        if self.lookahead and self.steps % self.lookahead[0] == 0:
            for name, weight in self.weights.items():
                self.weights[name] = self.slow[name] + self.lookahead[1] * (weight - self.slow[name])
        self.weights = constrain(self.weights, self.name, self.limit)
        if self.steps == 1:
            self.slow = constrain(self.slow, self.name, self.limit)
        if self.lookahead and self.steps % self.lookahead[0] == 0:
            self.slow = dict(self.weights)


class SlowCopies(pl.Callback):
    def __init__(self, lookahead):
        self.lookahead, self.seen = lookahead, []

    def on_train_batch_end(self, *_):
        self.seen.append({name: copy.clone() for name, copy in self.lookahead.copies["optimizer0"].items()})


@pytest.mark.parametrize("lookahead", [None, (1, 0.5), (3, 0.5)])
@pytest.mark.parametrize("name", LOOPS)
def test_the_trajectory_of_a_plain_loop(name, lookahead):
    gradients = random_gradients(8, absent=0.3)
    module = GivenGradients(gradients, SGD)
    reference = Reference(weights_of(module), name, 0.7, lookahead)
    rules = [WeightConstraint(name, 0.7, **EVERYTHING)]
    slow = SlowCopies(Lookahead(*lookahead, evaluate="fast")) if lookahead else None
    # Deliberately not in the order of the phases.
    recorded = run(module, *rules, *([slow.lookahead, slow] if slow else []))
    for t, (actual, given) in enumerate(zip(recorded.trajectory, gradients, strict=True)):
        reference.step({key: torch.as_tensor(value, dtype=torch.float64) for key, value in given.items()})
        assert_same(actual, reference.weights, atol=1e-12)
        if slow:
            assert_same(slow.seen[t], reference.slow, atol=1e-12)
            if name != "torch.tanh":  # the others are idempotent
                assert_same(slow.seen[t], constrain(slow.seen[t], name, 0.7), atol=1e-12)


def test_weights_that_fulfil_the_constraint_stay_bit_identical():
    gradients = random_gradients(5)
    for rule in (WeightConstraint("max_norm", 1e3, **EVERYTHING), WeightConstraint("clip", 1e3, **EVERYTHING)):
        plain = run(GivenGradients(gradients, SGD)).trajectory
        for actual, expected in zip(run(GivenGradients(gradients, SGD), rule).trajectory, plain, strict=True):
            assert_same(actual, expected)


def inside(weights, limit):
    return all(value.flatten(1).norm(dim=1).max() <= limit + 1e-12 for value in weights.values() if value.dim() > 1)


@pytest.mark.parametrize("own", [False, True], ids=["lightning", "ours"])
def test_accumulated_batches_and_the_tail_of_an_epoch(own):
    gradients = random_gradients(7)  # windows of 3, 3 and 1
    rule = WeightConstraint("max_norm", 0.4)
    module = GivenGradients(gradients, SGD)
    start = weights_of(module)
    extra = [GradientAccumulation(3)] if own else []
    kwargs = {} if own else {"accumulate_grad_batches": 3}
    trajectory = run(module, rule, *extra, **kwargs).trajectory
    assert not inside(start, 0.4)
    for t, weights in enumerate(trajectory):
        if t in (2, 5, 6):
            assert inside(weights, 0.4)
        else:  # no step, no change
            assert_same(weights, trajectory[t - 1] if t else start)


def test_a_step_that_the_scaler_skips_changes_nothing():
    from pytorch_lightning.plugins import MixedPrecision

    gradients = random_gradients(4)
    gradients[0]["linear.weight"] = torch.full((4, 3), float("inf"))
    gradients[2]["linear.weight"] = torch.full((4, 3), float("inf"))
    module = GivenGradients(gradients, SGD)
    start = weights_of(module)
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=4.0))
    slow = SlowCopies(Lookahead(2))
    trajectory = run(module, WeightConstraint("max_norm", 0.4), slow.lookahead, slow, plugins=[plugin]).trajectory
    assert_same(trajectory[0], start)
    assert_same(slow.seen[0], start)
    assert inside(trajectory[1], 0.4)
    assert inside(slow.seen[1], 0.4)
    assert_same(trajectory[2], trajectory[1])
    assert inside(trajectory[3], 0.4)


def test_averages_see_the_constrained_weights():
    gradients = random_gradients(4)
    average = AveragedWeights(0.5)
    module = GivenGradients(gradients, SGD)
    trajectory = run(module, average, WeightConstraint("non_negative", **EVERYTHING), WeightDecay(0.1)).trajectory
    expected, total = 0.0, 0.0
    for t, weights in enumerate(trajectory):
        expected, total = expected + 0.5 ** (3 - t) * weights["linear.weight"], total + 0.5 ** (3 - t)
    torch.testing.assert_close(average.copies["optimizer0"]["linear.weight"], expected / total, rtol=0, atol=1e-12)


class Layers(pl.LightningModule):
    """Units in either dimension, a scalar, a frozen weight and a normalised one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.transposed = nn.ConvTranspose2d(3, 4, 2)
        self.projection = Projection(6, 5)
        self.temperature = nn.Parameter(torch.tensor(9.0))
        self.frozen = nn.Linear(3, 2).requires_grad_(False)
        self.normed = normalize_weights(nn.Linear(3, 2), {"weight": "l2"})
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(9.0)

    def training_step(self, batch, batch_idx):
        return sum(parameter.sum() for parameter in self.parameters() if parameter.requires_grad)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def test_units_of_each_layer_and_exceptions():
    module = Layers()
    frozen = module.frozen.weight.clone()
    trainer = quiet_trainer(WeightConstraint("unit_norm"))
    trainer.fit(module, index_loader(2))
    assert [unit.norm().item() for unit in module.transposed.weight.unbind(1)] == pytest.approx([1.0] * 4)
    assert module.projection.weight.norm(dim=0).tolist() == pytest.approx([1.0] * 5)
    assert module.normed.parametrizations.weight.original.norm(dim=1).tolist() == pytest.approx([1.0] * 2)
    assert module.temperature > 8
    assert torch.equal(module.frozen.weight, frozen)
    assert module.transposed.bias.norm() > 1.5  # excluded


def test_two_constraints_on_different_weights_and_half_precision():
    class Half(pl.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Linear(300, 20).bfloat16(), nn.Linear(30, 20).bfloat16()

        def training_step(self, batch, batch_idx):
            return self.a.weight.sum() - 3 * self.b.weight.sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1.0)

    module = Half()
    quiet_trainer(WeightConstraint("clip", 0.5, ["a.weight"]), WeightConstraint("max_norm", 2.0, ["b.weight"])).fit(
        module, index_loader(2)
    )
    assert module.a.weight.abs().max() == 0.5
    assert module.b.weight.float().norm(dim=1).tolist() == pytest.approx([2.0] * 20, rel=2**-8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"constraint": "maxnorm"}, r"constraint 'maxnorm' is none of max_norm, .*the nearest is 'max_norm'"),
        ({"constraint": "torch.nothing"}, "no import path of a callable"),
        ({"limit": 0.0}, r"limit \(0.0\) must be above 0"),
        ({"include": "bias"}, "must be a list of strings"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        WeightConstraint(**arguments)


def test_a_callable_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"returned \(\) for a weight of shape \(4, 3\)"):
        run(GivenGradients(random_gradients(1), SGD), WeightConstraint(torch.sum, include=["linear.weight"]))
    with pytest.raises(ValueError, match=r"include entry 'liner' matches no parameter; the nearest one is 'linear"):
        run(GivenGradients(random_gradients(1), SGD), WeightConstraint(include=["liner"]))


def test_the_logged_chain_has_the_constraint_after_lookahead(capsys):
    run(GivenGradients(random_gradients(1), SGD), WeightConstraint(), Lookahead())
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Update chain"))
    assert "lookahead: Lookahead(" in line
    assert line.index("lookahead") < line.index(
        "constraint: WeightConstraint(constraint='max_norm', limit=3.0, exclude=['type:norm', 'bias[^.]*$'])"
    )


def test_a_functions_settings_are_the_same_in_another_process():
    text = (
        str(WeightConstraint(torch.abs)) + str(WeightConstraint(lambda weight: weight)) + str(WeightConstraint(_twice))
    )
    assert " at 0x" not in text
    assert "_twice" in text


def _twice(weight):
    return 2 * weight


def test_an_include_that_exclude_empties_is_refused():
    rule = WeightConstraint("non_negative", include=["bias$"])
    with pytest.raises(ValueError, match=r"WeightConstraint: exclude .* removes all that include \['bias\$'\] selects"):
        rule.choose(nn.Linear(2, 2))
    WeightConstraint("non_negative", include=["bias$"], exclude=[]).choose(nn.Linear(2, 2))
