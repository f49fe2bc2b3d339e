"""The base class of derived optimizers that keep a second copy of the weights."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor

from .chain import Block, UpdateChain
from .rule import UpdateRule


class KeepsWeights(UpdateRule):
    """A rule that keeps a second copy of each optimizer's weights, by parameter name (Lookahead, averages).

    ``kept_steps`` counts the optimizer steps since the copy was made: fewer than the chain's where it was made late or
    again.
    """

    def __init__(self, *, log: bool = False) -> None:
        super().__init__(log=log)
        self.forget()

    def forget(self) -> None:
        self.copies: dict[str, dict[str, Tensor]] = {}
        self.kept_steps: dict[str, int] = {}
        self._loaded: dict[str, dict[str, Tensor]] = {}

    def restart(self, chain: UpdateChain) -> None:
        """Drop the copy and its count; a new one is made of the weights before the next step."""
        self.copies.pop(chain.key, None)
        self.kept_steps.pop(chain.key, None)
        chain.bind()  # drops the plans, which hold the old copy

    def attach(self, chain: UpdateChain, trainer: pl.Trainer) -> None:
        loaded = self._loaded.pop(chain.key, None)
        if loaded is None:
            return
        missing = [name for name, _ in chain.items() if name not in loaded]
        surplus = [name for name in loaded if name not in set(chain.names)]
        if missing or surplus:
            raise MisconfigurationException(
                f"{type(self).__name__}: the checkpoint's weights do not fit optimizer {chain.index}: "
                f"{'it lacks ' + missing[0] if missing else 'this model lacks ' + surplus[0]}; "
                "resume with the model that wrote it"
            )
        # The checkpoint was read on the CPU, before the module moved to its device.
        self.copies[chain.key] = {
            name: loaded[name].to(parameter.device, self.kept_dtype(parameter)) for name, parameter in chain.items()
        }

    def kept_dtype(self, parameter: Tensor) -> torch.dtype:
        """The dtype of a parameter's copy: its own."""
        return parameter.dtype

    def before_step(self, chain: UpdateChain) -> None:
        copies = self.copies.setdefault(chain.key, {})
        # At the first step, so that it includes all initialisation until then; later for unfrozen parameters.
        if len(copies) < len(chain.names):
            for name, parameter in chain.items():
                if name not in copies:
                    copies[name] = parameter.detach().to(self.kept_dtype(parameter), copy=True)

    def after_step(self, chain: UpdateChain) -> None:
        if chain.key in self.copies:
            self.kept_steps[chain.key] = self.kept_steps.get(chain.key, 0) + 1

    def kept(self, block: Block) -> list[Tensor]:
        """The copies of a block's parameters, to be changed in place."""
        copies = self.copies[block.chain.key]
        return [copies[name] for name in block.names(block.positions)]

    def state_dict(self) -> dict[str, Any]:
        return {"copies": self.copies, "kept_steps": self.kept_steps} if self.copies else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = dict(state_dict.get("copies", {}))
        self.kept_steps = dict(state_dict.get("kept_steps", {}))
