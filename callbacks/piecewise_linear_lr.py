"""A piecewise linear learning rate: warm-up and decay in one dictionary, for any optimizer."""

from bisect import bisect_right
from itertools import pairwise
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BaseFinetuning, StochasticWeightAveraging
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from .update_chain.chain import Phase, UpdateChain, check_argument, write_lr
from .update_chain.rule import UpdateRule
from .update_chain.run_length import Unit, check_unit, planned_steps, steps_per

# Lightning's callbacks that set learning rates, or make schedulers, when an epoch begins.
SET_RATES = (BaseFinetuning, StochasticWeightAveraging)


class PiecewiseLinearLR(UpdateRule):
    """A piecewise linear learning rate: warm-up and decay in one dictionary, for any optimizer.

    ``lr_t = rho(t) * base_t``, where base_t is set by the module and its schedulers, and rho is linear between the keys
    and constant after the last one. ``{1000: 1, 2000: 0.1}`` rises from 0 to 1 in 1,000 steps, falls to 0.1 in the next
    1,000 and stays there. If the smallest key is not 0, ``0: 0.0`` is added. Keys are optimizer steps, or with ``unit``
    epochs or shares of the run, ``{0.1: 1, 1: 0}``, which fit data of any size; they are rounded to whole steps.

    The learning rate is set in the optimizer's groups, so monitors, weight decay and layer adaptation see what the step
    uses. A scheduler of the module gets its own value back while it steps, so the two multiply and nothing compounds; a
    checkpoint holds base_t.

    Args:
        schedule: ``{position: factor}``, factors in [0, inf); an accumulation window is one step.
        unit: of the positions: ``step``, ``epoch``, or ``share`` of the planned steps, in [0, 1]; ``max_epochs`` and
            ``max_steps`` plan them.
        min_epoch_steps: an epoch counts as at least so many steps: a warm-up of one epoch is not too short on little
            data. For ``unit: epoch`` alone.
        log: log ``train/learning_rate``, what the step used (``…/group1`` and so on for further groups).

    Raises:
        ValueError: if the schedule is empty, a key is negative, no integer among steps or above 1 among shares, a
            factor negative or not finite, or ``min_epoch_steps`` negative or given with another unit.
        MisconfigurationException: at the start, if an epoch or the run has no known number of steps.

    Source: kexue.fm/archives/7094 section 3. The author's counter counts micro-batches, this one steps.

    Example:
        trainer:
          callbacks+:
            - class_path: PiecewiseLinearLR
              init_args:
                schedule: {1000: 1.0, 2000: 0.1}
    """

    phase = Phase.LEARNING_RATE
    works_on_shards = True

    def __init__(
        self, schedule: dict[float, float], unit: Unit = "step", log: bool = False, min_epoch_steps: int = 0
    ) -> None:
        super().__init__(log=log)
        owner = "PiecewiseLinearLR"
        check_unit(owner, unit)
        check_argument(owner, "min_epoch_steps", min_epoch_steps, "at least 0", min_epoch_steps >= 0)
        epochs_only = "0 where unit is not epoch"
        check_argument(owner, "min_epoch_steps", min_epoch_steps, epochs_only, not min_epoch_steps or unit == "epoch")
        check_argument(owner, "schedule", schedule, f"a dictionary {{{unit}: factor}}", bool(schedule))
        # A shell's keys are text.
        schedule = {_number(position): factor for position, factor in schedule.items()}
        for position, factor in schedule.items():
            ok, condition = _is_position(position, unit)
            check_argument(owner, f"{'an' if unit == 'epoch' else 'a'} {unit} of schedule", position, condition, ok)
            check_argument(owner, f"schedule[{position}]", factor, "at least 0", 0 <= factor < float("inf"))
        given = {int(position) if unit == "step" else position: factor for position, factor in schedule.items()}
        self.schedule = {0: 0.0} | {position: given[position] for position in sorted(given)}
        self.unit, self.min_epoch_steps = unit, min_epoch_steps
        self._steps, self._factors = list(self.schedule), list(self.schedule.values())
        # By chain and group: the module's value, the value set in the group, the value that the last step used.
        self._base: dict[tuple[int, int], float] = {}
        self._written: dict[tuple[int, int], float] = {}
        self._used: dict[tuple[int, int], float] = {}
        self._guarded: dict[int, list[tuple[LRScheduler, type]]] = {}

    def settings(self) -> dict[str, Any]:
        settings = {"schedule": self.schedule} | ({} if self.unit == "step" else {"unit": self.unit})
        return settings | ({"min_epoch_steps": self.min_epoch_steps} if self.min_epoch_steps else {})

    def factor(self, step: int) -> float:
        """rho at this optimizer step, counted from 0."""
        right = bisect_right(self._steps, step)
        if right == len(self._steps):
            return float(self._factors[-1])
        start, end = self._steps[right - 1], self._steps[right]
        rise = self._factors[right] - self._factors[right - 1]
        return self._factors[right - 1] + rise * (step - start) / (end - start)

    def attach(self, chain: UpdateChain, trainer: pl.Trainer) -> None:
        length = max(steps_per(self.unit, type(self).__name__, trainer), self.min_epoch_steps)
        # Of positions that fall together the last counts.
        in_steps = {round(position * length): factor for position, factor in self.schedule.items()}
        self._steps, self._factors = list(in_steps), list(in_steps.values())
        if chain.index == 0:
            self._warn_of_warmup(trainer)
        for group in chain.optimizer.param_groups:
            if "lr" not in group:
                raise MisconfigurationException(
                    f"PiecewiseLinearLR: {type(chain.optimizer).__name__} has no learning rate; remove the callback"
                )
        self._guard_schedulers(chain, trainer)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, SET_RATES):
                self._guard_callback(callback, chain, trainer)
        self._set(chain)

    def _warn_of_warmup(self, trainer: pl.Trainer) -> None:
        """Says so if the first rise does not end within the run."""
        top = next((i for i, (a, b) in enumerate(pairwise(self._factors)) if b < a), len(self._factors) - 1)
        while top and self._factors[top - 1] == self._factors[top]:
            top -= 1
        try:
            steps = planned_steps(trainer)
        except MisconfigurationException:  # windows that change: not known
            return
        if self._steps[top] > steps and trainer.is_global_zero:
            print(
                f"warning: PiecewiseLinearLR: the warm-up takes {self._steps[top]:,} steps, but the run has {steps:,}: "
                "shorten it, train longer, or give its schedule in epochs or shares of the run (unit)",
                flush=True,
            )

    def detach(self, chain: UpdateChain, trainer: pl.Trainer) -> None:
        for scheduler, own_class in self._guarded.pop(chain.index, []):
            scheduler.__class__ = own_class
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, SET_RATES):
                vars(callback).pop("on_train_epoch_start", None)
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

    def _guard_callback(self, callback: pl.Callback, chain: UpdateChain, trainer: pl.Trainer) -> None:
        """Let a callback of Lightning's see the module's learning rate where it sets one, or makes a scheduler."""
        own = callback.on_train_epoch_start

        def on_train_epoch_start(*args: Any) -> None:
            self._take_back(chain)
            try:
                own(*args)
            finally:
                self._guard_schedulers(chain, trainer)
                self._set(chain)

        vars(callback)["on_train_epoch_start"] = on_train_epoch_start

    def _guard_schedulers(self, chain: UpdateChain, trainer: pl.Trainer) -> None:
        """Guard those that are not guarded yet."""
        guarded = self._guarded.setdefault(chain.index, [])
        for config in trainer.lr_scheduler_configs:
            scheduler = config.scheduler
            is_new = all(scheduler is not other for other, _ in guarded)
            if is_new and getattr(scheduler, "optimizer", None) is chain.optimizer:
                guarded.append((scheduler, type(scheduler)))
                self._guard(scheduler, chain)

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


def _number(position: Any) -> Any:
    """The number that a text is; anything else as it is."""
    try:
        return float(position) if isinstance(position, str) else position
    except ValueError:
        return position


def _is_position(position: float, unit: Unit) -> tuple[bool, str]:
    """Whether it is one in the run, and what it has to be."""
    is_number = isinstance(position, int | float) and not isinstance(position, bool)
    if unit == "step":
        return is_number and position >= 0 and position == int(position), "an integer of at least 0"
    if unit == "epoch":
        return is_number and 0 <= position < float("inf"), "a number of at least 0"
    return is_number and 0 <= position <= 1, "in [0, 1]"
