"""Layer adaptation: each tensor's update scales with its norm, on top of any optimizer (LAMB's trust ratio)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from layers.weights.selection import DEFAULT_EXCLUDE

from .update_chain.chain import Action, Block, Phase, UpdateChain
from .update_chain.rule import UpdateRule

# Below this learning rate rounding drowns the update's direction; the author's bound.
SMALLEST_LR = 1e-7


class LayerAdaptation(UpdateRule):
    """Layer adaptation: the norm of each tensor's update becomes the tensor's own norm times the learning rate.

    ``dx <- dx * r`` with ``dx = theta' - theta`` and ``r = ‖theta‖ / ‖dx / max(lr, 1e-7)‖`` for each parameter tensor,
    r = 1 where either norm is 0. It acts after weight decay: Adam(eps=1e-6) + decay + adaptation is LAMB. Norms are
    computed in float32 or float64; for bfloat16 weights dx itself has only bfloat16's precision.

    Args:
        include: tensors to adapt; None: all (see ``layers.weights.selection.select``).
        exclude: tensors to leave out.
        log: log ``train/trust_ratio_mean``, ``_min`` and ``_max`` over the adapted tensors.

    Raises:
        ValueError: if an entry is not a valid expression or, at the start, matches nothing.

    Source: kexue.fm/archives/7094 section 2; LAMB, arXiv 1904.00962. Unlike timm's Lamb it doesn't clip globally; in
    LARS the ratio comes before the momentum.

    Example:
        trainer:
          callbacks+:
            - class_path: LayerAdaptation
              init_args: {log: true}
    """

    phase = Phase.LAYER_ADAPTATION
    needs_old = True
    repeatable = True

    def __init__(
        self,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] = DEFAULT_EXCLUDE,
        log: bool = False,
    ) -> None:
        super().__init__(include, exclude, log=log)
        self._ratios: dict[int, list[Tensor]] = {}

    def settings(self) -> dict[str, Any]:
        return self.selection()

    def before_step(self, chain: UpdateChain) -> None:
        self._ratios[chain.index] = []

    def plan(self, block: Block) -> Action | None:
        positions = block.members(self, stepped_only=True)
        if not positions:
            return None
        # A complex number is a pair of real ones, as for torch's optimizers.
        params, old = (
            [torch.view_as_real(tensor) if tensor.is_complex() else tensor for tensor in tensors]
            for tensors in (block.params(positions), block.old(positions))
        )
        index = block.chain.index
        dtype = torch.float64 if params[0].dtype == torch.float64 else torch.float32

        def adapt(lr: float) -> None:
            # In place, with dx in params meanwhile: no second copy of the parameters. Where r = 1 because a norm is 0,
            # (theta' - theta) + theta is bit-identical to theta'.
            length = torch.stack(torch._foreach_norm(old, 2, dtype=dtype))
            torch._foreach_sub_(params, old)
            change = torch.stack(torch._foreach_norm(params, 2, dtype=dtype))
            ratio = torch.where((length > 0) & (change > 0), max(lr, SMALLEST_LR) * length / change, 1.0)
            torch._foreach_mul_(params, ratio.unbind())
            torch._foreach_add_(params, old)
            if self.logs:
                self._ratios[index].append(ratio)

        return adapt

    def measurements(self, chain: UpdateChain) -> dict[str, float | Tensor]:
        if not (ratios := self._ratios.get(chain.index)):
            return {}
        flat = torch.cat([ratio.double() for ratio in ratios])
        return {"trust_ratio_mean": flat.mean(), "trust_ratio_min": flat.min(), "trust_ratio_max": flat.max()}
