"""The base of all derived optimizers: a Lightning callback that is one rule of the shared update chain."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import pytorch_lightning as pl
from torch import Tensor, nn
from torch.optim import Optimizer

from callbacks.chain_session import ChainSession
from callbacks.update_chain import Action, Block, Phase, UpdateChain
from layers.parameter_selection import DEFAULT_EXCLUDE, check_entries, select


class UpdateRule(pl.Callback, ABC):
    """One rule on the update of any optimizer; all rules of a Trainer share one chain for each optimizer.

    A subclass names its ``phase`` and overrides what it needs of :meth:`plan`, :meth:`before_step`,
    :meth:`after_step`, :meth:`attach` and :meth:`check`. The first rule in the Trainer's list runs the chain for all
    of them (see :class:`callbacks.chain_session.ChainSession`), so the order in the list never matters.

    Args:
        include, exclude: see :func:`layers.parameter_selection.select`.
        log: log what the rule measures (``train/…``) every ``Trainer(log_every_n_steps)`` steps.
    """

    @property
    @abstractmethod
    def phase(self) -> Phase:
        """When the rule acts: a class attribute of every subclass that can be used."""

    place: ClassVar[int] = 0
    """Order among the rules of one phase."""

    needs_old: ClassVar[bool] = False
    """Whether the rule reads the weights before the step, which are kept only then."""

    repeatable: ClassVar[bool] = False
    """Whether a Trainer may hold several (with different parameters)."""

    exchanges_weights: bool = False
    """Whether validation shall see other weights than those being trained (:meth:`evaluated`)."""

    def __init__(self, include: Sequence[str] | None = None, exclude: Sequence[str] = (), *, log: bool = False) -> None:
        self.include = check_entries("include", include)
        self.exclude = check_entries("exclude", exclude) or []
        self.logs = log  # not `log`: there Lightning puts the module's method
        self.session: ChainSession | None = None
        self._chosen: set[nn.Parameter] | None = None

    # What a subclass may say about itself.

    def settings(self) -> dict[str, Any]:
        """The arguments that change the training; they are printed, and compared on resume."""
        return {}

    def selection(self) -> dict[str, Any]:
        """Part of :meth:`settings`: the selection where it differs from "everything"."""
        parts = {"include": self.include, "exclude": self.exclude}
        return {name: value for name, value in parts.items() if value is not None and (name, value) != ("exclude", [])}

    def __str__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.settings().items())})"

    def check(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise MisconfigurationException where the rule can't be right; before the optimizers exist."""

    # What the chain asks for (callbacks.update_chain.Rule).

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
        """Whether the rule acts on a parameter; known after :meth:`choose`."""
        return self._chosen is None or parameter in self._chosen

    def lr_multiplier(self, parameter: nn.Parameter) -> float:
        """Factor on the group's learning rate for one parameter."""
        return 1.0

    def attach(self, chain: UpdateChain, trainer: pl.Trainer) -> None:
        """The training starts (or goes on): weights, optimizer states and ``chain.steps`` are in place."""

    def detach(self, chain: UpdateChain, trainer: pl.Trainer) -> None:
        """The training is over: undo what :meth:`attach` did to other objects."""

    def before_step(self, chain: UpdateChain) -> None:
        """The gradients are complete, not yet clipped, and the weights not yet moved."""

    def plan(self, block: Block) -> Action | None:
        """What to do to this block after each step; ``None`` for nothing, which keeps the update bit-identical."""
        return None

    def plan_after_constraint(self, block: Block) -> Action | None:
        """What to do once a weight constraint has acted (only asked where there is one)."""
        return None

    def after_step(self, chain: UpdateChain) -> None:
        """All rules have acted; ``chain.steps`` already counts this step."""

    def restart(self, chain: UpdateChain) -> None:
        """Somebody set the weights and learning rates, emptied the optimizer, and trains on from there.

        Drop what was derived from the earlier ones; ``chain.steps`` goes on (:meth:`ChainSession.restart`).
        """

    # State.

    def evaluated(self, chain: UpdateChain) -> dict[str, Tensor] | None:
        """The weights by name that validation shall use instead of the present ones."""
        return None

    def on_dump(self, checkpoint: dict[str, Any]) -> None:
        """Last word on a checkpoint that is being written."""

    def measurements(self, chain: UpdateChain) -> dict[str, float | Tensor]:
        """Figures of the last step by metric name; asked only where ``logs`` is set."""
        return {}

    # Lightning's hooks. Each is forwarded by every rule; the session listens to the first one alone.

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        rules = [callback for callback in trainer.callbacks if isinstance(callback, UpdateRule)]
        if rules[0] is not self:
            return
        if self.session is not None:
            self.session.close()
        session = ChainSession(trainer, pl_module, rules) if stage == "fit" else None
        for rule in rules:
            rule.session = session
            rule.forget()
        if session is not None:
            session.check()

    def forget(self) -> None:
        """Drop the state of an earlier run; a checkpoint is loaded after this."""

    @property
    def _leads(self) -> ChainSession | None:
        return self.session if self.session is not None and self.session.rules_in_list[0] is self else None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if session := self._leads:
            session.build()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if session := self._leads:
            session.start()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if session := self._leads:
            session.before_batch()

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if session := self._leads:
            session.after_backward()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        if session := self._leads:
            session.before_step(optimizer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if session := self._leads:
            session.log_measurements()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if (session := self._leads) and not trainer.sanity_checking:
            session.swap_in()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # The last rule gives the raw weights back, so that pictures drawn between two rules see the evaluated ones.
        if self.session is not None and self.session.rules_in_list[-1] is self:
            self.session.swap_out()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if session := self._leads:
            session.finish()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if session := self._leads:
            session.close()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if session := self._leads:
            session.close()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if session := self._leads:
            session.dump(checkpoint)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if session := self._leads:
            session.load(checkpoint)


def check_number(owner: str, argument: str, value: float, rule: str, ok: bool) -> None:
    """Raise a ValueError that names the argument, the value and the rule."""
    if not ok:
        raise ValueError(f"{owner}: {argument} ({value!r}) must be {rule}")
