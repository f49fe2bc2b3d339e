"""The running statistics of normalisation layers: finding them, and measuring them again for other weights."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from pytorch_lightning.utilities.model_helpers import is_overridden
from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor, nn

from .untouched import kept_generators, untouched

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

    The batches are those of training, augmented alike. The module and the random states are afterwards what they were.
    """
    present = running_statistics(pl_module)
    if not present:
        return {}
    data, stage = trainer.datamodule, trainer.state.stage  # type: ignore[attr-defined]
    takes_index = is_param_in_hook_signature(pl_module.training_step, "batch_idx", min_args=2)
    try:
        with untouched(trainer, pl_module), kept_generators([data]):
            # Loaders of its own: those of the training keep their places.
            loaders = CombinedLoader(data.train_dataloader(), "max_size_cycle")
            with kept_generators(_with_parts(loaders.flattened)):
                trainer.training = True  # what a datamodule asks before it augments
                torch.manual_seed(0)
                fill = _measure(pl_module)
                for batch, index, _ in islice(iter(loaders), BATCHES):
                    batch = _on_device(trainer, pl_module, batch)
                    with trainer.precision_plugin.forward_context():
                        pl_module.training_step(*((batch, index) if takes_index else (batch,)))
                fill()
            return {name: buffer.clone() for name, buffer in present.items()}
    finally:
        trainer.state.stage = stage


def _with_parts(loaders: Iterable[Any]) -> Iterator[Any]:
    """The loaders with what may draw random numbers in them."""
    for loader in loaders:
        yield loader
        yield from (getattr(loader, name, None) for name in ("sampler", "batch_sampler", "dataset"))


def _measure(pl_module: pl.LightningModule) -> Callable[[], None]:
    """Puts a module into training mode, with cumulative statistics from nothing.

    What it returns gives the layers back what they had, where no batch came by.
    """
    pl_module.train()
    # Those that stay in evaluation mode are frozen.
    layers = [m for m in pl_module.modules() if m.training and getattr(m, "running_mean", None) is not None]
    kept = [{name: buffer.clone() for name, buffer in layer.named_buffers(recurse=False)} for layer in layers]
    for layer in layers:
        layer.reset_running_stats()  # type: ignore[operator]
        layer.momentum = None  # type: ignore[assignment]
        if isinstance(layer, INSTANCE_NORMS):
            layer.register_forward_pre_hook(_as_a_mean)

    def fill() -> None:
        for layer, buffers in zip(layers, kept, strict=True):
            if not layer.num_batches_tracked:
                for name, value in buffers.items():
                    layer.get_buffer(name).copy_(value)

    return fill


def _as_a_mean(layer: Any, inputs: tuple[Any, ...]) -> None:
    """Instance normalisation neither counts its batches nor takes a momentum of None for a mean over them."""
    layer.num_batches_tracked += 1
    layer.momentum = 1 / int(layer.num_batches_tracked)


def _on_device(trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any) -> Any:
    """A batch as ``training_step`` gets it: by the datamodule's hooks, the module's where that has none."""

    def hook(name: str) -> Callable[..., Any]:
        data = trainer.datamodule  # type: ignore[attr-defined]
        return getattr(data if is_overridden(name, data) else pl_module, name)

    batch = hook("on_before_batch_transfer")(trainer.precision_plugin.convert_input(batch), 0)
    return hook("on_after_batch_transfer")(hook("transfer_batch_to_device")(batch, pl_module.device, 0), 0)
