from functools import partial

import pytest
import torch

from callbacks import LengthScaledLR, PiecewiseLinearLR, WeightDecay
from datamodules.batches import TokenBatch
from datamodules.loader import BatchLoader
from tests.callbacks.chain_tools import GivenGradients, MemoryLogger, Recorder, random_gradients
from tests.tools import quiet_trainer

LENGTHS = [70, 35, 7, 105]
SGD = partial(torch.optim.SGD, lr=2.0)


class Windows(GivenGradients):
    def training_step(self, batch: TokenBatch, batch_idx: int):
        return super().training_step(batch.inputs[:, 0], batch_idx)


def windows() -> BatchLoader:
    def fetch(indices: torch.Tensor) -> TokenBatch:
        tokens = torch.full((1, LENGTHS[int(indices[0])]), int(indices[0]))
        return TokenBatch(tokens, tokens)

    return BatchLoader(fetch, len(LENGTHS), 1)


def fit(module, *callbacks, **arguments) -> Recorder:
    recorder = Recorder()
    quiet_trainer(*callbacks, recorder, **arguments).fit(module, windows())
    return recorder


def test_the_learning_rate_follows_the_length_and_is_restored():
    gradients = random_gradients(4)
    module, logger = Windows(gradients, SGD), MemoryLogger()
    recorder = fit(module, LengthScaledLR(70), logger=logger, log_every_n_steps=1)
    assert recorder.learning_rates == [[2.0], [1.0], [0.2], [3.0]]
    assert [row["train/length_scaled_lr"] for row in logger.rows] == pytest.approx([2.0, 1.0, 0.2, 3.0])
    weight = torch.as_tensor(Windows(gradients, SGD).linear.weight)
    for length, weights, given in zip(LENGTHS, recorder.trajectory, gradients, strict=True):
        weight = weight - 2.0 * length / 70 * given["linear.weight"]
        torch.testing.assert_close(weights["linear.weight"], weight.detach())
    assert module.trainer.optimizers[0].param_groups[0]["lr"] == 2.0


@pytest.mark.parametrize("first", [True, False])
def test_it_scales_the_schedules_value_and_decay_uses_the_product(first: bool):
    rules = [LengthScaledLR(70), PiecewiseLinearLR({0: 0.5, 4: 0.1})]
    recorder = fit(
        Windows(random_gradients(4), SGD),
        *(rules if first else reversed(rules)),
    )
    factors = [0.5, 0.4, 0.3, 0.2]
    expected = [2.0 * factor * length / 70 for factor, length in zip(factors, LENGTHS, strict=True)]
    assert [lr for (lr,) in recorder.learning_rates] == pytest.approx(expected)

    still = [{"linear.weight": torch.zeros(4, 3)}] * 4
    module = Windows(still, SGD)
    before = module.linear.weight.detach().clone()
    decayed = fit(module, LengthScaledLR(70), WeightDecay(0.01))
    for length, weights in zip(LENGTHS, decayed.trajectory, strict=True):
        before = before * (1 - 2.0 * length / 70 * 0.01)
        torch.testing.assert_close(weights["linear.weight"], before)


def test_a_scheduler_of_the_module_sees_its_own_learning_rate():
    module = Windows(random_gradients(4), SGD, scheduler=partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5))
    recorder = fit(module, LengthScaledLR(70))
    expected = [2.0 * 0.5**step * length / 70 for step, length in enumerate(LENGTHS)]
    assert [lr for (lr,) in recorder.learning_rates] == pytest.approx(expected)


def test_a_length_below_one_is_refused():
    with pytest.raises(ValueError, match=r"LengthScaledLR: base_length \(0\) must be at least 1"):
        LengthScaledLR(0)


def test_batches_without_a_length_are_refused_in_one_line():
    module = GivenGradients(random_gradients(2), SGD)
    with pytest.raises(ValueError, match=r"needs batches with inputs \(B, T\), but got Tensor") as caught:
        quiet_trainer(LengthScaledLR()).fit(module, BatchLoader(lambda indices: indices, 2, 1))
    assert "\n" not in str(caught.value)
