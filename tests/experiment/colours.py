"""Modules with an argument of one name, which only one of them takes from its data; and one with a slot."""

from collections.abc import Iterator

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn


class Numbers:
    """Two batches; an epoch can't be resumed in the middle."""

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[Tensor]:
        return iter(torch.ones(2, 3, 1))


class ColourData(pl.LightningDataModule):
    """Data that knows how many colours it has."""

    num_colours = 7

    def train_dataloader(self) -> Numbers:
        return Numbers()

    val_dataloader = test_dataloader = train_dataloader


class _Painter(pl.LightningModule):
    monitor, mode = "val/loss", "min"

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.layer(batch).square().mean()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/loss", self.training_step(batch, batch_idx))

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("test/colours", float(self.hparams.num_colours))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class LinkedPainter(_Painter):
    """Takes the number of colours from its data."""

    data_links = ("num_colours",)

    def __init__(self, num_colours: int) -> None:
        super().__init__()
        self.save_hyperparameters()


class PlainPainter(_Painter):
    """Has a number of colours of its own."""

    def __init__(self, num_colours: int) -> None:
        super().__init__()
        self.save_hyperparameters()


class SlotPainter(_Painter):
    """Takes an optimizer."""

    def __init__(self, optimizer: OptimizerCallable = torch.optim.SGD) -> None:
        super().__init__()
