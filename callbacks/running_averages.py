"""Running averages in the progress bar."""

import difflib
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor


class RunningAverages(pl.Callback):
    """Shows running averages of training metrics in the progress bar, and other metrics unchanged.

        m_n = m_(n-1) + (x_n - m_(n-1)) / n,   x_n: value of the n-th batch of the epoch

    The loss of single batches is noisy; its average since the start of the epoch is smooth. Without a terminal, where
    one line per validation replaces the bar, the averages are in that line.

    Any metric that is logged per training step can be shown, whether or not it was logged with ``prog_bar``. Only the
    display changes: nothing is logged, and other callbacks see the values of single batches. In batches that don't log
    a metric, its last value counts, at the start of an epoch that of the previous epoch. With several processes the
    values of rank zero are shown.

    Args:
        average: names of the metrics to average.
        raw: names of the metrics to show unchanged.

    Raises:
        ValueError: for no name, a name given twice, or one of a validation or test metric.

    Source: kexue.fm/archives/6311, ``Progbar`` and its ``stateful_metrics``.

    Example:
        trainer:
          callbacks+:
            - class_path: RunningAverages
              init_args: {average: [train/loss]}
    """

    def __init__(self, average: Sequence[str] = ("train/loss",), raw: Sequence[str] = ()) -> None:
        for argument, names in (("average", average), ("raw", raw)):
            if isinstance(names, str):
                raise ValueError(f"RunningAverages: {argument} ({names!r}) must be a list: write [{names!r}]")
        self.average, self.raw = tuple(average), tuple(raw)
        names = self.average + self.raw
        if not names:
            raise ValueError("RunningAverages: name at least one metric to show, in average or in raw")
        for name in names:
            if name.startswith(("val/", "test/")):
                raise ValueError(f"RunningAverages: {name!r} is not logged in training")
            if names.count(name) > 1:
                raise ValueError(f"RunningAverages: {name!r} is named twice")
        self._averages: dict[str, tuple[Tensor, int]] = {}
        self._last: dict[str, Tensor] = {}

    @property
    def state_key(self) -> str:
        # Lightning refuses several stateful callbacks of one type with the same key.
        return self._generate_state_key(average=self.average, raw=self.raw)

    def state_dict(self) -> dict[str, Any]:
        """The averages so far, as plain numbers, from which a resumed epoch continues."""
        return {name: [float(mean), count] for name, (mean, count) in self._averages.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._averages = {name: (torch.tensor(mean), count) for name, (mean, count) in state_dict.items()}

    def shown(self) -> dict[str, float]:
        """What the bar shows: the averages since the start of the epoch, and the last raw values."""
        averages = {name: float(mean) for name, (mean, _) in self._averages.items()}
        return averages | {name: float(value) for name, value in self._last.items()}

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0:  # not in the epoch's hook, which is called again when an epoch is resumed
            self._averages, self._last = {}, {}

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        logged = trainer.callback_metrics
        for name in self.average:
            if name in logged:
                value = logged[name].detach().float()
                mean, count = self._averages.get(name, (value, 0))
                self._averages[name] = (torch.lerp(mean.to(value.device), value, 1 / (count + 1)), count + 1)
        self._last = {name: logged[name].detach() for name in self.raw if name in logged}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch > 0:
            return
        logged = [name for name in trainer.callback_metrics if not name.startswith(("val/", "test/"))]
        for name in self.average + self.raw:
            if name not in logged:
                nearest = difflib.get_close_matches(name, logged, n=1, cutoff=0.0)
                hint = f"; the nearest name is {nearest[0]!r}" if nearest else ""
                rank_zero_warn(f"RunningAverages: {name!r} is not shown: it was not logged in training{hint}")
