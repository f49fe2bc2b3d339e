"""Batches of a trial are small in all loaders."""

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.demos.boring_classes import BoringModel
from torch.utils.data import DataLoader

from callbacks import SmallBatches
from tests.tools import quiet_trainer


class Numbers(pl.LightningDataModule):
    def __init__(self) -> None:
        super().__init__()
        self.batch_size, self.eval_batch_size, self.test_batch_size = 16, 8, 1

    def train_dataloader(self) -> DataLoader:
        return DataLoader(torch.randn(32, 32), self.batch_size)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(torch.randn(32, 32), self.eval_batch_size)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(torch.randn(2, 32), self.test_batch_size)


class Sizes(pl.Callback):
    def __init__(self) -> None:
        self.seen: dict[str, set[int]] = {"train": set(), "val": set(), "test": set()}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen["train"].add(len(batch))

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        self.seen["val"].add(len(batch))

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        self.seen["test"].add(len(batch))


def test_all_loaders_have_small_batches():
    sizes, data = Sizes(), Numbers()
    trainer = quiet_trainer(SmallBatches(size=4), sizes, enable_checkpointing=False)
    trainer.fit(BoringModel(), data)
    trainer.test(datamodule=data, verbose=False, ckpt_path=None, model=BoringModel())
    assert sizes.seen == {"train": {4}, "val": {4}, "test": {1}}


def test_without_a_datamodule_there_is_nothing_to_do():
    quiet_trainer(SmallBatches(), limit_train_batches=1, limit_val_batches=0, enable_checkpointing=False).fit(
        BoringModel()
    )


def test_a_size_below_one_is_refused():
    with pytest.raises(ValueError, match="size is 0"):
        SmallBatches(0)
