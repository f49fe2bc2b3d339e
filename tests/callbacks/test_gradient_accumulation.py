from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import GradientAccumulationScheduler
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn

from callbacks import GradientAccumulation, PiecewiseLinearLR, WeightDecay
from callbacks.gradient_accumulation import _Window
from tests.callbacks.chain_tools import GivenGradients, assert_same, index_loader, random_gradients, run, weights_of
from tests.tools import quiet_trainer

ADAM = partial(torch.optim.Adam, lr=0.02)
SGD = partial(torch.optim.SGD, lr=0.1)


class Regression(pl.LightningModule):
    """A small network with a per-sample mean loss on fixed data."""

    def __init__(self, optimizer=ADAM):
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)).double()
        self.make_optimizer = optimizer
        self.x, self.y = torch.randn(40, 5, dtype=torch.float64), torch.randn(40, 1, dtype=torch.float64)

    def training_step(self, batch, batch_idx):
        return nn.functional.mse_loss(self.net(self.x[batch]), self.y[batch])

    def configure_optimizers(self):
        return self.make_optimizer(self.parameters())


def batches(size, total=40):
    parts = [torch.arange(start, min(start + size, total)) for start in range(0, total, size)]
    return torch.utils.data.DataLoader(parts, batch_size=None)


def fit(loader, *callbacks, make=ADAM, **kwargs):
    module = Regression(make)
    trainer = quiet_trainer(*callbacks, **kwargs)
    trainer.fit(module, loader)
    return module, trainer


