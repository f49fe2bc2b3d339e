"""A run that is killed anywhere and resumed is bit-identical to an uninterrupted one."""

import itertools
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn

from callbacks import (
    AveragedWeights,
    GradientAccumulation,
    LayerAdaptation,
    LazyUpdates,
    Lookahead,
    ParameterwiseLR,
    PiecewiseLinearLR,
    WeightConstraint,
    WeightDecay,
)
from datamodules.loader import BatchLoader
from layers import normalize_weights
from tests.callbacks.chain_tools import GivenGradients, assert_same, index_loader, random_gradients, weights_of
from tests.tools import quiet_trainer

TRICKS = {
    "decay": lambda: WeightDecay(0.1),
    "adaptation": lambda: LayerAdaptation(exclude=["bias$"]),
    "lr": lambda: PiecewiseLinearLR({3: 1.0, 9: 0.2}),
    "accumulation": lambda: GradientAccumulation({0: 3, 3: 2}),
    "lookahead": lambda: Lookahead(steps=4),
    "lazy": lambda: LazyUpdates(["type:Embedding"], freeze_state=True),
    "parameterwise": lambda: ParameterwiseLR({"embedding": 2.0}),
    "average": lambda: AveragedWeights(0.8),
    "constraint": lambda: WeightConstraint("max_norm", 0.9),
}
BATCHES, EPOCHS = 7, 2
ADAM = partial(torch.optim.Adam, lr=0.05)


class Words(pl.LightningModule):
    """Two words and a regression: gradients depend on the weights, embedding rows are absent, batches are shuffled."""

    def __init__(self, make=ADAM):
        super().__init__()
        torch.manual_seed(3)
        self.embedding = nn.Embedding(12, 4)
        self.output = nn.Linear(4, 1)
        self.make = make

    def training_step(self, batch, batch_idx):
        return ((self.output(self.embedding(batch).sum(1)) - 1) ** 2).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.training_step(batch, batch_idx))

    test_step = predict_step = training_step

    def configure_optimizers(self):
        optimizer = self.make(self.parameters())
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.95)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def loader():
    words = torch.arange(28).reshape(14, 2) * 5 % 12
    return BatchLoader(lambda indices: words[indices], 14, 2, shuffle=True)


class Killed(Exception):
    pass


class SaveAndKill(pl.Callback):
    """Saves after the given number of batches and kills the run."""

    def __init__(self, path: Path, after: int, kill: bool = True):
        self.path, self.left, self.kill = path, after, kill

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.left -= 1
        if self.left == 0:
            trainer.save_checkpoint(self.path)
            if self.kill:
                raise Killed


def state_of(trainer, module):
    """The final state of a run: weights, buffers, moments, copies, learning rate."""
    state = {f"weights/{name}": value for name, value in weights_of(module).items()}
    state |= {f"buffers/{name}": value.clone() for name, value in module.named_buffers()}
    for i, group in trainer.optimizers[0].state_dict()["state"].items():
        state |= {f"optimizer/{i}/{key}": torch.as_tensor(value) for key, value in group.items()}
    for callback in trainer.callbacks:
        for copies in getattr(callback, "copies", {}).values():
            state |= {f"{type(callback).__name__}/{name}": value for name, value in copies.items()}
    state["lr"] = torch.tensor(trainer.optimizers[0].param_groups[0]["lr"], dtype=torch.float64)
    return state


def check_resume(tmp_path, make_tricks, after, make_module=Words, **kwargs):
    options = {"max_epochs": EPOCHS} | kwargs
    path = tmp_path / "killed.ckpt"
    whole, module = quiet_trainer(*make_tricks(), **options), make_module()
    whole.fit(module, loader(), loader())
    expected = state_of(whole, module)
    killed = quiet_trainer(*make_tricks(), SaveAndKill(path, after), **options)
    with pytest.raises(Killed):
        killed.fit(make_module(), loader(), loader())
    resumed, module = quiet_trainer(*make_tricks(), **options), make_module()
    with torch.no_grad():
        for parameter in module.parameters():  # nothing may depend on the new module's weights
            parameter.add_(1.0)
    resumed.fit(module, loader(), loader(), ckpt_path=path, weights_only=True)
    assert resumed.global_step == whole.global_step
    actual = state_of(resumed, module)
    assert actual.keys() == expected.keys()
    assert_same(actual, expected)


