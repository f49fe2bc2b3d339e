"""The scheduler slot: rates against formulas, and resuming from any checkpoint, with a module of one weight."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, GradientAccumulationScheduler
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.optim import SGD, lr_scheduler
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, OneCycleLR, StepLR

from callbacks import GradientAccumulation, PiecewiseLinearLR
from datamodules.loader import BatchLoader
from lightning_modules.hyperparameters import save_plain_hyperparameters
from lightning_modules.optimization import (
    Interval,
    Optimized,
    OptimizerSlot,
    ReduceLROnPlateau,
    SchedulerSlot,
    fused_argument,
)
from tests.tools import equal, quiet_trainer

BATCHES = 5
MOMENTUM = partial(SGD, momentum=0.5)


class OneWeight(Optimized, pl.LightningModule):
    """Its validation losses are given; ``manual``: two optimizers, stepped by itself."""

    monitor = "val/loss"
    mode = "min"

    def __init__(
        self,
        scheduler: SchedulerSlot | None = None,
        scheduler_interval: Interval = "epoch",
        optimizer: OptimizerSlot = MOMENTUM,
        scores: tuple[float, ...] = (),
        manual: bool = False,
        lr: float = 0.25,
    ) -> None:
        super().__init__()
        save_plain_hyperparameters(self)
        self.set_optimizer(optimizer, scheduler, scheduler_interval)
        self.automatic_optimization = not manual
        self.weights = nn.ParameterList([nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(1 + manual)])
        self.validations = 0

    def configure_optimizers(self):
        return self.optimize(*([weight] for weight in self.weights))

    def training_step(self, batch, batch_idx):
        loss = sum(((weight - batch) ** 2).mean() for weight in self.weights)
        if self.automatic_optimization:
            return loss
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()
        self.step_schedulers()
        return None

    def validation_step(self, batch, batch_idx):
        # What training has brought, where no losses are given.
        given = self.hparams.scores
        score = given[self.validations] if given else float(self.weights[0].detach())
        self.log_dict({"val/loss": score, "other": score})

    def on_validation_end(self):
        self.validations += 1


class Rates(pl.Callback):
    """The learning rates of each step, of all optimizers."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, ...]] = []

    def on_train_batch_start(self, trainer, *_: Any) -> None:
        self.steps = trainer.global_step

    def on_train_batch_end(self, trainer, *_: Any) -> None:
        if trainer.global_step > self.steps:
            self.seen.append(self.now)

    def on_after_backward(self, trainer, *_: Any) -> None:
        self.now = tuple(group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups)


def loader() -> BatchLoader:
    return BatchLoader(lambda rows: rows.double(), BATCHES, 1, shuffle=True, seed=3)


def fit(module: OneWeight, *callbacks: pl.Callback, ckpt_path: Path | None = None, **options: Any) -> list[tuple]:
    """The rates of each step of three epochs."""
    rates = Rates()
    trainer = quiet_trainer(*callbacks, rates, **{"max_epochs": 3, **options})
    trainer.fit(module, loader(), BatchLoader(lambda rows: rows, 1, 1), ckpt_path=ckpt_path, weights_only=True)
    return rates.seen


@pytest.mark.parametrize("manual", [False, True])
@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_the_scheduler_moves_on_after_each_step_or_epoch(interval: Interval, manual: bool):
    seen = fit(OneWeight(partial(CosineAnnealingLR, T_max=20), interval, manual=manual))
    times = [step if interval == "step" else step // BATCHES for step in range(3 * BATCHES)]
    expected = [0.25 * (1 + math.cos(math.pi * t / 20)) / 2 for t in times]
    assert seen == [(pytest.approx(rate, rel=1e-12),) * (1 + manual) for rate in expected]


def test_no_scheduler_is_what_it_was():
    module = OneWeight()
    assert type(module.configure_optimizers()) is SGD
    assert module.configure_callbacks() == []
    optimizers = OneWeight(manual=True).configure_optimizers()
    assert [type(optimizer) for optimizer in optimizers] == [SGD, SGD]


@pytest.mark.parametrize(
    ("accumulation", "manual", "options", "total"),
    [
        ([], False, {}, 15),
        ([], False, {"accumulate_grad_batches": 2}, 9),
        ([GradientAccumulation(2)], False, {}, 9),
        ([], False, {"max_steps": 7}, 7),
        ([], True, {}, 15),
        ([], True, {"max_steps": 14}, 7),  # counted for each optimizer
        ([], False, {"limit_train_batches": 2, "max_epochs": 4}, 8),
    ],
)
def test_a_cycle_takes_the_steps_of_the_run(accumulation, manual, options, total):
    seen = fit(OneWeight(partial(OneCycleLR, max_lr=2.0), "step", manual=manual), *accumulation, **options)
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.25, momentum=0.5)
    cycle, expected = OneCycleLR(optimizer, 2.0, total_steps=total), []
    for _ in range(total):
        expected.append((optimizer.param_groups[0]["lr"],) * (1 + manual))
        optimizer.step()
        cycle.step()
    assert seen == expected
    assert min(seen) == seen[-1]


