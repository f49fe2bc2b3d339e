"""The second stage: when it begins, what it starts from, and that a resumed run is bit-identical."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from callbacks import AveragedWeights, LazyUpdates, Lookahead, NonMonotonicAverage, PiecewiseLinearLR, TwoStageTraining
from datamodules.loader import BatchLoader
from tests.callbacks.chain_tools import assert_same
from tests.tools import in_two_processes, quiet_trainer

BATCHES = 3


class Regression(pl.LightningModule):
    """A linear regression on different points in each batch; its validation scores are given."""

    def __init__(self, scores: list[float], scheduler: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.linear = nn.Linear(2, 1)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.register_buffer("threshold", torch.zeros(()))
        self.scores, self.scheduler = scores, scheduler
        self.validated: list[dict[str, Tensor]] = []
        self.rates: list[float] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        generator = torch.Generator().manual_seed(int(batch[0]) + 10 * self.current_epoch)
        x = torch.randn(4, 2, generator=generator)
        return (self.linear(x * self.frozen).squeeze(1) - x.sum(1)).square().mean()

    def on_train_batch_end(self, *_: Any) -> None:
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        pass

    def on_validation_epoch_end(self) -> None:
        self.validated.append({name: tensor.clone() for name, tensor in self.state_dict().items()})
        self.threshold += 1
        within = self.global_step % BATCHES  # with several validations per epoch, the first ones are better
        self.log("val/f1", torch.tensor(self.scores[self.current_epoch]) + 0.03 * within)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam([self.linear.weight, self.linear.bias], lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.ConstantLR(optimizer)] if self.scheduler else []

    def train_dataloader(self) -> BatchLoader:
        return BatchLoader(lambda rows: rows, BATCHES * self.trainer.world_size, 1, shuffle=True)

    def val_dataloader(self) -> BatchLoader:
        return BatchLoader(lambda rows: rows, self.trainer.world_size, 1)


class Stop(RuntimeError):
    pass


class StopAfter(pl.Callback):
    """Saves and raises after a number of batches, at an epoch's end after the hooks of the callbacks before it."""

    def __init__(self, batches: int, file: Path, at_epoch_end: bool) -> None:
        self.left, self.file, self.at_epoch_end = batches, file, at_epoch_end

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.left -= 1
        if self.left == 0 and not self.at_epoch_end:
            trainer.save_checkpoint(self.file)
            raise Stop

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if self.left == 0:
            trainer.save_checkpoint(self.file)
            raise Stop


def tricks(**stages: Any) -> list[pl.Callback]:
    return [TwoStageTraining(**stages), AveragedWeights(0.9, ramp=True), PiecewiseLinearLR({4: 1.0, 100: 0.5})]


SCORES = [0.6, 0.8, 0.7, 0.65, 0.6, 0.9, 0.9, 0.9]


@pytest.mark.parametrize(
    ("stages", "scores", "last_epoch"),
    [
        ({"max_first_epochs": 3, "min_epochs": 10}, SCORES, 3),
        ({"patience": 2, "min_epochs": 2}, SCORES, 4),
        ({"patience": 2, "min_epochs": 4}, SCORES, 5),
        ({"patience": 8, "min_epochs": 3, "min_score": 0.68}, SCORES, 4),
        ({"patience": 8, "min_epochs": 3, "min_score": None}, SCORES, None),
        ({"patience": 2, "min_epochs": 2, "mode": "min", "min_score": None}, SCORES, 3),
        ({"max_first_epochs": 8}, SCORES, None),  # the last epoch: nothing follows
        ({"max_first_epochs": 3 * BATCHES, "min_epochs": 10, "unit": "step"}, SCORES, 3),
        ({"patience": 2 * BATCHES, "min_epochs": 4 * BATCHES, "unit": "step"}, SCORES, 5),
        ({"patience": 0.25, "min_epochs": 0.25, "unit": "share"}, SCORES, 4),  # of 8 epochs
    ],
)
def test_the_first_stage_ends_by_the_rule(stages: dict, scores: list[float], last_epoch: int | None):
    module = Regression(scores)
    callback = TwoStageTraining(second_lr=0.01, **stages)
    quiet_trainer(callback, max_epochs=len(scores)).fit(module)
    small = [epoch for epoch in range(1, len(scores) + 1) if module.rates[BATCHES * epoch - 1] == 0.01]
    assert small == ([] if last_epoch is None else list(range(last_epoch + 1, len(scores) + 1)))
    assert callback.switched == (last_epoch is not None)


