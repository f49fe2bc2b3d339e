"""A run that is resumed with other settings: each change takes effect or is refused by name, and one line says which.

Optimizers and schedulers: see ``resumed_optimizers``. The rest::

    data.*, windows, limits     from the next epoch on; within an epoch, that epoch begins anew
    number of processes         within an epoch, that epoch begins anew
    data.*, limit_val_batches   what was the best so far is forgotten: it was measured otherwise
    callbacks added             begin now, at the step of the checkpoint
    callbacks changed           go on with their state and the new arguments
    callbacks dropped           are gone; of an average, its weights too: training continues from the trained ones
    other options               as in a new run
    seed_everything             refused: the random states are those of the checkpoint
    what only a new run reads   refused (``only_read_by_new_runs`` of a module)
    what training rests on      not dropped: Lookahead, a second stage, torch's average of a run that has begun it
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import WeightAveraging

from callbacks.update_chain.chain import write_lr
from callbacks.update_chain.checks import restore_raw_weights

from ..arguments import nested
from ..classes import import_class, is_importable, parameters
from ..console import say
from ..errors import UserError
from ..parsing.callback_edits import split_edits
from ..private_api import (
    begin_epoch_anew,
    continue_as_new,
    epochs_trained,
    has_data_position,
    is_mid_epoch,
    set_max_steps,
)
from .resumed_optimizers import (
    NEW_RUN,
    apply_changes,
    as_configured,
    forget_measures,
    forget_other_schedulers,
    refuse_other_optimizers,
)

Config = dict[str, Any]
_NOTHING = object()
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
# Settings with which an epoch consists of other batches or windows, so that a position in it means nothing.
_OF_AN_EPOCH = (
    "data",
    "trainer.limit_train_batches",
    "trainer.overfit_batches",
    "trainer.accumulate_grad_batches",
    "GradientAccumulation",
)
# Settings with which a metric of the validation is another.
_OF_A_SCORE = ("data", "trainer.limit_val_batches")
_OF_TRAINING_ALONE = ("data.batch_size", "data.num_workers")


class ResumedSettings(pl.Callback):
    """The first of a run's callbacks: what changed takes effect before any other sees what was restored.

    Its state in the checkpoint is how the optimizers were configured.

    Args:
        config: the configuration, plain values.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._now: dict[str, Any] = {}
        self._saved: dict[str, Any] | None = None
        self._checkpoint: dict[str, Any] | None = None
        self._position: dict[str, int] = {}
        self._arguments: list[tuple[pl.Callback, str, Any]] = []
        self._is_same_model = False
        self._begins_anew = False
        self._is_measured_otherwise = False
        self._changed: set[str] = set()

    def state_dict(self) -> dict[str, Any]:
        return dict(self._now)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = {name: list(state_dict[name]) for name in ("optimizers", "schedulers")}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn != "fit":
            return
        self._checkpoint = checkpoint
        before: Config | None = checkpoint.get("experiment", {}).get("config")
        changes = dict(differences(before, self.config)) if before is not None else {}
        self._is_same_model = before is not None and before.get("model") == self.config.get("model")
        self._changed = set(changes)
        self._is_measured_otherwise = any(
            key.startswith(_OF_A_SCORE) and key not in _OF_TRAINING_ALONE for key in self._changed
        )
        refuse_dropped(trainer, checkpoint)
        if changes:
            say("changed since the checkpoint: " + ", ".join(changes.values()))
        self._arguments = [
            (callback, name, vars(callback)[name])
            for callback in trainer.callbacks  # type: ignore[attr-defined]
            for name in parameters(type(callback))
            if name in vars(callback) and f"{type(callback).__name__}.{name}" in changes
        ]
        steps = checkpoint["global_step"]
        self._position = {"epoch": epochs_trained(checkpoint), "step": steps}
        self._restore_trained_weights(trainer, pl_module, checkpoint)
        self._forget_scores(trainer, checkpoint)
        reason = next((f"{key} changed" for key in changes if key.startswith(_OF_AN_EPOCH)), None)
        processes = len(checkpoint.get("experiment", {}).get("random_states", []))
        if processes not in (0, trainer.world_size):
            reason = f"processes {processes} -> {trainer.world_size}"
        if before is None and not has_data_position(checkpoint):
            reason = "the checkpoint has no position in the data"
        if reason and is_mid_epoch(checkpoint):
            self._begins_anew = True
            begin_epoch_anew(checkpoint, pl_module.automatic_optimization)
            say(f"epoch {checkpoint['epoch']} begins anew: {reason}")

    @staticmethod
    def _restore_trained_weights(
        trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Where an average was dropped, whose weights are those in the checkpoint's ``state_dict``."""
        restore_raw_weights(checkpoint, pl_module)
        callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        trained = checkpoint.get("current_model_state")
        if trained is not None and not any(isinstance(callback, WeightAveraging) for callback in callbacks):
            pl_module.load_state_dict(trained)

    def _forget_scores(self, trainer: pl.Trainer, checkpoint: dict[str, Any]) -> None:
        """What a callback saw of one metric says nothing about another, nor about that of other data."""
        names = {key.split(".")[0] for key in self._changed if key.endswith((".monitor", ".mode"))}
        if self._is_measured_otherwise:
            names |= {
                callback.state_key
                for callback in trainer.callbacks  # type: ignore[attr-defined]
                if getattr(callback, "monitor", None)
            }
        for name in names:
            state = checkpoint.get("callbacks", {}).get(name, {})
            if not (state.get("switched") or state.get("averaging")):  # then it does not matter any more
                checkpoint["callbacks"].pop(name, None)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._max_steps = trainer.max_steps
        self._now = as_configured(trainer)
        if self._checkpoint is None:
            return
        refuse_other_optimizers(trainer, self._checkpoint, self._saved, self._now)
        forget_other_schedulers(self._checkpoint, self._saved, self._now)
        if self._is_measured_otherwise:
            forget_measures(self._checkpoint, self._now)
        self._checkpoint = None  # it holds the weights
        for callback, name, value in self._arguments:
            setattr(callback, name, value)  # some keep their arguments in their state, too

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._position:
            return
        self._checkpoint = None
        if self._begins_anew:
            continue_as_new(trainer)
        saved = self._saved
        if saved is None and self._is_same_model:
            self._position = {}
            return
        before = [_rates(optimizer) for optimizer in trainer.optimizers]
        steps = self._position["step"] // max(len(trainer.optimizers), 1)
        set_max_steps(trainer, self._max_steps)  # RunCheckpoints lifted it while the loops were restored
        apply_changes(trainer, pl_module, saved, self._now, self._position | {"step": steps})
        self._position = {}
        self._second_stage(trainer, before)

    def _second_stage(self, trainer: pl.Trainer, before: list[list[float]]) -> None:
        """In a second stage the learning rate is that of ``TwoStageTraining``."""
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        stage = next((callback for callback in callbacks if getattr(callback, "switched", False)), None)
        if stage is None:
            return
        if before != [_rates(optimizer) for optimizer in trainer.optimizers]:
            raise UserError(
                "model.lr: the run is in the second stage of TwoStageTraining, which has a rate of its own: change its "
                "second_lr"
            )
        if "TwoStageTraining.second_lr" in self._changed:
            for optimizer in trainer.optimizers:
                for group in optimizer.param_groups:
                    write_lr(group, stage.second_lr)


def _rates(optimizer: Any) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups if "lr" in group]


