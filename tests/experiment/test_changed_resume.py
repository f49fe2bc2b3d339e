"""A run that is resumed with other settings trains as a loop of plain torch does with them."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.optim import SGD, Adam, AdamW

from experiment.errors import UserError
from tests.conftest import ROOT
from tests.experiment.line import Loop
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
from tests.tools import equal
from tests.training import train

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
        assert equal(broken[key], whole[key]), key


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
    # However it is written; YAML takes a number without a point for text.
    Path("short.yaml").write_text("max_epochs: 3\n")
    Path("variant.yaml").write_text("model: {lr: 1e-1}\ndata.batch_size: 2\ntrainer: short.yaml\n")
    train("--resume", "run", "-c", "variant.yaml")


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
        (["--model.optimizer.momentum=0.9"], ["--model.optimizer=Adam"], ["another optimizer than Adam (SGD)"]),
        (["--model.optimizer=Adam"], ["--model.optimizer=torch.optim.RAdam"], ["another optimizer than RAdam (Adam)"]),
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
