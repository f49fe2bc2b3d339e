"""Optimizers and schedulers whose settings changed on resume; torch and Lightning restore the old settings as state.

What was configured is stored beside the state, so that what an option changed can be told from what a schedule moved::

    changed                         the restored optimizer or scheduler
    nothing                         as restored, bit for bit
    weight decay, betas, eps ...    takes the new value
    learning rate, no scheduler     takes the new value
    scheduler, or rate with one     stands where the new schedule would stand, had it been there from the start
    ReduceLROnPlateau, or its rate  keeps what it has seen; the rate is scaled by new / old
"""

import copy
import warnings
from collections import defaultdict
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import LRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lightning_modules.optimization import NEVER

from ..classes import import_class, is_importable
from ..errors import UserError

Description = dict[str, Any]

NEW_RUN = "or start a new run from the weights (--init_from)"
# What a scheduler has seen so far; all else in its state is how it was configured.
_PROGRESS = ("last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step", "_is_initial")
_SEEN_BY_PLATEAU = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")
_MEASURE_OF_PLATEAU = ("mode", "threshold_mode", "monitor")
_RATES = ("lr", "initial_lr")
# What the schedulers with a cycle also move.
_CYCLED = ("momentum", "betas")
# What schedulers add to a group.
_SCHEDULED = {"initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr"}


def as_configured(trainer: pl.Trainer) -> Description:
    """How optimizers and schedulers were configured, as plain values; to be asked before a state is restored."""
    return {
        "optimizers": [
            {"class": _path(optimizer), "groups": [_hyperparameters(group) for group in optimizer.param_groups]}
            for optimizer in trainer.optimizers
        ],
        "schedulers": [
            {
                "class": _path(config.scheduler),
                "optimizer": _index(config, trainer),
                "interval": config.interval,
                "frequency": config.frequency,
                "state": copy.deepcopy(config.scheduler.state_dict()),
            }
            for config in trainer.lr_scheduler_configs
        ],
    }


def refuse_other_optimizers(
    trainer: pl.Trainer, checkpoint: dict[str, Any], saved: Description | None, now: Description
) -> None:
    """Refuses the state of other optimizers, before it is loaded.

    Without a description their settings tell: those of another optimizer lack some, and have others. (Of another
    version of torch they only lack some, or only have others.) So does a step from the state of a parameter.

    Raises:
        UserError: the number differs, or names the first optimizer that can't go on.
    """
    before = saved["optimizers"] if saved else checkpoint.get("optimizer_states")
    if before is None:  # a strategy keeps them elsewhere
        return
    if len(before) != len(trainer.optimizers):
        raise UserError(f"the checkpoint has another number of optimizers: keep the model's settings, {NEW_RUN}")
    for optimizer, old, described in zip(trainer.optimizers, before, now["optimizers"], strict=True):
        if saved:
            _refuse_other_class(old["class"], optimizer)
            continue
        for group, new, own in zip(old["param_groups"], described["groups"], optimizer.param_groups, strict=False):
            has, takes = _hyperparameters(group).keys() - _SCHEDULED, new.keys() - _SCHEDULED
            if has - takes and takes - has:
                raise _other_optimizer(optimizer, f"with {', '.join(sorted(has - takes))}")
            states = (old["state"].get(number) for number in group["params"])
            parameter, state = next(((p, s) for p, s in zip(own["params"], states, strict=False) if s), (None, None))
            if parameter is None or state is None:
                continue
            error = _fails(optimizer, {name: group.get(name, value) for name, value in own.items()}, parameter, state)
            if isinstance(error, KeyError):
                raise _other_optimizer(optimizer, f"whose state lacks {error}")


def forget_other_schedulers(checkpoint: dict[str, Any], saved: Description | None, now: Description) -> None:
    """Keeps the state of a scheduler from being loaded into one of another class."""
    states = checkpoint.get("lr_schedulers", [])
    before = saved["schedulers"] if saved else [{"state": state} for state in states]
    for i, (old, new) in enumerate(zip(before, now["schedulers"], strict=False)):
        if old.get("class", new["class"]) != new["class"] or old["state"].keys() != new["state"].keys():
            states[i] = copy.deepcopy(new["state"])


def forget_measures(checkpoint: dict[str, Any], now: Description) -> None:
    """Has ``ReduceLROnPlateau`` begin to compare anew: its metric is measured on other data."""
    for state, new in zip(checkpoint.get("lr_schedulers", []), now["schedulers"], strict=False):
        for name in {"best", "num_bad_epochs"} & state.keys() & new["state"].keys():
            state[name] = new["state"][name]