def test_a_cycle_by_epochs_takes_their_number():
    seen = fit(OneWeight(partial(OneCycleLR, max_lr=2.0)))
    assert len(set(seen)) == 3
    assert seen[-1] == min(seen)
    with pytest.raises(MisconfigurationException, match="no planned end; set model"):
        fit(OneWeight(partial(OneCycleLR, max_lr=2.0), "step"), max_epochs=-1, max_time="00:00:01:00")
    windows = GradientAccumulationScheduler({0: 2})
    with pytest.raises(MisconfigurationException, match="the steps of the run are not known; set model"):
        fit(OneWeight(partial(OneCycleLR, max_lr=2.0), "step"), windows)
    assert len(fit(OneWeight(partial(OneCycleLR, max_lr=2.0), "step"), windows, max_epochs=-1, max_steps=7)) == 7
    given = fit(OneWeight(partial(OneCycleLR, max_lr=2.0, total_steps=50)))
    assert given[-1] > given[0]


class Improves(OneWeight):
    mode = "max"


@pytest.mark.parametrize("manual", [False, True])
@pytest.mark.parametrize(
    ("module", "slot", "factors"),
    [
        # By hand: with patience n, the validation n + 1 in a row without a better score halves the rate.
        (OneWeight, partial(ReduceLROnPlateau, factor=0.5, patience=1), [1, 1, 1, 0.5, 0.5]),
        (OneWeight, partial(lr_scheduler.ReduceLROnPlateau, factor=0.5, patience=1), [1, 1, 1, 0.5, 0.5]),
        (Improves, partial(ReduceLROnPlateau, factor=0.5, patience=1), [1, 1, 1, 1, 0.5]),
        (Improves, partial(ReduceLROnPlateau, factor=0.5, patience=0), [1, 1, 1, 0.5, 0.25]),
        (OneWeight, partial(ReduceLROnPlateau, monitor="other", factor=0.5, patience=1), [1, 1, 1, 0.5, 0.5]),
    ],
)
def test_a_plateau_is_judged_after_each_validation(module, slot, factors, manual):
    seen = fit(module(slot, scores=(3.0, 4.0, 3.5, 2.0, 5.0), manual=manual), max_epochs=5)
    assert seen == [(0.25 * factor,) * (1 + manual) for factor in factors for _ in range(BATCHES)]


def test_a_plateau_may_be_judged_several_times_an_epoch():
    slot = partial(ReduceLROnPlateau, factor=0.5, patience=0)
    seen = fit(OneWeight(slot, scores=(1.0, 1.0, 1.0, 0.5)), max_epochs=2, val_check_interval=2)
    assert [rate for (rate,) in seen] == [0.25] * 4 + [0.125] + [0.125] * 2 + [0.0625] * 3


@pytest.mark.parametrize(
    ("module", "arguments", "options", "message"),
    [
        (OneWeight, (ReduceLROnPlateau, "step"), {}, "moves on after each validation; set model.scheduler_interval"),
        (
            OneWeight,
            (partial(ReduceLROnPlateau, mode="max"),),
            {},
            "to get worse: set model.scheduler.mode=min",
        ),
        (Improves, (lr_scheduler.ReduceLROnPlateau,), {}, "to get worse: set model.scheduler.mode=max"),
        (OneWeight, (partial(ReduceLROnPlateau, monitor="val/los"),), {}, r"no metric 'val/los' .* \['val/loss'\]"),
        (OneWeight, (ReduceLROnPlateau,), {"limit_val_batches": 0}, "but there is none"),
        (OneWeight, (partial(ReduceLROnPlateau, factor=2.0),), {}, "model.scheduler: ValueError: Factor"),
        (OneWeight, (partial(StepLR, step_size=0),), {}, "model.scheduler: StepLR can't go on"),
        (OneWeight, (partial(OneCycleLR, max_lr=1.0, total_steps=3), "step"), {}, "Tried to step 4 times"),
        (OneWeight, (partial(StepLR, step_size=0), "epoch", SGD, (), True), {}, "model.scheduler: StepLR can't go on"),
    ],
)
def test_impossible_schedulers_are_refused(module, arguments, options, message):
    with pytest.raises(MisconfigurationException, match=message):
        fit(module(*arguments), **options)


