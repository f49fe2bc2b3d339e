"""Separate learning rates for some parameters, as factors on the optimizer's."""

from typing import Any

import torch
from torch import nn

from layers.weights.selection import check_entries, matching, select

from .update_chain.chain import Action, Block, Phase, check_argument
from .update_chain.rule import UpdateRule


class ParameterwiseLR(UpdateRule):
    """Separate learning rates for some parameters, as factors on the optimizer's.

    ``dx <- m * dx`` with ``dx = theta' - theta`` and m the product of the multipliers whose key matches the parameter;
    later phases use ``m * lr`` as the learning rate. For every optimizer whose update is proportional to lr this equals
    a parameter group with ``m * lr``, without a change to the groups, which the module's schedulers know.

    Args:
        multipliers: factor in [0, inf) for each key; a key is a regular expression searched in the full parameter
            name, or ``type:NAME`` (see ``layers.weights.selection.select``). 0 freezes, 1 changes nothing.

    Raises:
        ValueError: if a factor is negative or not finite, or a key is not a valid expression or, at the start, matches
            nothing.

    Source: bert4keras, parameter-wise learning rates. There a key is a plain substring, and layer adaptation divides
    the factor out again; here it survives.

    Example:
        trainer:
          callbacks+:
            - class_path: ParameterwiseLR
              init_args: {multipliers: {encoder: 0.1}}
    """

    phase = Phase.LEARNING_RATE
    needs_old = True
    works_on_shards = True

    def __init__(self, multipliers: dict[str, float]) -> None:
        super().__init__()
        check_entries("multipliers", list(multipliers))
        for key, factor in multipliers.items():
            check_argument("ParameterwiseLR", f"multipliers[{key!r}]", factor, "at least 0", 0 <= factor < float("inf"))
        self.multipliers = dict(multipliers)
        self._factors: dict[nn.Parameter, float] = {}

    def settings(self) -> dict[str, Any]:
        return {"multipliers": self.multipliers}

    def choose(self, module: nn.Module) -> None:
        select(module, list(self.multipliers), (), "ParameterwiseLR")  # a key that matches nothing is an error
        self._factors = {}
        for key, factor in self.multipliers.items():
            for parameter in matching(module, key):
                self._factors[parameter] = self._factors.get(parameter, 1.0) * factor

    def chosen(self, parameter: nn.Parameter) -> bool:
        return self.lr_multiplier(parameter) != 1

    def lr_multiplier(self, parameter: nn.Parameter) -> float:
        return self._factors.get(parameter, 1.0)

    def plan(self, block: Block) -> Action | None:
        positions = block.members(self, stepped_only=True)
        if not positions:
            return None
        params, old = block.params(positions), block.old(positions)

        def scale(lr: float) -> None:
            torch._foreach_lerp_(params, old, 1.0 - block.multiplier)

        return scale
