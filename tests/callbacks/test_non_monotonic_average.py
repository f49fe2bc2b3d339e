from functools import partial

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from callbacks import NonMonotonicAverage
from tests.callbacks import test_averaged_buffers
from tests.callbacks.chain_tools import (
    GivenGradients,
    Recorder,
    assert_same,
    index_loader,
    random_gradients,
    weights_of,
)
from tests.tools import quiet_trainer

SGD = partial(torch.optim.SGD, lr=0.1)
STEPS = 3  # per epoch


class Validated(GivenGradients):
    """Its validations log given values and keep the weights they saw."""

    def __init__(self, values: list[float], **arguments) -> None:
        super().__init__(random_gradients(STEPS), SGD, **arguments)
        self.values, self.seen = values, []

    def validation_step(self, batch, batch_idx):
        self.seen.append(weights_of(self))
        self.log("val/loss", self.values[self.current_epoch])


def fit(values: list[float], rule: NonMonotonicAverage, **arguments) -> tuple[Validated, Recorder]:
    module, recorder = Validated(values), Recorder()
    trainer = quiet_trainer(rule, recorder, max_epochs=len(values), **arguments)
    trainer.fit(module, index_loader(STEPS), index_loader(1))
    return module, recorder


def triggers(values: list[float], patience: int) -> int | None:
    """The first validation, from 0, that fulfils the condition of the paper's algorithm."""
    for k, value in enumerate(values):
        if k > patience and value > min(values[: k - patience]):
            return k
    return None


@pytest.mark.parametrize(
    ("values", "patience"),
    [
        ([5, 4, 3, 3.5, 3.2, 3.1], 1),
        ([5, 4, 4.5, 4.1, 3], 0),
        ([5, 4, 3, 2, 1], 2),
        ([3, 4, 5, 6, 7, 8], 5),
        ([1] * 4, 0),
    ],
)
def test_averages_from_the_first_step_after_the_validation_that_does_not_improve(values, patience):
    module, recorder = fit(values, NonMonotonicAverage(patience=patience))
    start = triggers(values, patience)
    for epoch, seen in enumerate(module.seen):
        steps = recorder.trajectory[: (epoch + 1) * STEPS]
        if start is None or epoch <= start:
            assert_same(seen, steps[-1])
            continue
        for name, weight in seen.items():
            mean = torch.stack([step[name] for step in steps[(start + 1) * STEPS :]]).mean(0)
            torch.testing.assert_close(weight, mean, rtol=1e-12, atol=1e-12)
    plain = Recorder()
    quiet_trainer(plain, max_epochs=len(values)).fit(Validated(values), index_loader(STEPS), index_loader(1))
    for ours, theirs in zip(recorder.trajectory, plain.trajectory, strict=True):
        assert_same(ours, theirs)


def test_fine_tuning_restarts_the_average_and_ends_when_it_stalls_again():
    values = [5, 4, 6, 6, 3, 2, 3, 1, 1]
    module, recorder = fit(values, NonMonotonicAverage(patience=0, restart_epoch=4))
    assert len(module.seen) == 7, "stops at the first 3 after the 2"
    for name, weight in module.seen[-1].items():
        mean = torch.stack([step[name] for step in recorder.trajectory[4 * STEPS :]]).mean(0)
        torch.testing.assert_close(weight, mean, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("epochs", [2, 4, 5])
def test_a_resumed_run_is_bit_identical(tmp_path, epochs):
    values = [5, 4, 6, 6, 3, 2, 1]
    rule = partial(NonMonotonicAverage, patience=0, restart_epoch=5)
    whole, recorder = fit(values, rule())
    checkpoint = ModelCheckpoint(tmp_path, save_last=True)
    first = quiet_trainer(rule(), checkpoint, max_epochs=epochs)
    first.fit(Validated(values), index_loader(STEPS), index_loader(1))
    again, second = Validated(values), Recorder()
    trainer = quiet_trainer(rule(), second, max_epochs=len(values))
    path = tmp_path / "last.ckpt"
    trainer.fit(again, index_loader(STEPS), index_loader(1), ckpt_path=str(path), weights_only=True)
    for ours, theirs in zip(second.trajectory, recorder.trajectory[epochs * STEPS :], strict=True):
        assert_same(ours, theirs)
    # The average is validated, which began before the checkpoint in two of the cases.
    for ours, theirs in zip(again.seen, whole.seen[epochs:], strict=True):
        assert_same(ours, theirs)
    assert_same(weights_of(again), weights_of(whole))


def test_an_unknown_metric_is_named():
    with pytest.raises(MisconfigurationException, match=r"no metric 'val/perplexity' was logged; .*\['val/loss'\]"):
        fit([1.0], NonMonotonicAverage(monitor="val/perplexity"))


def test_a_negative_patience_is_refused():
    with pytest.raises(ValueError, match=r"NonMonotonicAverage: patience \(-1\) must be at least 0"):
        NonMonotonicAverage(patience=-1)


def test_the_mean_since_the_metric_stalled_has_its_statistics():
    class Stalls(NonMonotonicAverage):
        def on_train_epoch_start(self, trainer, pl_module):
            self.averaging = trainer.current_epoch >= 1

    module, _ = test_averaged_buffers.fit(Stalls(buffers="average"))
    since = module.after_steps[test_averaged_buffers.STEPS :]
    for name in ("layers.0.weight", "layers.1.running_mean", "layers.1.running_var"):
        torch.testing.assert_close(module.validated[-1][name], torch.stack([state[name] for state in since]).mean(0))
    assert_same(module.validated[0], module.after_steps[test_averaged_buffers.STEPS - 1])
