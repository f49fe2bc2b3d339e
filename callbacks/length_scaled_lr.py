"""A learning rate proportional to the length of the batch's sequences."""

from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor

from .update_chain.chain import Phase, UpdateChain, check_argument
from .update_chain.rule import UpdateRule


class LengthScaledLR(UpdateRule):
    """Scales the learning rate of each step by the length of its batch: ``lr_t = lr * T / base_length``.

    With truncated backpropagation over a random length T, the mean loss of a short window would otherwise move the
    weights as far as that of a long one. T is taken from the batch's ``inputs`` (B, T), of accumulated batches from the
    last one. The learning rate is restored after the step, so schedulers and ``callbacks.PiecewiseLinearLR`` see
    their own.

    Args:
        base_length: the length T at which the learning rate does not change.
        log: log the learning rate that was used, as ``train/length_scaled_lr``.

    Raises:
        ValueError: if ``base_length`` is below 1; in training, if a batch has no ``inputs``.

    Source: Merity et al., arXiv 1708.02182, section 3.1 (variable length backpropagation sequences).

    Example:
        trainer:
          callbacks+:
            - class_path: LengthScaledLR
              init_args: {base_length: 70}
    """

    phase = Phase.LEARNING_RATE
    works_on_shards = True
    place: ClassVar[int] = 1  # after schedules, whose value it scales

    def __init__(self, base_length: int = 70, log: bool = True) -> None:
        super().__init__(log=log)
        check_argument("LengthScaledLR", "base_length", base_length, "at least 1", base_length >= 1)
        self.base_length = base_length
        self._length = base_length
        self._own: dict[int, list[Any]] = {}
        self._used = 0.0

    def settings(self) -> dict[str, Any]:
        return {"base_length": self.base_length}

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if not hasattr(batch, "inputs"):
            raise ValueError(
                f"LengthScaledLR needs batches with inputs (B, T), but got {type(batch).__name__}: "
                "remove it from trainer.callbacks"
            )
        self._length = batch.inputs.shape[1]
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)

    def before_step(self, chain: UpdateChain) -> None:
        self._own[chain.index] = [_copy(group["lr"]) for group in chain.optimizer.param_groups]
        for group in chain.optimizer.param_groups:
            group["lr"] = group["lr"] * (self._length / self.base_length)
        self._used = float(chain.optimizer.param_groups[0]["lr"])

    def after_step(self, chain: UpdateChain) -> None:
        for group, lr in zip(chain.optimizer.param_groups, self._own.pop(chain.index, []), strict=False):
            group["lr"] = lr

    def measurements(self, chain: UpdateChain) -> dict[str, float | Tensor]:
        return {"length_scaled_lr": self._used}


def _copy(lr: float | Tensor) -> float | Tensor:
    return lr.clone() if isinstance(lr, torch.Tensor) else lr
