"""The base class of all derived optimizers: a Lightning callback that is one rule of the shared update chain."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn
from torch.optim import Optimizer

from .chain import Rule
from .session import ChainSession


def rules_of(trainer: pl.Trainer) -> list["UpdateRule"]:
    """The rules among a Trainer's callbacks, in the order of its list."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, UpdateRule)]


def in_training(trainer: pl.Trainer) -> bool:
    """Whether a validation is one of ``fit``, and not its sanity check."""
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


class UpdateRule(pl.Callback, Rule):
    """A rule as a callback. All rules of a Trainer share one chain per optimizer.

    The first rule in the Trainer's list runs the chain for all of them (see
    ``callbacks.update_chain.session.ChainSession``), so the order of the list doesn't matter.

    Args:
        include, exclude, log: see ``callbacks.update_chain.Rule``.
    """

    def __init__(self, include: Sequence[str] | None = None, exclude: Sequence[str] = (), *, log: bool = False) -> None:
        super().__init__(include, exclude, log=log)
        self.session: ChainSession | None = None

    # Lightning's hooks. Lightning calls them on every rule; only the first one forwards them to the session.

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        rules = rules_of(trainer)
        if rules[0] is not self:
            return
        if stage != "fit" and self.session is not None and self.session.pl_module is pl_module:
            return  # what was trained may still be saved after a test
        self._begin(rules, ChainSession(trainer, pl_module, rules) if stage == "fit" else None)
        if self.session is not None:
            self.session.check()

    def _begin(self, rules: Sequence["UpdateRule"], session: ChainSession | None) -> None:
        if self.session is not None:
            self.session.close()
        for rule in rules:
            rule.session = session
            rule.forget()

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
        if (session := self._leads) and in_training(trainer):
            session.swap_in()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # The last rule restores the raw weights, so that callbacks between two rules still see the evaluated ones.
        if self.session is not None and self.session.rules_in_list[-1] is self and in_training(trainer):
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

    process_states: list[Any] | None = None  # gathered for a checkpoint

    def process_state(self) -> Any:
        """What a checkpoint holds of this process: the chain's unused gradients."""
        return session.partial_gradients() if (session := self._leads) else None

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if session := self._leads:
            session.dump(checkpoint, self.process_states)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if session := self._leads:
            if trainer.state.fn == TrainerFn.FITTING:
                session.load(checkpoint)
            else:  # a test of other weights than those that were trained
                self._begin(rules_of(trainer), None)
