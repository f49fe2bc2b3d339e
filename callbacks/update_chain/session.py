"""One run of the update chains within a Trainer: start, hooks, evaluated weights, checkpoint, resume."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import GradientAccumulationScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from layers.weights.selection import parameter_names

from .chain import Rule, UpdateChain, in_order
from .checks import CHECKPOINT_KEY, check_optimizer, check_rules, refuse_other_chain, warn_of_raw_weights


class ChainSession:
    """Everything that the rules of one ``fit`` share; the first rule forwards Lightning's hooks to it.

    Args:
        trainer, pl_module: of this fit.
        rules: all rules of the Trainer, in the order of its list.
    """

    def __init__(self, trainer: pl.Trainer, pl_module: pl.LightningModule, rules: list[Rule]) -> None:
        self.trainer = trainer
        self.pl_module = pl_module
        self.rules_in_list = rules
        self.rules = in_order(rules)
        self.chains: list[UpdateChain] = []
        # Optimizers with gradients that no step has used yet: the inside of an accumulation window.
        self._pending: set[int] = set()
        self._raw: dict[int, list[Tensor]] | None = None
        self._handles: list[RemovableHandle] = []
        self._attached = False
        self._loaded: dict[str, Any] | None = None
        self._resumed = False
        self._logged_steps = -1

    def description(self) -> list[str]:
        """The chain, one rule an entry, in phase order."""
        return [str(rule) for rule in self.rules]

    # Start.

    def check(self) -> None:
        """Refuse what can't be right, before the optimizers exist."""
        check_rules(self.trainer, self.pl_module, self.rules)

    def build(self) -> None:
        """Make one chain for each optimizer, check it, and say once what it is."""
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
        """The chain as the log shows it, with what each rule acts on."""
        parts = []
        for rule in self.rules:
            parameters = [parameter for chain in self.chains for parameter in chain.params]
            count = sum(rule.chosen(parameter) for parameter in parameters)
            share = "" if count == len(parameters) else f" on {count} of {len(parameters)} tensors"
            parts.append(f"{rule.phase.title}: {rule}{share}")
        optimizers = ", ".join(type(optimizer).__name__ for optimizer in self.trainer.optimizers)
        return f"Update chain of {optimizers}: " + " -> ".join(parts)

    def start(self) -> None:
        """Take up the state of a checkpoint and hook onto the optimizers; all else is restored by now."""
        saved = self._loaded or {}
        for chain in self.chains:
            chain.bind()
            chain.steps = int(saved.get("steps", {}).get(chain.key, 0))
            for rule in self.rules:
                rule.attach(chain, self.trainer)
            self._handles += [
                chain.optimizer.register_step_pre_hook(chain.enter_step),
                chain.optimizer.register_step_post_hook(chain.after_step),
            ]
        self._attached = True
        self._restore_gradients(saved.get("gradients", {}))
        self._resumed, self._loaded = self._loaded is not None, None

    # While training.

    def before_batch(self) -> None:
        """A batch begins: where a resumed run goes on inside an epoch, set Lightning's scheduled accumulation."""
        # Lightning calls no `on_train_epoch_start` where it goes on inside an epoch, and its scheduled accumulation
        # would then continue with windows of one batch.
        if self._resumed:
            self._resumed = False
            for callback in self.trainer.callbacks:
                if isinstance(callback, GradientAccumulationScheduler):
                    callback.on_train_epoch_start(self.trainer)

    def after_backward(self) -> None:
        """There are gradients that no step has used yet."""
        self._pending = {chain.index for chain in self.chains}

    def before_step(self, optimizer: Optimizer) -> None:
        """The gradients of an optimizer are complete: its chain takes over."""
        for chain in self.chains:
            if chain.optimizer is optimizer:
                chain.before_step()
                self._pending.discard(chain.index)

    def log_measurements(self) -> None:
        """Log what the rules measured in a step (``train/...``), of several optimizers with its key in the name."""
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

    def _evaluated(self, chain: UpdateChain) -> dict[str, Tensor] | None:
        """Those of the last phase that has some: the average before Lookahead's slow weights."""
        found = [weights for rule in self.rules if (weights := rule.evaluated(chain)) is not None]
        return found[-1] if found else None

    @torch.no_grad()
    def swap_in(self) -> None:
        """Put the evaluated weights into the module and keep the raw ones aside."""
        if self._raw is not None or not self._attached:
            return
        self._raw = {}
        for chain in self.chains:
            if (weights := self._evaluated(chain)) is not None:
                self._raw[chain.index] = [parameter.detach().clone() for parameter in chain.params]
                torch._foreach_copy_(chain.params, [weights[name] for name in chain.names])

    @torch.no_grad()
    def swap_out(self) -> None:
        """Give the module its raw weights back, if they were put aside."""
        if self._raw is None:
            return
        for index, raw in self._raw.items():
            torch._foreach_copy_(self.chains[index].params, raw)
        self._raw = None

    def finish(self) -> None:
        """The training is over: the module keeps the weights that validation used."""
        self.swap_in()
        self.close()

    def restart(self) -> None:
        """Train on from weights and learning rates that somebody has set, with emptied optimizers."""
        for chain in self.chains:
            for rule in self.rules:
                rule.restart(chain)

    def close(self) -> None:
        """Let go of the optimizers. The state stays, for a checkpoint that is written after the fit."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self._attached:
            self._attached = False
            for chain in self.chains:
                for rule in self.rules:
                    rule.detach(chain, self.trainer)

    # Checkpoint.

    def dump(self, checkpoint: dict[str, Any]) -> None:
        """Write the chain, the evaluated weights as ``state_dict``, the raw ones into the rule's state."""
        checkpoint[CHECKPOINT_KEY] = {
            "rules": self.description(),
            "steps": {chain.key: chain.steps for chain in self.chains},
            "gradients": self._partial_gradients(),
        }
        names = parameter_names(self.pl_module)
        for chain in self.chains:
            owner = next((rule for rule in reversed(self.rules) if rule.evaluated(chain) is not None), None)
            if owner is None:
                continue
            weights = owner.evaluated(chain)
            raw = self._raw[chain.index] if self._raw is not None else [p.detach() for p in chain.params]
            state = checkpoint["callbacks"].setdefault(owner.state_key, {})
            state.setdefault("raw_weights", {})[chain.key] = dict(zip(chain.names, raw, strict=True))
            for name, parameter in chain.items():
                for alias in names.get(parameter, []):
                    if alias in checkpoint["state_dict"]:
                        checkpoint["state_dict"][alias] = weights[name].to(parameter.dtype)
        for rule in self.rules:
            rule.on_dump(checkpoint)

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Compare the chains and give the module its raw weights back.

        Raises:
            MisconfigurationException: if another chain wrote the checkpoint; the line names the difference.
        """
        refuse_other_chain(checkpoint, self.description())
        self._loaded = checkpoint[CHECKPOINT_KEY]
        parameters = dict(self.pl_module.named_parameters())
        for rule in self.rules:
            state = checkpoint["callbacks"].get(rule.state_key) or {}
            for weights in state.get("raw_weights", {}).values():
                with torch.no_grad():
                    for name, raw in weights.items():
                        if name in parameters:
                            parameters[name].copy_(raw)

    def _partial_gradients(self) -> dict[str, dict[str, Tensor]]:
        """Gradients of an unfinished accumulation window, by rank (each holds its own) and parameter name."""
        world_size = self.trainer.world_size
        gradients: dict[str, dict[str, Tensor]] = {str(rank): {} for rank in range(world_size)}
        for chain in self.chains:
            if chain.index not in self._pending:
                continue
            for name, parameter in chain.items():
                if world_size == 1:
                    parts = [parameter.grad]
                else:
                    parts = [None] * world_size
                    own = None if parameter.grad is None else parameter.grad.cpu()
                    torch.distributed.all_gather_object(parts, own)
                for rank, part in enumerate(parts):
                    if part is not None:
                        gradients[str(rank)][name] = part
        return {rank: part for rank, part in gradients.items() if part}

    def _restore_gradients(self, gradients: dict[str, dict[str, Tensor]]) -> None:
        if not gradients:
            return
        own = gradients.get(str(self.trainer.global_rank), {})
        if len(gradients) != self.trainer.world_size:
            # Another number of processes: each takes the mean, whose mean over the processes is the same.
            names = {name for part in gradients.values() for name in part}
            own = {name: sum(p[name] for p in gradients.values() if name in p) / len(gradients) for name in names}
        for chain in self.chains:
            for name, parameter in chain.items():
                if name in own:
                    parameter.grad = own[name].to(parameter.device)
                    self._pending.add(chain.index)
