"""The chain of rules that reshapes one optimizer's update: phases, cache-sized blocks, one snapshot.

Write any optimizer as theta' = theta - lr * h. A derived optimizer changes this update for any h
(kexue.fm/archives/7094). Each trick is a rule; the chain keeps one copy of theta, taken after the gradients are known
and before the optimizer moves the weights, and hands (theta, theta') to the rules in the order of their phases.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from layers.weights.selection import DEFAULT_EXCLUDE, check_entries, parameter_names, select

Action = Callable[[float], None]
"""What a rule does to one block after the base optimizer's step, given the learning rate that the step used."""

# On a CPU the rules run block by block, so that theta and theta' are read from memory once for all of them and then
# lie in the cache. On an accelerator one block keeps the number of kernel launches small.
CPU_BLOCK_BYTES = 2**19


class Phase(IntEnum):
    """When a rule acts; the order is fixed, whatever order the YAML file has."""

    GRADIENT = 0
    LEARNING_RATE = 1
    DECAY = 2
    LAYER_ADAPTATION = 3
    LAZY = 4
    LOOKAHEAD = 5
    CONSTRAINT = 6
    AVERAGE = 7

    @property
    def title(self) -> str:
        """The name in words."""
        return self.name.lower().replace("_", " ")


class Rule(ABC):
    """One trick: a rule on the update of any optimizer, neutral where a subclass says nothing else.

    A subclass names its ``phase`` and overrides what it needs of ``plan``, ``before_step``,
    ``after_step``, ``attach`` and ``check``.

    Args:
        include, exclude: see ``layers.weights.selection.select``.
        log: log what the rule measures (``train/…``) every ``Trainer(log_every_n_steps)`` steps.
    """

    @property
    @abstractmethod
    def phase(self) -> Phase:
        """When the rule acts: a class attribute of every subclass that can be used."""

    place: ClassVar[int] = 0
    """Order among the rules of one phase."""

    needs_old: ClassVar[bool] = False
    """Whether the rule reads theta, the weights before the step, which are kept only then."""

    repeatable: ClassVar[bool] = False
    """Whether a Trainer may hold several (with different parameters)."""

    exchanges_weights: bool = False
    """Whether validation shall see other weights than those being trained (``evaluated``)."""

    @property
    @abstractmethod
    def state_key(self) -> str:
        """The name of the rule's state in a checkpoint."""

    def __init__(self, include: Sequence[str] | None = None, exclude: Sequence[str] = (), *, log: bool = False) -> None:
        self.include = check_entries("include", include)
        self.exclude = check_entries("exclude", exclude) or []
        self.logs = log  # not `log`: there Lightning puts the module's method
        self._chosen: set[nn.Parameter] | None = None

    # What a subclass may say about itself.

    def settings(self) -> dict[str, Any]:
        """The arguments that change the training; they are printed, and compared on resume."""
        return {}

    def selection(self) -> dict[str, Any]:
        """Part of ``settings``: the selection where it differs from "everything"."""
        parts = {"include": self.include, "exclude": self.exclude}
        return {name: value for name, value in parts.items() if value is not None and (name, value) != ("exclude", [])}

    def __str__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.settings().items())})"

    def check(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise MisconfigurationException where the rule can't be right; before the optimizers exist."""

    # What the chain asks for.

    def choose(self, module: nn.Module) -> None:
        """Work out the selected parameters of the module."""
        if self.include is None and not self.exclude:
            self._chosen = None
            return
        defaults = DEFAULT_EXCLUDE if tuple(self.exclude) == DEFAULT_EXCLUDE else ()
        owner = type(self).__name__
        self._chosen = select(module, self.include, self.exclude, owner, may_match_nothing=defaults)
        if self.include and not self._chosen:
            raise ValueError(f"{owner}: exclude {self.exclude} removes all that include {self.include} selects")

    def chosen(self, parameter: nn.Parameter) -> bool:
        """Whether the rule acts on a parameter; known after ``choose``."""
        return self._chosen is None or parameter in self._chosen

    def lr_multiplier(self, parameter: nn.Parameter) -> float:
        """Factor on the group's learning rate for one parameter."""
        return 1.0

    def attach(self, chain: "UpdateChain", trainer: pl.Trainer) -> None:
        """The training starts (or goes on): weights, optimizer states and ``chain.steps`` are in place."""

    def detach(self, chain: "UpdateChain", trainer: pl.Trainer) -> None:
        """The training is over: undo what ``attach`` did to other objects."""

    def before_step(self, chain: "UpdateChain") -> None:
        """The gradients are complete, not yet clipped, and the weights not yet moved."""

    def plan(self, block: "Block") -> Action | None:
        """What to do to this block after each step; ``None`` for nothing, which keeps the update bit-identical."""
        return None

    def plan_after_constraint(self, block: "Block") -> Action | None:
        """What to do once a weight constraint has acted (only asked where there is one)."""
        return None

    def after_step(self, chain: "UpdateChain") -> None:
        """All rules have acted; ``chain.steps`` already counts this step."""

    def restart(self, chain: "UpdateChain") -> None:
        """Somebody set the weights and learning rates, emptied the optimizer, and trains on from there.

        Drop what was derived from the earlier ones; ``chain.steps`` goes on.
        """

    # State.

    def evaluated(self, chain: "UpdateChain") -> dict[str, Tensor] | None:
        """The weights by name that validation shall use instead of the present ones."""
        return None

    def on_dump(self, checkpoint: dict[str, Any]) -> None:
        """Last word on a checkpoint that is being written."""

    def measurements(self, chain: "UpdateChain") -> dict[str, float | Tensor]:
        """Figures of the last step by metric name; asked only where ``logs`` is set."""
        return {}

    def forget(self) -> None:
        """Drop the state of an earlier run; a checkpoint is loaded after this."""


def in_order(rules: Sequence[Rule]) -> list[Rule]:
    """The rules in the order in which they act."""
    return sorted(rules, key=lambda rule: (rule.phase, rule.place))


def write_lr(group: dict[str, Any], value: float) -> float:
    """Set a group's learning rate; returns it as the group holds it (a tensor may round)."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(value)
    else:
        group["lr"] = value
    return float(group["lr"])


@dataclass
class Block:
    """Parameters of one group, device, dtype and learning rate, updated together.

    Attributes:
        chain: the chain it belongs to.
        group: index of the optimizer's parameter group.
        multiplier: factor on the group's learning rate (``callbacks.ParameterwiseLR``).
        positions: positions of its parameters in ``chain.params``.
        stepped: for each of ``chain.params``, whether the optimizer moves it in this step (it has a gradient).
    """

    chain: "UpdateChain"
    group: int
    multiplier: float
    positions: list[int]
    stepped: tuple[bool, ...]

    def members(self, rule: Rule, *, stepped_only: bool) -> list[int]:
        """Positions of the parameters that the rule chose, optionally only those with a gradient in this step."""
        params = self.chain.params
        return [i for i in self.positions if (self.stepped[i] or not stepped_only) and rule.chosen(params[i])]

    def params(self, positions: Collection[int]) -> list[Tensor]:
        """The parameters at these positions, to be changed in place."""
        return [self.chain.params[i] for i in positions]

    def old(self, positions: Collection[int]) -> list[Tensor]:
        """theta: the weights before this step, in buffers that are filled anew at each step."""
        return [self.chain.old[i] for i in positions]

    def names(self, positions: Collection[int]) -> list[str]:
        """The names of the parameters at these positions."""
        return [self.chain.names[i] for i in positions]


class UpdateChain:
    """The rules that act on one optimizer, in phase order.

    Works without a Trainer: call ``before_step`` when the gradients are complete, then ``optimizer.step()``, then
    ``after_step`` (or register it as a step post hook).

    Args:
        optimizer: the base optimizer.
        rules: put in order here (``in_order``).
        module: gives the parameters their names.
        index: which of the module's optimizers this is; names the state in a checkpoint.
    """

    def __init__(self, optimizer: Optimizer, rules: Sequence[Rule], module: nn.Module, index: int = 0) -> None:
        self.optimizer = optimizer
        self.rules = in_order(rules)
        self.module = module
        self.index = index
        # Updates that really happened, counted where the optimizer's own step ends: batches, Lightning's global_step
        # and the attempts that a GradScaler skips all count something else.
        self.steps = 0
        self.params: list[nn.Parameter] = []
        self.names: list[str] = []
        self.old: dict[int, Tensor] = {}
        self.bind()

    @property
    def key(self) -> str:
        """Name of this optimizer's part of a rule's state."""
        return f"optimizer{self.index}"

    def bind(self) -> None:
        """Read the parameters of the optimizer's groups; again when a group was added (unfreezing)."""
        known = parameter_names(self.module)
        self.params, self.names = [], []
        for group_index, group in enumerate(self.optimizer.param_groups):
            for i, parameter in enumerate(group["params"]):
                self.params.append(parameter)
                # The optimizer may hold a parameter that no module registers: a position is a stable name, too.
                aliases = known.get(parameter, [f"{self.key}.group{group_index}.parameter{i}"])
                self.names.append(aliases[0])
        self.old = {}
        self._plans: dict[tuple[bool, ...], _Plan] = {}
        self._plan: _Plan | None = None
        self._inside_step = self._snapshot_taken = False

    def items(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Name and parameter of all that the optimizer holds, in its order."""
        return zip(self.names, self.params, strict=True)

    @torch.no_grad()
    def before_step(self) -> None:
        """Complete the gradients, set the learning rate and keep theta: after backward, before clipping."""
        if len(self.params) != sum(len(group["params"]) for group in self.optimizer.param_groups):
            self.bind()
        # A closure that is evaluated several times within one step (LBFGS) must not move theta.
        if self._inside_step and self._snapshot_taken:
            return
        self._snapshot_taken = True
        for rule in self.rules:
            rule.before_step(self)
        stepped = tuple(parameter.grad is not None for parameter in self.params)
        if stepped not in self._plans:
            if len(self._plans) >= 16:
                self._plans.clear()
            self._plans[stepped] = _Plan(self, stepped)
        self._plan = self._plans[stepped]
        if self._plan.snapshot:
            torch._foreach_copy_([self.old[i] for i in self._plan.snapshot], self._plan.snapshot_params)

    def enter_step(self, *_: Any) -> None:
        """Step pre hook: the optimizer's ``step`` begins.

        In full precision Lightning runs the closure, and so ``before_step``, within ``step``; under a GradScaler
        before it. Either way theta is copied once for each step.
        """
        self._inside_step, self._snapshot_taken = True, False

    @torch.no_grad()
    def after_step(self, *_: Any) -> None:
        """Step post hook: the base optimizer has written theta'; its learning rate is still in the groups."""
        plan, self._plan = self._plan, None
        self._inside_step = self._snapshot_taken = False
        if plan is None:  # a step that no `before_step` announced, for example by a warm-up of the user's own
            return
        learning_rates = [float(group["lr"]) if "lr" in group else 1.0 for group in self.optimizer.param_groups]
        for block, actions in plan.blocks:
            lr = learning_rates[block.group] * block.multiplier
            for action in actions:
                action(lr)
        self.steps += 1
        # Last in, first out: who changed a learning rate after another rule gives it back before that rule looks.
        for rule in reversed(self.rules):
            rule.after_step(self)


class _Plan:
    """What each rule does to which tensors, worked out once for each set of parameters that have a gradient."""

    def __init__(self, chain: UpdateChain, stepped: tuple[bool, ...]) -> None:
        readers = [rule for rule in chain.rules if rule.needs_old]
        self.snapshot = [
            i
            for i, parameter in enumerate(chain.params)
            if stepped[i] and any(rule.chosen(parameter) for rule in readers)
        ]
        self.snapshot_params = [chain.params[i] for i in self.snapshot]
        for i in self.snapshot:
            chain.old.setdefault(i, torch.empty_like(chain.params[i]))
        self.blocks: list[tuple[Block, list[Action]]] = []
        for block in _blocks(chain, stepped):
            actions = [rule.plan(block) for rule in chain.rules if rule.phase <= Phase.CONSTRAINT]
            if any(rule.phase == Phase.CONSTRAINT for rule in chain.rules):
                actions += [rule.plan_after_constraint(block) for rule in chain.rules]
            actions += [rule.plan(block) for rule in chain.rules if rule.phase > Phase.CONSTRAINT]
            if present := [action for action in actions if action is not None]:
                self.blocks.append((block, present))


def _blocks(chain: UpdateChain, stepped: tuple[bool, ...]) -> Iterator[Block]:
    """Split the parameters by group, device, dtype and learning rate, on a CPU also by size."""
    kinds: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    position = 0
    for group_index, group in enumerate(chain.optimizer.param_groups):
        for parameter in group["params"]:
            multiplier = 1.0
            for rule in chain.rules:
                multiplier *= rule.lr_multiplier(parameter)
            kinds[group_index, parameter.device, parameter.dtype, multiplier].append(position)
            position += 1
    for (group_index, device, _, multiplier), positions in kinds.items():
        limit = CPU_BLOCK_BYTES if device.type == "cpu" else float("inf")
        part: list[int] = []
        size = 0
        for i in positions:
            part.append(i)
            size += chain.params[i].nbytes
            if size >= limit:
                yield Block(chain, group_index, multiplier, part, stepped)
                part, size = [], 0
        if part:
            yield Block(chain, group_index, multiplier, part, stepped)


def check_argument(owner: str, argument: str, value: float, rule: str, ok: bool) -> None:
    """Raise a ValueError that names the argument, the value and the rule."""
    if not ok:
        raise ValueError(f"{owner}: {argument} ({value!r}) must be {rule}")
