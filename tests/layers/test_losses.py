"""Losses from anywhere: the sums equal losses written out by hand, whatever the loop does."""

import copy
import pickle

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from layers import ActivationRegularization, AddsLosses, collect_losses
from lightning_modules.step_logging import log_losses
from tests.tools import quiet_trainer


class Sparse(AddsLosses, nn.Linear):
    """A linear layer with a penalty on its output."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x).relu()
        self.add_loss("size", y.square().mean(), weight=0.1)
        return y


class ArticleAutoencoder(AddsLosses, nn.Module):
    """The article's: 784 -> 100 ReLU -> 784 sigmoid, the loss attached to the output."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(784, 100), nn.Linear(100, 784)

    def forward(self, x: Tensor) -> Tensor:
        y = self.decoder(self.encoder(x).relu()).sigmoid()
        self.add_loss("reconstruction", (y - x).square().mean())
        return y


class Adds(AddsLosses, nn.Module):
    """Adds what it is given."""

    def forward(self, name: str, value, weight: float = 1.0) -> None:
        self.add_loss(name, value, weight)


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad.clone() for name, parameter in module.named_parameters()}


def test_the_articles_autoencoder_equals_the_plain_loss():
    model, x = ArticleAutoencoder(), torch.rand(8, 784)
    with collect_losses(model) as losses:
        y = model(x)
    losses.total().backward()
    added = gradients(model)
    model.zero_grad()
    plain = ((model.decoder(model.encoder(x).relu()).sigmoid() - x) ** 2).mean()
    plain.backward()
    assert torch.equal(losses.total(), plain)
    assert y.shape == x.shape
    for name, gradient in gradients(model).items():
        assert torch.equal(gradient, added[name]), name


def test_terms_of_several_modules_are_weighted_and_those_of_one_name_summed():
    model, x = nn.Sequential(Sparse(5, 4), Sparse(4, 3), Adds()), torch.randn(7, 5)
    with collect_losses(model) as losses:
        h = model[0](x)
        y = model[1](h)
        model[2]("mean", y.mean(), weight=-2)
        model[2]("logged", y.detach().sum(), weight=0)
    sizes = h.square().mean(), y.square().mean()
    torch.testing.assert_close(losses.total(), 0.1 * sizes[0] + 0.1 * sizes[1] - 2 * y.mean())
    values = losses.values()
    assert list(values) == ["size", "mean", "logged"]
    torch.testing.assert_close(values["size"], (sizes[0] + sizes[1]).detach())
    assert not any(value.requires_grad for value in values.values())


def test_a_module_called_twice_counts_once_or_every_time_if_asked():
    layer = Sparse(4, 4)
    x, other = torch.randn(3, 4), torch.randn(3, 4)
    first, second = layer(x).square().mean(), layer(other).square().mean()
    for calls, expected in (("first", 0.1 * first), ("all", 0.1 * first + 0.1 * second)):
        with collect_losses(layer, calls=calls) as losses:
            layer(x)
            layer(other)
        torch.testing.assert_close(losses.total(), expected)
    with pytest.raises(ValueError, match=r"calls \('last'\) must be 'first' or 'all'"), collect_losses(layer, "last"):
        pass


def test_a_call_without_gradients_does_not_replace_one_with_gradients():
    layer, x = Sparse(4, 4), torch.randn(3, 4)
    for order in ((True, False), (False, True)):
        with collect_losses(layer) as losses:
            for with_gradients in order:
                with torch.set_grad_enabled(with_gradients):
                    layer(x if with_gradients else 2 * x)
        torch.testing.assert_close(losses.total(), 0.1 * layer(x).square().mean())
        assert losses.total().requires_grad


def test_add_loss_changes_nothing_in_a_module_used_alone_or_without_gradients():
    layer, x = Sparse(4, 4), torch.randn(3, 4)
    y = layer(x)
    assert torch.equal(y, nn.Linear.forward(layer, x).relu())
    for without in (torch.no_grad(), torch.inference_mode()):
        with without, collect_losses(layer) as losses:
            layer(x)
        torch.testing.assert_close(losses.values()["size"], y.square().mean().detach())
        with without:
            assert not losses.total().requires_grad
    Adds()("vector", torch.ones(3))  # nobody collects: not even checked


