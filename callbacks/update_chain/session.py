"""The update chains during one ``fit`` of a Trainer: start, hooks, evaluated weights, checkpoint, resume."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import GradientAccumulationScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from layers.processes import by_rank
from layers.weights.selection import parameter_names

from .chain import Rule, UpdateChain, in_order, like, local
from .checks import (
    CHECKPOINT_KEY,
    check_optimizer,
    check_rules,
    refuse_other_chain,
    restore_raw_weights,
    warn_of_raw_weights,
)
from .running_statistics import running_statistics


class ChainSession:
    """What the rules share during one ``fit``; the first rule forwards Lightning's hooks to it.

    Args:
        trainer, pl_module: of this ``fit``.
        rules: all rules of the Trainer, in the order of its list.
    """

    def __init__(self, trainer: pl.Trainer, pl_module: pl.LightningModule, rules: Sequence[Rule]) -> None:
        self.trainer = trainer
        self.pl_module = pl_module
        self.rules_in_list = rules
        self.rules = in_order(rules)
        self.chains: list[UpdateChain] = []
        # Optimizers with gradients that no step has used yet: within an accumulation window.
        self._pending: set[int] = set()
        self._raw: dict[int, list[Tensor]] | None = None
        self._raw_buffers: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        self._attached = False
        self._loaded: dict[str, Any] | None = None
        self._resumed = False
        self._logged_steps = -1

    def description(self) -> list[str]:
        """The chain, one entry per rule, in phase order."""
        return [str(rule) for rule in self.rules]

    # Start.

    def check(self) -> None:
        """Refuse what can't work, before the optimizers exist."""
        check_rules(self.trainer, self.pl_module, self.rules)

    def build(self) -> None:
        """Make and check one chain per optimizer, and log the chain once."""
        for index, optimizer in enumerate(self.trainer.optimizers):
            check_optimizer(optimizer, self.trainer, self.rules)
            if index == 0:
                for rule in self.rules:
                    rule.choose(self.pl_module)
            self.chains.append(UpdateChain(optimizer, self.rules, self.pl_module, index))
        warn_of_raw_weights(self.trainer, self.rules)
        line = self._line()
        if self.trainer.is_global_zero:
            print(line, flush=True)
            for logger in self.trainer.loggers:
                logger.log_hyperparams({"update_chain": line})

    def _line(self) -> str:
        """The chain as it is logged, with the number of tensors that each rule acts on."""
        parts = []
        for rule in self.rules:
            parameters = [parameter for chain in self.chains for parameter in chain.params]
            count = sum(rule.chosen(parameter) for parameter in parameters)
            share = "" if count == len(parameters) else f" on {count} of {len(parameters)} tensors"
            parts.append(f"{rule.phase.title}: {rule}{share}")
        optimizers = ", ".join(type(optimizer).__name__ for optimizer in self.trainer.optimizers)
        return f"Update chain of {optimizers}: " + " -> ".join(parts)

    def start(self) -> None:
        """Restore the chains' state from a checkpoint and hook into the optimizers; all else is restored by now."""
        saved = self._loaded or {}
        for chain in self.chains:
            chain.bind()
            chain.steps = int(saved.get("steps", {}).get(chain.key, saved.get("steps_without_chain", 0)))
            for rule in self.rules:
                rule.attach(chain, self.trainer)
            self._handles += [
                chain.optimizer.register_step_pre_hook(chain.enter_step),
                chain.optimizer.register_step_post_hook(chain.after_step),
            ]
        self._attached = True
        self._restore_gradients(saved.get("gradients", {}))
        self._resumed, self._loaded = self._loaded is not None, None

    # During training.

    def before_batch(self) -> None:
        """A batch begins: after a resume within an epoch, set Lightning's scheduled accumulation."""
        # Lightning doesn't call `on_train_epoch_start` when it resumes within an epoch; its scheduled accumulation
        # would continue with windows of one batch.
        if self._resumed:
            self._resumed = False
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, GradientAccumulationScheduler):
                    callback.on_train_epoch_start(self.trainer)

    def after_backward(self) -> None:
        """All optimizers have gradients that no step has used yet."""
        self._pending = {chain.index for chain in self.chains}

    def before_step(self, optimizer: Optimizer) -> None:
        """The gradients of an optimizer are complete: its chain takes over."""
        for chain in self.chains:
            if chain.optimizer is optimizer:
                chain.before_step()
                self._pending.discard(chain.index)

    def log_measurements(self) -> None:
        """Log the rules' measurements of a step (``train/…``); with several optimizers, each name ends with its key."""
        steps = sum(chain.steps for chain in self.chains)
        if steps == self._logged_steps:  # an accumulating batch
            return
        self._logged_steps = steps
        for chain in self.chains:
            suffix = "" if len(self.chains) == 1 else f"/{chain.key}"
            for rule in self.rules:
                if rule.logs:
                    for name, value in rule.measurements(chain).items():
                        self.pl_module.log(f"train/{name}{suffix}", value, on_step=True, on_epoch=False)

    # Evaluated weights.

    def _evaluated(self, chain: UpdateChain) -> tuple[Rule, dict[str, Tensor]] | None:
        """The last rule with evaluated weights, and these: an average takes precedence over Lookahead's slow ones."""
        found = [(rule, weights) for rule in self.rules if (weights := rule.evaluated(chain)) is not None]
        # Lightning's stand-in for an optimizer, where `configure_optimizers` returns None, has no weights.
        return found[-1] if found and chain.params else None

    @torch.no_grad()
    def swap_in(self) -> None:
        """Put the evaluated weights into the module and keep a copy of the raw ones."""
        if self._raw is not None or not self._attached:
            return
        self._raw = {}
        for chain in self.chains:
            if found := self._evaluated(chain):
                self._raw[chain.index] = [parameter.detach().clone() for parameter in chain.params]
                torch._foreach_copy_([*chain.params], [found[1][name] for name in chain.names])
        owners = {found[0] for chain in self.chains if (found := self._evaluated(chain))}
        for name, value in (pair for owner in owners for pair in owner.evaluated_buffers().items()):
            buffer = self.pl_module.get_buffer(name)
            self._raw_buffers[name] = buffer.clone()
            buffer.copy_(value)

    @torch.no_grad()
    def swap_out(self) -> None:
        """Restore the module's raw weights, if they were swapped out."""
        if self._raw is None:
            return
        for index, raw in self._raw.items():
            torch._foreach_copy_([*self.chains[index].params], raw)
        for name, value in self._raw_buffers.items():
            self.pl_module.get_buffer(name).copy_(value)
        self._raw, self._raw_buffers = None, {}

    def finish(self) -> None:
        """Training is over: the module keeps the weights that validation used."""
        self.swap_in()
        self.close()

    def restart(self) -> None:
        """Training continues from weights and learning rates set from outside, with empty optimizers."""
        for chain in self.chains:
            for rule in self.rules:
                rule.restart(chain)

    def close(self) -> None:
        """Remove the hooks from the optimizers. The state stays, for a checkpoint that is written after ``fit``."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self._attached:
            self._attached = False
            for chain in self.chains:
                for rule in self.rules:
                    rule.detach(chain, self.trainer)

    # Checkpoint.

    def dump(self, checkpoint: dict[str, Any], gathered: list[dict[str, Tensor]] | None = None) -> None:
        """Write the chain, the evaluated weights as ``state_dict`` and the raw ones into the rule's state.

        Args:
            checkpoint: changed in place.
            gathered: ``partial_gradients`` of all processes, where they were gathered.
        """
        gradients = by_rank(self.partial_gradients(), gathered)
        checkpoint[CHECKPOINT_KEY] = {
            "rules": self.description(),
            "steps": {chain.key: chain.steps for chain in self.chains},
            "gradients": {str(rank): part for rank, part in enumerate(gradients) if part},
        }
        self._dump_buffers(checkpoint)
        names = parameter_names(self.pl_module)
        for chain in self.chains:
            if (found := self._evaluated(chain)) is None:
                continue
            owner, weights = found
            raw = self._raw[chain.index] if self._raw is not None else [p.detach() for p in chain.params]
            state = checkpoint["callbacks"].setdefault(owner.state_key, {})
            state.setdefault("raw_weights", {})[chain.key] = dict(zip(chain.names, raw, strict=True))
            for name, parameter in chain.items():
                for alias in names.get(parameter, []):
                    if alias in checkpoint["state_dict"]:
                        checkpoint["state_dict"][alias] = weights[name].to(parameter.dtype)
        for rule in self.rules:
            rule.on_dump(checkpoint)

    def _dump_buffers(self, checkpoint: dict[str, Any]) -> None:
        """Write the evaluated buffers into the ``state_dict`` and the raw ones into their rule's state."""
        if not running_statistics(self.pl_module):
            return
        swapped_here = self._raw is None and self._attached
        self.swap_in()
        for name, raw in self._raw_buffers.items():
            owner = next(found[0] for chain in self.chains if (found := self._evaluated(chain)))
            state = checkpoint["callbacks"].setdefault(owner.state_key, {})
            state.setdefault("raw_weights", {}).setdefault("buffers", {})[name] = raw.clone()
            if name in checkpoint["state_dict"]:
                checkpoint["state_dict"][name] = self.pl_module.get_buffer(name).clone()
        if swapped_here:
            self.swap_out()

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Compare the chains and restore the module's raw weights.

        Raises:
            MisconfigurationException: the chain that wrote the checkpoint can't be continued by this one.
        """
        refuse_other_chain(checkpoint, self.description())
        # A chain that is new in this run counts the steps before it, too.
        steps = checkpoint["global_step"] // max(len(checkpoint.get("optimizer_states", [])), 1)
        self._loaded = checkpoint.get(CHECKPOINT_KEY) or {"steps_without_chain": steps}
        restore_raw_weights(checkpoint, self.pl_module)

    def partial_gradients(self) -> dict[str, Tensor]:
        """This process's gradients of an unfinished accumulation window, by parameter name."""
        return {
            name: parameter.grad if self.trainer.world_size == 1 else local(parameter.grad).cpu()
            for chain in self.chains
            if chain.index in self._pending
            for name, parameter in chain.items()
            if parameter.grad is not None
        }

    def _restore_gradients(self, gradients: dict[str, dict[str, Tensor]]) -> None:
        if not gradients:
            return
        own = gradients.get(str(self.trainer.global_rank), {})
        if len(gradients) != self.trainer.world_size:
            # Another number of processes: each takes the mean, whose mean over the processes is the same.
            names = {name for part in gradients.values() for name in part}
            sums = {name: sum((p[name] for p in gradients.values() if name in p), torch.zeros(())) for name in names}
            own = {name: total / len(gradients) for name, total in sums.items()}
        for chain in self.chains:
            for name, parameter in chain.items():
                if name in own:
                    parameter.grad = like(parameter, own[name])
                    self._pending.add(chain.index)