@pytest.mark.parametrize(
    ("slot", "expected"),
    [
        (torch.optim.Adam, {"fused": True}),
        (partial(torch.optim.AdamW, weight_decay=0.1, fused=None), {"fused": True}),
        (partial(torch.optim.Adam, fused=False), {}),
        (partial(torch.optim.Adam, foreach=True), {}),
        (torch.optim.RMSprop, {}),
        (lambda parameters, lr: SGD(parameters, lr), {}),
    ],
)
def test_a_fused_step_where_the_optimizer_has_one(slot, expected):
    assert fused_argument(slot) == expected


def test_a_wrong_interval_is_refused():
    with pytest.raises(ValueError, match=r"scheduler_interval \(steps\) must be epoch or step"):
        OneWeight(ExponentialLR, "steps")


class SavesAlways(Checkpoint):
    """Writes a checkpoint wherever the command line may."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 0

    def _save(self, trainer: pl.Trainer, hook: str) -> None:
        trainer.save_checkpoint(self.folder / f"{self.number:02}_{hook}.ckpt")
        self.number += 1

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if not trainer.is_last_batch:  # those are followed by a validation
            self._save(trainer, "batch")

    def on_validation_end(self, trainer, pl_module):
        self._save(trainer, "validation")

    def on_train_epoch_end(self, trainer, pl_module):
        self._save(trainer, "epoch")


SCHEDULERS = {
    "none": (None, "epoch"),
    "step": (partial(ExponentialLR, gamma=0.75), "step"),
    "epoch": (partial(CosineAnnealingLR, T_max=2), "epoch"),
    "cycle": (partial(OneCycleLR, max_lr=0.5), "step"),
    "milestones": (partial(lr_scheduler.MultiStepLR, milestones=[1, 4, 9]), "step"),
    # The weights grow, so the loss never improves.
    "plateau": (partial(ReduceLROnPlateau, factor=0.5, patience=0), "epoch"),
}


@pytest.mark.parametrize("manual", [False, True])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_resumed_from_any_checkpoint_it_ends_with_the_same_bits(name: str, manual: bool, tmp_path: Path):
    def state(module: OneWeight) -> list[Any]:
        schedulers = module.trainer.lr_scheduler_configs
        return [
            *[weight.detach() for weight in module.weights],
            [config.scheduler.state_dict() for config in schedulers],
            [optimizer.state_dict() for optimizer in module.trainer.optimizers],
        ]

    def make() -> tuple[OneWeight, PiecewiseLinearLR]:
        return OneWeight(*SCHEDULERS[name], manual=manual), PiecewiseLinearLR({0: 0.5, 7: 1.0, 12: 0.25})

    whole, rule = make()
    rates = fit(whole, rule, SavesAlways(tmp_path))
    files = sorted(tmp_path.glob("*.ckpt"))
    assert len(files) == 3 * (BATCHES + 1)
    moves = {round(rate / rule.factor(step), 9) for step, (rate, *_) in enumerate(rates)}
    assert (len(moves) > 1) == (name != "none")
    for file in files:
        checkpoint = torch.load(file, weights_only=True)
        assert len(checkpoint["lr_schedulers"]) == (name != "none") * (1 + manual)
        resumed, rule = make()
        tail = fit(resumed, rule, ckpt_path=file)
        steps = checkpoint["global_step"] // (1 + manual)
        assert tail == rates[steps:], file.name
        assert equal(state(resumed), state(whole)), file.name


def test_a_cycle_that_the_checkpoint_does_not_know_is_refused(tmp_path: Path):
    fit(OneWeight(), SavesAlways(tmp_path), max_epochs=1)
    with pytest.raises(MisconfigurationException, match="written without it; set model"):
        fit(OneWeight(partial(OneCycleLR, max_lr=0.5), "step"), ckpt_path=tmp_path / "02_batch.ckpt")


def test_the_slot_is_kept_as_plain_values(tmp_path: Path):
    module = OneWeight(partial(ReduceLROnPlateau, patience=3), "epoch")
    fit(module, SavesAlways(tmp_path), max_epochs=1)
    stored = torch.load(tmp_path / "00_batch.ckpt", weights_only=True)["hyper_parameters"]
    assert stored["scheduler"]["class_path"] == "lightning_modules.optimization.ReduceLROnPlateau"
    assert stored["scheduler"]["init_args"]["patience"] == 3
    loaded = OneWeight.load_from_checkpoint(tmp_path / "00_batch.ckpt", weights_only=True)
    assert loaded.make_scheduler(SGD([nn.Parameter(torch.zeros(1))])).patience == 3
