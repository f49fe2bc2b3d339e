"""The running statistics of batch normalisation that go with averaged weights."""

import copy
import csv
import random
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanSquaredError

from callbacks import AveragedWeights, Lookahead
from datamodules.loader import BatchLoader
from tests.callbacks.chain_tools import assert_same
from tests.tools import quiet_trainer

INPUTS = torch.randn(48, 3, generator=torch.Generator().manual_seed(0)) * 2 + 1
STEPS = 6  # per epoch


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return BatchLoader(lambda rows: INPUTS[rows], len(INPUTS), 8, shuffle=True, drop_last=True)

    def val_dataloader(self):
        return BatchLoader(lambda rows: INPUTS[rows], len(INPUTS), 16)


class Normalised(pl.LightningModule):
    """Keeps its state after each step and in each validation."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 1))
        self.after_steps, self.validated = [], []

    def training_step(self, batch, batch_idx):
        loss = (self.layers(batch) - batch.prod(1, keepdim=True)).square().mean()
        self.log("train/loss", loss)
        return loss

    def on_train_batch_end(self, *_):
        self.after_steps.append(self.state())

    def on_validation_start(self):
        self.validated.append(self.state())

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", (self.layers(batch) - batch.prod(1, keepdim=True)).square().mean())

    def state(self):
        return {name: value.clone() for name, value in self.state_dict().items()}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


def fit(*rules, epochs=2, **options):
    module = Normalised()
    trainer = quiet_trainer(*rules, max_epochs=epochs)
    trainer.fit(module, datamodule=Data(), **options)
    return module, trainer


def averages(module, decay):
    """The mean of all that is not a whole number, by the formula."""
    mean = {name: torch.zeros_like(value) for name, value in module.after_steps[0].items()}
    for state in module.after_steps:
        mean = {name: decay * mean[name] + (1 - decay) * state[name] for name in mean}
    return {name: value / (1 - decay ** len(module.after_steps)) for name, value in mean.items()}


@pytest.mark.parametrize("buffers", ["average", "recompute", "raw", None])
def test_what_a_validation_uses_and_that_training_does_not_notice(buffers):
    plain, _ = fit()
    module, _ = fit(AveragedWeights(0.8, buffers=buffers))
    for state, expected in zip(module.after_steps, plain.after_steps, strict=True):
        assert_same(state, expected)
    seen, expected = module.validated[-1], averages(plain, 0.8)
    for name in ("layers.0.weight", "layers.3.bias"):
        torch.testing.assert_close(seen[name], expected[name])
    if buffers in ("recompute", None):
        model = copy.deepcopy(plain)
        model.load_state_dict(seen)
        update_bn(list(Data().train_dataloader()), model.layers)
        expected = model.state_dict()
    elif buffers == "raw":
        expected = plain.after_steps[-1]
    for name in ("layers.1.running_mean", "layers.1.running_var"):
        torch.testing.assert_close(seen[name], expected[name])
        assert torch.equal(seen[name], plain.after_steps[-1][name]) == (buffers == "raw")
    assert_same(module.state(), seen)  # training is over


@pytest.mark.parametrize("buffers", ["average", "recompute", "raw"])
def test_best_checkpoints_have_what_was_validated_and_resume_to_the_same_bits(buffers, tmp_path):
    def rules(folder):
        save = ModelCheckpoint(folder, monitor="val/loss", save_top_k=-1, filename="{epoch}")
        midway = ModelCheckpoint(folder, every_n_train_steps=STEPS + 2, save_top_k=-1, filename="midway-{step}")
        return AveragedWeights(0.8, buffers=buffers), save, midway

    whole, _ = fit(*rules(tmp_path / "whole"), epochs=3)
    for epoch in range(3):
        saved = torch.load(tmp_path / "whole" / f"epoch={epoch}.ckpt", weights_only=True)["state_dict"]
        assert_same(saved, whole.validated[epoch])
    for name in ("epoch=0.ckpt", f"midway-step={STEPS + 2}.ckpt"):
        resumed, _ = fit(*rules(tmp_path / "rest"), epochs=3, ckpt_path=tmp_path / "whole" / name, weights_only=True)
        count = len(resumed.after_steps)
        for state, expected in zip(resumed.after_steps, whole.after_steps[-count:], strict=True):
            assert_same(state, expected)
        assert_same(resumed.validated[-1], whole.validated[-1])


def test_frozen_and_unused_layers_keep_their_statistics():
    class Partly(Normalised):
        def __init__(self):
            super().__init__()
            self.unused, self.frozen = nn.BatchNorm1d(2), nn.BatchNorm1d(3)
            for layer in (self.unused, self.frozen):
                layer.running_mean.fill_(5.0)
            self.train()

        def train(self, mode=True):
            super().train(mode)
            self.frozen.eval()
            return self

        def training_step(self, batch, batch_idx):
            return super().training_step(self.frozen(batch), batch_idx)

    module = Partly()
    quiet_trainer(AveragedWeights(0.8, buffers="recompute")).fit(module, datamodule=Data())
    assert (module.validated[-1]["unused.running_mean"] == 5).all()
    assert (module.validated[-1]["frozen.running_mean"] == 5).all()
    assert not torch.equal(
        module.validated[-1]["layers.1.running_mean"], module.after_steps[-1]["layers.1.running_mean"]
    )


def test_instance_normalisation_has_statistics_of_its_own_weights():
    class Instances(Normalised):
        def __init__(self):
            super().__init__()
            self.scale, self.norm = nn.Parameter(torch.ones(4)), nn.InstanceNorm1d(3, track_running_stats=True)

        def training_step(self, batch, batch_idx):
            places = batch[:, :, None] * self.scale.cumsum(0)
            return super().training_step(self.norm(places).mean(-1) + places.tanh().mean(-1), batch_idx)

    module = Instances()
    quiet_trainer(AveragedWeights(0.8), max_epochs=2).fit(module, datamodule=Data())
    seen, trained = module.validated[-1], module.after_steps[-1]
    assert not torch.equal(seen["scale"], trained["scale"])
    places = INPUTS[:, :, None] * seen["scale"].cumsum(0)  # one epoch is all images
    torch.testing.assert_close(seen["norm.running_mean"], places.mean(-1).mean(0))
    torch.testing.assert_close(seen["norm.running_var"], places.var(-1).mean(0))
    assert module.norm.momentum == 0.1
    assert not module.norm._forward_pre_hooks


class Noisy(Dataset):
    """Changes each item at random, by generators of its own."""

    def __init__(self):
        self.numpy, self.plain = np.random.default_rng(1), random.Random(1)

    def __len__(self):
        return len(INPUTS)

    def __getitem__(self, row):
        return INPUTS[row] + 0.1 * float(self.numpy.random() + self.plain.random())


class Shuffled(Data):
    """Several loaders; the order is drawn from a generator of its own."""

    def __init__(self):
        super().__init__()
        self.generator, self.noisy = torch.Generator().manual_seed(1), Noisy()

    def train_dataloader(self):
        order = {"shuffle": True, "generator": self.generator}
        return {"a": DataLoader(self.noisy, 8, **order), "b": DataLoader(INPUTS[:24], 8, **order)}


class Busy(Normalised):
    """Its step takes no index, changes what it keeps, logs, and gets its batches through hooks of its own."""

    def __init__(self):
        super().__init__()
        self.register_buffer("teacher", torch.zeros(5))
        self.frozen = nn.Parameter(torch.zeros(5), requires_grad=False)
        self.count, self.seen, self.error = 0, [], MeanSquaredError()
        self.noise, self.bank = torch.Generator().manual_seed(0), {"means": [torch.zeros(5)]}
        self.deep = {"noise": [np.random.default_rng(0), (random.Random(0), torch.Generator().manual_seed(1))]}
        with torch.inference_mode():
            self.last = torch.zeros(1)  # as a validation before the training leaves it

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return {**batch, "a": batch["a"] * 0.2} if isinstance(batch, dict) else batch * 0.2

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return torch.cat([batch["a"], batch["b"] * 0.2]) - 0.5 if isinstance(batch, dict) else batch - 0.5

    def training_step(self, batch):
        first, (second, third) = self.deep["noise"]
        scale = 0.01 * (first.random() + second.random() + torch.rand((), generator=third))
        loss = super().training_step(batch + scale * torch.rand(batch.shape, generator=self.noise), 0)
        with torch.no_grad():
            self.teacher = 0.9 * self.teacher + 0.1 * self.layers[0].weight.sum(1)
            self.frozen.lerp_(self.layers[0].weight.sum(1), 0.1)
            self.bank["means"][0].lerp_(self.layers[0].weight.sum(1), 0.1)
        self.count += 1
        self.seen.append(len(batch))
        self.error(self.layers(batch), batch.prod(1, keepdim=True))
        self.log("train/error", self.error, on_step=False, on_epoch=True)
        self.logger.log_metrics({"by_hand": float(self.count)})
        return loss


def fit_busy(folder, *rules):
    module, trainer = Busy(), quiet_trainer(*rules, max_epochs=2, logger=CSVLogger(folder))
    trainer.fit(module, datamodule=Shuffled())
    with open(Path(trainer.logger.log_dir) / "metrics.csv") as file:
        return module, trainer, sum(bool(row["by_hand"]) for row in csv.DictReader(file))


def test_nothing_but_the_statistics_is_changed_and_batches_take_the_modules_hooks(tmp_path):
    plain, trainer, lines = fit_busy(tmp_path / "plain")
    module, averaged, lines_too = fit_busy(tmp_path / "averaged", AveragedWeights(0.8, buffers="recompute"))
    for state, expected in zip(module.after_steps, plain.after_steps, strict=True):
        assert_same(state, expected)
    assert (module.count, module.seen, lines_too) == (plain.count, plain.seen, lines) == (12, [16] * 12, 12)
    assert torch.equal(module.bank["means"][0], plain.bank["means"][0])
    assert averaged.callback_metrics["train/error"] == trainer.callback_metrics["train/error"]
    seen = module.validated[-1]
    model = copy.deepcopy(plain)
    model.load_state_dict(seen)
    update_bn([INPUTS * 0.2 - 0.5], nn.Sequential(model.layers[0], model.layers[1]))
    mean = seen["layers.1.running_mean"]  # of each image once and half of them twice: near, not the same
    torch.testing.assert_close(mean, model.layers[1].running_mean, rtol=0.2, atol=0.1)


def test_lookahead_keeps_the_statistics_of_the_training():
    module, _ = fit(Lookahead(4))
    for name in ("layers.1.running_mean", "layers.1.running_var"):
        assert torch.equal(module.validated[-1][name], module.after_steps[-1][name])


def test_what_can_not_work_is_refused():
    with pytest.raises(ValueError, match=r"AveragedWeights: buffers \(.best.\) must be average, recompute or raw"):
        AveragedWeights(buffers="best")
    loaders = {"train_dataloaders": Data().train_dataloader(), "val_dataloaders": Data().val_dataloader()}
    with pytest.raises(MisconfigurationException, match="there is no datamodule"):
        quiet_trainer(AveragedWeights(buffers="recompute")).fit(Normalised(), **loaders)
    module, other = Normalised(), Normalised()
    quiet_trainer(AveragedWeights(0.8)).fit(module, **loaders)  # averages instead
    quiet_trainer(AveragedWeights(0.8, buffers="average")).fit(other, **loaders)
    assert_same(module.state(), other.state())
    fetching = type("Fetching", (Normalised,), {"training_step": lambda self, dataloader_iter: None})()
    with pytest.raises(MisconfigurationException, match="Fetching fetches its own batches"):
        quiet_trainer(AveragedWeights(buffers="recompute")).fit(fetching, datamodule=Data())
    module.automatic_optimization = False
    with pytest.raises(MisconfigurationException, match="steps its own optimizers"):
        quiet_trainer(AveragedWeights(buffers="recompute")).fit(module, datamodule=Data())


class Watched(Data):
    """Counts its training loaders, and notes whether the batches of each were asked for as those of training."""

    def __init__(self):
        super().__init__()
        self.loaders, self.stages = 0, set()

    def train_dataloader(self):
        self.loaders += 1
        return super().train_dataloader()

    def on_after_batch_transfer(self, batch, dataloader_idx):
        if len(batch) == 8:  # those of validation have 16
            self.stages.add(self.trainer.training)
        return batch


def test_once_for_the_same_weights_on_batches_as_in_training(tmp_path):
    data, checkpoints = Watched(), ModelCheckpoint(tmp_path, "best", monitor="val/loss", save_last=True)
    trainer = quiet_trainer(AveragedWeights(0.9), checkpoints, max_epochs=2)
    trainer.fit(Normalised(), data)
    assert data.loaders == 1 + 2  # that of the training; one for each epoch's validation and its checkpoints
    assert data.stages == {True}
    assert {path.name for path in tmp_path.iterdir()} == {"best.ckpt", "last.ckpt"}