@pytest.mark.parametrize(
    ("value", "weight", "message"),
    [
        (torch.ones(3, requires_grad=True), 1.0, r"got a tensor of shape \(3,\), it must be a scalar"),
        (torch.ones(1, requires_grad=True), 1.0, r"got a tensor of shape \(1,\)"),
        (torch.tensor(1.0), 1.0, "got a value without gradient: don't detach it"),
        (torch.tensor(1), 1.0, r"got a tensor of torch.int64, it must be floating point"),
        (torch.tensor(True), 1.0, "torch.bool"),
        (0.5, 1.0, "got float, it must be a tensor"),
        (torch.tensor(1.0, requires_grad=True), float("nan"), r"the weight \(nan\) must be a finite number"),
        (torch.tensor(1.0, requires_grad=True), None, r"the weight \(None\) must be a finite number"),
    ],
)
def test_bad_values_are_refused_with_the_path(value, weight, message):
    model = nn.ModuleDict({"encoder": nn.Sequential(nn.Identity(), nn.Identity(), Adds())})
    with pytest.raises(ValueError, match=rf"^encoder\.2: add_loss\('kl'\) .*{message}"), collect_losses(model):
        model["encoder"][2]("kl", value, weight)
    with pytest.raises(ValueError, match=r"^Adds: add_loss\('loss'\) the name must be"), collect_losses(model):
        Adds()("loss", torch.tensor(1.0, requires_grad=True))


def test_a_step_without_a_loss_is_refused():
    model = nn.Sequential(Sparse(4, 4), nn.ReLU())
    with collect_losses(model) as losses:
        model[1](torch.ones(2, 4))
    with pytest.raises(ValueError, match="Sequential: no loss was added"):
        losses.total()
    with collect_losses(model) as losses, torch.no_grad():
        model(torch.ones(2, 4))
    with pytest.raises(ValueError, match=r"Sequential: no loss \(size\) has a gradient"):
        losses.total()


class Fails(Sparse):
    """Adds its loss, then raises."""

    def forward(self, x: Tensor) -> Tensor:
        super().forward(x)
        raise RuntimeError("on purpose")


def test_an_exception_empties_and_closes_the_collection():
    layer, failing = Sparse(4, 4), Fails(4, 4)
    with pytest.raises(RuntimeError, match="on purpose"), collect_losses(failing) as losses:
        failing(torch.randn(2, 4))
    assert losses.values() == {}
    layer(torch.randn(2, 4))
    assert losses.values() == {}


def test_the_innermost_of_nested_collections_collects():
    outer, inner = Sparse(4, 4), Sparse(4, 4)
    x = torch.randn(2, 4)
    with collect_losses(outer) as of_outer:
        with collect_losses(inner) as of_inner:
            inner(x)
        outer(x)
    torch.testing.assert_close(of_outer.total(), 0.1 * outer(x).square().mean())
    torch.testing.assert_close(of_inner.total(), 0.1 * inner(x).square().mean())


@pytest.mark.parametrize("calls", ["first", "all"])
def test_activation_checkpointing_counts_once(calls):
    layer, x = Sparse(4, 4), torch.randn(3, 4)
    results = []
    for run in (layer, lambda x: checkpoint(layer, x, use_reentrant=False)):
        layer.zero_grad()
        with collect_losses(layer, calls) as losses:
            y = run(x)
        (losses.total() + y.sum()).backward()
        results.append((losses.total().detach(), gradients(layer)))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1])


def test_a_loss_whose_gradient_a_reentrant_checkpoint_drops_is_named():
    model = nn.Sequential(Sparse(4, 4), Sparse(4, 4))
    with collect_losses(model) as losses:
        model[1](checkpoint(model[0], torch.randn(3, 4, requires_grad=True), use_reentrant=True))
    with pytest.warns(UserWarning, match=r"Sequential: \w+ was added under torch.no_grad .* use_reentrant=False"):
        losses.total()


