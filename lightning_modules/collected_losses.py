"""The losses that a model's parts add, in a LightningModule's step: sum, parts, logging."""

import pytorch_lightning as pl
from torch import Tensor

from layers.losses import Losses

from .epoch_means import log_epoch_means


def log_losses(module: pl.LightningModule, stage: str, losses: Losses, batch_size: int | None = None) -> Tensor:
    """Logs the collected losses of a step, and returns their sum.

        def training_step(self, batch, batch_idx):
            with collect_losses(self) as losses:
                self(batch.images)
            return log_losses(self, "train", losses)

    Logged are ``<stage>/loss``, the weighted sum, and ``<stage>/<name>`` of each part, without its weight: in training
    those of single steps, and ``loss`` in the progress bar; else means over the images, sentences ... of the epoch.

    Args:
        module: which logs.
        stage: ``train``, ``val`` or ``test``.
        losses: of ``layers.collect_losses``, closed.
        batch_size: items of this batch, its weight in the means; left out in training.

    Returns:
        (), with its graph.

    Raises:
        ValueError: no loss was added, or none with a gradient in training; outside of it no ``batch_size``.
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
