from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from callbacks import LayerAdaptation, Lookahead, PiecewiseLinearLR
from tests.callbacks.chain_tools import (
    GOLDEN,
    GivenGradients,
    MemoryLogger,
    assert_same,
    golden_trajectory,
    index_loader,
    random_gradients,
    run,
    weights_of,
)
from tests.tools import quiet_trainer

ADAM = partial(torch.optim.Adam, lr=0.02)


def test_the_golden_trajectory_to_the_last_bit():
    recorded = run(GivenGradients(GOLDEN["grads"], ADAM), Lookahead(steps=5, step_size=0.5, evaluate="fast"))
    for actual, expected in zip(recorded.trajectory, golden_trajectory("Lookahead"), strict=True):
        assert_same(actual, expected)


@pytest.mark.parametrize(("k", "alpha"), [(1, 0.3), (5, 0.5), (4, 0.8)])
def test_pytorch_optimizer_to_the_last_bit(k, alpha):
    library = pytest.importorskip("pytorch_optimizer")
    gradients = random_gradients(13)
    recorded = run(GivenGradients(gradients, ADAM), Lookahead(k, alpha, evaluate="fast"))
    reference = GivenGradients(gradients, ADAM)
    optimizer = library.Lookahead(ADAM(reference.parameters()), k=k, alpha=alpha)
    for given, actual in zip(gradients, recorded.trajectory, strict=True):
        for name, gradient in given.items():
            reference.get_parameter(name).grad = gradient.clone()
        optimizer.step()
        assert_same(actual, weights_of(reference))


def test_plain_numbers():
    """SGD(lr=1) with gradient -1: 0 → 1 → 2 → 3, back to 3 * alpha, and so on."""
    gradients = [{"linear.bias": -torch.ones(4)}] * 7
    module = GivenGradients(gradients, partial(torch.optim.SGD, lr=1.0), {"linear.bias": torch.zeros(4)})
    recorded = run(module, Lookahead(steps=3, step_size=0.25, evaluate="fast"))
    values = [weights["linear.bias"][0].item() for weights in recorded.trajectory]
    assert values == pytest.approx([1, 2, 0.75, 1.75, 2.75, 1.5, 2.5])


class SeesWeights(pl.Callback):
    def __init__(self):
        self.seen, self.raw = [], []

    def on_validation_epoch_start(self, trainer, pl_module):
        self.seen.append(weights_of(pl_module))

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.raw.append(weights_of(pl_module))


@pytest.mark.parametrize("evaluate", ["slow", "fast"])
def test_validation_the_end_and_the_checkpoint_have_the_evaluated_weights(evaluate, tmp_path):
    gradients = [{"linear.bias": -torch.ones(4)}] * 7
    module = GivenGradients(gradients, partial(torch.optim.SGD, lr=1.0), {"linear.bias": torch.zeros(4)})
    sees = SeesWeights()
    trainer = quiet_trainer(Lookahead(3, 0.25, evaluate), sees, val_check_interval=1)
    trainer.fit(module, index_loader(7), index_loader(1))
    fast = [1, 2, 0.75, 1.75, 2.75, 1.5, 2.5]
    slow = [0, 0, 0.75, 0.75, 0.75, 1.5, 1.5]
    expected = slow if evaluate == "slow" else fast
    assert [weights["linear.bias"][0].item() for weights in sees.seen] == pytest.approx(expected)
    assert [weights["linear.bias"][0].item() for weights in sees.raw] == pytest.approx(fast)
    assert module.linear.bias[0].item() == pytest.approx(expected[-1])
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    checkpoint = torch.load(tmp_path / "end.ckpt", weights_only=True)
    assert checkpoint["state_dict"]["linear.bias"][0].item() == pytest.approx(expected[-1])
    if evaluate == "slow":
        raw = checkpoint["callbacks"]["Lookahead"]["raw_weights"]["optimizer0"]
        assert raw["linear.bias"][0].item() == pytest.approx(fast[-1])


def test_shared_weights_have_one_slow_copy_and_both_names_in_the_checkpoint(tmp_path):
    class Tied(GivenGradients):
        def __init__(self, *args):
            super().__init__(*args)
            self.decoder = nn.Linear(2, 6, bias=False, dtype=torch.float64)
            self.decoder.weight = self.embedding.weight

    module = Tied([{"embedding.weight": -torch.ones(6, 2)}] * 4, partial(torch.optim.SGD, lr=1.0))
    start = module.embedding.weight.detach().clone()
    rule = Lookahead(steps=3)
    trainer = quiet_trainer(rule)
    trainer.fit(module, index_loader(4))
    assert [name for name in rule.copies["optimizer0"] if "weight" in name] == [
        "linear.weight",
        "norm.weight",
        "embedding.weight",
    ]
    trainer.save_checkpoint(tmp_path / "tied.ckpt")
    state = torch.load(tmp_path / "tied.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(state["embedding.weight"], state["decoder.weight"])
    torch.testing.assert_close(state["decoder.weight"], start + 1.5)


def test_step_size_1_is_bit_identical():
    gradients = random_gradients(7, absent=0.3)
    with_rule = run(GivenGradients(gradients, ADAM), Lookahead(2, 1.0)).trajectory
    for actual, expected in zip(with_rule, run(GivenGradients(gradients, ADAM)).trajectory, strict=True):
        assert_same(actual, expected)


def test_logs_the_distance_of_slow_and_fast():
    gradients = [{"linear.bias": -torch.ones(4)}] * 4
    module = GivenGradients(gradients, partial(torch.optim.SGD, lr=1.0), {"linear.bias": torch.zeros(4)})
    logger = MemoryLogger()
    run(module, Lookahead(2, 0.5, log=True), logger=logger, log_every_n_steps=1)
    # Two steps of 1 in four components, at steps 2 and 4; in between the last value is repeated.
    assert logger.values("train/lookahead_distance")[:3] == pytest.approx([4.0, 4.0, 4.0])


def test_logs_nothing_by_default():
    gradients = [{"linear.bias": -torch.ones(4)}] * 4
    module, logger = GivenGradients(gradients, partial(torch.optim.SGD, lr=1.0)), MemoryLogger()
    rules = [Lookahead(2), LayerAdaptation(exclude=[]), PiecewiseLinearLR({2: 1.0})]
    run(module, *rules, logger=logger, log_every_n_steps=1)
    assert {name for row in logger.rows for name in row} <= {"epoch"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, r"Lookahead: steps \(0\) must be an integer of at least 1"),
        ({"step_size": 1.5}, r"Lookahead: step_size \(1.5\) must be in \[0, 1\]"),
        ({"evaluate": "both"}, r"Lookahead: evaluate \('both'\) must be 'slow' or 'fast'"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Lookahead(**arguments)
