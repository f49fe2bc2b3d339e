"""Logging in a LightningModule's steps: collected losses, and means over an epoch of evaluation."""

from collections.abc import Mapping

import pytorch_lightning as pl
import torch
from torch import Tensor

from layers.losses import Losses


def log_losses(module: pl.LightningModule, stage: str, losses: Losses, batch_size: int | None = None) -> Tensor:
    """Logs the collected losses of a step, and returns their sum.

        def training_step(self, batch, batch_idx):
            with collect_losses(self) as losses:
                self(batch.images)
            return log_losses(self, "train", losses)

    Logged are ``<stage>/loss``, the weighted sum, and ``<stage>/<name>`` of each part, without its weight: in training
    per step, with ``loss`` in the progress bar; otherwise as means over the images, sentences ... of the epoch.

    Args:
        module: the module that logs.
        stage: ``train``, ``val`` or ``test``.
        losses: from ``layers.collect_losses``, after its block.
        batch_size: items in this batch, its weight in the means; not needed in training.

    Returns:
        (), with its graph.

    Raises:
        ValueError: if no loss was added; in training, if none has a gradient; otherwise, if ``batch_size`` is missing.
    """
    total = losses.total()
    metrics = {f"{stage}/loss": total.detach()}
    metrics |= {f"{stage}/{name}": value for name, value in losses.values().items()}
    if stage == "train":
        module.log_dict(metrics)
        module.log("loss", total.detach(), prog_bar=True, logger=False)
    elif batch_size is None:
        raise ValueError(f"log_losses: {stage!r} needs batch_size, the weight of the batch in the epoch's mean")
    else:
        log_epoch_means(module, metrics, batch_size)
    return total


def log_epoch_means(module: pl.LightningModule, metrics: Mapping[str, Tensor], batch_size: int) -> None:
    """Logs means over the items of an epoch, of all processes together, from means over the items of a batch.

    Args:
        module: the module that logs, in a step of validation or test.
        metrics: (), by name.
        batch_size: items in this batch.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        # Lightning divides the number of all items by the number of processes, and drops the remainder.
        batch_size *= torch.distributed.get_world_size()
    module.log_dict(metrics, on_epoch=True, sync_dist=True, batch_size=batch_size, add_dataloader_idx=False)
