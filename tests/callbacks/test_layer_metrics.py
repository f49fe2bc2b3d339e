"""LayerMetrics: values computed by hand, hooks that are removed, no memory held."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from callbacks import LayerMetrics
from datamodules.loader import BatchLoader
from layers import AddsLosses, collect_losses
from lightning_modules.step_logging import log_losses
from tests.callbacks.chain_tools import MemoryLogger
from tests.tools import in_two_processes, quiet_trainer

DATA = torch.randn(24, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Hidden(AddsLosses, nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        h = super().forward(x).relu()
        self.add_loss("size", h.square().mean(), 0.1)
        return h


class Net(pl.LightningModule):
    """A hidden layer that is called ``calls`` times per step."""

    def __init__(self, calls: int = 1, fails_at: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.calls, self.fails_at = calls, fails_at
        self.encoder = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), Hidden(3, 5)).double()
        self.unused = nn.Linear(2, 2).requires_grad_(False)
        self.uneven, self.rare = nn.Identity(), nn.Identity()  # called differently in each process
        self.in_processes = False
        self.history: list[dict[str, Tensor]] = []
        self.gradients: list[Tensor] = []

    def training_step(self, x: Tensor, batch_idx: int) -> Tensor:
        if batch_idx == self.fails_at:
            raise RuntimeError("on purpose")
        self.history.append({name: value.clone() for name, value in self.state_dict().items()})
        with collect_losses(self) as losses:
            y = sum(self.encoder(part).mean() for part in x.chunk(self.calls))
            self.encoder[2].add_loss("output", y)
        if self.in_processes:
            self.uneven(torch.full((1 + 2 * self.global_rank, 2), float(self.global_rank)))
            if self.global_rank == 1:
                self.rare(torch.ones(2, 3))
        return log_losses(self, "train", losses)

    def validation_step(self, x: Tensor, batch_idx: int) -> None:
        self.encoder(100 * x)

    def on_after_backward(self) -> None:
        parameters = [p for p in self.parameters() if p.grad is not None]
        self.gradients.append(torch.cat([p.grad.flatten() for p in parameters]).clone())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1)


def fit(module: Net, callback: pl.Callback, batch_size: int = 4, **options) -> tuple[pl.Trainer, list[dict]]:
    """Trains one epoch; also returns the logged rows with training metrics."""
    logger = MemoryLogger()
    defaults = {"log_every_n_steps": 1, "num_sanity_val_steps": 1, "use_distributed_sampler": False}
    trainer = quiet_trainer(callback, logger=logger, **{**defaults, **options})
    loader = BatchLoader(lambda rows: DATA[rows], len(DATA), batch_size)
    trainer.fit(module, loader, loader)
    return trainer, [row for row in logger.rows if "train/loss" in row]


def hidden(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """The hidden layer of ``Net``, written out."""
    first = (x @ weights["encoder.0.weight"].T + weights["encoder.0.bias"]).tanh()
    return (first @ weights["encoder.2.weight"].T + weights["encoder.2.bias"]).clamp(min=0)


def own_function(tensor: Tensor) -> Tensor:
    return tensor.max()


X_H_NORM = {"x_h_norm": {"module": "encoder.2"}}


@pytest.mark.parametrize("calls", [1, 2])
def test_activations_equal_a_computation_by_hand(calls: int):
    module = Net(calls)
    metrics = {
        "x_h_norm": {"module": "encoder.2", "of": "activation", "reduce": "sq_norm"},
        "norm": {"module": "encoder.2", "reduce": "norm"},
        "mean": {"module": "encoder", "reduce": "mean"},
        "max": {"module": "encoder.2", "reduce": f"{__name__}.own_function"},
    }
    _, rows = fit(module, LayerMetrics(metrics), val_check_interval=2)
    assert len(rows) == 6
    for row, weights, x in zip(rows, module.history, DATA.split(4), strict=True):
        h = hidden(weights, x)
        # The article's: mean over the batch of the sum of h^2 over the features.
        assert row["x_h_norm"] == pytest.approx(float((h**2).sum(1).mean()), rel=1e-6)
        assert row["norm"] == pytest.approx(float((h**2).sum(1).sqrt().mean()), rel=1e-6)
        assert row["mean"] == pytest.approx(float(h.mean()), rel=1e-6)
        largest = torch.stack([part.max() for part in h.chunk(calls)]).mean()
        assert row["max"] == pytest.approx(float(largest), rel=1e-6)


def test_weights_and_gradients_equal_a_computation_by_hand():
    module = Net()
    metrics = {
        "weight": {"module": "encoder", "of": "weight", "reduce": "norm"},
        "weight_mean": {"module": "encoder", "of": "weight", "reduce": "mean"},
        "gradient": {"of": "gradient", "reduce": "sq_norm"},
        "gradient_max": {"of": "gradient", "reduce": f"{__name__}.own_function"},
    }
    _, rows = fit(module, LayerMetrics(metrics), gradient_clip_val=1e-3)
    final = {name: value for name, value in module.state_dict().items()}
    after = [*module.history[1:], final]
    for row, weights, gradient in zip(rows, after, module.gradients, strict=True):
        flat = torch.cat([value.flatten() for name, value in weights.items() if name.startswith("encoder")])
        assert row["weight"] == pytest.approx(float(flat.norm()), rel=1e-6)
        assert row["weight_mean"] == pytest.approx(float(flat.mean()), rel=1e-5)
        assert row["gradient"] == pytest.approx(float((gradient**2).sum()), rel=1e-6)
        assert row["gradient_max"] == pytest.approx(float(gradient.max()), rel=1e-6)


def test_accumulated_batches_give_what_one_large_batch_does():
    metrics = {**X_H_NORM, "gradient": {"of": "gradient", "reduce": "norm"}}
    _, small = fit(Net(), LayerMetrics(metrics), batch_size=3, accumulate_grad_batches=3)
    module = Net()
    _, large = fit(module, LayerMetrics(metrics), batch_size=9)
    # 8 batches of 3: windows of 3, 3, 2; Lightning divides the last one's gradient by 3, too.
    assert len(small) == len(large) == 3
    for few, many in list(zip(small, large, strict=True))[:2]:
        assert few["x_h_norm"] == pytest.approx(many["x_h_norm"], rel=1e-6)
        assert few["gradient"] == pytest.approx(many["gradient"], rel=1e-6)


def test_a_window_continues_after_a_checkpoint():
    callback = LayerMetrics(X_H_NORM)
    callback._sums = {"x_h_norm": (torch.tensor(6.0), 4)}
    other = LayerMetrics(X_H_NORM)
    other.load_state_dict(callback.state_dict())
    assert other._sums == {"x_h_norm": (torch.tensor(6.0), 4)}
    assert LayerMetrics(X_H_NORM).state_key != LayerMetrics({"y": {"module": "encoder.2"}}).state_key


@pytest.mark.parametrize("fails_at", [None, 1])
def test_hooks_are_removed_and_nothing_is_kept(fails_at: int | None):
    module, callback = Net(fails_at=fails_at), LayerMetrics(X_H_NORM)
    if fails_at is None:
        fit(module, callback)
    else:
        with pytest.raises(RuntimeError, match="on purpose"):
            fit(module, callback)
    assert not any(part._forward_hooks for part in module.modules())
    assert not any(value for value in (callback._hooks, callback._modules, callback._sums))


def test_what_is_kept_between_batches_has_no_graph():
    seen = []

    class Look(LayerMetrics):
        def on_before_optimizer_step(self, *args):
            seen.extend(total for total, _ in self._sums.values())

    fit(Net(), Look(X_H_NORM))
    assert seen
    assert not any(total.requires_grad for total in seen)


def test_a_module_that_is_never_called_is_named():
    with pytest.warns(UserWarning, match="LayerMetrics: 'x' is not logged: unused was not called"):
        fit(Net(), LayerMetrics({"x": {"module": "unused"}}))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"module": "encodr.2"}, r"'x': Net has no module 'encodr\.2'; the nearest one is 'encoder\.2'"),
        ({"module": "encoder.1", "of": "weight"}, r"'encoder\.1' \(Tanh\) has no parameters, and so no weight"),
        ({"module": "encoder.2", "reduce": "torch.square"}, r"reduce must return a scalar, got shape \(4, 5\)"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(entry: dict, message: str):
    module = Net()
    with pytest.raises(ValueError, match=f"^LayerMetrics: .*{message}"):
        fit(module, LayerMetrics({"x": entry}))
    assert not any(part._forward_hooks for part in module.modules())


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({}, "metrics is empty"),
        ({"x": "encoder.2"}, r"'x' \('encoder.2'\) must be {module"),
        ({"x": {"modul": "encoder.2"}}, "'x' has no key 'modul'; did you mean 'module'"),
        ({"x": {"of": "output"}}, r"'x': of \('output'\) must be one of activation, gradient, weight"),
        ({"x": {}}, "'x': an activation needs a module"),
        ({"x": {"module": "", "reduce": "norm"}}, "'x': an activation needs a module"),
        (
            {"x": {"reduce": "sq_nrm", "of": "weight"}},
            r"'x': reduce \('sq_nrm'\) must be one of sq_norm, norm, mean, std, or a function's import path",
        ),
        ({"x": {"module": "a", "reduce": "torch.no_such"}}, "no_such"),
        ({"x": {"module": "a", "reduce": "no_such.function"}}, "No module named 'no_such'"),
    ],
)
def test_malformed_entries_are_refused(metrics: dict, message: str):
    with pytest.raises(ValueError, match=f"^LayerMetrics: .*{message}"):
        LayerMetrics(metrics)


# -------------------------------------------------------------------------------------------------- two processes

BOTH = {**X_H_NORM, "gradient": {"of": "gradient", "reduce": "norm"}}


def process(rank: int, folder: Path) -> None:
    module = Net()
    strategy = pl.strategies.DDPStrategy(process_group_backend="gloo")
    module.in_processes = True
    otherwise = {"uneven": {"module": "uneven"}, "rare": {"module": "rare"}}
    _, rows = fit(module, LayerMetrics({**otherwise, **BOTH}), batch_size=4, devices=2, strategy=strategy)
    torch.save((module.state_dict(), rows), folder / f"{rank}.pt")


def test_two_processes_train_by_added_losses_and_log_what_one_does(tmp_path: Path):
    in_two_processes(process, tmp_path)
    (first, rows), (second, _) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    module = Net()
    _, alone = fit(module, LayerMetrics(BOTH), batch_size=8)
    for name, value in module.state_dict().items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value)
    assert len(rows) == len(alone) == 3
    for row, other in zip(rows, alone, strict=True):
        for name in BOTH:
            assert row[name] == pytest.approx(other[name], rel=1e-6)
        # uneven: one row with 0 and three with a sum of squares of 2; rare: two rows with 3 in one process only.
        assert row["uneven"] == pytest.approx(1.5)
        assert row["rare"] == pytest.approx(3.0)
