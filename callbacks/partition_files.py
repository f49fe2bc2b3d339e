"""Files with a graph's modules."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl

from .pictures.base import has_entries


class PartitionFiles(pl.Callback):
    """Writes the tested partition into the run folder: ``partition.tree``, ``partition.clu``, ``partition.csv``.

    ``test_step`` returns ``{"partition": ...}``, a ``map_equation.Partition``, whose ``write`` describes the formats;
    every logger with ``log_file(name, write)`` gets the files. Other outputs are ignored.

    Args:
        endings: which files to write, of ``tree``, ``clu`` and ``csv``.

    Raises:
        ValueError: for any other ending.

    Example:
        trainer:
          callbacks+:
            - class_path: PartitionFiles
              init_args: {endings: [tree]}
    """

    def __init__(self, endings: Sequence[str] = ("tree", "clu", "csv")) -> None:
        if wrong := set(endings) - {"tree", "clu", "csv"}:
            raise ValueError(f"endings: {', '.join(sorted(wrong))} is not one of tree, clu, csv")
        self.endings = tuple(endings)

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        if not trainer.is_global_zero or not has_entries(outputs, "partition"):
            return
        for logger in trainer.loggers:
            if hasattr(logger, "log_file"):
                for ending in self.endings:
                    logger.log_file(f"partition.{ending}", outputs["partition"].write)
