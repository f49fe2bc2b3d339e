"""Sharded parameters (``fully_shard`` in two processes): each trick does what it does on whole ones, or is refused."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import callbacks
from callbacks import (
    AveragedWeights,
    GradientAccumulation,
    LayerAdaptation,
    LazyUpdates,
    LengthScaledLR,
    Lookahead,
    NonMonotonicAverage,
    ParameterwiseLR,
    PiecewiseLinearLR,
    TwoStageTraining,
    WeightConstraint,
    WeightDecay,
)
from callbacks.update_chain import UpdateRule
from tests.callbacks.chain_tools import assert_same
from tests.tools import Batches, in_two_processes, quiet_trainer


class Tokens(tuple):
    """A batch with ``inputs`` (B, T) int64."""

    @property
    def inputs(self) -> torch.Tensor:
        return self[0]


class Model(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embedding = nn.Embedding(10, 3, dtype=torch.float64)
        self.output = nn.Linear(3, 2, dtype=torch.float64)
        self.shards = False

    def configure_model(self) -> None:
        if self.shards and not isinstance(self.output.weight, DTensor):
            for part in (self.embedding, self.output, self):
                fully_shard(part, mesh=self.device_mesh["data_parallel"])

    def training_step(self, batch: Tokens, batch_idx: int) -> torch.Tensor:
        return self.output(self.embedding(batch[0])).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.05)


def allowed() -> list[pl.Callback]:
    return [
        GradientAccumulation(2),
        PiecewiseLinearLR({3: 1.0, 5: 0.2}),
        LengthScaledLR(4, log=False),
        ParameterwiseLR({"output": 0.5}),
        WeightDecay(0.1),
    ]


def refused() -> list[pl.Callback]:
    return [
        LayerAdaptation(),
        LazyUpdates(["embedding"]),
        Lookahead(),
        WeightConstraint(),
        AveragedWeights(),
        NonMonotonicAverage(),
        TwoStageTraining(),
    ]


def fit(*tricks: pl.Callback, shards: bool = False) -> dict[str, torch.Tensor]:
    model = Model()
    model.shards = shards
    settings: dict[str, Any] = {"devices": 1}
    if shards:
        settings = {"devices": 2, "strategy": ModelParallelStrategy(process_group_backend="gloo")}
    trainer = quiet_trainer(*tricks, max_epochs=2, use_distributed_sampler=False, **settings)
    # Seven batches: windows of two leave a tail of one.
    tokens = torch.arange(7 * 6).reshape(7, 2, 3) % 10
    trainer.fit(model, Batches([Tokens([part]) for part in tokens]))
    found = dict(model.named_parameters())
    assert all(isinstance(value, DTensor) == shards for value in found.values())
    return {name: (value.full_tensor() if shards else value).detach() for name, value in found.items()}


def process(rank: int, folder: Path) -> None:
    for trick in refused():
        with pytest.raises(MisconfigurationException) as error:
            fit(trick, shards=True)
        (line,) = str(error.value).splitlines()
        assert type(trick).__name__ in line
        assert "ModelParallelStrategy" in line
    torch.save(fit(*allowed(), shards=True), folder / f"{rank}.pt")


def test_two_processes(tmp_path: Path):
    in_two_processes(process, tmp_path)
    whole = fit(*allowed())
    for rank in range(2):
        assert_same(torch.load(tmp_path / f"{rank}.pt"), whole, atol=1e-12)


def test_every_trick_is_here():
    rules = {rule for rule in vars(callbacks).values() if isinstance(rule, type) and issubclass(rule, UpdateRule)}
    assert rules <= {type(trick) for trick in [*allowed(), *refused()]}
    assert all(trick.works_on_shards for trick in allowed())