@pytest.mark.parametrize("extra", [[], [Lookahead(2)]], ids=["average", "lookahead"])
def test_the_second_stage_is_a_new_training_from_the_best_weights(extra: list[pl.Callback]):
    module = Regression(SCORES)
    quiet_trainer(*tricks(second_lr=0.01, max_first_epochs=4), *extra, max_epochs=6).fit(module)
    best = module.validated[1]  # the second epoch's, as validated: the averaged weights
    # The same by hand: a new Adam, a new average, and the schedule's factor as it continues.
    other = Regression(SCORES)
    other.load_state_dict(best)
    assert_same(other.state_dict(), best)
    optimizer = torch.optim.Adam(other.linear.parameters(), lr=0.01)
    average = slow = {name: p.detach().clone() for name, p in other.linear.named_parameters()}
    loader = BatchLoader(lambda rows: rows, BATCHES, 1, shuffle=True)
    steps = 0
    for epoch in (4, 5):
        loader.set_epoch(epoch)
        for batch in loader:
            generator = torch.Generator().manual_seed(int(batch[0]) + 10 * epoch)
            x = torch.randn(4, 2, generator=generator)
            loss = (other.linear(x).squeeze(1) - x.sum(1)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.param_groups[0]["lr"] = 0.01 * (1 - 0.5 * (4 * BATCHES + steps - 4) / 96)
            optimizer.step()
            if extra and (4 * BATCHES + steps + 1) % 2 == 0:
                with torch.no_grad():
                    for name, p in other.linear.named_parameters():
                        p.copy_(slow[name] + 0.5 * (p - slow[name]))
                slow = {name: p.detach().clone() for name, p in other.linear.named_parameters()}
            d = min(0.9, (1 + steps) / (10 + steps))
            average = {name: d * average[name] + (1 - d) * p.detach() for name, p in other.linear.named_parameters()}
            steps += 1
    for name, tensor in average.items():
        torch.testing.assert_close(module.validated[5][f"linear.{name}"], tensor, rtol=1e-5, atol=1e-6)


def test_buffers_that_the_best_validation_set_are_restored():
    module = Regression(SCORES)
    quiet_trainer(TwoStageTraining(max_first_epochs=4), max_epochs=5).fit(module)
    # Two validations until the best one, and one in the second stage.
    assert module.threshold == 3
    assert module.validated[4]["threshold"] == 2


# Within epochs and at their ends, where the project writes checkpoints.
@pytest.mark.parametrize("stop", [2, 6, 10, 12, 14, 15])
def test_a_killed_and_resumed_run_is_bit_identical(tmp_path: Path, stop: int):
    stages = {"second_lr": 0.01, "patience": 2, "min_epochs": 2}  # the switch is after the fourth epoch, step 12
    whole = Regression(SCORES)
    quiet_trainer(*tricks(**stages), max_epochs=6).fit(whole)
    file = tmp_path / "killed.ckpt"
    with pytest.raises(Stop):
        quiet_trainer(*tricks(**stages), StopAfter(stop, file, at_epoch_end=stop % BATCHES == 0), max_epochs=6).fit(
            Regression(SCORES)
        )
    resumed = Regression(SCORES)
    quiet_trainer(*tricks(**stages), max_epochs=6).fit(resumed, ckpt_path=file, weights_only=True)
    assert_same(resumed.state_dict(), whole.state_dict())
    assert resumed.rates == whole.rates[-len(resumed.rates) :]


def test_the_best_weights_leave_the_checkpoint_with_the_first_stage():
    callback = TwoStageTraining(max_first_epochs=2)
    fitting = quiet_trainer(callback)
    fitting.fit(Regression(SCORES))
    assert set(callback.state_dict()["best"]) == {"linear.weight", "linear.bias", "threshold"}
    later = TwoStageTraining(max_first_epochs=2)
    quiet_trainer(later, max_epochs=3).fit(Regression(SCORES))
    assert later.state_dict()["best"] == {}


def test_impossible_settings_are_refused():
    with pytest.raises(MisconfigurationException, match=r"no metric 'val/F1' was logged; set monitor to .*val/f1"):
        quiet_trainer(TwoStageTraining(monitor="val/F1")).fit(Regression(SCORES))
    with pytest.raises(MisconfigurationException, match="remove the scheduler"):
        quiet_trainer(TwoStageTraining()).fit(Regression(SCORES, scheduler=True))
    for arguments in ({"second_lr": 0}, {"mode": "best"}, {"patience": 0}, {"min_epochs": -1}, {"max_first_epochs": 0}):
        (name,) = arguments
        with pytest.raises(ValueError, match=rf"TwoStageTraining: {name} \(.*\) must be"):
            TwoStageTraining(**arguments)


def test_works_without_a_chain():
    module = Regression(SCORES)
    fitting = quiet_trainer(TwoStageTraining(second_lr=0.01, max_first_epochs=2), max_epochs=3)
    fitting.fit(module)
    state = fitting.optimizers[0].state[module.linear.weight]
    assert state["step"] == BATCHES, "Adam counts from the switch on"


class Embeddings(Regression):
    """Two of six words in each batch, so that most rows have no gradient; with any optimizers."""

    def __init__(self, scores: list[float], *makers: Any) -> None:
        super().__init__(scores)
        self.embedding = nn.Embedding(6, 2)
        self.makers = makers

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        words = torch.tensor([int(batch[0]), (int(batch[0]) + self.current_epoch) % 3 + 3])
        loss = (self.linear(self.embedding(words)) - 1).square().sum()
        if self.automatic_optimization:
            return loss
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()
        return loss

    def configure_optimizers(self) -> Any:
        if len(self.makers) == 1:
            return self.makers[0](self.parameters())
        self.automatic_optimization = False
        parts = [self.linear, self.embedding]
        return [make(part.parameters()) for make, part in zip(self.makers, parts, strict=True)]


ADAM = partial(torch.optim.Adam, lr=0.1)
SECOND = {"second_lr": 0.01, "max_first_epochs": 4}  # the best epoch is the second
RULES = {
    "average": lambda: [AveragedWeights(0.9)],
    "ramp": lambda: [AveragedWeights(0.9, ramp=True)],
    "lookahead": lambda: [Lookahead(5)],  # after 12 steps, that is, within a window of 5
    "lazy": lambda: [LazyUpdates(["embedding"], freeze_state=True)],
    "mean": lambda: [NonMonotonicAverage("val/f1", patience=0)],
    "all": lambda: [LazyUpdates(["embedding"], freeze_state=True), AveragedWeights(0.9, ramp=True), Lookahead(5)],
}


def second_stage(module: Embeddings, rules: list[pl.Callback]) -> list[dict[str, Tensor]]:
    """Weights that the validations of the second stage saw."""
    quiet_trainer(TwoStageTraining(**SECOND), *rules, max_epochs=8).fit(module)
    return module.validated[4:]


@pytest.mark.parametrize("makers", [(ADAM,), (torch.optim.Adagrad,), (ADAM, torch.optim.Adagrad)], ids=str)
@pytest.mark.parametrize("rules", RULES)
def test_the_second_stage_is_a_training_of_its_own(rules: str, makers: tuple):
    module = Embeddings(SCORES, *makers)
    actual = second_stage(module, RULES[rules]())
    # A run that starts from the best weights and sees the same batches.
    other = Embeddings(SCORES, *(partial(getattr(make, "func", make), lr=0.01) for make in makers))
    other.load_state_dict(module.validated[1])
    other.threshold += 1

    class FromTheFifthEpoch(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            progress = trainer.fit_loop.epoch_progress.current
            progress.ready = progress.started = progress.processed = progress.completed = 4
            for callback in trainer.callbacks:
                if isinstance(callback, NonMonotonicAverage):
                    callback.averaging = True  # as it was when the second stage began

    quiet_trainer(FromTheFifthEpoch(), *RULES[rules](), max_epochs=8).fit(other)
    for ours, theirs in zip(actual, other.validated, strict=True):
        assert_same(ours, theirs)


def test_the_new_rate_is_the_base_even_where_the_schedule_had_just_given_the_same():
    module = Regression(SCORES)
    schedule = PiecewiseLinearLR({0: 1.0, 4: 0.1})
    quiet_trainer(TwoStageTraining(second_lr=0.1 * 0.1, max_first_epochs=3), schedule, max_epochs=5).fit(module)
    assert module.rates[BATCHES * 3 - 1 :] == pytest.approx([0.01] + [0.001] * BATCHES * 2)


def test_a_run_that_is_continued_later_switches_then(tmp_path: Path):
    whole = Regression(SCORES)
    quiet_trainer(*tricks(**SECOND), max_epochs=6).fit(whole)
    first, file = quiet_trainer(*tricks(**SECOND), max_epochs=4), tmp_path / "end.ckpt"
    first.fit(Regression(SCORES))
    assert not first.callbacks[0].switched
    first.save_checkpoint(file)
    longer = Regression(SCORES)
    quiet_trainer(*tricks(**SECOND), max_epochs=6).fit(longer, ckpt_path=file, weights_only=True)
    assert_same(longer.state_dict(), whole.state_dict())


@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("validation", [1, 5, 6, 11, 12, 13])
def test_killed_after_any_of_several_validations_per_epoch(tmp_path: Path, validation: int, place: int):
    """When ``best.ckpt`` is written, also by a callback that comes before the average in the list."""

    class Kill(pl.Callback):
        left = validation

        def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
            self.left -= 1
            if self.left == 0:
                trainer.save_checkpoint(tmp_path / "killed.ckpt")
                raise Stop

    def fitting(extra: list[pl.Callback], **arguments: Any) -> tuple[Regression, TwoStageTraining]:
        module, callbacks = Regression(SCORES), tricks(second_lr=0.01, patience=2, min_epochs=2)
        own = callbacks[0]
        if place == 0:
            callbacks = [*reversed(callbacks), *extra]
        else:
            callbacks[1:1] = extra
        run = quiet_trainer(*callbacks, max_epochs=6, val_check_interval=1)
        run.fit(module, **arguments)
        return module, own

    whole, switched = fitting([])
    assert switched.switched
    with pytest.raises(Stop):
        fitting([Kill()])
    resumed, _ = fitting([], ckpt_path=tmp_path / "killed.ckpt", weights_only=True)
    assert_same(resumed.state_dict(), whole.state_dict())


def test_nan_is_a_bad_score(capsys: pytest.CaptureFixture):
    module = Regression([0.6, 0.8, 0.7, float("nan"), 0.9])
    quiet_trainer(TwoStageTraining(min_epochs=3), max_epochs=5).fit(module)
    line = "TwoStageTraining: epoch 4: best weights of epoch 2 (val/f1 0.8) reloaded, lr 0.0001\n"
    assert capsys.readouterr().out.count(line) == 1


def test_parameters_that_were_frozen_at_the_best_validation_stay():
    class Thaws(Regression):
        def on_train_epoch_start(self) -> None:
            self.frozen.requires_grad_(self.current_epoch > 1)

    module = Thaws(SCORES)
    quiet_trainer(TwoStageTraining(max_first_epochs=4), max_epochs=5).fit(module)
    assert_same({"threshold": module.validated[4]["threshold"]}, {"threshold": torch.tensor(2.0)})


def test_a_second_fit_begins_with_the_first_stage():
    callback = TwoStageTraining(max_first_epochs=2)
    for _ in range(2):
        quiet_trainer(callback, max_epochs=2).fit(Regression(SCORES))
        assert not callback.switched
        quiet_trainer(callback, max_epochs=3).fit(Regression(SCORES))
        assert callback.switched


def test_it_needs_validations_and_an_average_that_can_be_reset():
    with pytest.raises(MisconfigurationException, match="without validation there is no 'val/f1'"):
        quiet_trainer(TwoStageTraining(), limit_val_batches=0).fit(Regression(SCORES))
    with pytest.raises(MisconfigurationException, match="reset the average of EMAWeightAveraging; use AveragedWeights"):
        quiet_trainer(TwoStageTraining(), EMAWeightAveraging()).fit(Regression(SCORES))


def process(rank: int, folder: Path) -> None:
    # A score that was not reduced: on its own, the second process would have its best in the last epoch and not switch.
    scores = SCORES if rank == 0 else sorted(SCORES)
    stages = {"second_lr": 0.01, "patience": 2, "min_epochs": 2}

    def fitting(extra: list[pl.Callback], **arguments: Any) -> None:
        module, callbacks = Regression(scores), tricks(**stages)
        strategy = pl.strategies.DDPStrategy(process_group_backend="gloo")
        options = {"devices": 2, "strategy": strategy, "use_distributed_sampler": False}
        quiet_trainer(*callbacks, *extra, max_epochs=6, **options).fit(module, **arguments)
        state = module.state_dict() | {"rate": torch.tensor(module.rates[-1])}
        torch.save(state, folder / f"{'resumed' if arguments else 'whole'}{rank}.pt")

    class Save(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.current_epoch == 3:  # the first stage's last
                trainer.save_checkpoint(file)

    file = folder / "before.ckpt"
    fitting([Save()])
    fitting([], ckpt_path=file, weights_only=True)


def test_two_processes_decide_alike(tmp_path: Path):
    in_two_processes(process, tmp_path)
    whole, *others = (torch.load(tmp_path / f"{name}.pt") for name in ("whole0", "whole1", "resumed0", "resumed1"))
    assert whole["rate"] < 0.01, "the second stage has begun"
    for other in others:
        assert_same(other, whole)
