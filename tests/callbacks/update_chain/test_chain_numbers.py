"""Complex parameters, and optimizers that exchange the weights themselves."""

from functools import partial
from typing import Any

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
    NonMonotonicAverage,
    ParameterwiseLR,
    PiecewiseLinearLR,
    TwoStageTraining,
    WeightConstraint,
    WeightDecay,
)
from tests.callbacks.chain_tools import GivenGradients, index_loader, random_gradients, run
from tests.tools import Batches, quiet_trainer


class Pairs(pl.LightningModule):
    """Two matrices of complex numbers, or of pairs of real ones, with the same gradients."""

    def __init__(self, is_complex: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.is_complex = is_complex
        self.first, self.second = (
            nn.Parameter(self.of(torch.randn(5, 1, 2, generator=generator, dtype=torch.float64))) for _ in range(2)
        )
        self.steps = torch.randn(9, 2, 5, 1, 2, generator=generator, dtype=torch.float64)
        self.steps[::2, :, 1:3] = 0  # rows that are absent

    def of(self, pairs: torch.Tensor) -> torch.Tensor:
        return torch.view_as_complex(pairs) if self.is_complex else pairs

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        parts = zip((self.first, self.second), self.steps[batch_idx], strict=True)
        return sum((self.real(parameter) * gradient).sum() for parameter, gradient in parts)

    def real(self, tensor: torch.Tensor) -> torch.Tensor:
        return torch.view_as_real(tensor) if tensor.is_complex() else tensor

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.05)


def unit(weight: torch.Tensor) -> torch.Tensor:
    return weight / weight.norm()


TRICKS: dict[str, list[Any]] = {
    "accumulation": [partial(GradientAccumulation, 2)],
    "learning_rate": [partial(PiecewiseLinearLR, {3: 1.0}), partial(ParameterwiseLR, {"first": 0.3})],
    "decay": [partial(WeightDecay, 0.2)],
    "adaptation": [LayerAdaptation],
    "lazy": [partial(LazyUpdates, ["first"], freeze_state=True)],
    "lookahead": [partial(Lookahead, 3, log=True)],
    "max_norm": [partial(WeightConstraint, "max_norm", 0.7)],
    "unit_norm": [partial(WeightConstraint, "unit_norm")],
    "callable": [partial(WeightConstraint, unit)],
    "average": [partial(AveragedWeights, 0.8)],
}
TRICKS["all"] = [TRICKS[name][0] for name in TRICKS if name not in ("unit_norm", "callable")]


@pytest.mark.parametrize("name", TRICKS)
def test_complex_parameters_are_pairs_of_real_ones(name: str):
    found = []
    for is_complex in (True, False):
        module = Pairs(is_complex)
        trainer = quiet_trainer(*[trick() for trick in TRICKS[name]])
        trainer.fit(module, Batches(range(9)))
        found.append([module.real(parameter.detach()) for parameter in (module.first, module.second)])
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("constraint", ["non_negative", "clip"])
def test_constraints_that_complex_numbers_do_not_have_are_refused(constraint: str):
    with pytest.raises(ValueError, match=rf"{constraint} needs an order, .*complex numbers of first .*exclude"):
        quiet_trainer(WeightConstraint(constraint)).fit(Pairs(True), Batches(range(2)))
    quiet_trainer(WeightConstraint(constraint, exclude=["first", "second"])).fit(Pairs(True), Batches(range(2)))


class ScheduleFree(torch.optim.SGD):
    """Evaluates other weights than it steps."""

    def train(self) -> None: ...

    def eval(self) -> None: ...


@pytest.mark.parametrize(
    "trick",
    [
        WeightDecay(),
        LayerAdaptation(),
        LazyUpdates(["embedding"]),
        ParameterwiseLR({"linear": 0.5}),
        Lookahead(),
        WeightConstraint(),
        AveragedWeights(),
        NonMonotonicAverage(),
        TwoStageTraining(),
    ],
    ids=lambda trick: type(trick).__name__,
)
def test_optimizers_that_exchange_weights_are_refused_by_name(trick: pl.Callback):
    module = GivenGradients(random_gradients(2), partial(ScheduleFree, lr=0.1))
    trainer = quiet_trainer(PiecewiseLinearLR({1: 1.0}), trick)
    with pytest.raises(MisconfigurationException) as error:
        trainer.fit(module, index_loader(2), index_loader(2))
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"{type(trick).__name__} can't work with ScheduleFree, which exchanges the weights itself")


def test_what_comes_before_the_step_works_with_them():
    recorded = []
    for optimizer in (ScheduleFree, torch.optim.SGD):
        module = GivenGradients(random_gradients(4), partial(optimizer, lr=0.1))
        recorded.append(run(module, PiecewiseLinearLR({2: 1.0}), GradientAccumulation(2)).trajectory[-1])
    assert all(torch.equal(recorded[0][name], recorded[1][name]) for name in recorded[0])
