from functools import partial

import pytest
import torch

from callbacks import LayerAdaptation, ParameterwiseLR, WeightDecay
from tests.callbacks.chain_tools import GivenGradients, assert_same, random_gradients, run

ADAM = partial(torch.optim.Adam, lr=0.02)


class Groups(GivenGradients):
    """The peer: parameter groups with separate learning rates."""

    def configure_optimizers(self):
        rates = {"linear.weight": 0.01, "linear.bias": 0.02, "embedding.weight": 0.06}
        groups = [{"params": [p], "lr": rates.get(name, 0.02)} for name, p in self.named_parameters()]
        return self.make_optimizer(groups)


@pytest.mark.parametrize(
    "rules", [[], [(WeightDecay, {"rate": 0.3})], [(WeightDecay, {"rate": 0.3}), (LayerAdaptation, {})]]
)
def test_equals_parameter_groups(rules):
    gradients = random_gradients(10)
    multipliers = ParameterwiseLR({"type:Embedding": 3.0, "^linear": 0.5, "bias$": 2.0, "norm.bias": 0.5})
    with_rule = run(GivenGradients(gradients, ADAM), *(make(**a) for make, a in rules), multipliers)
    with_groups = run(Groups(gradients, ADAM), *(make(**a) for make, a in rules))
    for actual, expected in zip(with_rule.trajectory, with_groups.trajectory, strict=True):
        assert_same(actual, expected, atol=1e-13)


def test_0_freezes_and_1_changes_nothing_bit_identically():
    gradients = random_gradients(6)
    module = GivenGradients(gradients, ADAM)
    start = module.embedding.weight.detach().clone()
    got = run(module, ParameterwiseLR({"embedding": 0.0, "linear": 1.0}), WeightDecay(0.1)).trajectory[-1]
    assert torch.equal(module.embedding.weight, start)
    plain = run(GivenGradients(gradients, ADAM), WeightDecay(0.1)).trajectory[-1]
    assert_same(got, {name: value for name, value in plain.items() if not name.startswith("embedding")})


def test_mistakes():
    with pytest.raises(ValueError, match=r"ParameterwiseLR: multipliers\['bias'\] \(-1\) must be at least 0"):
        ParameterwiseLR({"bias": -1})
    with pytest.raises(
        ValueError, match=r"ParameterwiseLR: .* 'embeding' matches no parameter; the nearest one is 'emb"
    ):
        run(GivenGradients(random_gradients(1), ADAM), ParameterwiseLR({"embeding": 2.0}))
