"""An exponential moving average of the weights, for validation, test and checkpoint."""

from typing import Any

import pytorch_lightning as pl

from .update_chain.averages import AveragesWeights, Buffers
from .update_chain.chain import UpdateChain, check_argument
from .update_chain.run_length import Unit, check_unit, steps_per


class AveragedWeights(AveragesWeights):
    """An exponential moving average of the weights, which validation, test and checkpoint use.

    ``ema_t = b * ema_(t-1) + (1 - b) * theta_t`` from ``ema_0 = 0``, used as ``ema_t / (1 - b^t)``. It is kept in the
    bias-corrected form ``m_t = m_(t-1) + w_t * (theta_t - m_(t-1))`` with ``w_t = (1 - b) / (1 - b^t)``: the first
    average is theta_1 itself, and the memory grows to 1 / (1 - b) optimizer steps. Training itself does not change.

    With ``ramp``, which suits short runs, the memory grows more slowly, from the weights before the first step on:

        m_t = d_t * m_(t-1) + (1 - d_t) * theta_t,   d_t = min(b, (1 + t) / (10 + t)),   t = 0, 1, ...

    It spans about the last tenth of the steps until it reaches 1 / (1 - b).

    ``memory`` is 1 / (1 - b) in a unit of the run, which fits data of any size: ``memory: 4, unit: epoch`` averages
    over about the last four epochs.

    Half-precision weights are averaged in float32, where 1 - b is not lost. The running statistics of batch
    normalisation belong to weights, too: those of the weights being trained don't fit the average.

    Args:
        decay: b in [0, 1); not read where ``memory`` is given.
        ramp: let the decay rise with the number of steps.
        memory: 1 / (1 - b), positive; in steps at least 1.
        unit: of ``memory``: ``step``, ``epoch``, or ``share`` of the steps that ``max_epochs`` and ``max_steps`` plan.
        buffers: the running statistics that go with the average: ``recompute``, measured with the averaged weights on
            up to 100 training batches before each validation; ``average``, those of training, averaged like the
            weights; ``raw``, those of training; None: ``recompute`` where there is a datamodule and Lightning steps
            the optimizer, else ``average``.

    Raises:
        ValueError: if ``decay``, ``memory`` or ``buffers`` is out of range.
        MisconfigurationException: at the start, if an epoch or the run has no known number of steps, or statistics
            can't be recomputed (no datamodule, or a module that steps its optimizers itself).

    Source: kexue.fm/archives/7094 and bert4keras' exponential moving average. Lightning's EMAWeightAveraging instead
    starts from a copy with the full memory.

    Example:
        trainer:
          callbacks+:
            - class_path: AveragedWeights
              init_args: {decay: 0.999, ramp: true}
    """

    def __init__(
        self,
        decay: float = 0.999,
        ramp: bool = False,
        memory: float | None = None,
        unit: Unit = "step",
        buffers: Buffers | None = None,
    ) -> None:
        super().__init__(buffers)
        check_argument("AveragedWeights", "decay", decay, "in [0, 1)", 0 <= decay < 1)
        check_unit("AveragedWeights", unit)
        if memory is not None:
            least, most = (1 if unit == "step" else 0), (1 if unit == "share" else float("inf"))
            ok = memory > 0 and least <= memory <= most
            check_argument("AveragedWeights", "memory", memory, f"positive, and from {least} to {most}", ok)
        self.decay, self.ramp, self.memory, self.unit = decay, ramp, memory, unit

    def settings(self) -> dict[str, Any]:
        length = {"decay": self.decay} if self.memory is None else {"memory": self.memory, "unit": self.unit}
        return length | ({"ramp": True} if self.ramp else {}) | super().settings()

    def attach(self, chain: UpdateChain, trainer: pl.Trainer) -> None:
        if self.memory is not None:
            self.decay = 1 - 1 / max(1.0, self.memory * steps_per(self.unit, "AveragedWeights", trainer))
        super().attach(chain, trainer)

    def weight(self, chain: UpdateChain) -> float:
        steps = self.kept_steps.get(chain.key, 0)
        if self.ramp:
            return 1 - min(self.decay, (1 + steps) / (10 + steps))
        return (1 - self.decay) / (1 - self.decay ** (steps + 1))