def test_copies_and_pickles_add_their_own_and_the_state_dict_stays():
    model, x = nn.Sequential(Sparse(4, 4)), torch.randn(3, 4)
    assert list(model.state_dict()) == ["0.weight", "0.bias"]
    with collect_losses(model):  # even in the middle of a step
        model(x)
        copied, pickled = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    for other in (copied, pickled):
        with collect_losses(other) as losses:
            other(x)
        torch.testing.assert_close(losses.total(), 0.1 * model(x).square().mean())


def test_half_precision_is_summed_in_float32():
    layer = Sparse(4, 4)
    with collect_losses(layer) as losses, torch.autocast("cpu", torch.bfloat16):
        layer(torch.randn(3, 4))
    assert losses.total().dtype == torch.float32


def test_activation_regularisation_equals_the_formula():
    output, dropped = torch.randn(5, 2, 3, requires_grad=True), torch.randn(5, 2, 3, requires_grad=True)
    layer = ActivationRegularization(activation=2.0, temporal=3.0)
    with collect_losses(layer) as losses:
        layer(output, dropped)
    changes = [(output[t] - output[t - 1]).square() for t in range(1, 5)]
    torch.testing.assert_close(losses.total(), 2 * dropped.square().mean() + 3 * torch.stack(changes).mean())
    with collect_losses(layer) as losses:
        layer(output[:1], dropped[:1])
    assert list(losses.values()) == ["activation_penalty"]


# ------------------------------------------------------------------------------------------------ with a Trainer


class Regression(pl.LightningModule):
    """Two penalised layers, trained by what they add, or by the same loss written out."""

    def __init__(self, collects: bool, fails_at: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(Sparse(5, 4), Sparse(4, 5)).double()
        self.collects, self.fails_at = collects, fails_at

    def training_step(self, x: Tensor, batch_idx: int) -> Tensor:
        if not self.collects:
            h = self.net[0](x)
            y = self.net[1](h)
            return 0.1 * h.square().mean() + 0.1 * y.square().mean()
        with collect_losses(self) as losses:
            self.net(x)
            if batch_idx == self.fails_at:
                raise RuntimeError("on purpose")
        return log_losses(self, "train", losses)

    def validation_step(self, x: Tensor, batch_idx: int) -> None:
        with collect_losses(self) as losses:
            self.net(x)
        log_losses(self, "val", losses, len(x))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)


DATA = torch.randn(22, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def fit(module: pl.LightningModule, batch_size: int = 4, **options) -> pl.Trainer:
    trainer = quiet_trainer(max_epochs=2, num_sanity_val_steps=2, **options)
    loader = DataLoader(DATA, batch_size)
    trainer.fit(module, loader, loader)
    return trainer


@pytest.mark.parametrize(
    "options", [{}, {"accumulate_grad_batches": 4}, {"val_check_interval": 2, "accumulate_grad_batches": 3}], ids=str
)
def test_training_equals_that_with_the_loss_written_out(options: dict):
    ours, plain = Regression(True), Regression(False)
    trainer = fit(ours, **options)
    fit(plain, **options)
    for name, value in plain.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
    logged = trainer.callback_metrics
    assert {"train/loss", "train/size", "val/loss", "val/size"} <= logged.keys()
    with torch.no_grad():
        h = ours.net[0](DATA)
        sizes = h.square().mean() + ours.net[1](h).square().mean()
    # The mean over all examples, though the last batch is smaller.
    assert float(logged["val/size"]) == pytest.approx(float(sizes), rel=1e-6)
    assert float(logged["val/loss"]) == pytest.approx(0.1 * float(sizes), rel=1e-6)


def test_a_failed_step_leaves_nothing_for_the_next():
    module = Regression(True, fails_at=1)
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(module)
    module.fails_at = None
    with collect_losses(module) as losses:
        module.net(DATA)
    h = module.net[0](DATA)
    torch.testing.assert_close(losses.total(), 0.1 * h.square().mean() + 0.1 * module.net[1](h).square().mean())
