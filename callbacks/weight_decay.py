"""Decoupled weight decay, on top of any optimizer."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from layers.weights.selection import DEFAULT_EXCLUDE

from .update_chain.chain import Action, Block, Phase, UpdateChain, check_argument
from .update_chain.rule import UpdateRule


class WeightDecay(UpdateRule):
    """Decoupled weight decay, on top of any optimizer.

    ``theta' <- theta' - lr * rate * theta``, with theta the weights before the step and lr the learning rate of the
    step. With Adam this is AdamW, with SGD it is SGDW. Like the optimizer, it leaves parameters without a gradient
    alone.

    Args:
        rate: decay per unit of learning rate, in [0, inf); 0 leaves training bit-identical.
        include: parameters to decay; None: all (see ``layers.weights.selection.select``).
        exclude: parameters to leave out.

    Raises:
        ValueError: if ``rate`` is negative, or an entry is not a valid expression or, at the start, matches nothing.

    Source: kexue.fm/archives/7094 section 1; Loshchilov & Hutter, "Decoupled weight decay regularization". The paper
    multiplies by the schedule alone; torch, the blog and this class by the full learning rate.

    Example:
        trainer:
          callbacks+:
            - class_path: WeightDecay
              init_args: {rate: 0.01}
    """

    phase = Phase.DECAY
    needs_old = True
    works_on_shards = True
    repeatable = True

    def __init__(
        self,
        rate: float = 0.01,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] = DEFAULT_EXCLUDE,
    ) -> None:
        super().__init__(include, exclude)
        check_argument("WeightDecay", "rate", rate, "at least 0 and finite", 0 <= rate < float("inf"))
        self.rate = rate

    def settings(self) -> dict[str, Any]:
        return {"rate": self.rate, **self.selection()}

    def attach(self, chain: UpdateChain, trainer: pl.Trainer) -> None:
        rates = [group.get("weight_decay", 0) for group in chain.optimizer.param_groups]
        if self.rate and any(rates):
            name = type(chain.optimizer).__name__
            rank_zero_warn(
                f"WeightDecay(rate={self.rate}) on {name}(weight_decay={max(rates)}) decays twice: "
                f"set weight_decay: 0 in {name}"
            )

    def plan(self, block: Block) -> Action | None:
        positions = block.members(self, stepped_only=True)
        if not positions or self.rate == 0:
            return None
        params, old = block.params(positions), block.old(positions)

        def decay(lr: float) -> None:
            torch._foreach_add_(params, old, alpha=-lr * self.rate)

        return decay
