"""The chain of rules that reshapes one optimizer's update: phases, cache-sized blocks, one snapshot.

Write any optimizer as theta' = theta - lr * h. A derived optimizer changes this update, whatever h is
(kexue.fm/archives/7094). Each trick is a rule. The chain keeps one copy of theta, taken once the gradients are complete
and before the optimizer moves the weights, and passes (theta, theta') to the rules in the order of their phases.
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
"""What a rule does to one block after the base optimizer's step, given the learning rate of that step."""

# On a CPU the rules run block by block, so that theta and theta' are read from memory once and then stay in the cache
# for all rules. On an accelerator a single block keeps the number of kernel launches small.
CPU_BLOCK_BYTES = 2**19


class Phase(IntEnum):
    """When a rule acts. The order is fixed, whatever the order in the YAML file."""

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
    """One trick: a rule that changes the update of any optimizer. The defaults change nothing.

    A subclass sets its ``phase`` and overrides the hooks it needs, mostly ``plan`` and ``before_step``.

    Args:
        include, exclude: the parameters to act on, see ``layers.weights.selection.select``.
        log: log the rule's ``measurements`` as ``train/…`` every ``Trainer(log_every_n_steps)`` steps.
    """

    @property
    @abstractmethod
    def phase(self) -> Phase:
        """When the rule acts; concrete subclasses set it as a class attribute."""

    place: ClassVar[int] = 0
    """Order among the rules of one phase."""

    needs_old: ClassVar[bool] = False
    """Whether the rule reads theta, the weights before the step; they are copied only if some rule does."""

    repeatable: ClassVar[bool] = False
    """Whether a Trainer may have several (for different parameters)."""

    works_on_shards: ClassVar[bool] = False
    """Whether parameters may be sharded by ``fully_shard``: the rule treats all elements alike and keeps none."""

    exchanges_weights: bool = False
    """Whether validation uses other weights (``evaluated``) than those being trained."""

    @property
    @abstractmethod
    def state_key(self) -> str:
        """Key of the rule's state in a checkpoint."""

    def __init__(self, include: Sequence[str] | None = None, exclude: Sequence[str] = (), *, log: bool = False) -> None:
        self.include = check_entries("include", include)
        self.exclude = check_entries("exclude", exclude) or []
        self.logs = log  # not `log`: there Lightning puts the module's method
        self._chosen: set[nn.Parameter] | None = None

    # Description.

    def settings(self) -> dict[str, Any]:
        """The arguments that change training; they are printed, and compared on resume."""
        return {}

    def selection(self) -> dict[str, Any]:
        """Part of ``settings``: ``include`` and ``exclude``, where they are not the defaults."""
        parts = {"include": self.include, "exclude": self.exclude}
        return {name: value for name, value in parts.items() if value is not None and (name, value) != ("exclude", [])}

    def __str__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.settings().items())})"

    def check(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise MisconfigurationException if the rule can't work here. The optimizers don't exist yet."""

    # Hooks, called by the chain and its session.

    def choose(self, module: nn.Module) -> None:
        """Find the module's selected parameters."""
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
        """Factor on the group's learning rate for this parameter."""
        return 1.0

    def attach(self, chain: "UpdateChain", trainer: pl.Trainer) -> None:
        """Training starts or resumes: weights, optimizer states and ``chain.steps`` are in place."""

    def detach(self, chain: "UpdateChain", trainer: pl.Trainer) -> None:
        """Training is over: undo what ``attach`` did to other objects."""

    def before_step(self, chain: "UpdateChain") -> None:
        """The gradients are complete but not clipped yet; the weights have not moved yet."""

    def plan(self, block: "Block") -> Action | None:
        """What to do to this block after each step; ``None`` leaves the update bit-identical."""
        return None

    def plan_after_constraint(self, block: "Block") -> Action | None:
        """What to do after a weight constraint has acted; called only if the chain has one."""
        return None

    def after_step(self, chain: "UpdateChain") -> None:
        """All rules have acted; ``chain.steps`` already includes this step."""

    def restart(self, chain: "UpdateChain") -> None:
        """Training continues from weights and learning rates that were set from outside, with an empty optimizer.

        Drop what was derived from the previous ones; ``chain.steps`` keeps counting.
        """

    # State.

    def evaluated(self, chain: "UpdateChain") -> dict[str, Tensor] | None:
        """The weights, by name, that validation uses instead of the current ones; ``None`` for no others."""
        return None

    def evaluated_buffers(self) -> dict[str, Tensor]:
        """The buffers, by name, that go with ``evaluated``, which the module has at the call; the others stay."""
        return {}

    def on_dump(self, checkpoint: dict[str, Any]) -> None:
        """Last changes to a checkpoint that is about to be written."""

    def measurements(self, chain: "UpdateChain") -> dict[str, float | Tensor]:
        """Values of the last step by metric name; called only if ``logs`` is set."""
        return {}

    def forget(self) -> None:
        """Drop the state of an earlier run. A checkpoint is loaded afterwards."""


def in_order(rules: Sequence[Rule]) -> list[Rule]:
    """The rules in the order in which they act: by phase, then place."""
    return sorted(rules, key=lambda rule: (rule.phase, rule.place))


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is divided among processes (a ``DTensor``, whose import takes a while)."""
    return hasattr(tensor, "device_mesh")


def local(tensor: Any) -> Tensor:
    """A tensor itself, or of a sharded one the part that this process has, in the same memory."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def like(parameter: Any, part: Tensor) -> Tensor:
    """What ``local`` gave, as it was: on the parameter's device, and sharded as it is."""
    part = part.to(parameter.device)
    if not is_sharded(parameter):
        return part
    return type(parameter.data).from_local(
        part, parameter.device_mesh, parameter.placements, shape=parameter.shape, stride=parameter.stride()
    )


def write_lr(group: dict[str, Any], value: float) -> float:
    """Set a group's learning rate; returns the value that the group then has (a tensor may round)."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(value)
    else:
        group["lr"] = value
    return float(group["lr"])


@dataclass
class Block:
    """Parameters of one group, device, dtype and learning rate, updated together.

    Attributes:
        chain: the chain that the block belongs to.
        group: index of the optimizer's parameter group.
        multiplier: factor on the group's learning rate (``callbacks.ParameterwiseLR``).
        positions: indices of its parameters in ``chain.params``.
        stepped: for each of ``chain.params``, whether it has a gradient in this step, so that the optimizer moves it.
    """

    chain: "UpdateChain"
    group: int
    multiplier: float
    positions: list[int]
    stepped: tuple[bool, ...]

    def members(self, rule: Rule, *, stepped_only: bool) -> list[int]:
        """Positions of the parameters that the rule acts on, optionally only of those with a gradient."""
        params = self.chain.params
        return [i for i in self.positions if (self.stepped[i] or not stepped_only) and rule.chosen(params[i])]

    def params(self, positions: Collection[int]) -> list[Tensor]:
        """The parameters at these positions, to be changed in place; of sharded ones, this process's part."""
        return [local(self.chain.params[i]) for i in positions]

    def old(self, positions: Collection[int]) -> list[Tensor]:
        """theta, the weights before this step, in buffers that are overwritten at each step."""
        return [self.chain.old[i] for i in positions]

    def names(self, positions: Collection[int]) -> list[str]:
        """The names of the parameters at these positions."""
        return [self.chain.names[i] for i in positions]


class UpdateChain:
    """The rules that act on one optimizer, in phase order.

    Works without a Trainer: call ``before_step`` when the gradients are complete, then ``optimizer.step()``, then
    ``after_step`` (or register ``after_step`` as a step post hook).

    Args:
        optimizer: the base optimizer.
        rules: in any order.
        module: gives the parameters their names.
        index: which of the module's optimizers this is; part of the state's key in a checkpoint.
    """

    def __init__(self, optimizer: Optimizer, rules: Sequence[Rule], module: nn.Module, index: int = 0) -> None:
        self.optimizer = optimizer
        self.rules = in_order(rules)
        self.module = module
        self.index = index
        # Updates that really happened, counted where the optimizer's own step ends: not batches, nor Lightning's
        # global_step, which includes the steps that a GradScaler skips.
        self.steps = 0
        self.params: list[nn.Parameter] = []
        self.names: list[str] = []
        self.old: dict[int, Tensor] = {}
        self.bind()

    @property
    def key(self) -> str:
        """Key of this optimizer's part of a rule's state."""
        return f"optimizer{self.index}"

    def bind(self) -> None:
        """Read the parameters of the optimizer's groups; done again when a group was added (unfreezing)."""
        known = parameter_names(self.module)
        self.params, self.names = [], []
        for group_index, group in enumerate(self.optimizer.param_groups):
            for i, parameter in enumerate(group["params"]):
                self.params.append(parameter)
                # The optimizer may hold a parameter that no module registers; its position is a stable name, too.
                aliases = known.get(parameter, [f"{self.key}.group{group_index}.parameter{i}"])
                self.names.append(aliases[0])
        self.old = {}
        self._plans: dict[tuple[bool, ...], _Plan] = {}
        self._plan: _Plan | None = None
        self._inside_step = self._snapshot_taken = False

    def items(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that the optimizer holds, in its order."""
        return zip(self.names, self.params, strict=True)

    @torch.no_grad()
    def before_step(self) -> None:
        """Let the rules change gradients and learning rate, and copy theta: after backward, before clipping."""
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

        In full precision Lightning runs the closure, and with it ``before_step``, within ``step``; with a GradScaler,
        before it. Either way theta is copied once per step.
        """
        self._inside_step, self._snapshot_taken = True, False

    @torch.no_grad()
    def after_step(self, *_: Any) -> None:
        """Step post hook: the base optimizer has written theta'; the groups still have the step's learning rate."""
        plan, self._plan = self._plan, None
        self._inside_step = self._snapshot_taken = False
        if plan is None:  # a step without `before_step`, for example in a warm-up of the user's own
            return
        learning_rates = [float(group["lr"]) if "lr" in group else 1.0 for group in self.optimizer.param_groups]
        for block, actions in plan.blocks:
            lr = learning_rates[block.group] * block.multiplier
            for action in actions:
                action(lr)
        self.steps += 1
        # Last in, first out: a rule that changed a learning rate after another one restores it before that one looks.
        for rule in reversed(self.rules):
            rule.after_step(self)


class _Plan:
    """What each rule does to which tensors, computed once for each set of parameters that have a gradient."""

    def __init__(self, chain: UpdateChain, stepped: tuple[bool, ...]) -> None:
        readers = [rule for rule in chain.rules if rule.needs_old]
        self.snapshot = [
            i
            for i, parameter in enumerate(chain.params)
            if stepped[i] and any(rule.chosen(parameter) for rule in readers)
        ]
        self.snapshot_params: list[Tensor] = [local(chain.params[i]) for i in self.snapshot]
        for i, parameter in zip(self.snapshot, self.snapshot_params, strict=True):
            chain.old.setdefault(i, torch.empty_like(parameter))
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


def check_argument(owner: str, argument: str, value: object, rule: str, ok: bool) -> None:
    """Raise a ValueError that names the argument, its value and the rule, unless ``ok``."""
    if not ok:
        raise ValueError(f"{owner}: {argument} ({value!r}) must be {rule}")