@pytest.mark.parametrize(
    "names", [*itertools.combinations(TRICKS, 1), *itertools.combinations(TRICKS, 2)], ids="+".join
)
def test_every_pair_in_the_middle_of_a_window(names, tmp_path):
    # After 5 batches: within the second window of 3 and within Lookahead's first 4 steps.
    check_resume(tmp_path, lambda: [TRICKS[name]() for name in names], after=5)


@pytest.mark.parametrize("after", range(1, BATCHES * EPOCHS + 1))
def test_all_of_them_after_every_batch(after, tmp_path):
    check_resume(tmp_path, lambda: [make() for make in TRICKS.values()], after)


@pytest.mark.parametrize("after", [3, 8])
def test_all_of_them_on_normalised_weights(after, tmp_path):
    def normalised():
        module = Words()
        return normalize_weights(module, {"embedding": "spectral_persistent", "output": "weight_norm"})

    tricks = {**TRICKS, "lookahead": lambda: Lookahead(steps=2)}
    check_resume(tmp_path, lambda: [make() for make in tricks.values()], after, normalised)


@pytest.mark.parametrize("after", [2, 6, 7, 9])
def test_lightnings_own_accumulation_window(after, tmp_path):
    names = ("decay", "lookahead", "average")
    check_resume(tmp_path, lambda: [TRICKS[name]() for name in names], after, accumulate_grad_batches=4)


def test_a_scheduled_window_of_lightning(tmp_path):
    from pytorch_lightning.callbacks import GradientAccumulationScheduler

    make = lambda: [GradientAccumulationScheduler({0: 3, 1: 2}), WeightDecay(0.1), Lookahead(2)]  # noqa: E731
    for after in (2, 8):
        check_resume(tmp_path, make, after)


