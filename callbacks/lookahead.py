"""Lookahead: k steps forward, one step back, on top of any optimizer."""

from typing import Any, Literal

import torch
from torch import Tensor

from .update_chain.chain import Action, Block, Phase, UpdateChain, check_argument
from .update_chain.kept_weights import KeepsWeights


class Lookahead(KeepsWeights):
    """Lookahead: k steps forward, one step back, on top of any optimizer.

    Slow weights phi start at the weights before the first step. After every k steps of the optimizer
    ``phi <- phi + alpha * (theta - phi)`` and ``theta <- phi``. The optimizer's own state is left alone.

    Args:
        steps: k, optimizer steps between synchronisations, at least 1.
        step_size: alpha in [0, 1]; 1 leaves training bit-identical.
        evaluate: the weights in validation, test and the checkpoint's ``state_dict``: ``slow`` (the paper's choice) or
            ``fast``. The checkpoint has the weights to resume from either way.
        log: log ``train/lookahead_distance``, the Euclidean distance between fast and slow weights before the
            last synchronisation.

    Raises:
        ValueError: if an argument is out of range.

    Source: kexue.fm/archives/6869 and 7094 section 5; arXiv 1907.08610. bert4keras starts phi at 0, which halves the
    weights at the first step; timm creates phi at the first synchronisation; neither is done here.

    Example:
        trainer:
          callbacks+:
            - class_path: Lookahead
              init_args: {steps: 5, step_size: 0.5}
    """

    phase = Phase.LOOKAHEAD

    def __init__(
        self,
        steps: int = 5,
        step_size: float = 0.5,
        evaluate: Literal["slow", "fast"] = "slow",
        log: bool = False,
    ) -> None:
        super().__init__(log=log)
        check_argument("Lookahead", "steps", steps, "an integer of at least 1", isinstance(steps, int) and steps >= 1)
        check_argument("Lookahead", "step_size", step_size, "in [0, 1]", 0 <= step_size <= 1)
        check_argument("Lookahead", "evaluate", evaluate, "'slow' or 'fast'", evaluate in ("slow", "fast"))
        self.steps = steps
        self.step_size = step_size
        self.evaluate = evaluate
        self.exchanges_weights = evaluate == "slow"

    def forget(self) -> None:
        super().forget()
        self.distances: dict[str, list[Tensor]] = {}

    def settings(self) -> dict[str, Any]:
        return {"steps": self.steps, "step_size": self.step_size}

    def before_step(self, chain: UpdateChain) -> None:
        super().before_step(chain)
        if self.logs and self._synchronises(chain):
            self.distances[chain.key] = []

    def plan(self, block: Block) -> Action:
        chain, params, slow = block.chain, block.params(block.positions), self.kept(block)

        def look_back(lr: float) -> None:
            if not self._synchronises(chain):
                return
            if self.logs:
                difference = torch._foreach_sub(params, slow)
                self.distances[chain.key].append(torch.stack(torch._foreach_norm(difference, 2)).double())
            torch._foreach_lerp_(params, slow, 1.0 - self.step_size)
            torch._foreach_copy_(slow, params)

        return look_back

    def plan_after_constraint(self, block: Block) -> Action:
        chain, params, slow = block.chain, block.params(block.positions), self.kept(block)

        def follow(lr: float) -> None:
            if self._synchronises(chain):
                torch._foreach_copy_(slow, params)

        return follow

    def _synchronises(self, chain: UpdateChain) -> bool:
        # The current step is not counted yet.
        return (self.kept_steps.get(chain.key, 0) + 1) % self.steps == 0

    def evaluated(self, chain: UpdateChain) -> dict[str, Tensor] | None:
        return self.copies.get(chain.key) if self.evaluate == "slow" else None

    def measurements(self, chain: UpdateChain) -> dict[str, float | Tensor]:
        if not (distances := self.distances.get(chain.key)):
            return {}
        return {"lookahead_distance": torch.cat(distances).norm()}

    # A row of metrics repeats the last distance, so a resumed run has to know it.

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        return {**state, "distances": self.distances} if self.logs and state else state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.distances = dict(state_dict.get("distances", {}))
