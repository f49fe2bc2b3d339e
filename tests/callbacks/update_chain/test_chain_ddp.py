"""Two processes: equal ranks, the result of one process with the whole batch, and an exact resume within a window."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from callbacks import (
    AveragedWeights,
    GradientAccumulation,
    LayerAdaptation,
    LazyUpdates,
    Lookahead,
    PiecewiseLinearLR,
    WeightDecay,
)
from datamodules.loader import BatchLoader
from layers.processes import gather_process_states
from tests.callbacks.chain_tools import assert_same, weights_of
from tests.tools import in_two_processes, quiet_trainer

ITEMS, EPOCHS = 44, 2  # 11 batches of 4, or of 2 on each of two processes: windows of 3 leave a tail of 2


class Words(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.embedding = nn.Embedding(30, 4, dtype=torch.float64)
        self.output = nn.Linear(4, 1, dtype=torch.float64)

    def training_step(self, batch, batch_idx):
        return ((self.output(self.embedding(batch)) - batch[:, None] / 30) ** 2).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.training_step(batch, batch_idx), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)


def tricks():
    return [
        GradientAccumulation(3),
        PiecewiseLinearLR({4: 1.0, 8: 0.2}),
        WeightDecay(0.1),
        LayerAdaptation(),
        LazyUpdates(["embedding"]),
        Lookahead(3),
        AveragedWeights(0.8),
    ]


class Killed(Exception):
    pass


class Kill(pl.Callback):
    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 4:  # within the window of batches 3, 4, 5
            gather_process_states(trainer.callbacks)
            trainer.save_checkpoint(self.path)
            raise Killed


def fit(batch_size, *others, ckpt_path=None, **kwargs):
    items = torch.arange(ITEMS) * 7 % 30
    loader = BatchLoader(lambda indices: items[indices], ITEMS, batch_size, shuffle=True, drop_last=True)
    module = Words()
    trainer = quiet_trainer(*tricks(), *others, max_epochs=EPOCHS, use_distributed_sampler=False, **kwargs)
    trainer.fit(module, loader, loader, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return trainer, weights_of(module)


def process(rank: int, folder: Path) -> None:
    ddp = {"devices": 2, "strategy": pl.strategies.DDPStrategy(process_group_backend="gloo")}
    torch.save(fit(2, **ddp)[1], folder / f"whole{rank}.pt")
    ddp["strategy"] = pl.strategies.DDPStrategy(process_group_backend="gloo")
    with pytest.raises(Killed):
        fit(2, Kill(folder / "killed.ckpt"), **ddp)
    ddp["strategy"] = pl.strategies.DDPStrategy(process_group_backend="gloo")
    torch.save(fit(2, ckpt_path=folder / "killed.ckpt", **ddp)[1], folder / f"resumed{rank}.pt")


def test_two_processes(tmp_path: Path):
    in_two_processes(process, tmp_path)
    whole, other, resumed, resumed_other = (
        torch.load(tmp_path / name) for name in ("whole0.pt", "whole1.pt", "resumed0.pt", "resumed1.pt")
    )
    assert_same(other, whole)
    assert_same(resumed, whole)
    assert_same(resumed_other, whole)
    # Each rank has its own partial gradient; the checkpoint has both.
    gradients = torch.load(tmp_path / "killed.ckpt", weights_only=True)["update_chain"]["gradients"]
    assert set(gradients) == {"0", "1"}
    assert not torch.equal(gradients["0"]["output.weight"], gradients["1"]["output.weight"])
    assert_same(fit(4)[1], whole, atol=1e-12)
    # Another number of processes continues from the mean of the partial gradients.
    assert_same(fit(4, ckpt_path=tmp_path / "killed.ckpt")[1], whole, atol=1e-12)
