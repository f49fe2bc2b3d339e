"""Running averages in the progress bar."""

import difflib
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor


class RunningAverages(pl.Callback):
    """Shows running averages of training metrics in the progress bar, and others as they are.

        m_n = m_(n-1) + (x_n - m_(n-1)) / n,   x_n: value of the n-th batch since the epoch began

    A loss of single batches jumps; its average since the epoch began does not. Without a terminal, where a line for
    each validation takes the place of the bar, the averages stand in that line.

    Any metric that is logged in training by single steps can be shown, whether or not it was logged with
    ``prog_bar``. Only the display changes: nothing is logged, and other callbacks see the values of single batches. A
    metric that is not logged in every batch counts in the others with its last value, at the start of an epoch with
    that of the epoch before. Of several processes the first one's values are shown.

    Source: kexue.fm/archives/6311, ``Progbar`` and its ``stateful_metrics``.

    Args:
        average: names of the metrics that are averaged.
        raw: names of those that are shown as they are.

    Raises:
        ValueError: no name, one that is in both lists, or one of a validation or test.
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
        # Lightning refuses two stateful callbacks of one type under one key.
        return self._generate_state_key(average=self.average, raw=self.raw)

    def state_dict(self) -> dict[str, Any]:
        """The averages so far, as plain numbers, so that a resumed epoch goes on with them."""
        return {name: [float(mean), count] for name, (mean, count) in self._averages.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._averages = {name: (torch.tensor(mean), count) for name, (mean, count) in state_dict.items()}

    def shown(self) -> dict[str, float]:
        """What the bar shows: the averages since the epoch began, and the last raw values."""
        averages = {name: float(mean) for name, (mean, _) in self._averages.items()}
        return averages | {name: float(value) for name, value in self._last.items()}

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0:  # not by the epoch's hook, which comes again where an epoch is resumed
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
