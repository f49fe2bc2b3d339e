"""A run that is resumed with other settings trains as a loop of plain torch does with them."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.optim import SGD, Adam, AdamW

from experiment.errors import UserError
from tests.conftest import ROOT
from tests.experiment.line import START, Loop
from tests.experiment.line_runs import (
    QUIET,
    assert_close,
    begin,
    group,
    in_a_folder_of_its_own,
    last,
    last_weights,
    resume,
)
from tests.training import same_bits, train

_in_a_folder_of_its_own = pytest.fixture(autouse=True)(in_a_folder_of_its_own)


@pytest.mark.parametrize(
    ("make", "options", "given", "changed", "now"),
    [
        (SGD, {}, [], ["--model.lr=0.01"], {"lr": 0.01}),
        (SGD, {"momentum": 0.5}, ["--model.optimizer.momentum=0.5"], ["--model.lr=0.01"], {"lr": 0.01}),
        (SGD, {}, [], ["--model.optimizer.momentum=0.9"], {"momentum": 0.9}),
        (SGD, {}, [], ["--model.optimizer.weight_decay=0.5"], {"weight_decay": 0.5}),
        (Adam, {}, [], ["--model.lr=0.01"], {"lr": 0.01}),
        (Adam, {}, [], ["--model.optimizer.betas=[0.5,0.7]"], {"betas": (0.5, 0.7)}),
        (Adam, {}, [], ["--model.optimizer.eps=0.1", "--model.lr=0.2"], {"eps": 0.1, "lr": 0.2}),
        (AdamW, {}, [], ["--model.optimizer.weight_decay=0.3"], {"weight_decay": 0.3}),
    ],
)
@pytest.mark.parametrize("after", [None, 6])
def test_an_option_of_the_optimizer_takes_effect(
    make: Any, options: dict, given: list[str], changed: list[str], now: dict[str, Any], after: int | None
):
    begin(f"--model.optimizer={make.__name__}", *given, after=after)
    weights = resume(*changed)
    loop = Loop(make, lr=0.1, **options)
    for step in range(16):
        begin_of_batch = 2 * (step % 4)
        loop.step(slice(begin_of_batch, begin_of_batch + 2), **(now if step >= (after or 8) else {}))
    assert_close(weights, loop)
    assert {name: group()[name] for name in now} == {k: v for k, v in now.items()}


def test_an_adam_goes_on_as_adamw():
    begin("--model.optimizer=Adam")
    weights = resume("--model.optimizer=AdamW", "--model.optimizer.weight_decay=0.5")
    first, second = Loop(Adam, lr=0.1), Loop(AdamW, lr=0.1, weight_decay=0.5)
    for _ in range(2):
        first.epoch()
    second.optimizer.load_state_dict(
        first.optimizer.state_dict() | {"param_groups": second.optimizer.state_dict()["param_groups"]}
    )
    second.weight.data.copy_(first.weight.data)
    for _ in range(2):
        second.epoch()
    assert_close(weights, second)


def cosine(epoch: int, base: float, length: int, low: float = 0.0) -> float:
    return low + (base - low) * (1 + math.cos(math.pi * epoch / length)) / 2


# The whole path: runs in one process leave subclasses of the same names.
SCHEDULERS = "--model.scheduler=torch.optim.lr_scheduler"
COSINE = [f"{SCHEDULERS}.CosineAnnealingLR", "--model.scheduler.T_max=4", "--model.scheduler.eta_min=0.02"]
STEP = [f"{SCHEDULERS}.StepLR", "--model.scheduler.step_size=1", "--model.scheduler.gamma=0.5"]


@pytest.mark.parametrize(
    ("given", "before", "changed", "now"),
    [
        (STEP, lambda e: 0.1 * 0.5**e, ["--model.lr=0.3"], lambda e: 0.3 * 0.5**e),
        (STEP, lambda e: 0.1 * 0.5**e, ["--model.scheduler.gamma=0.9"], lambda e: 0.1 * 0.9**e),
        (COSINE, lambda e: cosine(e, 0.1, 4, 0.02), ["--model.lr=0.3"], lambda e: cosine(e, 0.3, 4, 0.02)),
        (COSINE, lambda e: cosine(e, 0.1, 4, 0.02), ["--model.scheduler.T_max=8"], lambda e: cosine(e, 0.1, 8, 0.02)),
        # Another class, one that is added, one that is dropped.
        (STEP, lambda e: 0.1 * 0.5**e, COSINE, lambda e: cosine(e, 0.1, 4, 0.02)),
        ([], lambda e: 0.1, COSINE, lambda e: cosine(e, 0.1, 4, 0.02)),
        (STEP, lambda e: 0.1 * 0.5**e, ["--model.scheduler=null"], lambda e: 0.1),
        (STEP, lambda e: 0.1 * 0.5**e, ["--model.scheduler=null", "--model.lr=0.2"], lambda e: 0.2),
        # An option that has nothing to do with it leaves the schedule where it stands.
        (STEP, lambda e: 0.1 * 0.5**e, ["--trainer.gradient_clip_val=1e9"], lambda e: 0.1 * 0.5**e),
    ],
)
@pytest.mark.parametrize("after", [None, 6])
def test_a_schedule_stands_where_it_would_had_it_been_there_from_the_start(
    given: list[str],
    before: Callable[[int], float],
    changed: list[str],
    now: Callable[[int], float],
    after: int | None,
):
    begin(*given, epochs=2, after=after)
    weights = resume(*changed)
    loop = Loop(SGD, lr=0.1)
    for step in range(16):
        epoch, batch = divmod(step, 4)
        loop.step(slice(2 * batch, 2 * batch + 2), lr=(before if step < (after or 8) else now)(epoch))
    assert_close(weights, loop)


@pytest.mark.parametrize("after", [None, 6])
def test_a_schedule_by_step_that_ends_with_the_run_is_stretched(after: int | None):
    """OneCycleLR also moves the momentum; torch's own class gives the reference, of one uninterrupted cycle."""
    one_cycle = [
        f"{SCHEDULERS}.OneCycleLR",
        "--model.scheduler.max_lr=0.2",
        "--model.scheduler_interval=step",
    ]
    begin(*one_cycle, "--model.optimizer.momentum=0.9", epochs=2, after=after)
    weights = resume()

    def cycle(total: int) -> list[tuple[float, float]]:
        optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=total)
        values = []
        for _ in range(total):
            values.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
            optimizer.step()
            if len(values) < total:
                scheduler.step()
        return values

    first, second = cycle(8), cycle(16)
    loop = Loop(SGD, lr=0.1, momentum=0.9)
    for step in range(16):
        lr, momentum = first[step] if step < (after or 8) else second[step]
        batch = step % 4
        loop.step(slice(2 * batch, 2 * batch + 2), lr=lr, momentum=momentum)
    assert_close(weights, loop)


