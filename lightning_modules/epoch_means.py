"""Means over the items of an epoch of evaluation, of all processes together."""

from collections.abc import Mapping

import pytorch_lightning as pl
import torch
from torch import Tensor


def log_epoch_means(module: pl.LightningModule, metrics: Mapping[str, Tensor], batch_size: int) -> None:
    """Logs the means over an epoch's items of values that are means over a batch's.

    Args:
        module: which logs, in a step of validation or test.
        metrics: (), by name.
        batch_size: items of this batch.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        # Lightning divides the number of all items by that of the processes, and drops the remainder.
        batch_size *= torch.distributed.get_world_size()
    module.log_dict(metrics, on_epoch=True, sync_dist=True, batch_size=batch_size, add_dataloader_idx=False)