# ------------------------------------------------------------------------------------------------------ what changed


def differences(before: Config, now: Config) -> Iterator[tuple[str, str]]:
    """Key and description of each setting that differs; an argument of a callback has the key ``CLASS.ARGUMENT``."""
    of_run = ("check_finite", "compile", "float32_matmul_precision")
    known = [name for name in of_run if name in before]  # not in runs of earlier versions
    for section in ("seed_everything", "save_every", "min_steps", *known, "model", "data"):
        yield from _differences(section, before.get(section, _NOTHING), now.get(section, _NOTHING))
    trainers = [dict(config.get("trainer") or {}) for config in (before, now)]
    old, new = (_by_class(trainer.pop("callbacks", None)) for trainer in trainers)
    yield from _differences("trainer", *trainers)
    for name in dict.fromkeys((*old, *new)):
        short = name[0].rsplit(".", 1)[-1]
        if name not in new:
            yield short, f"{short} dropped"
        elif name not in old:
            yield short, f"{short} added"
        else:
            yield from _differences(short, old[name], new[name])


def changes_of_model(before: Config | None, now: Config) -> list[str]:
    """The keys of the model's settings that differ; none if it is not known how they were."""
    return [key for key, _ in _differences("model", before.get("model"), now["model"])] if before else []


def _by_class(callbacks: Any) -> dict[tuple[str, int], Config]:
    """The arguments of callbacks by class, several of one class numbered."""
    found: dict[tuple[str, int], Config] = {}
    for callback in callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []:
        name = callback["class_path"]
        number = sum(other == name for other, _ in found)
        found[name, number] = callback.get("init_args") or {}
    return found


