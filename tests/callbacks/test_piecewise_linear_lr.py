from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    BackboneFinetuning,
    GradientAccumulationScheduler,
    LearningRateMonitor,
    StochasticWeightAveraging,
)
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

from callbacks import PiecewiseLinearLR, WeightDecay
from tests.callbacks.chain_tools import (
    GivenGradients,
    MemoryLogger,
    Recorder,
    assert_same,
    index_loader,
    random_gradients,
    run,
)
from tests.tools import quiet_trainer

SGD = partial(torch.optim.SGD, lr=0.1)
EXAMPLE = {1000: 1, 2000: 0.1}


def test_the_example_of_the_article():
    rule = PiecewiseLinearLR(EXAMPLE)
    values = [rule.factor(step) for step in (0, 500, 1000, 1500, 2000, 3000)]
    assert values == pytest.approx([0, 0.5, 1, 0.55, 0.1, 0.1], abs=1e-15)


def test_is_the_linear_schedule_with_warm_up():
    rule, warmup, total = PiecewiseLinearLR({7: 1.0, 31: 0.0}), 7, 31
    for step in range(40):
        expected = step / warmup if step < warmup else max(0.0, (total - step) / (total - warmup))
        assert rule.factor(step) == pytest.approx(expected, abs=1e-15)


def test_0_is_added_only_to_schedules_without_it():
    assert PiecewiseLinearLR({0: 0.5, 2: 1}).factor(0) == 0.5
    assert [PiecewiseLinearLR({3: 2.0}).factor(step) for step in (0, 3, 9)] == [0, 2, 2]


def schedulers():
    yield lambda o: lr_scheduler.ExponentialLR(o, 0.9), lambda t: 0.9**t
    yield lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t)), lambda t: 1 / (1 + t)
    yield lambda o: lr_scheduler.StepLR(o, 3, 0.5), lambda t: 0.5 ** (t // 3)
    yield (
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.ConstantLR(o, 0.25, 100), lr_scheduler.ExponentialLR(o, 0.5)], [4]
        ),
        lambda t: 0.25 if t < 4 else 0.5 ** (t - 4),
    )


@pytest.mark.parametrize(("make", "value"), [*schedulers()])
def test_multiplies_the_modules_scheduler_without_compounding(make, value):
    gradients = random_gradients(9)
    module = GivenGradients(gradients, SGD, scheduler=make)
    schedule = {3: 1.0, 6: 0.0, 8: 2.0}
    alone = run(GivenGradients(gradients, SGD, scheduler=make)).learning_rates
    recorded = run(module, PiecewiseLinearLR(schedule))
    rule = PiecewiseLinearLR(schedule)
    assert recorded.learning_rates == [[lr * rule.factor(t)] for t, (lr,) in enumerate(alone)]
    assert alone == [[pytest.approx(0.1 * value(t))] for t in range(9)]
    optimizer = module.optimizers().optimizer
    assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(0.1 * value(9))  # restored at the end
    assert type(module.lr_schedulers()).__module__.startswith("torch.")