def apply_changes(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    saved: Description | None,
    now: Description,
    position: dict[str, int],
) -> None:
    """Lets changed settings take effect: all states are restored by now, and no trick has touched a rate yet.

    Args:
        trainer: its optimizers and schedulers have the states of the checkpoint.
        module: the module that configured them.
        saved: ``as_configured`` of the run that wrote the checkpoint; None: what the checkpoint's groups hold.
        now: ``as_configured`` of this run; what only now is known is filled in.
        position: epochs and optimizer steps of the checkpoint, ``{"epoch": ..., "step": ...}``.

    Raises:
        UserError: names a change that can't take effect.
    """
    _fill_in_total_steps(trainer, module, now)
    saved = saved or _as_found(trainer, now)
    for index, optimizer in enumerate(trainer.optimizers):
        before, after = saved["optimizers"][index], now["optimizers"][index]
        groups = list(zip(optimizer.param_groups, before["groups"], after["groups"], strict=True))
        for group, old, new in groups:
            _refuse_missing_state(optimizer, group, old, new)
        old_schedulers, schedulers = (
            [scheduler for scheduler in described["schedulers"] if scheduler["optimizer"] == index]
            for described in (saved, now)
        )
        rates_changed = any(not _same(_base(old), _base(new)) for _, old, new in groups)
        is_same_schedule = _same(old_schedulers, schedulers)
        if is_same_schedule and not (rates_changed and schedulers):
            for group, old, new in groups:
                _update(group, old, new)
            continue
        configs = [config for config in trainer.lr_scheduler_configs if _index(config, trainer) == index]
        if len(configs) != len(schedulers):
            raise UserError(f"a callback has replaced model.scheduler: keep model.scheduler and model.lr, {NEW_RUN}")
        if any(isinstance(config.scheduler, ReduceLROnPlateau) for config in configs):
            _continue_plateau(configs, old_schedulers, schedulers, groups)
        else:
            _replay(configs, old_schedulers, schedulers, groups, position)


# --------------------------------------------------------------------------------------------------------- schedules


def _replay(
    configs: list[LRSchedulerConfig],
    old: list[Description],
    new: list[Description],
    groups: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]],
    position: dict[str, int],
) -> None:
    """Lets the schedulers step from the beginning to the position of the checkpoint."""
    for group, _, after in groups:
        for name in group.keys() - after.keys() - {"params", "param_names"}:
            del group[name]
        group.update(copy.deepcopy(after))
    for number, (config, scheduler) in enumerate(zip(configs, new, strict=True)):
        name = type(config.scheduler).__name__
        if not isinstance(config.scheduler, LRScheduler):
            raise UserError(f"{name} is no scheduler of torch: keep it and model.lr as they were, {NEW_RUN}")
        before = old[number] if number < len(old) else {}
        kept = all(before.get(key) == scheduler[key] for key in ("class", "interval", "frequency"))
        restored = getattr(config.scheduler, "last_epoch", None)
        steps = restored if kept and restored is not None else position[config.interval] // config.frequency
        config.scheduler.load_state_dict(copy.deepcopy(scheduler["state"]))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch misses the optimizer's steps
                for _ in range(steps):
                    config.scheduler.step()
        except ValueError as error:
            raise UserError(f"model.scheduler: {name} can't go on at its step {steps}: {error}") from error


def _continue_plateau(
    configs: list[LRSchedulerConfig],
    old: list[Description],
    new: list[Description],
    groups: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]],
) -> None:
    """Gives the scheduler its new settings; what it has seen is kept while it waits for the same metric."""
    if len(configs) > 1:
        raise UserError(f"several schedulers of one optimizer: keep them and model.lr as they were, {NEW_RUN}")
    scheduler, state = configs[0].scheduler, copy.deepcopy(new[0]["state"])
    is_same_class = [entry["class"] for entry in old] == [new[0]["class"]]
    if is_same_class:
        seen, before = scheduler.state_dict(), old[0]["state"]
        is_same_measure = all(before.get(name) == state.get(name) for name in _MEASURE_OF_PLATEAU)
        state |= {name: seen[name] for name in (_SEEN_BY_PLATEAU if is_same_measure else ("last_epoch",))}
    for group, before, after in groups:
        rate = group["lr"]
        _update(group, before, after)
        base = float(_base(before))
        rate = rate * (float(_base(after)) / base) if is_same_class and base else after["lr"]
        group |= {"lr": rate, "initial_lr": copy.deepcopy(_base(after))}
    scheduler.load_state_dict(state | {"_last_lr": [copy.deepcopy(group["lr"]) for group, *_ in groups]})


def _fill_in_total_steps(trainer: pl.Trainer, module: pl.LightningModule, now: Description) -> None:
    """Describes a ``OneCycleLR`` with the steps of the whole run, which are known only once the data is set up."""
    for scheduler in now["schedulers"]:
        if scheduler["state"].get("total_steps") != NEVER:
            continue
        optimizer = copy.copy(trainer.optimizers[scheduler["optimizer"]])
        groups = now["optimizers"][scheduler["optimizer"]]["groups"]
        optimizer.param_groups = [{**copy.deepcopy(group), "params": []} for group in groups]
        total: int = module.planned_steps(len(trainer.optimizers))  # type: ignore[operator]
        scheduler["state"] = module.make_scheduler(optimizer, total_steps=total).state_dict()  # type: ignore[operator]