def test_a_plateau_keeps_what_it_has_seen():
    given = ["--model.scheduler=lightning_modules.optimization.ReduceLROnPlateau", "--model.scheduler.patience=0"]
    begin(*given, "--model.scheduler.threshold=1e9", "--model.scheduler.threshold_mode=abs", epochs=3)
    before = last()
    assert group()["lr"] == 0.1 * 0.1 * 0.1  # nothing is an improvement by 1e9, but the first
    resume("--model.lr=0.2", "--model.scheduler.patience=7", epochs=4)
    now = last()
    assert group()["lr"] == pytest.approx(0.1 * 0.1 * 0.2)
    assert now["lr_schedulers"][0]["patience"] == 7
    assert now["lr_schedulers"][0]["best"] == before["lr_schedulers"][0]["best"]
    assert now["lr_schedulers"][0]["num_bad_epochs"] == 1


CHANGE = "--trainer.callbacks.PiecewiseLinearLR"
PIECEWISE = ["--trainer.callbacks+=PiecewiseLinearLR", "--trainer.callbacks.schedule={4: 1.0, 16: 0.0}"]


def rho(step: int, top: int = 4, end: int = 16) -> float:
    return step / top if step < top else 1 - (step - top) / (end - top)


@pytest.mark.parametrize(
    ("given", "changed", "now"),
    [
        (PIECEWISE, ["--model.lr=0.3"], lambda s: 0.3 * rho(s)),
        (
            PIECEWISE,
            ["--trainer.callbacks.PiecewiseLinearLR.schedule={4: 1.0, 20: 0.0}"],
            lambda s: 0.1 * rho(s, 4, 20),
        ),
        (PIECEWISE, ["--trainer.callbacks-=PiecewiseLinearLR"], lambda s: 0.1),
        ([*PIECEWISE, *STEP], ["--model.lr=0.3"], lambda s: 0.3 * 0.5 ** (s // 4) * rho(s)),
        ([], PIECEWISE, lambda s: 0.1 * rho(s)),
    ],
)
@pytest.mark.parametrize("after", [None, 6])
def test_a_piecewise_linear_rate_counts_the_steps_of_the_run(
    given: list[str], changed: list[str], now: Callable[[int], float], after: int | None
):
    begin(*given, epochs=2, after=after)
    weights = resume(*changed)
    loop = Loop(SGD, lr=0.1)
    for step in range(16):
        before = 0.1 * (rho(step) if PIECEWISE[0] in given else 1) * (0.5 ** (step // 4) if STEP[0] in given else 1)
        batch = step % 4
        loop.step(slice(2 * batch, 2 * batch + 2), lr=before if step < (after or 8) else now(step))
    assert_close(weights, loop)


def test_with_the_same_settings_nothing_is_touched(capsys: pytest.CaptureFixture[str]):
    options = [
        f"{SCHEDULERS}.OneCycleLR",
        "--model.scheduler.max_lr=0.2",
        "--model.scheduler_interval=step",
    ]
    options += ["--model.optimizer=AdamW", *PIECEWISE, "--trainer.callbacks+=AveragedWeights"]
    begin(*options, epochs=4, after=6)
    capsys.readouterr()
    resume("--model.lr=0.1", "--check_finite=true")
    assert "changed" not in capsys.readouterr().out
    broken = last()
    train("-c", "line.yaml", *QUIET, "--run_dir=whole", "--trainer.max_epochs=4", *options)
    whole = torch.load("whole/checkpoints/last.ckpt", weights_only=True)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "global_step"):
        assert same_bits(broken[key], whole[key]), key


def test_add_ons_beside_a_resumed_run_are_those_of_the_run():
    average = str(ROOT / "configs/with/average.yaml")
    Path("one.yaml").write_text("trainer: {callbacks: {class_path: AveragedWeights}}\n")
    begin("-c", "one.yaml", after=6)
    train("--resume", "run", "-c", "one.yaml", "--trainer.max_epochs=2")
    shutil.rmtree("run")
    begin("-c", average, after=6)
    train("--resume", "run", "-c", average, "--trainer.max_epochs=2")
    with pytest.raises(UserError, match=r"lookahead.yaml sets the callback Lookahead, which the run has not"):
        train("--resume", "run", "-c", str(ROOT / "configs/with/lookahead.yaml"))
    with pytest.raises(UserError, match=r"ddp.yaml sets trainer.strategy, which the run has not"):
        train("--resume", "run", "-c", str(ROOT / "configs/with/ddp.yaml"))
    for text, setting in (
        ("data: {init_args: {batch_size: 4}}", "data.batch_size"),
        ("model: {init_args: {optimizer: Adam}}", "model.optimizer"),
        ("min_steps: 7", "min_steps"),
        ("trainer: {callbacks-: AveragedWeights}", "callbacks-: AveragedWeights"),
        ("trainer: {callbacks.AveragedWeights: {decay: 0.5}}", "trainer.callbacks.AveragedWeights.decay"),
        ("trainer: {callbacks: []}", "trainer.callbacks"),
    ):
        Path("variant.yaml").write_text(text)
        with pytest.raises(UserError, match=f"variant.yaml sets {setting}, which the run has not"):
            train("--resume", "run", "-c", "variant.yaml")
    Path("variant.yaml").write_text(
        "min_steps: 0\nmodel: {init_args: {optimizer: SGD}}\ndata: {init_args: {batch_size: 2}}"
    )
    train("--resume", "run", "-c", "variant.yaml", "--trainer.max_epochs=3")


def test_within_an_epoch_other_batches_begin_it_anew(capsys: pytest.CaptureFixture[str]):
    begin("--model.optimizer=Adam", after=6)
    weights = resume("--data.batch_size=4", "--check_finite=false")
    said = capsys.readouterr().out
    assert (
        "changed since the checkpoint: check_finite True -> False, data.batch_size 2 -> 4, trainer.max_epochs 2 -> 4"
        in said
    )
    assert "epoch 1 begins anew: data.batch_size changed" in said
    loop = Loop(Adam, lr=0.1)
    loop.epoch()
    loop.step(slice(0, 2))
    loop.step(slice(2, 4))
    for _ in range(3):
        loop.epoch(batch_size=4)
    assert_close(weights, loop)
    assert last()["global_step"] == 6 + 3 * 2
    rows = Path("run/metrics.csv").read_text().splitlines()
    # Validations after the last step of each epoch, counted from 0, and the test.
    assert [int(row.split(",")[0]) for row in rows[1:]] == [3, 7, 9, 11, 12]


@pytest.mark.parametrize(
    "changed",
    [
        ["--trainer.accumulate_grad_batches=2"],
        ["--trainer.callbacks+=GradientAccumulation", "--trainer.callbacks.steps=2"],
        ["--trainer.limit_train_batches=2", "--data.batch_size=4"],
    ],
)
@pytest.mark.parametrize("checkpoint", ["last", "best"])
def test_within_an_epoch_other_windows_begin_it_anew(changed: list[str], checkpoint: str):
    """A mean over two batches of two points is one over four points; ``best.ckpt`` is from the middle of the epoch."""
    begin("--trainer.val_check_interval=2", after=3)
    train("--resume", f"run/checkpoints/{checkpoint}.ckpt", "--trainer.max_epochs=3", *changed)
    loop = Loop(SGD, lr=0.1)
    for step in range(3 if checkpoint == "last" else 2):
        loop.step(slice(2 * step, 2 * step + 2))
    for _ in range(3):
        loop.epoch(batch_size=4)
    assert_close(last_weights(), loop)


def test_with_another_number_of_processes_an_epoch_begins_anew(capsys: pytest.CaptureFixture[str]):
    begin(after=6)
    two = last()
    two["experiment"]["random_states"] *= 2
    torch.save(two, "run/checkpoints/last.ckpt")
    weights = resume(epochs=2)
    assert "epoch 1 begins anew: processes 2 -> 1" in capsys.readouterr().out
    loop = Loop(SGD, lr=0.1)
    loop.epoch()
    loop.step(slice(0, 2))
    loop.step(slice(2, 4))
    loop.epoch()
    assert_close(weights, loop)


def test_between_epochs_other_batches_are_simply_taken(capsys: pytest.CaptureFixture[str]):
    begin()
    weights = resume("--data.batch_size=4")
    assert "anew" not in capsys.readouterr().out
    loop = Loop(SGD, lr=0.1)
    for batch_size in (2, 2, 4, 4):
        loop.epoch(batch_size)
    assert_close(weights, loop)


def test_in_the_first_epoch_too():
    begin(after=2)
    weights = resume("--data.batch_size=4", epochs=1)
    loop = Loop(SGD, lr=0.1)
    loop.step(slice(0, 2))
    loop.step(slice(2, 4))
    loop.epoch(batch_size=4)
    assert_close(weights, loop)


@pytest.mark.parametrize(
    ("given", "changed", "words"),
    [
        ([], ["--seed_everything=5"], ["--seed_everything", "random states"]),
        (["--model.optimizer=Adam"], ["--model.optimizer.amsgrad=true"], ["amsgrad", "max_exp_avg_sq", "--init_from"]),
        (["--model.optimizer=RMSprop"], ["--model.optimizer.momentum=0.9"], ["momentum", "--init_from"]),
        ([], ["--model.optimizer=Adam"], ["another optimizer than Adam (SGD)", "--init_from"]),
        (["--model.optimizer=Adam"], ["--model.optimizer=RAdam"], ["another optimizer than RAdam (Adam)"]),
        ([], ["--model=tests.experiment.colours.SlotPainter"], ["model: the checkpoint is of Line"]),
        (
            ["--trainer.callbacks+=Lookahead"],
            ["--trainer.callbacks-=Lookahead"],
            ["the checkpoint has Lookahead", "step_size 1", "--init_from"],
        ),
        (
            [f"{SCHEDULERS}.OneCycleLR", "--model.scheduler.max_lr=0.2", "--model.scheduler.total_steps=9"],
            ["--model.scheduler.total_steps=1"],
            ["model.scheduler: OneCycleLR can't go on at its step 2"],
        ),
        (
            ["--trainer.callbacks+=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.05"],
            ["--trainer.callbacks-=StochasticWeightAveraging"],
            ["StochasticWeightAveraging", "--init_from"],
        ),
    ],
)
def test_what_can_not_take_effect_is_refused_by_name(given: list[str], changed: list[str], words: list[str]):
    begin(*given)
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    with pytest.raises((UserError, MisconfigurationException)) as caught:
        resume(*changed)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


# --------------------------------------------------------------------------------------------------------- callbacks


def plain_run(epochs: int = 4) -> Loop:
    loop = Loop(SGD, lr=0.1)
    for _ in range(epochs):
        loop.epoch()
    return loop


def trajectory(steps: int = 16) -> list[Tensor]:
    """The weights after each step of a plain run."""
    loop, seen = Loop(SGD, lr=0.1), []
    for step in range(steps):
        loop.step(slice(2 * (step % 4), 2 * (step % 4) + 2))
        seen.append(loop.weight.detach().clone())
    return seen


def average(weights: list[Tensor], decay: float, changed: tuple[int, float] | None = None) -> Tensor:
    """The bias-corrected average of all these weights; from the step ``changed[0]`` on with another decay."""
    mean = torch.zeros_like(weights[0])
    for step, theta in enumerate(weights):
        b = changed[1] if changed and step >= changed[0] else decay
        mean = mean + (1 - b) / (1 - b ** (step + 1)) * (theta - mean)
    return mean


AVERAGE = ["--trainer.callbacks+=AveragedWeights", "--trainer.callbacks.decay=0.8"]


@pytest.mark.parametrize("after", [None, 6])
@pytest.mark.parametrize("change", ["added", "dropped", "changed"])
def test_an_average_may_begin_later_end_or_have_another_decay(
    change: str, after: int | None, capsys: pytest.CaptureFixture[str]
):
    begin(*([] if change == "added" else AVERAGE), after=after)
    options = {
        "added": AVERAGE,
        "dropped": ["--trainer.callbacks-=AveragedWeights"],
        "changed": ["--trainer.callbacks.AveragedWeights.decay=0.5"],
    }
    weights = resume(*options[change])
    steps, said = trajectory(), capsys.readouterr().out
    at = after or 8
    expected = {
        "added": average(steps[at:], 0.8),
        "dropped": steps[-1],
        "changed": average(steps, 0.8, (at, 0.5)),
    }
    torch.testing.assert_close(weights, expected[change], rtol=1e-12, atol=0)
    (line,) = [line for line in said.splitlines() if line.startswith("changed since the checkpoint: ")]
    assert line.endswith("AveragedWeights.decay 0.8 -> 0.5" if change == "changed" else f"AveragedWeights {change}")


@pytest.mark.parametrize("after", [None, 6])
def test_other_rules_may_change(after: int | None):
    given = ["--trainer.callbacks+=WeightDecay", "--trainer.callbacks.rate=0.1", "--trainer.callbacks.exclude=[]"]
    begin(*given, "--trainer.callbacks+=Lookahead", "--trainer.callbacks.steps=3", after=after)
    resume("--trainer.callbacks.WeightDecay.rate=0.4", "--trainer.callbacks.Lookahead.steps=2")
    loop, slow = Loop(SGD, lr=0.1), START.clone()
    for step in range(16):
        rate, steps = (0.1, 3) if step < (after or 8) else (0.4, 2)
        theta = loop.weight.detach().clone()
        loop.step(slice(2 * (step % 4), 2 * (step % 4) + 2))
        with torch.no_grad():
            loop.weight -= 0.1 * rate * theta
            if (step + 1) % steps == 0:
                slow = slow + 0.5 * (loop.weight - slow)
                loop.weight.copy_(slow)
    raw = last()["callbacks"]["Lookahead"]["raw_weights"]["optimizer0"]["layer.weight"]
    torch.testing.assert_close(raw, loop.weight.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(last_weights(), slow, rtol=1e-12, atol=0)


def test_of_a_dropped_average_of_lightning_the_trained_weights_are_left():
    begin("--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay=0.8")
    assert_close(resume("--trainer.callbacks-=EMAWeightAveraging"), plain_run())


STOPPING = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss"]
STOPPING += ["--trainer.callbacks.min_delta=1000000000.0", "--trainer.callbacks.patience=2"]


@pytest.mark.parametrize(
    ("changed", "epochs"),
    [
        ([], 3),
        (["--trainer.callbacks.EarlyStopping.patience=4"], 5),
        (["--trainer.callbacks-=EarlyStopping"], 7),
    ],
)
def test_early_stopping_may_wait_longer_or_be_dropped(changed: list[str], epochs: int):
    """No validation is better than the first by ``min_delta``."""
    begin(*STOPPING, epochs=2)
    assert_close(resume(*changed, epochs=7), plain_run(epochs))


def test_in_a_second_stage_the_rate_is_its_own():
    stage = ["--trainer.callbacks+=TwoStageTraining", "--trainer.callbacks.monitor=val/loss"]
    stage += ["--trainer.callbacks.mode=min", "--trainer.callbacks.max_first_epochs=1"]
    begin(*stage, "--trainer.callbacks.second_lr=0.05")
    for options in (["--model.lr=0.3"], ["--trainer.callbacks-=TwoStageTraining"]):
        with pytest.raises(UserError, match="TwoStageTraining"):
            resume(*options)
    weights = resume("--trainer.callbacks.TwoStageTraining.second_lr=0.02")
    loop = Loop(SGD, lr=0.1)
    for lr in (0.1, 0.05, 0.02, 0.02):
        loop.epoch(lr=lr)
    assert_close(weights, loop)


def test_a_rate_set_by_the_second_stage_stays_where_another_option_changes():
    stage = ["--trainer.callbacks+=TwoStageTraining", "--trainer.callbacks.monitor=val/loss"]
    stage += ["--trainer.callbacks.mode=min", "--trainer.callbacks.max_first_epochs=1"]
    begin(*stage, "--trainer.callbacks.second_lr=0.05")
    weights = resume("--model.optimizer.weight_decay=0.5")
    loop = Loop(SGD, lr=0.1)
    for lr, decay in ((0.1, 0), (0.05, 0), (0.05, 0.5), (0.05, 0.5)):
        loop.epoch(lr=lr, weight_decay=decay)
    assert_close(weights, loop)


# ------------------------------------------------------------------------------------------------- ended or stopped


def assert_as_whole(*options: str, epochs: int = 4) -> None:
    """The run in the folder ``run`` has the bits of one that was neither stopped nor continued."""
    broken = last()
    rows = Path("run/metrics.csv").read_text()
    train("-c", "line.yaml", *QUIET, "--run_dir=whole", f"--trainer.max_epochs={epochs}", *options)
    whole = torch.load("whole/checkpoints/last.ckpt", weights_only=True)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "global_step", "epoch"):
        assert same_bits(broken[key], whole[key]), key
    assert rows == Path("whole/metrics.csv").read_text()


PLATEAU = ["--model.scheduler=lightning_modules.optimization.ReduceLROnPlateau", "--model.scheduler.patience=0"]
PLATEAU += ["--model.scheduler.threshold=1e9", "--model.scheduler.threshold_mode=abs"]


@pytest.mark.parametrize(
    ("end", "goes_on", "options"),
    [
        (["--trainer.max_steps=3"], ["--trainer.max_steps=-1"], ["--model.optimizer=AdamW"]),
        # After a validation within the epoch.
        (["--trainer.max_steps=6"], ["--trainer.max_steps=-1"], ["--trainer.val_check_interval=2", *PLATEAU]),
        (["--trainer.max_steps=3"], ["--trainer.max_steps=16"], [*AVERAGE]),
        (
            ["--trainer.callbacks+=tests.experiment.line.StopsAt", "--trainer.callbacks.batch=5"],
            ["--trainer.callbacks-=StopsAt"],
            ["--trainer.accumulate_grad_batches=2"],
        ),
    ],
)
def test_a_run_that_ended_within_an_epoch_goes_on_there(end: list[str], goes_on: list[str], options: list[str]):
    begin(*options, *end, epochs=4)
    assert last()["epoch"] < 2
    resume(*goes_on)
    whole = [*options, *(option for option in goes_on if "max_steps=16" in option)]
    assert_as_whole(*whole)


def test_a_window_of_gradients_is_finished_before_a_run_ends():
    begin(
        "--trainer.callbacks+=tests.experiment.line.StopsAt",
        "--trainer.callbacks.batch=5",
        *["--trainer.accumulate_grad_batches=3"],
    )
    assert last()["global_step"] == 3  # batch 5 is the first of a window of three


SCHEDULED = ["--trainer.callbacks+=GradientAccumulationScheduler", "--trainer.callbacks.scheduling={1: 2}"]
SWA = ["--trainer.callbacks+=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.05"]


@pytest.mark.parametrize(
    ("options", "after"),
    [
        (SCHEDULED, 6),
        ([*SWA, "--trainer.callbacks.swa_epoch_start=1", "--trainer.callbacks.annealing_epochs=2"], 6),
        ([*SWA, "--trainer.callbacks.swa_epoch_start=0.5", *STEP], 11),
        (["--model=tests.experiment.line.TwoLayers", "--trainer.callbacks+=tests.experiment.line.Unfreezes"], 10),
        (["--trainer.overfit_batches=2", "--data.shuffle=true"], 3),
    ],
)
def test_what_the_beginning_of_an_epoch_sets_is_set_within_it(options: list[str], after: int):
    begin(*options, epochs=4, after=after)
    resume()
    assert_as_whole(*options)


def scores(checkpoint: str) -> dict[str, Any]:
    return torch.load(f"run/checkpoints/{checkpoint}.ckpt", weights_only=True)


EACH_EPOCH = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_top_k=-1"]


@pytest.mark.parametrize("epochs", [1, 2])
def test_what_an_earlier_checkpoint_leaves_behind_is_not_of_the_run(epochs: int, capsys: pytest.CaptureFixture[str]):
    begin(*EACH_EPOCH, epochs=3)
    abandoned = scores("best")["state_dict"]
    train("--resume", "run/checkpoints/epoch=0-step=4.ckpt", f"--trainer.max_epochs={epochs}", "--model.lr=0.0")
    said = capsys.readouterr().out
    assert "best.ckpt is of step 12, and this run goes on from step 4: kept as best-step=12.ckpt" in said
    assert same_bits(scores("best-step=12")["state_dict"], abandoned)
    loop = Loop(SGD, lr=0.1)
    loop.epoch()
    for name in ("last", "best") if epochs == 2 else ("last",):
        torch.testing.assert_close(scores(name)["state_dict"]["layer.weight"], loop.weight.detach(), rtol=1e-12, atol=0)
    assert Path("run/checkpoints/best.ckpt").is_file() == (epochs == 2)


@pytest.mark.parametrize("changed", [["--data.scale=10"], ["--data.num_outputs=1"]])
def test_on_other_data_what_was_best_is_forgotten(changed: list[str], capsys: pytest.CaptureFixture[str]):
    early = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss"]
    begin("--data.scale=1", "--model.lr=0.0001", *early, "--trainer.callbacks.patience=1", *PLATEAU)
    first = scores("best")["global_step"]
    resume(*changed, epochs=3)
    is_other = "scale" in changed[0]
    assert (
        f"best.ckpt is the best on other data, and this run goes on from step 8: kept as best-step={first}.ckpt"
        in capsys.readouterr().out
    ) == is_other
    assert scores("best")["global_step"] == 12
