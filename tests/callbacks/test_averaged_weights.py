from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelPruning
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from callbacks import AveragedWeights, Lookahead
from tests.callbacks.chain_tools import GivenGradients, assert_same, index_loader, random_gradients, run, weights_of
from tests.tools import quiet_trainer

ADAM = partial(torch.optim.Adam, lr=0.02)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_the_authors_average_from_zero_with_correction(decay):
    gradients = random_gradients(8)
    rule = AveragedWeights(decay)
    recorded = run(GivenGradients(gradients, ADAM), rule)
    for name, average in rule.copies["optimizer0"].items():
        ema = torch.zeros_like(average)
        for weights in recorded.trajectory:
            ema = decay * ema + (1 - decay) * weights[name]
        torch.testing.assert_close(average, ema / (1 - decay ** len(gradients)), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("decay", [0.2, 0.9999])
def test_the_ramp_averages_from_the_initial_weights_on(decay):
    gradients = random_gradients(8)
    rule, module = AveragedWeights(decay, ramp=True), GivenGradients(gradients, ADAM)
    before = weights_of(module)
    recorded = run(module, rule)
    for name, average in rule.copies["optimizer0"].items():
        mean = before[name]
        for step, weights in enumerate(recorded.trajectory):
            d = min(decay, (1 + step) / (10 + step))
            mean = d * mean + (1 - d) * weights[name]
        torch.testing.assert_close(average, mean, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("memory", "unit", "decay"), [(4, "step", 0.75), (0.5, "share", 0.75), (0.25, "epoch", 0.5), (0.01, "share", 0.0)]
)
def test_the_memory_is_a_length_of_the_run(memory, unit, decay):
    averages = []
    for rule in (AveragedWeights(memory=memory, unit=unit), AveragedWeights(decay)):
        run(GivenGradients(random_gradients(8), ADAM), rule)
        averages.append(rule.copies["optimizer0"])
    assert_same(*averages)
    with pytest.raises(ValueError, match="memory"):
        AveragedWeights(memory=0.0, unit=unit)


class RestartAfter(pl.Callback):
    def __init__(self, rule: AveragedWeights, steps: int) -> None:
        self.rule, self.left = rule, steps

    def on_train_batch_end(self, trainer, *_):
        self.left -= 1
        if self.left == 0:
            self.rule.restart(self.rule.session.chains[0])


@pytest.mark.parametrize("ramp", [False, True])
def test_a_restart_starts_from_the_weights_before_the_next_step(ramp):
    gradients = random_gradients(9)
    rule = AveragedWeights(0.3, ramp)
    recorded = run(GivenGradients(gradients, ADAM), rule, RestartAfter(rule, 5))
    assert rule.kept_steps == {"optimizer0": 4}
    for name, average in rule.copies["optimizer0"].items():
        expected = recorded.trajectory[4][name]
        for t, weights in enumerate(recorded.trajectory[5:]):
            d = min(0.3, (1 + t) / (10 + t)) if ramp else 1 - (1 - 0.3) / (1 - 0.3 ** (t + 1))
            expected = d * expected + (1 - d) * weights[name]
        torch.testing.assert_close(average, expected, rtol=1e-12, atol=1e-14)


def test_without_the_ramp_it_is_a_chain_of_lerps_to_the_last_bit():
    gradients = random_gradients(8)
    rule = AveragedWeights(0.9)
    recorded = run(GivenGradients(gradients, ADAM), rule)
    for name, average in rule.copies["optimizer0"].items():
        expected = recorded.trajectory[0][name]
        for t, weights in enumerate(recorded.trajectory):
            expected = torch.lerp(expected, weights[name], (1 - 0.9) / (1 - 0.9 ** (t + 1)))
        assert torch.equal(average, expected)


def test_the_ramp_is_a_setting_only_if_it_is_on():
    assert str(AveragedWeights(0.9)) == "AveragedWeights(decay=0.9)"
    assert str(AveragedWeights(0.9, ramp=True)) == "AveragedWeights(decay=0.9, ramp=True)"


def test_the_training_is_bit_identical_and_ends_with_the_average():
    gradients = random_gradients(6, absent=0.3)
    rule, module = AveragedWeights(0.9), GivenGradients(gradients, ADAM)
    for actual, expected in zip(
        run(module, rule).trajectory, run(GivenGradients(gradients, ADAM)).trajectory, strict=True
    ):
        assert_same(actual, expected)
    assert_same(weights_of(module), rule.copies["optimizer0"])


def test_bfloat16_weights_are_averaged_in_float32():
    gradients = [{"linear.weight": torch.full((4, 3), -1.0)}] * 3
    module = GivenGradients(gradients, partial(torch.optim.SGD, lr=1.0), {"linear.weight": torch.zeros(4, 3)})
    rule = AveragedWeights(0.999)
    run(module.bfloat16(), rule)
    average = rule.copies["optimizer0"]["linear.weight"]
    assert average.dtype == torch.float32
    expected = (0.999**2 * 1 + 0.999 * 2 + 3) * 0.001 / (1 - 0.999**3)
    assert average[0, 0].item() == pytest.approx(expected, rel=1e-5)
    assert module.linear.weight.dtype == torch.bfloat16


def test_with_lookahead_the_average_is_evaluated():
    gradients = random_gradients(7)
    average, module = AveragedWeights(0.5), GivenGradients(gradients, ADAM)
    lookahead = Lookahead(3)
    recorded = run(module, average, lookahead)
    assert_same(weights_of(module), average.copies["optimizer0"])
    # It averages what Lookahead leaves, not what the inner optimizer proposes.
    ema = torch.zeros(4, 3, dtype=torch.float64)
    for weights in recorded.trajectory:
        ema = 0.5 * ema + 0.5 * weights["linear.weight"]
    torch.testing.assert_close(module.linear.weight.detach(), ema / (1 - 0.5**7), rtol=1e-12, atol=1e-14)


def test_a_test_after_the_fit_sees_the_average():
    class Tests(GivenGradients):
        def test_step(self, batch, batch_idx):
            self.log("test/weight", self.linear.weight[0, 0])

    module, rule = Tests(random_gradients(6), ADAM), AveragedWeights(0.9)
    trainer = quiet_trainer(rule)
    trainer.fit(module, index_loader(6))
    expected = rule.copies["optimizer0"]["linear.weight"][0, 0].item()
    (metrics,) = trainer.test(module, index_loader(1), verbose=False)
    assert metrics["test/weight"] == pytest.approx(expected, rel=1e-6)


def test_lightnings_own_average_is_refused():
    module = GivenGradients(random_gradients(1), ADAM)
    for rule in (AveragedWeights(), Lookahead()):
        with pytest.raises(MisconfigurationException, match=f"{type(rule).__name__} and EMAWeightAveraging both"):
            run(module, rule, EMAWeightAveraging())
        with pytest.raises(MisconfigurationException, match=f"{type(rule).__name__} and ModelPruning both change"):
            run(module, rule, ModelPruning("l1_unstructured", amount=0.5))
    run(GivenGradients(random_gradients(1), ADAM), Lookahead(evaluate="fast"), EMAWeightAveraging())


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_bad_decays_are_refused(decay):
    with pytest.raises(ValueError, match=r"AveragedWeights: decay \(.*\) must be in \[0, 1\)"):
        AveragedWeights(decay)
