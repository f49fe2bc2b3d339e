"""What the tests of derived optimizers share: modules with given gradients, trajectories."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn
from torch.optim import Optimizer

from datamodules.loader import BatchLoader
from tests.tools import quiet_trainer

GOLDEN = json.loads((Path(__file__).parents[1] / "fixtures" / "optimizers.json").read_text())
Weights = dict[str, Tensor]


class GivenGradients(pl.LightningModule):
    """A linear layer, a normalisation and an embedding with given gradients for each batch.

    loss = sum of <parameter, gradient> over the parameters that have one in this batch, so backward returns it exactly.
    """

    def __init__(
        self,
        gradients: list[dict[str, Any]],
        optimizer: Callable[[Any], Optimizer],
        init: dict[str, Any] | None = None,
        scheduler: Callable[[Optimizer], Any] | None = None,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 4, dtype=torch.float64)
        self.norm = nn.LayerNorm(4, dtype=torch.float64)
        self.embedding = nn.Embedding(6, 2, dtype=torch.float64)
        self.given = [{name: torch.as_tensor(g, dtype=torch.float64) for name, g in step.items()} for step in gradients]
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        with torch.no_grad():
            for name, value in (GOLDEN["init"] if init is None else init).items():
                self.get_parameter(name).copy_(torch.as_tensor(value, dtype=torch.float64))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor | None:
        given = self.given[int(batch[0])]
        if not given:
            return None
        return sum((self.get_parameter(name) * gradient).sum() for name, gradient in given.items())

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/loss", self.linear.weight.sum())

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(self.parameters())
        if self.make_scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.make_scheduler(optimizer), "interval": "step"},
        }


class Recorder(pl.Callback):
    """Records the weights after each batch, and the groups' learning rates before each optimizer step."""

    def __init__(self) -> None:
        self.trajectory: list[Weights] = []
        self.learning_rates: list[list[float]] = []

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        self.learning_rates.append([float(group["lr"]) for group in optimizer.param_groups])

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.trajectory.append(weights_of(pl_module))


class MemoryLogger(Logger):
    """Keeps everything that is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []
        self.hyperparameters: dict[str, Any] = {}

    name = version = "memory"

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append(dict(metrics))

    def log_hyperparams(self, params: dict[str, Any], *_: Any, **__: Any) -> None:
        self.hyperparameters.update(params)

    def values(self, name: str) -> list[float]:
        return [row[name] for row in self.rows if name in row]


def weights_of(module: nn.Module) -> Weights:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def index_loader(batches: int) -> BatchLoader:
    """Yields [0], [1], … and can be resumed."""
    return BatchLoader(lambda indices: indices, batches, 1)


def run(module: pl.LightningModule, *callbacks: pl.Callback, batches: int | None = None, **kwargs: Any) -> Recorder:
    """Fits one epoch over the given gradients; returns the recorder."""
    recorder = Recorder()
    trainer = quiet_trainer(*callbacks, recorder, **kwargs)
    trainer.fit(module, index_loader(batches or len(module.given)))
    return recorder


def golden_trajectory(case: str) -> list[Weights]:
    """The recorded reference whose name contains ``case``."""
    (found,) = [entry for entry in GOLDEN["cases"] if case in entry["name"]]
    return [
        {name: torch.tensor(value, dtype=torch.float64) for name, value in weights.items()}
        for weights in found["trajectory"]
    ]


def random_gradients(steps: int, seed: int = 0, absent: float = 0.0) -> list[dict[str, Any]]:
    """Gradients for ``GivenGradients``; some embedding rows are 0, a share ``absent`` of the gradients is missing."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"linear.weight": (4, 3), "linear.bias": (4,), "norm.weight": (4,), "norm.bias": (4,)}
    given = []
    for _ in range(steps):
        step = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
        rows = torch.rand(6, 1, generator=generator) < 0.5
        step["embedding.weight"] = torch.randn(6, 2, generator=generator, dtype=torch.float64) * rows
        draws = torch.rand(len(step), generator=generator).tolist()
        given.append({name: g for (name, g), draw in zip(step.items(), draws, strict=True) if draw >= absent})
    return given


def assert_same(actual: Weights, expected: Weights, **tolerance: float) -> None:
    """Asserts bit-identical weights, or equal ones within rtol and atol if given."""
    for name, value in expected.items():
        if tolerance:
            torch.testing.assert_close(actual[name], value, **({"rtol": 0.0} | tolerance), msg=lambda m, n=name: n + m)
        else:
            assert torch.equal(actual[name], value), f"{name} differs by {(actual[name] - value).abs().max()}"