def test_a_plateau_scheduler_keeps_its_own_value():
    class Plateau(GivenGradients):
        def validation_step(self, batch, batch_idx):
            self.log("val/loss", 1.0)

        def configure_optimizers(self):
            optimizer = self.make_optimizer(self.parameters())
            plateau = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val/loss"}}

    module = Plateau(random_gradients(2), SGD)
    seen = []

    class Sees(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            seen.append(optimizer.param_groups[0]["lr"])

    trainer = quiet_trainer(PiecewiseLinearLR({0: 0.0, 8: 1.0}), Sees(), max_epochs=4)
    trainer.fit(module, index_loader(2), index_loader(1))
    base = [0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.025, 0.025]
    assert seen == pytest.approx([b * t / 8 for t, b in enumerate(base)])


def test_monitors_see_the_learning_rate_of_the_step():
    logger = MemoryLogger()
    run(
        GivenGradients(random_gradients(6), SGD),
        LearningRateMonitor(logging_interval="step"),
        PiecewiseLinearLR({4: 1.0}, log=True),
        logger=logger,
        log_every_n_steps=1,
    )
    expected = [0, 0.025, 0.05, 0.075, 0.1, 0.1]
    assert logger.values("lr-SGD") == pytest.approx(expected)
    assert logger.values("train/learning_rate")[:6] == pytest.approx(expected)


def test_decay_uses_the_rate_of_its_step():
    gradients = random_gradients(6)
    module = GivenGradients(gradients, SGD)
    theta = module.linear.weight.detach().clone()
    recorded = run(module, WeightDecay(0.5), PiecewiseLinearLR({3: 1.0, 5: 0.2}))
    for t, factor in enumerate([0, 1 / 3, 2 / 3, 1, 0.6, 0.2]):
        theta = theta - 0.1 * factor * (gradients[t]["linear.weight"] + 0.5 * theta)
        torch.testing.assert_close(recorded.trajectory[t]["linear.weight"], theta, rtol=0, atol=1e-14)


def test_steps_are_windows_not_batches():
    recorded = run(GivenGradients(random_gradients(7), SGD), PiecewiseLinearLR({2: 1.0}), accumulate_grad_batches=3)
    assert recorded.learning_rates == [[0.0], [0.05], [0.1]]


@pytest.mark.parametrize(
    ("schedule", "unit", "in_steps", "options"),
    [
        ({0.5: 1.0, 1.0: 0.0}, "share", {4: 1.0, 8: 0.0}, {}),
        ({0.4: 1.0, 1.0: 0.0}, "share", {2: 1.0, 5: 0.0}, {"max_steps": 5}),
        ({0.5: 1.0, 2.0: 0.0}, "epoch", {4: 1.0, 16: 0.0}, {}),
        ({1.0: 1.0}, "epoch", {3: 1.0}, {"accumulate_grad_batches": 3}),
    ],
)
def test_epochs_and_shares_are_so_many_steps(schedule, unit, in_steps, options):
    rates = run(GivenGradients(random_gradients(8), SGD), PiecewiseLinearLR(schedule, unit), **options).learning_rates
    expected = run(GivenGradients(random_gradients(8), SGD), PiecewiseLinearLR(in_steps), **options).learning_rates
    assert rates == expected


@pytest.mark.parametrize(("least", "in_steps"), [(20, {10: 1.0, 40: 0.0}), (5, {4: 1.0, 16: 0.0})])
def test_an_epoch_counts_as_some_steps_at_least(least, in_steps):
    rule = PiecewiseLinearLR({0.5: 1.0, 2.0: 0.0}, "epoch", min_epoch_steps=least)
    options = {"max_epochs": 6}
    rates = run(GivenGradients(random_gradients(8), SGD), rule, **options).learning_rates
    assert rates == run(GivenGradients(random_gradients(8), SGD), PiecewiseLinearLR(in_steps), **options).learning_rates
    assert len(rates) == 48


def test_a_least_number_of_steps_is_for_epochs():
    with pytest.raises(ValueError, match=r"min_epoch_steps \(9\) must be 0 where unit is not epoch"):
        PiecewiseLinearLR({2: 1.0}, min_epoch_steps=9)
    with pytest.raises(ValueError, match=r"min_epoch_steps \(-1\) must be at least 0"):
        PiecewiseLinearLR({2: 1.0}, "epoch", min_epoch_steps=-1)


def test_a_step_function_of_neighbours_that_fall_together_takes_the_later_factor():
    rates = run(
        GivenGradients(random_gradients(4), SGD), PiecewiseLinearLR({0: 1.0, 0.001: 0.5}, "share")
    ).learning_rates
    assert rates == [[0.05]] * 4


@pytest.mark.parametrize(
    ("rule", "warns"),
    [
        (PiecewiseLinearLR({9: 1.0}), True),
        (PiecewiseLinearLR({2: 0.5, 9: 1.0, 10: 1.0}), True),
        (PiecewiseLinearLR({8: 1.0, 9: 1.0, 100: 0.0}), False),
        (PiecewiseLinearLR({2: 1.0, 100: 0.0}), False),
        (PiecewiseLinearLR({1.0: 1.0}, "share"), False),
        (PiecewiseLinearLR({0: 1.0, 100: 0.0}), False),
    ],
)
def test_a_warm_up_that_cannot_end_is_said_at_the_start(rule, warns, capsys):
    run(GivenGradients(random_gradients(8), SGD), rule)
    assert ("warm-up takes 9 steps, but the run has 8" in capsys.readouterr().out) == warns


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from torch.arange(4)[:, None]


def test_a_run_without_a_known_end_has_no_shares(capsys):
    with pytest.raises(MisconfigurationException, match="the run has no planned end to take shares of"):
        run(GivenGradients(random_gradients(2), SGD), PiecewiseLinearLR({1: 1.0}, "share"), max_epochs=-1)
    module, loader = GivenGradients(random_gradients(4), SGD), DataLoader(Endless(), batch_size=None)
    with pytest.raises(MisconfigurationException, match=r"set trainer\.max_steps \(where the data has a length"):
        quiet_trainer(PiecewiseLinearLR({1: 1.0}, "share"), max_epochs=3).fit(module, loader)
    recorder = Recorder()
    quiet_trainer(PiecewiseLinearLR({4: 1.0}), recorder, max_epochs=2).fit(module, loader)
    assert recorder.learning_rates == [[pytest.approx(0.1 * min(step / 4, 1))] for step in range(8)]
    assert "warm-up" not in capsys.readouterr().out


@pytest.mark.parametrize("unit", ["epoch", "share"])
def test_scheduled_windows_leave_epochs_and_shares_unknown(unit):
    module, tricks = GivenGradients(random_gradients(8), SGD), [GradientAccumulationScheduler({0: 4})]
    with pytest.raises(MisconfigurationException, match="the steps of an epoch change, so epochs and shares"):
        run(module, PiecewiseLinearLR({0: 1.0, 1: 0.0}, unit), *tricks)
    recorder = run(module, PiecewiseLinearLR({0: 1.0, 2: 0.0}), *tricks)
    assert recorder.learning_rates == [[0.1], [0.05]]


class Frozen(GivenGradients):
    """Its optimizer begins without the backbone."""

    @property
    def backbone(self):
        return self.linear

    def configure_optimizers(self):
        return self.make_optimizer([each for each in self.parameters() if each.requires_grad])


@pytest.mark.parametrize(
    ("module", "make"),
    [
        (Frozen, lambda: BackboneFinetuning(1, lambda epoch: 1.5, 0.1, should_align=False)),
        (GivenGradients, lambda: StochasticWeightAveraging(0.02, 1, annealing_epochs=2)),
    ],
)
def test_multiplies_what_callbacks_of_lightning_set(module, make):
    """Epochs of three steps: each group's rate is that of the callback alone, times the factor."""
    gradients, rule = random_gradients(3), PiecewiseLinearLR({4: 1.0, 9: 0.4})
    rates = []
    for rules in ([], [rule]):
        recorder = Recorder()
        quiet_trainer(*rules, make(), recorder, max_epochs=4).fit(module(gradients, SGD), index_loader(3))
        rates.append(recorder.learning_rates)
    alone, together = rates
    assert len(alone) == 12
    assert len({group for step in alone for group in step}) > 2
    for step, (one, both) in enumerate(zip(alone, together, strict=True)):
        assert both == [pytest.approx(rate * rule.factor(step)) for rate in one]


def test_the_user_may_set_the_rate_in_between_and_a_tensor_rate_works():
    class SetsRate(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 2:
                trainer.optimizers[0].param_groups[0]["lr"] = 1.0

    recorded = run(GivenGradients(random_gradients(4), SGD), PiecewiseLinearLR({4: 1.0}), SetsRate())
    assert recorded.learning_rates == [[0.0], [0.025], [0.5], [0.75]]
    tensor = partial(torch.optim.Adam, lr=torch.tensor(0.5), capturable=False, foreach=False)
    module = GivenGradients(random_gradients(3), tensor)
    assert run(module, PiecewiseLinearLR({2: 1.0})).learning_rates == [[0.0], [0.25], [0.5]]
    assert module.optimizers().optimizer.param_groups[0]["lr"].item() == 0.5


def test_a_checkpoint_holds_the_modules_rate(tmp_path):
    trainer = quiet_trainer(PiecewiseLinearLR({10: 1.0}))

    class Saves(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            trainer.save_checkpoint(tmp_path / "now.ckpt")

    trainer.callbacks.append(Saves())
    trainer.fit(GivenGradients(random_gradients(3), SGD), index_loader(3))
    checkpoint = torch.load(tmp_path / "now.ckpt", weights_only=True)
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] == 0.1


def test_factor_1_is_bit_identical():
    gradients = random_gradients(6, absent=0.3)
    make = partial(torch.optim.Adam, lr=0.02)
    with_rule = run(GivenGradients(gradients, make), PiecewiseLinearLR({0: 1})).trajectory
    for actual, expected in zip(with_rule, run(GivenGradients(gradients, make)).trajectory, strict=True):
        assert_same(actual, expected)


def test_mistakes():
    for schedule, message in [
        ({}, r"schedule \({}\) must be a dictionary"),
        ({-1: 1.0}, r"a step of schedule \(-1\) must be an integer of at least 0"),
        ({1.5: 1.0}, r"a step of schedule \(1.5\)"),
        ({5: -0.5}, r"schedule\[5\] \(-0.5\) must be at least 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            PiecewiseLinearLR(schedule)
    for schedule, unit, message in [
        ({1.5: 1.0}, "share", r"a share of schedule \(1.5\) must be in \[0, 1\]"),
        ({-1.0: 1.0}, "epoch", r"an? epoch of schedule \(-1.0\)"),
        ({1: 1.0}, "steps", r"unit \('steps'\) must be one of step, epoch, share"),
    ]:
        with pytest.raises(ValueError, match=message):
            PiecewiseLinearLR(schedule, unit)
    with pytest.raises(MisconfigurationException, match="holds 2 PiecewiseLinearLR; keep one"):
        run(GivenGradients(random_gradients(1), SGD), PiecewiseLinearLR({1: 1}), PiecewiseLinearLR({2: 1}))