# -------------------------------------------------------------------------------------------------------- optimizers


def _update(group: dict[str, Any], old: dict[str, Any], new: dict[str, Any]) -> None:
    """Gives a group those hyperparameters that differ."""
    for name in old.keys() - new.keys():
        group.pop(name, None)
    for name, value in new.items():
        if name not in old or not _same(old[name], value):
            group[name] = copy.deepcopy(value)


def _refuse_other_class(before: str, optimizer: Optimizer) -> None:
    """AdamW is an Adam in torch, and can go on with its state; so can others that inherit from each other."""
    if before == _path(optimizer):
        return
    cls = import_class(before) if is_importable(before) else object
    if not ((isinstance(optimizer, cls) and cls is not object) or issubclass(cls, type(optimizer))):
        raise _other_optimizer(optimizer, before.rsplit(".", 1)[-1])


def _other_optimizer(optimizer: Optimizer, other: str) -> UserError:
    name = type(optimizer).__name__
    return UserError(
        f"the checkpoint was written with another optimizer than {name} ({other}): keep model.optimizer, {NEW_RUN}"
    )


def _refuse_missing_state(
    optimizer: Optimizer, group: dict[str, Any], old: dict[str, Any], new: dict[str, Any]
) -> None:
    """Refuses a setting for which the optimizer would have had to keep more (``amsgrad``), by trying a step."""
    changed = [name for name in new if name not in _RATES and not (name in old and _same(old[name], new[name]))]
    parameter = next((p for p in group["params"] if optimizer.state.get(p)), None)
    if not changed or parameter is None or _fails(optimizer, group, parameter, optimizer.state[parameter]):
        return
    wanted = {**group, **{name: new[name] for name in changed}}
    if error := _fails(optimizer, wanted, parameter, optimizer.state[parameter]):
        raise UserError(
            f"model.optimizer: {', '.join(changed)} can't change on resume, as the state of {type(optimizer).__name__} "
            f"in the checkpoint lacks {str(error) or type(error).__name__}: keep the value, {NEW_RUN}"
        )


def _fails(
    optimizer: Optimizer, hyperparameters: dict[str, Any], parameter: Tensor, state: dict[str, Any]
) -> Exception | None:
    """What is missing where an optimizer of such state steps with these hyperparameters; tried on a small copy."""
    small = nn.Parameter(parameter.new_zeros([2] * parameter.dim()))
    small.grad = torch.zeros_like(small)
    trial = copy.copy(optimizer)
    trial.state = defaultdict(dict)
    for name, value in state.items():
        fits = isinstance(value, Tensor) and value.shape == parameter.shape
        trial.state[small][name] = torch.zeros_like(small, dtype=value.dtype) if fits else copy.deepcopy(value)
    trial.param_groups = [{**copy.deepcopy({k: v for k, v in hyperparameters.items() if k != "params"})}]
    trial.param_groups[0]["params"] = [small]
    try:
        type(optimizer).step(trial)
    except Exception as error:  # whatever an optimizer makes of it
        return error
    return None


def _as_found(trainer: pl.Trainer, now: Description) -> Description:
    """What a checkpoint without such a description was configured with, as far as its state tells."""
    optimizers = []
    for optimizer, after in zip(trainer.optimizers, now["optimizers"], strict=True):
        groups = []
        for group, new in zip(optimizer.param_groups, after["groups"], strict=True):
            found = _hyperparameters(group)
            found["lr"] = new["lr"] if _same(_base(found), _base(new)) else _base(found)
            if "max_momentum" in group:
                found |= {name: new[name] for name in _CYCLED if name in new}
            groups.append(found)
        optimizers.append({"class": after["class"], "groups": groups})
    schedulers = []
    for config, new in zip(trainer.lr_scheduler_configs, now["schedulers"], strict=False):
        progress = (*_PROGRESS, *_SEEN_BY_PLATEAU)
        found = {name: value for name, value in config.scheduler.state_dict().items() if name not in progress}
        schedulers.append({**new, "state": {**new["state"], **copy.deepcopy(found)}})
    return {"optimizers": optimizers, "schedulers": schedulers}


def _hyperparameters(group: dict[str, Any]) -> dict[str, Any]:
    return {name: copy.deepcopy(value) for name, value in group.items() if name not in ("params", "param_names")}


def _base(group: dict[str, Any]) -> Any:
    """The configured learning rate of a group."""
    return group.get("initial_lr", group.get("lr", 0.0))


def _path(instance: object) -> str:
    return f"{type(instance).__module__}.{type(instance).__qualname__}"


def _index(config: LRSchedulerConfig, trainer: pl.Trainer) -> int:
    """Which optimizer a scheduler belongs to."""
    own = getattr(config.scheduler, "optimizer", None)
    return next((index for index, optimizer in enumerate(trainer.optimizers) if optimizer is own), 0)


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor) or isinstance(right, Tensor):
        return bool(torch.equal(torch.as_tensor(left).cpu(), torch.as_tensor(right).cpu()))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[name], right[name]) for name in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)
