"""The optimizer and its learning-rate scheduler: two slots that all trained modules have."""

import inspect
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import GradientAccumulationScheduler
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

# For Lightning: a frequency of schedulers that it is not to step itself; for OneCycleLR: steps not known yet.
NEVER = sys.maxsize


class ReduceLROnPlateau(lr_scheduler.ReduceLROnPlateau):
    """torch's scheduler that lowers the learning rate when a metric stops improving, judged after each validation.

    Args:
        optimizer: its optimizer; given by the module.
        monitor: the metric; None: the module's own (``val/loss``, ``val/f1`` ...).
        mode: whether less (``min``) or more (``max``) is better; None: as the module says, ``min`` for other metrics.
        factor: the learning rate is multiplied by it, in (0, 1).
        patience: validations without improvement before that.
        threshold: an improvement is larger than this, ``rel``: times the best value, ``abs``: as it is.
        threshold_mode: ``rel`` or ``abs``.
        cooldown: validations after it in which nothing is counted.
        min_lr: the learning rate doesn't fall below.
        eps: smaller changes of the learning rate are left out.

    Example:
        model:
          class_path: DeepInfoMax
          init_args:
            scheduler: {class_path: ReduceLROnPlateau, init_args: {factor: 0.5, patience: 2}}
    """

    def __init__(
        self,
        optimizer: Optimizer,
        monitor: str | None = None,
        mode: Literal["min", "max"] | None = None,
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: int = 0,
        min_lr: list[float] | float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(optimizer, mode or "min", factor, patience, threshold, threshold_mode, cooldown, min_lr, eps)
        self.monitor = monitor


OptimizerSlot = Callable[[Iterable, float], Optimizer]
# Our class of that name stands alone in its part: jsonargparse would not choose between it, torch's and Lightning's.
SchedulerSlot = Callable[[Optimizer], ReduceLROnPlateau] | Callable[[Optimizer], LRScheduler]
Interval = Literal["epoch", "step"]


OF_OTHERS = (lr_scheduler.SequentialLR, lr_scheduler.ChainedScheduler)
NOT_BUILT = (
    "is made of other schedulers, which a configuration can't build: for warm-up and decay add the callback "
    "PiecewiseLinearLR"
)


if TYPE_CHECKING:
    _Mixin = pl.LightningModule
else:
    _Mixin = object


class Optimized(_Mixin):
    """Mixin for a module with an optimizer and a scheduler slot: ``class Model(Optimized, pl.LightningModule)``.

        def __init__(
            self,
            lr: float = 1e-3,
            optimizer: OptimizerSlot = torch.optim.Adam,
            scheduler: SchedulerSlot | None = None,
            scheduler_interval: Interval = "epoch",
        ) -> None:
            ...
            self.set_optimizer(optimizer, scheduler, scheduler_interval)

        def configure_optimizers(self) -> OptimizerLRScheduler:
            return self.optimize(self.parameters())

    The scheduler moves on after each optimizer step (``step``) or after the last one of each epoch (``epoch``). One
    that waits for a metric to improve moves on after each validation, before checkpoints are written. (Lightning would
    do it after them, so a run that is resumed from such a checkpoint would miss it.)

    What the scheduler leaves open is filled in: ``total_steps`` (of ``OneCycleLR``) by the number of steps or epochs of
    the run; ``monitor`` and ``mode`` of ``ReduceLROnPlateau`` by the module's.
    """

    make_optimizer: OptimizerSlot
    make_scheduler: SchedulerSlot | None
    scheduler_interval: Interval

    hparams: Any  # Lightning types it as a mapping without attributes
    monitor: str
    mode: str

    def set_optimizer(
        self, optimizer: OptimizerSlot, scheduler: SchedulerSlot | None = None, interval: Interval = "epoch"
    ) -> None:
        """Keeps what fills the slots.

        Raises:
            ValueError: the interval is neither ``epoch`` nor ``step``.
        """
        if interval not in ("epoch", "step"):
            raise ValueError(f"scheduler_interval ({interval}) must be epoch or step")
        self.make_optimizer, self.make_scheduler, self.scheduler_interval = optimizer, scheduler, interval

    def optimize(self, *parameters: Iterable) -> OptimizerLRScheduler:
        """What ``configure_optimizers`` returns.

        Args:
            parameters: of each optimizer, parameters or groups of them; several for manual optimization alone.

        Raises:
            MisconfigurationException: the scheduler can't be stepped as the settings say.
        """
        optimizers = [self._make_optimizer(part) for part in parameters]
        if self.make_scheduler is None:
            return optimizers[0] if len(optimizers) == 1 else optimizers
        configured: Any = [
            {"optimizer": optimizer, "lr_scheduler": self._schedule(optimizer, len(optimizers))}
            for optimizer in optimizers
        ]
        return configured[0] if len(configured) == 1 else configured

    def _make_optimizer(self, parameters: Iterable) -> Optimizer:
        parameters = list(parameters)
        tensors = [tensor for entry in parameters for tensor in _tensors_of(entry)]
        # Lightning can't clip gradients in float16 that a fused step unscales by itself.
        on_cuda = all(tensor.is_cuda for tensor in tensors)
        extra = fused_argument(self.make_optimizer) if on_cuda and self.trainer.precision != "16-mixed" else {}
        return self.make_optimizer(parameters, self.hparams.lr, **extra)

    def _schedule(self, optimizer: Optimizer, num_optimizers: int) -> dict[str, Any]:
        """The scheduler of one optimizer, as Lightning takes it."""
        assert self.make_scheduler is not None
        made = getattr(self.make_scheduler, "func", self.make_scheduler)
        if made in OF_OTHERS:
            raise MisconfigurationException(f"model.scheduler: {made.__name__} {NOT_BUILT}")
        try:
            scheduler = self.make_scheduler(optimizer, **self._left_open(num_optimizers))
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:  # torch's checks name neither
            raise MisconfigurationException(f"model.scheduler: {type(error).__name__}: {error}") from error
        if not isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            return {"scheduler": scheduler, "interval": self.scheduler_interval}
        if self.scheduler_interval == "step":
            raise MisconfigurationException(
                "scheduler_interval=step: ReduceLROnPlateau moves on after each validation; set "
                "model.scheduler_interval=epoch"
            )
        monitor = monitor_of(scheduler, self)
        if monitor == self.monitor and scheduler.mode != self.mode:
            raise MisconfigurationException(
                f"ReduceLROnPlateau(mode={scheduler.mode}) would wait for {monitor} to get worse: set "
                f"model.scheduler.mode={self.mode}"
            )
        # Lightning never steps it: `_PlateauSteps` does.
        config: dict[str, Any] = {"scheduler": scheduler, "interval": "epoch", "frequency": NEVER}
        return config | ({"monitor": monitor} if self.automatic_optimization else {})

    def _left_open(self, num_optimizers: int) -> dict[str, Any]:
        """Arguments of the scheduler that were left at None, and that the module or its Trainer know."""
        slot = self.make_scheduler
        made, given = (slot.func, slot.keywords) if isinstance(slot, partial) else (slot, {})
        if made is ReduceLROnPlateau:
            is_open = given.get("mode") is None and given.get("monitor") in (None, self.monitor)
            return {"mode": self.mode} if is_open else {}
        if made is OneCycleLR:
            is_open = given.get("total_steps") is None and given.get("epochs") is None
            return {"total_steps": self._total_steps(num_optimizers)} if is_open else {}
        return {}

    def _total_steps(self, num_optimizers: int) -> int:
        if self.trainer.ckpt_path is not None:
            # The checkpoint knows; and if Lightning were asked now, it would forget the position in the data.
            return NEVER
        return self.planned_steps(num_optimizers)

    def planned_steps(self, num_optimizers: int) -> int:
        """How often a scheduler moves on in the run; not to be asked before a checkpoint is restored.

        Raises:
            MisconfigurationException: the run has no planned end, or Lightning's estimate of it would be wrong.
        """
        trainer = self.trainer
        if self.scheduler_interval == "epoch":
            epochs = trainer.max_epochs
            total = float("inf") if epochs in (None, -1) else epochs
        else:
            callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
            if trainer.max_epochs != -1 and any(isinstance(c, GradientAccumulationScheduler) for c in callbacks):
                raise MisconfigurationException(
                    "OneCycleLR: with GradientAccumulationScheduler the steps of the run are not known; set "
                    "model.scheduler.total_steps, or trainer.accumulate_grad_batches instead"
                )
            total = trainer.estimated_stepping_batches
            if trainer.max_steps != -1:  # counts the steps of all optimizers
                total = min(total, -(-trainer.max_steps // num_optimizers))
        if not 0 < total < float("inf"):
            raise MisconfigurationException("OneCycleLR: the run has no planned end; set model.scheduler.total_steps")
        return int(total)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Lightning's hook, for each step of a scheduler.

        Raises:
            MisconfigurationException: its arguments don't fit the run, such as an end before that of the run.
        """
        try:
            super().lr_scheduler_step(scheduler, metric)
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:
            name = type(scheduler).__name__
            raise MisconfigurationException(
                f"model.scheduler: {name} can't go on, check its arguments: {type(error).__name__}: {error}"
            ) from error

    def step_schedulers(self) -> None:
        """In manual optimization, after the optimizers' steps: what Lightning does in automatic optimization."""
        for config in self.trainer.lr_scheduler_configs:
            if config.frequency != NEVER and (config.interval == "step" or self.trainer.is_last_batch):
                self.lr_scheduler_step(config.scheduler, None)

    def configure_callbacks(self) -> list[pl.Callback]:
        """Lightning adds them to those of the Trainer, before those that write checkpoints."""
        return [] if self.make_scheduler is None else [_PlateauSteps()]


class _PlateauSteps(pl.Callback):
    """Steps the schedulers that wait for a metric to improve, after each validation."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        if any(getattr(scheduler, "total_steps", 0) == NEVER for scheduler in schedulers):
            raise MisconfigurationException(
                "OneCycleLR: the checkpoint was written without it; set model.scheduler.total_steps"
            )
        if not trainer.enable_validation and _waiting(trainer):
            raise MisconfigurationException(
                "ReduceLROnPlateau moves on after each validation, but there is none: let the Trainer validate, or "
                "choose another model.scheduler"
            )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        for scheduler in _waiting(trainer):
            monitor = monitor_of(scheduler, pl_module)
            if monitor not in trainer.callback_metrics:
                raise MisconfigurationException(
                    f"ReduceLROnPlateau: no metric {monitor!r} was logged; set model.scheduler.monitor to one of "
                    f"{sorted(name for name in trainer.callback_metrics if name.startswith('val/'))}"
                )
            # All processes decide alike, even about a metric that was not reduced over them.
            scheduler.step(trainer.strategy.broadcast(float(trainer.callback_metrics[monitor])))


def _tensors_of(entry: Any) -> list[Any]:
    """The tensors of what an optimizer takes: a parameter, a named one, or a group."""
    if isinstance(entry, dict):
        return [tensor for part in entry["params"] for tensor in _tensors_of(part)]
    return [entry[1]] if isinstance(entry, tuple) else [entry]


def fused_argument(slot: Callable[..., Optimizer]) -> dict[str, bool]:
    """``{"fused": True}`` for an optimizer with a fused step on CUDA, unless that was set."""
    made, given = (slot.func, slot.keywords) if isinstance(slot, partial) else (slot, {})
    try:
        has_it = "fused" in inspect.signature(made).parameters
    except (TypeError, ValueError):  # no signature can be read
        return {}
    chosen = given.get("fused") is not None or given.get("foreach") or given.get("differentiable")
    return {"fused": True} if has_it and not chosen else {}


def monitor_of(scheduler: lr_scheduler.ReduceLROnPlateau, module: Any) -> str:
    """The metric that a scheduler waits for: its own, or else the module's."""
    return getattr(scheduler, "monitor", None) or module.monitor


def _waiting(trainer: pl.Trainer) -> list[lr_scheduler.ReduceLROnPlateau]:
    schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
    return [scheduler for scheduler in schedulers if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)]
