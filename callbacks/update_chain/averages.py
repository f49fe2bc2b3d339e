"""The base class of rules that average the weights, and with them the running statistics of batch normalisation."""

from abc import abstractmethod
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor

from .chain import Action, Block, Phase, UpdateChain, check_argument
from .kept_weights import KeepsWeights
from .running_statistics import recompute_statistics, running_statistics

Buffers = Literal["average", "recompute", "raw"]


class AveragesWeights(KeepsWeights):
    """A mean of the weights, ``m <- m + weight * (theta - m)`` after each step, which validation uses.

    Half-precision weights are averaged in float32, where small changes are not lost.

    Args:
        buffers: the running statistics of batch normalisation that go with the mean:

            ``recompute``: those of the mean's own outputs, on up to 100 training batches before each validation;
            ``average``: the mean of the statistics, with the same ``weight`` at each step; with a momentum of
            0.01 these lag behind twice;
            ``raw``: those of the weights being trained;
            None: ``recompute`` where that is possible (else ``average``).

    Raises:
        ValueError: for another word.
        MisconfigurationException: at the start, if statistics can't be recomputed: the module steps its optimizers or
            fetches its batches itself, or no datamodule makes the training batches.
    """

    phase = Phase.AVERAGE
    exchanges_weights = True

    def __init__(self, buffers: Buffers | None = None) -> None:
        super().__init__()
        name, words = type(self).__name__, (None, "average", "recompute", "raw")
        check_argument(name, "buffers", buffers, "average, recompute or raw", buffers in words)
        self.buffers, self._kind = buffers, buffers

    def settings(self) -> dict[str, Any]:
        return {"buffers": self.buffers} if self.buffers else {}

    @abstractmethod
    def weight(self, chain: UpdateChain) -> float:
        """The share of the present weights in the mean; ``kept_steps`` does not count the present step yet."""

    def check(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().check(trainer, pl_module)
        if not running_statistics(pl_module):
            return
        hindrance = None
        if not pl_module.automatic_optimization:
            hindrance = f"{type(pl_module).__name__} steps its own optimizers"
        elif not getattr(trainer, "datamodule", None):
            hindrance = "there is no datamodule to read training batches from again"
        elif is_param_in_hook_signature(pl_module.training_step, "dataloader_iter", explicit=True):
            hindrance = f"{type(pl_module).__name__} fetches its own batches (dataloader_iter)"
        if hindrance and self.buffers == "recompute":
            name = f"{type(self).__name__}(buffers=recompute)"
            raise MisconfigurationException(f"{name}: {hindrance}: use average or raw")
        self._kind = self.buffers or ("average" if hindrance else "recompute")

    def forget(self) -> None:
        super().forget()
        self.averaged: dict[str, Tensor] = {}  # running statistics, by name
        self._measured: tuple[list[int], dict[str, Tensor]] | None = None  # recomputed ones, and after which steps

    def restart(self, chain: UpdateChain) -> None:
        super().restart(chain)
        self.averaged, self._measured = {}, None

    def kept_dtype(self, parameter: Tensor) -> torch.dtype:
        return torch.promote_types(parameter.dtype, torch.float32) if parameter.is_floating_point() else parameter.dtype

    def plan(self, block: Block) -> Action | None:
        chain, params, averages = block.chain, block.params(block.positions), self.kept(block)
        dtype = averages[0].dtype

        def average(lr: float) -> None:
            present = params if params[0].dtype == dtype else [parameter.to(dtype) for parameter in params]
            torch._foreach_lerp_(averages, present, self.weight(chain))

        return average

    def after_step(self, chain: UpdateChain) -> None:
        # Once a batch, where a module has several optimizers.
        if self._kind == "average" and chain.index == 0 and chain.key in self.copies and self.session is not None:
            for name, present in running_statistics(self.session.pl_module).items():
                if name not in self.averaged:
                    self.averaged[name] = present.to(self.kept_dtype(present), copy=True)
                self.averaged[name].lerp_(present.to(self.averaged[name].dtype), self.weight(chain))
        super().after_step(chain)

    def evaluated(self, chain: UpdateChain) -> dict[str, Tensor] | None:
        return self.copies.get(chain.key)

    def evaluated_buffers(self) -> dict[str, Tensor]:
        if self._kind != "recompute" or self.session is None:
            return self.averaged
        # A validation, the best checkpoint and the last one ask for those of the same weights.
        steps = [chain.steps for chain in self.session.chains]
        if self._measured is None or self._measured[0] != steps:
            self._measured = steps, recompute_statistics(self.session.trainer, self.session.pl_module)
        return self._measured[1]

    def attach(self, chain: UpdateChain, trainer: pl.Trainer) -> None:
        super().attach(chain, trainer)
        if self.session is not None:
            present = running_statistics(self.session.pl_module)
            # The checkpoint was read on the CPU; of another model there may be others.
            self.averaged = {
                name: value.to(present[name].device) for name, value in self.averaged.items() if name in present
            }

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        return {**state, "averaged_buffers": self.averaged} if state and self.averaged else state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.averaged = dict(state_dict.get("averaged_buffers", {}))
