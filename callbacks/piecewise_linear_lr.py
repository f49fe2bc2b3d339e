"""A piecewise linear learning rate in optimizer steps: warm-up and decay in one dictionary, for any optimizer."""

from bisect import bisect_right
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from .update_chain.chain import Phase, UpdateChain, check_argument, write_lr
from .update_chain.rule import UpdateRule


class PiecewiseLinearLR(UpdateRule):
    """A piecewise linear learning rate in optimizer steps: warm-up and decay in one dictionary, for any optimizer.

    ``lr_t = rho(t) * base_t``, where base_t is set by the module and its schedulers, and rho is linear between the keys
    and constant after the last one. ``{1000: 1, 2000: 0.1}`` rises from 0 to 1 in 1,000 steps, falls to 0.1 in the next
    1,000 and stays there. If the smallest key is not 0, ``0: 0.0`` is added.

    The learning rate is set in the optimizer's groups, so monitors, weight decay and layer adaptation see what the step
    uses. A scheduler of the module gets its own value back while it steps, so the two multiply and nothing compounds; a
    checkpoint holds base_t.

    Args:
        schedule: ``{optimizer step: factor}``, factors in [0, inf); an accumulation window is one step.
        log: log ``train/learning_rate``, what the step used (``…/group1`` and so on for further groups).

    Raises:
        ValueError: if the schedule is empty, a key is negative or not an integer, or a factor negative or not finite.

    Source: kexue.fm/archives/7094 section 3. The author's counter counts micro-batches, this one steps.

    Example:
        trainer:
          callbacks+:
            - class_path: PiecewiseLinearLR
              init_args:
                schedule: {1000: 1.0, 2000: 0.1}
    """

    phase = Phase.LEARNING_RATE

    def __init__(self, schedule: dict[int, float], log: bool = False) -> None:
        super().__init__(log=log)
        check_argument("PiecewiseLinearLR", "schedule", schedule, "a dictionary {step: factor}", bool(schedule))
        for step, factor in schedule.items():
            ok = isinstance(step, int) and not isinstance(step, bool) and step >= 0
            check_argument("PiecewiseLinearLR", "a step of schedule", step, "an integer of at least 0", ok)
            check_argument("PiecewiseLinearLR", f"schedule[{step}]", factor, "at least 0", 0 <= factor < float("inf"))
        self.schedule = {0: 0.0} | {step: schedule[step] for step in sorted(schedule)}
        self._steps = list(self.schedule)
        # By chain and group: the module's value, the value set in the group, the value that the last step used.
        self._base: dict[tuple[int, int], float] = {}
        self._written: dict[tuple[int, int], float] = {}
        self._used: dict[tuple[int, int], float] = {}
        self._guarded: dict[int, list[tuple[LRScheduler, type]]] = {}

    def settings(self) -> dict[str, Any]:
        return {"schedule": self.schedule}

    def factor(self, step: int) -> float:
        """rho at this optimizer step, counted from 0."""
        right = bisect_right(self._steps, step)
        start = self._steps[right - 1]
        if right == len(self._steps):
            return float(self.schedule[start])
        end = self._steps[right]
        rise = self.schedule[end] - self.schedule[start]
        return self.schedule[start] + rise * (step - start) / (end - start)

    def attach(self, chain: UpdateChain, trainer: pl.Trainer) -> None:
        for group in chain.optimizer.param_groups:
            if "lr" not in group:
                raise MisconfigurationException(
                    f"PiecewiseLinearLR: {type(chain.optimizer).__name__} has no learning rate; remove the callback"
                )
        guarded = self._guarded.setdefault(chain.index, [])
        for config in trainer.lr_scheduler_configs:
            if getattr(config.scheduler, "optimizer", None) is chain.optimizer:
                guarded.append((config.scheduler, type(config.scheduler)))
                self._guard(config.scheduler, chain)
        self._set(chain)

    def detach(self, chain: UpdateChain, trainer: pl.Trainer) -> None:
        for scheduler, own_class in self._guarded.pop(chain.index, []):
            scheduler.__class__ = own_class
        self._take_back(chain)

    def before_step(self, chain: UpdateChain) -> None:
        self._set(chain)
        self._used.update({key: value for key, value in self._written.items() if key[0] == chain.index})

    def after_step(self, chain: UpdateChain) -> None:
        self._set(chain)

    def restart(self, chain: UpdateChain) -> None:
        # The groups' values are a new base, even where they equal what was written there.
        self._written = {key: value for key, value in self._written.items() if key[0] != chain.index}
        self._set(chain)

    def _set(self, chain: UpdateChain) -> None:
        """Set the learning rate of the next step in the groups."""
        factor = self.factor(chain.steps)
        for i, group in enumerate(chain.optimizer.param_groups):
            key = (chain.index, i)
            # Not our value: the module, its scheduler or the user has set a new base.
            if float(group["lr"]) != self._written.get(key):
                self._base[key] = float(group["lr"])
            self._written[key] = write_lr(group, self._base[key] * factor)

    def _take_back(self, chain: UpdateChain) -> None:
        for i, group in enumerate(chain.optimizer.param_groups):
            written = self._written.pop((chain.index, i), None)
            if written is not None and float(group["lr"]) == written:
                write_lr(group, self._base[chain.index, i])

    def _guard(self, scheduler: LRScheduler, chain: UpdateChain) -> None:
        """Let the scheduler see its own learning rate while it steps.

        Most schedulers compute the next value from the current one, so the factor would compound. The class is
        replaced, as Lightning does with optimizers, because an attribute would end up in the scheduler's checkpoint.
        """
        own_class = type(scheduler)

        def step(this: LRScheduler, *args: Any, **kwargs: Any) -> None:
            self._take_back(chain)
            try:
                own_class.step(this, *args, **kwargs)
            finally:
                self._set(chain)

        scheduler.__class__ = type(own_class.__name__, (own_class,), {"step": step})

    def on_dump(self, checkpoint: dict[str, Any]) -> None:
        for (chain, i), written in self._written.items():
            group = checkpoint["optimizer_states"][chain]["param_groups"][i]
            if float(group["lr"]) == written:
                base = self._base[chain, i]
                group["lr"] = torch.full_like(group["lr"], base) if isinstance(group["lr"], Tensor) else base

    def measurements(self, chain: UpdateChain) -> dict[str, float | Tensor]:
        used = {i: value for (index, i), value in self._used.items() if index == chain.index}
        return {"learning_rate" + (f"/group{i}" if i else ""): value for i, value in used.items()}
