"""The running statistics of normalisation layers: finding them, and measuring them again for other weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

BATCHES = 100
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


def running_statistics(module: nn.Module) -> dict[str, Tensor]:
    """Means and variances of all layers that keep them, by their names."""
    return {
        name: buffer
        for name, buffer in module.named_buffers()
        if name.rpartition(".")[2] in ("running_mean", "running_var") and buffer.is_floating_point()
    }


@torch.no_grad()
def recompute_statistics(trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Tensor]:
    """The statistics of the module with its present weights: means over the first training batches of an epoch.

    The batches are those of training, augmented alike. The module's weights and buffers, its logs and the random states
    are afterwards what they were; what ``training_step`` itself keeps (a metric, a recurrent state) is not.
    """
    present = running_statistics(pl_module)
    if not present:
        return {}
    # A loader of its own: the one of the training keeps its place.
    loader = trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]
    stage = trainer.state.stage
    try:
        with isolate_rng(), _measuring(pl_module) as fill:
            trainer.training = True  # what a datamodule asks before it augments
            torch.manual_seed(0)
            for index, batch in enumerate(islice(loader, BATCHES)):
                batch = _on_device(trainer, pl_module, batch)
                with trainer.precision_plugin.forward_context():
                    pl_module.training_step(batch, index)
            fill()
            return {name: buffer.clone() for name, buffer in present.items()}
    finally:
        trainer.state.stage = stage


@contextmanager
def _measuring(pl_module: pl.LightningModule) -> Iterator[Callable[[], None]]:
    """In training mode, with cumulative statistics from nothing, and without logging.

    What it yields gives the layers back what they had, where no batch came by.
    """
    modes = {module: module.training for module in pl_module.modules()}
    vars(pl_module).update(log=lambda *_, **__: None, log_dict=lambda *_, **__: None)
    pl_module.train()
    # Those that stay in evaluation mode are frozen.
    layers = [module for module in modes if module.training and getattr(module, "running_mean", None) is not None]
    kept = [{name: buffer.clone() for name, buffer in layer.named_buffers(recurse=False)} for layer in layers]
    momenta = [layer.momentum for layer in layers]
    hooks: list[RemovableHandle] = []
    try:
        for layer in layers:
            layer.reset_running_stats()  # type: ignore[operator]
            layer.momentum = None  # type: ignore[assignment]
        hooks += [layer.register_forward_pre_hook(_as_a_mean) for layer in layers if isinstance(layer, INSTANCE_NORMS)]

        def fill() -> None:
            for layer, buffers in zip(layers, kept, strict=True):
                if not layer.num_batches_tracked:
                    _restore(layer, buffers)

        yield fill
    finally:
        for hook in hooks:
            hook.remove()
        del vars(pl_module)["log"], vars(pl_module)["log_dict"]
        for module, mode in modes.items():
            module.training = mode
        for layer, buffers, momentum in zip(layers, kept, momenta, strict=True):
            layer.momentum = momentum
            _restore(layer, buffers)


def _as_a_mean(layer: Any, inputs: tuple[Any, ...]) -> None:
    """Instance normalisation neither counts its batches nor takes a momentum of None for a mean over them."""
    layer.num_batches_tracked += 1
    layer.momentum = 1 / int(layer.num_batches_tracked)


def _restore(layer: nn.Module, buffers: dict[str, Tensor]) -> None:
    for name, value in buffers.items():
        layer.get_buffer(name).copy_(value)


def _on_device(trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any) -> Any:
    data = trainer.datamodule  # type: ignore[attr-defined]
    batch = data.on_before_batch_transfer(batch, 0)
    return data.on_after_batch_transfer(data.transfer_batch_to_device(batch, pl_module.device, 0), 0)
