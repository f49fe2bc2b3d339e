"""Weight averaging that begins when the validation metric stops improving (NT-ASGD)."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from .update_chain.averages import AveragesWeights, Buffers
from .update_chain.chain import Action, Block, UpdateChain, check_argument
from .update_chain.rule import in_training


class NonMonotonicAverage(AveragesWeights):
    """The mean of the weights since the validation metric stopped improving; with SGD this is NT-ASGD.

        begin when  v_k > min(v_1 ... v_(k-1-patience)),  then  mean_n = mean_(n-1) + (theta_n - mean_(n-1)) / n

    v_k is the monitored value of the k-th validation. From the first step after that, validation, test and checkpoint
    use the mean; training itself does not change. ``restart_epoch`` adds the recipe's fine-tuning: at that epoch a new
    mean starts at once, with an empty list of values; training ends when these stop improving again.

    Args:
        monitor: a logged validation metric, lower is better.
        patience: how many of the last values the minimum leaves out (the paper's n).
        restart_epoch: epoch at which a new mean starts; None for never.
        buffers: the running statistics that go with the mean, as in ``AveragedWeights``.

    Raises:
        ValueError: if ``patience`` or ``restart_epoch`` is below 0, or ``buffers`` another word.

    Source: Merity et al., arXiv 1708.02182, algorithm 1. Difference: torch's ASGD gives its first averaged weights
    weight zero, here they count like all others.

    Example:
        trainer:
          callbacks+:
            - class_path: NonMonotonicAverage
              init_args: {monitor: val/loss, patience: 5}
    """

    def __init__(
        self,
        monitor: str = "val/loss",
        patience: int = 5,
        restart_epoch: int | None = None,
        buffers: Buffers | None = None,
    ) -> None:
        check_argument("NonMonotonicAverage", "patience", patience, "at least 0", patience >= 0)
        ok = restart_epoch is None or restart_epoch >= 0
        check_argument("NonMonotonicAverage", "restart_epoch", restart_epoch, "at least 0, or null", ok)
        super().__init__(buffers)
        self.monitor, self.patience, self.restart_epoch = monitor, patience, restart_epoch

    def settings(self) -> dict[str, Any]:
        plain = {"monitor": self.monitor, "patience": self.patience, "restart_epoch": self.restart_epoch}
        return plain | super().settings()

    def forget(self) -> None:
        super().forget()
        self.values: list[float] = []
        self.averaging = self.restarted = False

    def before_step(self, chain: UpdateChain) -> None:
        if self.averaging:
            super().before_step(chain)

    def plan(self, block: Block) -> Action | None:
        def average(lr: float) -> None:
            # The copies are made when the averaging begins.
            if self.averaging and (action := super(NonMonotonicAverage, self).plan(block)):
                action(lr)

        return average

    def weight(self, chain: UpdateChain) -> float:
        return 1 / (self.kept_steps.get(chain.key, 0) + 1)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.restart_epoch and not self.restarted:
            self.forget()
            self.averaging = self.restarted = True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if self.session is None or not in_training(trainer):
            return
        if self.monitor not in trainer.callback_metrics:
            raise MisconfigurationException(
                f"NonMonotonicAverage: no metric {self.monitor!r} was logged; set monitor to one of "
                f"{sorted(name for name in trainer.callback_metrics if name.startswith('val/'))}"
            )
        value = float(trainer.callback_metrics[self.monitor])
        earlier = self.values[: max(len(self.values) - self.patience, 0)]
        stalled = bool(earlier) and value > min(earlier)
        self.values.append(value)
        if stalled and not self.averaging:
            self.averaging = True
            print(f"NonMonotonicAverage: averaging from epoch {trainer.current_epoch + 1} on", flush=True)
        elif stalled and self.restarted:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "values": self.values,
            "averaging": self.averaging,
            "restarted": self.restarted,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.values = list(state_dict["values"])
        self.averaging, self.restarted = state_dict["averaging"], state_dict["restarted"]
