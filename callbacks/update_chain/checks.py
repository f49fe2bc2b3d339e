"""What an update chain works with: strategies, other callbacks, optimizers, and the checkpoint to resume from."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, ModelPruning, StochasticWeightAveraging, WeightAveraging
from pytorch_lightning.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch.optim import Optimizer

from .chain import Phase, Rule, is_sharded

CHECKPOINT_KEY = "update_chain"
SHARDING_STRATEGIES = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)
# Rules without which a run can't go on, and the way out.
_NOT_DROPPED = {
    "Lookahead": "which trains two copies of the weights, so it can't be dropped: switch it off with step_size 1 and "
    "evaluate fast, or start a new run from the slow weights (--init_from)"
}


def check_rules(trainer: pl.Trainer, pl_module: pl.LightningModule, rules: Sequence[Rule]) -> None:
    """Refuse what can't work, before the optimizers exist.

    Raises:
        MisconfigurationException: names the conflict and the way out.
    """
    for rule in rules:
        # What FSDPStrategy makes of the parameters has neither their shapes nor their names.
        works = rule.works_on_shards and isinstance(trainer.strategy, ModelParallelStrategy)
        if isinstance(trainer.strategy, SHARDING_STRATEGIES) and not works:
            raise MisconfigurationException(
                f"{type(rule).__name__} needs whole parameters on each process, but "
                f"{type(trainer.strategy).__name__} shards them or owns the step; use --trainer.strategy=ddp"
            )
        twins = [other for other in rules if type(other) is type(rule)]
        if len(twins) > 1 and not rule.repeatable:
            raise MisconfigurationException(
                f"trainer.callbacks holds {len(twins)} {type(rule).__name__}; keep one of them"
            )
        rule.check(trainer, pl_module)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging | StochasticWeightAveraging | ModelPruning):
            for rule in rules:
                if rule.exchanges_weights:
                    raise MisconfigurationException(
                        f"{type(rule).__name__} and {type(callback).__name__} both change the evaluated "
                        "weights; remove one of them from trainer.callbacks"
                    )


def check_optimizer(optimizer: Optimizer, trainer: pl.Trainer, rules: Sequence[Rule]) -> None:
    """Refuse an optimizer whose steps the rules can't reshape.

    Raises:
        MisconfigurationException: names the optimizer and the way out.
    """
    name, owner = type(optimizer).__name__, type(rules[0]).__name__
    if not hasattr(optimizer, "register_step_post_hook") or not hasattr(optimizer, "_optimizer_step_post_hooks"):
        raise MisconfigurationException(
            f"{owner} needs torch's step hooks, which {name} lacks; "
            "use an optimizer that initialises torch.optim.Optimizer"
        )
    if name == "ZeroRedundancyOptimizer":
        raise MisconfigurationException(
            f"{owner} can't work with {name}, which shards the parameters over the processes; "
            "use the optimizer that it wraps"
        )
    for rule in rules:
        if rule.needs_old or rule.phase >= Phase.DECAY:
            refuse_exchange(optimizer, type(rule).__name__)
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
        raise MisconfigurationException(
            f"{owner} can't work with fused {name} under 16-mixed, which hides scaled "
            "gradients and skipped steps; set fused=False or --trainer.precision=bf16-mixed"
        )
    sharded = any(is_sharded(parameter) for group in optimizer.param_groups for parameter in group["params"])
    for rule in rules:
        if sharded and not rule.works_on_shards:
            raise MisconfigurationException(
                f"{type(rule).__name__} needs whole parameters, but {name} holds sharded ones (DTensor); use "
                "--trainer.strategy=ddp"
            )


def refuse_exchange(optimizer: Optimizer, owner: str) -> None:
    """Refuse an optimizer that is ScheduleFree or the like, for a callback that reads or sets weights.

    Raises:
        MisconfigurationException: names both.
    """
    if callable(getattr(optimizer, "train", None)) and callable(getattr(optimizer, "eval", None)):
        raise MisconfigurationException(
            f"{owner} can't work with {type(optimizer).__name__}, which exchanges the weights itself (train() and "
            "eval()), so they are not those of its steps; remove the callback, or use another optimizer"
        )


def warn_of_raw_weights(trainer: pl.Trainer, rules: Sequence[Rule]) -> None:
    """Warn if a checkpoint would hold other weights than those that were validated."""
    swaps = [rule for rule in rules if rule.exchanges_weights]
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if swaps and isinstance(callback, ModelCheckpoint) and callback.save_weights_only:
            rank_zero_warn(
                f"ModelCheckpoint(save_weights_only=True) writes the raw weights, not those of "
                f"{type(swaps[-1]).__name__}: Lightning skips the callbacks then; set save_weights_only=False"
            )


def refuse_other_chain(checkpoint: dict[str, Any], rules: list[str]) -> None:
    """Compares the chain that wrote a checkpoint with the one that resumes from it.

    Rules may be added (their copies of the weights start at this step), changed (they go on with their state) and
    dropped (training goes on from the trained weights, not from an average), except those that training rests on.

    Args:
        checkpoint: as loaded from the file.
        rules: ``str`` of this run's rules in phase order; empty if it has none.

    Raises:
        MisconfigurationException: names a rule that can't be dropped, or not here, and the way out.
    """
    saved = checkpoint.get(CHECKPOINT_KEY, {})
    before, now = (Counter(rule.split("(")[0] for rule in chain) for chain in (saved.get("rules", []), rules))
    for rule in saved.get("rules", []):
        name = rule.split("(")[0]
        if name in _NOT_DROPPED and not now[name]:
            raise MisconfigurationException(
                f"the checkpoint was written with another update chain: the checkpoint has {rule}, {_NOT_DROPPED[name]}"
            )
    if saved.get("gradients") and before["GradientAccumulation"] != now["GradientAccumulation"]:
        raise MisconfigurationException(
            "the checkpoint was written within a window of accumulated gradients: GradientAccumulation can be added or "
            "dropped only at its end; resume from another checkpoint, or start a new run"
        )


def restore_raw_weights(checkpoint: dict[str, Any], pl_module: pl.LightningModule) -> None:
    """Gives a module the trained weights and buffers, where a checkpoint's ``state_dict`` holds those of a rule.

    Whether or not this run still has that rule.
    """
    parameters = dict(pl_module.named_parameters()) | dict(pl_module.named_buffers())
    with torch.no_grad():
        for state in checkpoint.get("callbacks", {}).values():
            raw_weights = state.get("raw_weights", {}) if isinstance(state, dict) else {}
            for name, raw in (pair for weights in raw_weights.values() for pair in weights.items()):
                if name in parameters:
                    parameters[name].copy_(raw)
