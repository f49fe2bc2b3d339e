"""A run that is resumed with other callbacks trains as a loop of plain torch does with them."""

import pytest
import torch
from torch import Tensor
from torch.optim import SGD

from experiment.errors import UserError
from tests.experiment.line import START, Loop
from tests.experiment.line_runs import (
    AVERAGE,
    assert_close,
    begin,
    in_a_folder_of_its_own,
    last,
    last_weights,
    resume,
)

_in_a_folder_of_its_own = pytest.fixture(autouse=True)(in_a_folder_of_its_own)


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