def _differences(key: str, before: Any, now: Any) -> Iterator[tuple[str, str]]:
    if before == now:
        return
    if isinstance(before, dict) and isinstance(now, dict):
        if before.get("class_path") != now.get("class_path"):
            yield key, f"{key} {_shown(before.get('class_path'))} -> {_shown(now.get('class_path'))}"
            return
        for name in dict.fromkeys((*before, *now)):
            inner = key if name == "init_args" else f"{key}.{name}"
            yield from _differences(inner, before.get(name, _NOTHING), now.get(name, _NOTHING))
        return
    yield key, f"{key} {_shown(before)} -> {_shown(now)}"


def _shown(value: Any) -> str:
    if isinstance(value, dict) and "class_path" in value:
        value = value["class_path"]
    if isinstance(value, str) and "." in value and is_importable(value):
        return value.rsplit(".", 1)[-1]
    text = "nothing" if value is _NOTHING else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


# --------------------------------------------------------------------------------------------------- what is refused


def refuse_what_only_a_new_run_reads(before: Config | None, now: Config) -> None:
    """Refuses options that a resumed run would ignore.

    Args:
        before: the configuration in the checkpoint; None: it has none.
        now: that of the run.

    Raises:
        UserError: names the first one.
    """
    if before is None:
        return
    if before.get("seed_everything") != now.get("seed_everything"):
        raise UserError(
            "--seed_everything: a resumed run continues with the random states of its checkpoint; leave it out, "
            "or start a new run"
        )
    model = now["model"]
    if not is_importable(model["class_path"]) or before["model"]["class_path"] != model["class_path"]:
        raise UserError(
            f"model: the checkpoint is of {_shown(before['model']['class_path'])}: keep the model, or start a new run"
        )
    for name in getattr(import_class(model["class_path"]), "only_read_by_new_runs", ()):
        if before["model"].get("init_args", {}).get(name) != model.get("init_args", {}).get(name):
            raise UserError(
                f"--model.{name}: only a new run reads it, a resumed one has it from its checkpoint; leave it out, "
                "or start a new run"
            )


def refuse_new_settings(file: str, run: Config) -> None:
    """Refuses an add-on or variant that says other than the run that is resumed: such files are not read again.

    Args:
        file: a configuration file; one that names a model is an experiment, and may be that of the run.
        run: the run's configuration.

    Raises:
        UserError: names the first setting that the run does not have.
    """
    given, drops, changes = split_edits(Path(file).read_text())
    given = nested(given)
    if "class_path" in (given.get("model") or {}):
        return
    trainer = dict(given.get("trainer") or {})
    added = trainer.pop("callbacks+", None) or []
    names = [_short_name(entry) for entry in (added if isinstance(added, list) else [added])]
    present = {
        name.rpartition(".")[2]: arguments
        for (name, _), arguments in _by_class(run["trainer"].get("callbacks")).items()
    }
    new = [f"the callback {name}" for name in names if name not in present]
    new += [f"callbacks-: {name}" for name in drops if name in present]
    for name, argument, value in changes:
        arguments = {argument: value} if argument else value.get("init_args", value)
        new += _not_held(f"trainer.callbacks.{name}", present.get(name, {}), arguments)
    new += _not_held("", run, given | {"trainer": trainer})
    if new:
        raise UserError(
            f"--resume: {file} sets {new[0]}, which the run has not: give what should change as an option "
            "(--trainer.callbacks+=NAME, --KEY=VALUE)"
        )


def _not_held(key: str, run: Any, given: Any) -> Iterator[str]:
    """The settings of a file that differ from a run's; classes are compared by their last name."""
    if isinstance(run, dict) and isinstance(given, dict):
        arguments = run.get("init_args") or {}  # which a file may name without it
        for name, value in given.items():
            inner = key if name == "init_args" else f"{key}.{name}".lstrip(".")
            yield from _not_held(inner, run.get(name, arguments.get(name)), value)
    elif _short_name(run) != _short_name(given) and (run or given):
        yield key


def _short_name(value: Any) -> Any:
    """The last part of a class's name, however it is written; a number that YAML takes for text (1e-3); other values as
    they are."""
    value = value.get("class_path") if isinstance(value, dict) else value
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    return value.rpartition(".")[2] if isinstance(value, str) else value


def refuse_dropped(trainer: pl.Trainer, checkpoint: dict[str, Any]) -> None:
    """Refuses to go on without callbacks on whose state training rests.

    Raises:
        UserError: names the first one.
    """
    present = {callback.state_key for callback in trainer.callbacks}  # type: ignore[attr-defined]
    for key, state in checkpoint.get("callbacks", {}).items():
        name = key.split("{")[0]
        begun = {"StochasticWeightAveraging": "n_averaged", "TwoStageTraining": "switched"}.get(name)
        if key not in present and begun and state.get(begun):
            raise UserError(
                f"trainer.callbacks: {name} has begun to set learning rate and weights, so it can't be dropped: keep "
                f"it, {NEW_RUN}"
            )
