"""Small batches, whatever the data: for a trial run."""

from typing import Any

import pytorch_lightning as pl


class SmallBatches(pl.Callback):
    """Lowers every batch size of the datamodule to at most ``size``, to try whether a large configuration runs here.

    Batch sizes are the attributes whose names end in ``batch_size``, such as ``eval_batch_size``.

    Args:
        size: the largest batch size.

    Raises:
        ValueError: for a size below 1.

    Example:
        trainer:
          callbacks+:
            - class_path: SmallBatches
              init_args: {size: 2}
    """

    def __init__(self, size: int = 2) -> None:
        if size < 1:
            raise ValueError(f"size is {size}, must be at least 1")
        self.size = size

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        for name, value in list(vars(data).items()) if data is not None else []:
            if name.endswith("batch_size") and isinstance(value, int):
                setattr(data, name, min(value, self.size))
