"""A linear model on eight points whose runs a loop of plain torch can follow step by step."""

import json
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BaseFinetuning
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from datamodules.loader import BatchLoader
from lightning_modules.hyperparameters import save_plain_hyperparameters
from lightning_modules.optimization import Interval, Optimized, OptimizerSlot, SchedulerSlot

POINTS = torch.arange(16, dtype=torch.float64).reshape(8, 2).sin()
START = torch.tensor([[0.3, -0.2]], dtype=torch.float64)


class LineData(pl.LightningDataModule):
    """The points, in their order or shuffled, times ``scale``."""

    def __init__(self, batch_size: int = 2, num_outputs: int = 1, shuffle: bool = False, scale: float = 1.0) -> None:
        super().__init__()
        self.batch_size, self.num_outputs, self.shuffle, self.scale = batch_size, num_outputs, shuffle, scale

    def train_dataloader(self) -> BatchLoader:
        return BatchLoader(lambda rows: self.scale * POINTS[rows], len(POINTS), self.batch_size, shuffle=self.shuffle)

    val_dataloader = test_dataloader = train_dataloader


class Line(Optimized, pl.LightningModule):
    """Learns that the outputs are 1."""

    monitor, mode = "val/loss", "min"
    data_links = ("num_outputs",)

    def __init__(
        self,
        lr: float = 0.1,
        optimizer: OptimizerSlot = torch.optim.SGD,
        scheduler: SchedulerSlot | None = None,
        scheduler_interval: Interval = "epoch",
        num_outputs: int = 1,
        with_bias: bool = False,
    ) -> None:
        super().__init__()
        save_plain_hyperparameters(self)
        self.set_optimizer(optimizer, scheduler, scheduler_interval)
        self.layer = nn.Linear(2, num_outputs, bias=with_bias, dtype=torch.float64)
        with torch.no_grad():
            self.layer.weight.copy_(START.expand(num_outputs, 2))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return self.optimize(self.parameters())

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return loss_of(self.layer.weight, batch)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/loss", loss_of(self.layer.weight, batch))

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("test/loss", loss_of(self.layer.weight, batch))

    def predict_file(self, input: Path, output: Path) -> None:
        """Writes the weights.

        Args:
            input: not read.
            output: a JSON file.
        """
        Path(output).write_text(json.dumps(self.layer.weight.tolist()))


def loss_of(weight: Tensor, batch: Tensor) -> Tensor:
    return (batch @ weight.T - 1).square().mean()


class StopsAt(pl.Callback):
    """Ends the training after so many batches, as ``max_time`` and ``EarlyStopping`` do."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.fit_loop.total_batch_idx + 1 == self.batch


class TwoLayers(Line):
    """The line after a layer that begins as the identity."""

    data_links = ()

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__(lr)
        self.first = nn.Linear(2, 2, bias=False, dtype=torch.float64)
        nn.init.eye_(self.first.weight)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return loss_of(self.layer.weight, self.first(batch))


class Unfreezes(BaseFinetuning):
    """Trains the first layer from epoch 1 on."""

    def freeze_before_training(self, pl_module: pl.LightningModule) -> None:
        self.freeze(pl_module.first)

    def finetune_function(self, pl_module: pl.LightningModule, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.first, optimizer, lr=0.05)


class Loop:
    """The same training in plain torch: ``loop.step(rows)``, with an optimizer whose groups the test sets itself."""

    def __init__(self, make: Any, **options: Any) -> None:
        self.weight = START.clone().requires_grad_()
        self.optimizer = make([self.weight], **options)

    def step(self, rows: slice, **changes: Any) -> None:
        self.optimizer.param_groups[0].update(changes)
        self.optimizer.zero_grad()
        loss_of(self.weight, POINTS[rows]).backward()
        self.optimizer.step()

    def epoch(self, batch_size: int = 2, **changes: Any) -> None:
        for begin in range(0, len(POINTS), batch_size):
            self.step(slice(begin, begin + batch_size), **changes)
