"""A second stage of training: from the best weights, with a fresh optimizer and a small learning rate."""

import copy
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import StochasticWeightAveraging, WeightAveraging
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from .update_chain.chain import check_argument, write_lr
from .update_chain.checks import SHARDING_STRATEGIES, refuse_exchange
from .update_chain.rule import UpdateRule
from .update_chain.run_length import Unit, check_unit, steps_per, steps_per_epoch


class TwoStageTraining(pl.Callback):
    """A second stage of training: from the best weights, with a fresh optimizer and a small learning rate.

    The first stage ends with the epoch e (counted from 1) for which

        e >= max_first_epochs,   or   e > min_epochs and (score < min_score or no new best for ``patience`` epochs)

    where score is that of the last validation; NaN counts as too low. With ``unit`` these three lengths, and e, are
    counted in optimizer steps or shares of the run instead. At the start of the next epoch, the parameters
    (averaged ones if a callback averages) and persistent buffers of the best validation are restored, optimizers,
    averages and slow weights are reset, and the learning rate of every group becomes ``second_lr``. The Trainer decides
    when training ends; if it ends with epoch e, there is no second stage.

    Args:
        second_lr: learning rate of the second stage, in every group; ``PiecewiseLinearLR`` multiplies it as it did the
            first.
        monitor: a logged validation metric.
        mode: ``max`` if higher is better, ``min`` if lower is.
        patience: length without a new best after which the first stage ends.
        min_epochs: length of the first stage at least.
        min_score: a worse score than this after ``min_epochs`` ends the first stage, too; None for no such limit.
        max_first_epochs: length of the first stage at most.
        unit: of these lengths: ``epoch``, ``step``, or ``share`` of the planned steps.

    Raises:
        ValueError: if an argument is out of range.
        MisconfigurationException: if there is no validation or ``monitor`` was not logged; if the module has learning
            rate schedulers, which would overwrite ``second_lr``; together with Lightning's averages, which can't be
            reset; with strategies that shard the weights.

    Source: kexue.fm/archives/6671 and github.com/bojone/kg-2019.

    Example:
        trainer:
          callbacks+:
            - class_path: TwoStageTraining
              init_args: {second_lr: 1.0e-4, monitor: val/loss, mode: min}
    """

    def __init__(
        self,
        second_lr: float = 1e-4,
        monitor: str = "val/f1",
        mode: str = "max",
        patience: float = 8,
        min_epochs: float = 10,
        min_score: float | None = 0.5,
        max_first_epochs: float = 50,
        unit: Unit = "epoch",
    ) -> None:
        owner = "TwoStageTraining"
        check_argument(owner, "second_lr", second_lr, "positive", second_lr > 0)
        check_argument(owner, "mode", mode, "'max' or 'min'", mode in ("max", "min"))
        check_unit(owner, unit)
        least = 0 if unit == "share" else 1
        at_least = f"at least {least}" if least else "positive"
        check_argument(owner, "patience", patience, at_least, patience > 0 and patience >= least)
        check_argument(owner, "min_epochs", min_epochs, "at least 0", min_epochs >= 0)
        check_argument(
            owner, "max_first_epochs", max_first_epochs, at_least, max_first_epochs > 0 and max_first_epochs >= least
        )
        self.second_lr, self.monitor, self.mode = second_lr, monitor, mode
        self.patience, self.min_epochs, self.min_score = patience, min_epochs, min_score
        self.max_first_epochs, self.unit = max_first_epochs, unit
        self._length_of_epoch = 1.0  # in ``unit``
        self.forget()

    def forget(self) -> None:
        """Drop the state of an earlier run. A checkpoint is loaded afterwards."""
        self.switched = False
        self.score: float | None = None
        self.best_score: float | None = None
        self.best_epoch = 0
        self._best: dict[str, Tensor] = {}
        self._candidate: dict[str, Tensor] = {}
        self._new_states: list[dict[Tensor, dict[str, Any]]] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self.forget()
        if isinstance(trainer.strategy, SHARDING_STRATEGIES):
            raise MisconfigurationException(
                f"TwoStageTraining needs whole parameters on each process, but {type(trainer.strategy).__name__} "
                "shards them; use --trainer.strategy=ddp"
            )
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, WeightAveraging | StochasticWeightAveraging):
                raise MisconfigurationException(
                    f"TwoStageTraining can't reset the average of {type(callback).__name__}; "
                    "use AveragedWeights instead"
                )

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.enable_validation:
            raise MisconfigurationException(
                f"TwoStageTraining: without validation there is no {self.monitor!r}; let the Trainer validate, or "
                "remove the callback"
            )
        if trainer.lr_scheduler_configs:
            scheduler = type(trainer.lr_scheduler_configs[0].scheduler).__name__
            raise MisconfigurationException(
                f"TwoStageTraining sets the learning rate, which the module's {scheduler} would overwrite: remove the "
                "scheduler (PiecewiseLinearLR works with it)"
            )
        for optimizer in trainer.optimizers:
            refuse_exchange(optimizer, "TwoStageTraining")
            if any("lr" not in group for group in optimizer.param_groups):
                raise MisconfigurationException(
                    f"TwoStageTraining: {type(optimizer).__name__} has no learning rate; remove the callback"
                )
        # Most optimizers have no state yet; some create it when they are built, and may not do so again.
        self._new_states = [
            {parameter: copy.deepcopy(state) for parameter, state in optimizer.state.items()}
            for optimizer in trainer.optimizers
        ]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.unit != "epoch":
            self._length_of_epoch = steps_per_epoch(trainer) / steps_per(self.unit, "TwoStageTraining", trainer)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Here the module still has the validated weights, but their score is known only in the next hook.
        if not self.switched and not trainer.sanity_checking and trainer.state.fn == "fit":
            kept = _learnt(pl_module)
            self._candidate = {name: tensor.detach().clone() for name, tensor in kept.items()}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.switched or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if self.monitor not in trainer.callback_metrics:
            known = sorted(name for name in trainer.callback_metrics if name.startswith("val/"))
            raise MisconfigurationException(
                f"TwoStageTraining: no metric {self.monitor!r} was logged; set monitor to one of {known}"
            )
        # All processes decide alike, even about a metric that was not reduced over them.
        self.score = trainer.strategy.broadcast(float(trainer.callback_metrics[self.monitor]))
        if self._is_better(self.score, self.best_score):
            self.best_score, self.best_epoch = self.score, trainer.current_epoch + 1
            # This validation may have set buffers (thresholds).
            buffers = {name: b.clone() for name, b in _learnt(pl_module).items() if not isinstance(b, nn.Parameter)}
            self._best = self._candidate | buffers
        self._candidate = {}

    def _is_better(self, score: float, than: float | None) -> bool:
        if than is None:
            return score == score  # not NaN
        return score > than if self.mode == "max" else score < than

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Not at the end of the last epoch: only now is it certain that training continues.
        epoch = trainer.current_epoch
        if self.switched or not self._best or not self._first_stage_ends(epoch):
            return
        with torch.no_grad():
            for name, tensor in _learnt(pl_module).items():
                if name in self._best:  # otherwise it was frozen then
                    tensor.copy_(self._best[name])
        for optimizer, state in zip(trainer.optimizers, self._new_states, strict=True):
            optimizer.state.clear()
            optimizer.state.update(state)
            for group in optimizer.param_groups:
                write_lr(group, self.second_lr)
        callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        session = next((rule.session for rule in callbacks if isinstance(rule, UpdateRule)), None)
        if session is not None:
            session.restart()
        self.switched, self._best, self._new_states = True, {}, []
        if trainer.is_global_zero:
            print(
                f"TwoStageTraining: epoch {epoch}: best weights of epoch {self.best_epoch} ({self.monitor} "
                f"{self.best_score:.4g}) reloaded, lr {self.second_lr:g}",
                flush=True,
            )

    def _first_stage_ends(self, epoch: int) -> bool:
        """Whether the first stage ends with this epoch, counted from 1."""
        length, since_best = epoch * self._length_of_epoch, (epoch - self.best_epoch) * self._length_of_epoch
        if length >= self.max_first_epochs:
            return True
        assert self.score is not None
        # NaN is worse than any number.
        is_bad = self.min_score is not None and not (
            self.score == self.min_score or self._is_better(self.score, self.min_score)
        )
        return length > self.min_epochs and (is_bad or since_best >= self.patience)

    def state_dict(self) -> dict[str, Any]:
        return {
            "switched": self.switched,
            "score": self.score,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "best": self._best,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.switched, self._best = state_dict["switched"], dict(state_dict["best"])
        self.score, self.best_score = state_dict["score"], state_dict["best_score"]
        self.best_epoch = state_dict["best_epoch"]


def _learnt(pl_module: pl.LightningModule) -> dict[str, Tensor]:
    """The trainable parameters and persistent buffers."""
    frozen = {name for name, parameter in pl_module.named_parameters() if not parameter.requires_grad}
    state = pl_module.state_dict(keep_vars=True)
    return {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor) and name not in frozen}