class ManualWords(Words):
    """Two optimizers; the module itself accumulates the second one's gradients over three batches."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        words, output = self.optimizers()
        loss = super().training_step(batch, batch_idx)
        if self.trainer.validating:
            return loss
        words.zero_grad()
        self.manual_backward(loss)
        words.step()
        # Lightning zeroes all gradients before a validation, so a window has to end with the epoch.
        if (batch_idx + 1) % 3 == 0 or batch_idx + 1 == BATCHES:
            output.step()
            output.zero_grad()
        return None

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", Words.training_step(self, batch, batch_idx))

    def configure_optimizers(self):
        return [self.make(self.embedding.parameters()), torch.optim.SGD(self.output.parameters(), lr=0.1, momentum=0.9)]


@pytest.mark.parametrize("after", [2, 5, 7])
def test_manual_optimization_with_its_own_window(after, tmp_path):
    names = ("decay", "lr", "lookahead", "lazy", "average")
    check_resume(tmp_path, lambda: [TRICKS[name]() for name in names], after, make_module=ManualWords)


def test_a_scaler_and_its_skipped_step(tmp_path):
    from pytorch_lightning.plugins import MixedPrecision

    class Overflows(Words):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss * float("inf") if self.training and (batch_idx, self.current_epoch) == (2, 0) else loss

    def tricks():
        return [make() for name, make in TRICKS.items() if name != "accumulation"]

    def fit(callbacks, **kwargs):
        plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=4.0))
        trainer, module = quiet_trainer(*callbacks, max_epochs=EPOCHS, plugins=[plugin]), Overflows()
        trainer.fit(module, loader(), **kwargs)
        return state_of(trainer, module)

    path = tmp_path / "killed.ckpt"
    with pytest.raises(Killed):
        fit([*tricks(), SaveAndKill(path, 4)])
    assert_same(fit(tricks(), ckpt_path=path, weights_only=True), fit(tricks()))


@pytest.mark.parametrize("between", [(), ("validate",), ("test", "predict"), ("validate", "validate")])
def test_a_finished_run_is_continued(tmp_path, between):
    tricks = lambda: [make() for make in TRICKS.values()]  # noqa: E731
    path = tmp_path / "end.ckpt"
    first, begun = quiet_trainer(*tricks(), max_epochs=1), Words()
    first.fit(begun, loader(), loader())
    for stage in between:
        getattr(first, stage)(begun, loader())
    first.save_checkpoint(path)
    longer, module = quiet_trainer(*tricks(), max_epochs=2), Words()
    longer.fit(module, loader(), loader(), ckpt_path=path, weights_only=True)
    whole, expected = quiet_trainer(*tricks(), max_epochs=2), Words()
    whole.fit(expected, loader(), loader())
    assert_same(state_of(longer, module), state_of(whole, expected))


def test_the_file_holds_plain_state_by_parameter_name(tmp_path):
    path = tmp_path / "now.ckpt"
    trainer = quiet_trainer(*(make() for make in TRICKS.values()), SaveAndKill(path, 5, kill=False))
    trainer.fit(Words(), loader())
    checkpoint = torch.load(path, weights_only=True)  # tensors, numbers and strings only
    names = {"embedding.weight", "output.weight", "output.bias"}
    assert set(checkpoint["update_chain"]["gradients"]["0"]) == names
    assert checkpoint["update_chain"]["steps"] == {"optimizer0": 1}
    assert set(checkpoint["callbacks"]["Lookahead"]["copies"]["optimizer0"]) == names
    assert set(checkpoint["callbacks"]["AveragedWeights"]["raw_weights"]["optimizer0"]) == names
    average = checkpoint["callbacks"]["AveragedWeights"]["copies"]["optimizer0"]
    assert_same(checkpoint["state_dict"], average)


def test_a_test_uses_the_evaluated_weights(tmp_path):
    class Tests(Words):
        def test_step(self, batch, batch_idx):
            self.log("test/weight", self.output.weight[0, 0])

    path = tmp_path / "now.ckpt"
    trainer = quiet_trainer(Lookahead(100), SaveAndKill(path, 5, kill=False))
    module = Tests()
    start = module.output.weight[0, 0].item()
    trainer.fit(module, loader())
    tester = quiet_trainer(Lookahead(100))
    (metrics,) = tester.test(Tests(), loader(), ckpt_path=path, weights_only=True, verbose=False)
    assert metrics["test/weight"] == pytest.approx(start)  # the slow weights have not moved yet


def make_checkpoint(path, *callbacks):
    gradients = random_gradients(4)
    trainer = quiet_trainer(*callbacks, SaveAndKill(path, 2, kill=False))
    trainer.fit(GivenGradients(gradients, partial(torch.optim.SGD, lr=0.1)), index_loader(4))


def test_dropped_lookahead_is_refused(tmp_path):
    path = tmp_path / "saved.ckpt"
    make_checkpoint(path, WeightDecay(0.1), Lookahead())
    module = GivenGradients(random_gradients(4), partial(torch.optim.SGD, lr=0.1))
    with pytest.raises(MisconfigurationException, match=r"chain: the checkpoint has Lookahead\("):
        quiet_trainer(WeightDecay(0.1)).fit(module, index_loader(4), ckpt_path=path, weights_only=True)


def test_the_same_chain_in_another_order_and_with_another_evaluation_resumes(tmp_path):
    path = tmp_path / "saved.ckpt"
    make_checkpoint(path, WeightDecay(0.1), Lookahead(5, evaluate="slow"), LayerAdaptation())
    module = GivenGradients(random_gradients(4), partial(torch.optim.SGD, lr=0.1))
    rules = [LayerAdaptation(log=True), Lookahead(5, evaluate="fast"), WeightDecay(0.1)]
    quiet_trainer(*rules).fit(module, index_loader(4), ckpt_path=path, weights_only=True)
    whole = GivenGradients(random_gradients(4), partial(torch.optim.SGD, lr=0.1))
    rules = [WeightDecay(0.1), Lookahead(5, evaluate="fast"), LayerAdaptation()]
    quiet_trainer(*rules).fit(whole, index_loader(4))
    assert_same(weights_of(module), weights_of(whole))