@pytest.mark.parametrize("n", [2, 4, 5])
def test_a_window_of_equal_batches_is_one_large_batch(n):
    small, trainer = fit(batches(2), GradientAccumulation(n), max_epochs=3)
    large, _ = fit(batches(2 * n), max_epochs=3)
    assert trainer.global_step == 3 * 20 // n
    assert_same(weights_of(small), weights_of(large), atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("unannounced", [False, True])
def test_a_short_last_window_is_the_mean_of_what_it_has(n, unannounced):
    """13 batches: if the data's end is not known beforehand, the gradient is rescaled afterwards."""

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(batches(2, 26))

    loader = torch.utils.data.DataLoader(Stream(), batch_size=None) if unannounced else batches(2, 26)
    small, trainer = fit(loader, GradientAccumulation(n), max_epochs=2)
    large, _ = fit(batches(2 * n, 26), max_epochs=2)
    assert trainer.global_step == 2 * -(-13 // n)
    assert_same(weights_of(small), weights_of(large), atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_full_windows_equal_lightnings_to_the_last_bit(n):
    ours, _ = fit(batches(2), GradientAccumulation(n), max_epochs=2, gradient_clip_val=0.1)
    native, _ = fit(batches(2), max_epochs=2, gradient_clip_val=0.1, accumulate_grad_batches=n)
    assert_same(weights_of(ours), weights_of(native))


def test_a_schedule_in_optimizer_steps():
    """Steps 0 and 1 take one batch, 2 to 4 three, from 5 on two; an epoch of 8 batches cuts windows."""
    gradients = random_gradients(8)
    module = GivenGradients(gradients, SGD)
    start = module.linear.weight.detach().clone()
    rule = GradientAccumulation({2: 3, 5: 2})
    trainer = quiet_trainer(rule, max_epochs=2)
    trainer.fit(module, index_loader(8))
    windows = [[0], [1], [2, 3, 4], [5, 6, 7], [0, 1, 2], [3, 4], [5, 6], [7]]
    theta = start
    for window in windows:
        theta = theta - 0.1 * sum(gradients[i]["linear.weight"] for i in window) / len(window)
    torch.testing.assert_close(module.linear.weight.detach(), theta, rtol=0, atol=1e-13)
    assert trainer.global_step == len(windows)
    assert trainer.accumulate_grad_batches == 1  # restored
    assert not isinstance(trainer.accumulate_grad_batches, _Window)


def test_decay_acts_once_per_window():
    gradients = random_gradients(6)
    module = GivenGradients(gradients, SGD)
    theta = module.linear.weight.detach().clone()
    run(module, GradientAccumulation(3), WeightDecay(0.5), PiecewiseLinearLR({0: 1.0, 1: 0.5}))
    for window, factor in (([0, 1, 2], 1.0), ([3, 4, 5], 0.5)):
        mean = sum(gradients[i]["linear.weight"] for i in window) / 3
        theta = theta - 0.1 * factor * (mean + 0.5 * theta)
    torch.testing.assert_close(module.linear.weight.detach(), theta, rtol=0, atol=1e-14)


def test_a_batch_that_training_step_skips_does_not_count():
    gradients = random_gradients(6)
    gradients[1] = {}
    module = GivenGradients(gradients, SGD)
    theta = module.linear.weight.detach().clone()
    with pytest.warns(UserWarning, match="`training_step` returned `None`"):
        run(module, GradientAccumulation(3))
    for window in ([0, 2], [3, 4, 5]):
        theta = theta - 0.1 * sum(gradients[i]["linear.weight"] for i in window) / len(window)
    torch.testing.assert_close(module.linear.weight.detach(), theta, rtol=0, atol=1e-14)


def test_a_window_counts_from_its_own_first_batch():
    window = _Window(3)
    window.first_batch = 4
    assert [batch % window == 0 for batch in range(4, 8)] == [True, False, False, True]
    assert torch.tensor(6.0) / window == 2.0


class Estimates(Regression):
    """Asks for the number of steps where schedulers are made."""

    def configure_optimizers(self):
        self.estimate = self.trainer.estimated_stepping_batches
        return super().configure_optimizers()


@pytest.mark.parametrize("others", [[], [PiecewiseLinearLR({0: 1.0})]])
@pytest.mark.parametrize(
    ("steps", "kwargs"),
    [(1, {}), (4, {}), (4, {"max_steps": 7}), ({0: 3}, {"limit_train_batches": 10}), ({0: 4, 5: 4}, {}), (50, {})],
)
def test_the_estimated_steps_are_those_taken(steps, kwargs, others):
    """13 batches, three epochs; the callback may come after the rule that leads."""
    module = Estimates()
    trainer = quiet_trainer(*others, GradientAccumulation(steps), **{"max_epochs": 3, **kwargs})
    trainer.fit(module, batches(3, total=39))
    assert module.estimate == trainer.global_step
    trainer = quiet_trainer(GradientAccumulation(steps), **{"max_epochs": 3, **kwargs})
    again = Estimates()
    for _ in range(2):  # the second fit with a Trainer, too
        trainer.fit(again, batches(3, total=39))
        assert again.estimate == module.estimate


def test_a_schedule_refuses_to_estimate():
    with pytest.raises(MisconfigurationException, match=r"not known with GradientAccumulation\(steps={0: 1, 5: 4}\)"):
        quiet_trainer(GradientAccumulation({5: 4}), max_epochs=3).fit(Estimates(), batches(3, total=39))


def test_a_schedule_refuses_to_estimate_later_too():
    class Asks(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            with pytest.raises(MisconfigurationException, match="GradientAccumulation"):
                _ = trainer.estimated_stepping_batches
            self.asked = True

    asks = Asks()
    fit(batches(3, total=39), GradientAccumulation({5: 4}), asks)
    assert asks.asked


class Manual(GivenGradients):
    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


@pytest.mark.parametrize(
    ("make", "others", "kwargs", "message"),
    [
        (partial(Manual, optimizer=SGD), [], {}, r"can't work with Manual, which steps its optimizers itself"),
        (
            partial(GivenGradients, optimizer=SGD),
            [],
            {"accumulate_grad_batches": 2},
            r"GradientAccumulation and Trainer\(accumulate_grad_batches=2\) both",
        ),
        (
            partial(GivenGradients, optimizer=SGD),
            [GradientAccumulationScheduler({0: 2})],
            {},
            "GradientAccumulation and GradientAccumulationScheduler both",
        ),
        (partial(GivenGradients, optimizer=torch.optim.LBFGS), [], {}, "can't work with LBFGS"),
    ],
)
def test_impossible_pairs_are_refused(make, others, kwargs, message):
    with pytest.raises(MisconfigurationException, match=message):
        run(make(random_gradients(2)), GradientAccumulation(2), *others, **kwargs)


@pytest.mark.parametrize("steps", [0, -1, {}, {-1: 2}, {3: 0}, True])
def test_bad_arguments_are_refused(steps):
    with pytest.raises(ValueError, match=r"GradientAccumulation: .*steps \(.*\) must be an integer"):
        GradientAccumulation(steps)
