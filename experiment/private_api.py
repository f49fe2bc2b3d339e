"""All that the command line uses of other libraries without their promise to keep it: the private doors.

Each function is one door: what it does, and why no public way exists. Below them are jsonargparse's English messages,
as patterns. ``tests/experiment/test_private_api.py`` goes through each door and names the one that closed,
``test_parser_messages.py`` the message whose words differ; pyproject.toml admits only minor versions of Lightning and
jsonargparse that were tried.
"""

import re
import signal
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytorch_lightning as pl
from jsonargparse import DefaultHelpFormatter
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

# The versions that all of it was tried with.
TRIED = {"pytorch-lightning": "2.6.6", "jsonargparse": "4.53.0", "torch": "2.13.0"}

# --------------------------------------------------------------------------------------------------- the command line


def recording_instantiator(cli: LightningCLI, key: str) -> Callable[..., Any]:
    """What builds the class at ``key`` and gives it its configuration as hyperparameters, for its checkpoints.

    LightningCLI registers it by itself, but with all links to the data, those included that the class doesn't take.
    """
    from pytorch_lightning.cli import _InstantiatorFn

    return _InstantiatorFn(cli, key)


def parser_actions(parser: LightningArgumentParser) -> list[Any]:
    """The options of a parser, each with ``dest``, ``help`` and ``option_strings``.

    argparse can print its options, but not list them.
    """
    return parser._actions


def forget_links(parser: LightningArgumentParser, key: str) -> None:
    """Takes back all links of a parser, whose targets are arguments of the class at ``key``.

    jsonargparse can only add links; ours depend on the class that is chosen during parsing.
    """
    if hasattr(parser, "_links_group"):  # there since the first link
        parser._links_group._group_actions.clear()
        action: Any = next(action for action in parser._actions if action.dest == key)
        action.sub_add_kwargs["linked_targets"] = set()


def help_formatter(plain: Callable[[str], str]) -> type[DefaultHelpFormatter]:
    """A formatter of ``--help`` and ``--print_config=comments`` that passes the text of each option through a function.

    argparse promises only the names of its formatters; after it has wrapped the lines, words are cut.
    """

    class Formatter(DefaultHelpFormatter):
        def _expand_help(self, action: Any) -> str:
            return plain(super()._expand_help(action))

    return Formatter


def start_from_own_defaults() -> None:
    """From here on, a class that replaces another in a configuration starts from its own defaults.

    jsonargparse keeps those arguments of the old class that the new one has too, even where they were only defaults:
    ``encoder: DIMEncoder`` would get the code size of the default ``BlogEncoder``. There is no setting for it.
    """
    import jsonargparse._typehints as typehints

    def drop_arguments_of_other_class(parser_or_action: Any, previous: Any, value: Any) -> None:
        if previous and "init_args" in previous and previous["class_path"] != value["class_path"]:
            arguments = previous["init_args"]
            for name in list(arguments.keys() if isinstance(arguments, dict) else vars(arguments)):
                del arguments[name]

    typehints.discard_init_args_on_class_path_change = drop_arguments_of_other_class


# -------------------------------------------------------------------------------------------------------- the Trainer


def waits_for_gradients(trainer: pl.Trainer) -> bool:
    """Whether the optimizer step of the present batch is still to come, after more batches.

    Lightning shows callbacks the number of batches to accumulate, but not where in such a window it is.
    """
    return trainer.fit_loop._should_accumulate()


def ends_early(trainer: pl.Trainer) -> bool:
    """Whether the run ends after the present batch because ``trainer.should_stop`` is set (``max_time``), not by steps.

    ``min_epochs`` and ``min_steps`` may keep it from that; the Trainer does not tell. Lightning validates before.
    """
    return trainer.should_stop and trainer.fit_loop._can_stop_early


def batches_trained(trainer: pl.Trainer) -> int:
    """Batches of all epochs so far, the present one included.

    The Trainer tells steps, and the batches of the present epoch, but not this.
    """
    return trainer.fit_loop.epoch_loop.total_batch_idx + 1


def logs_now(trainer: pl.Trainer) -> bool:
    """Whether Lightning logs metrics after the present batch, by ``log_every_n_steps``.

    It counts steps in its own way (see ``logged_step``), and tells nobody.
    """
    return trainer._logger_connector.should_update_logs


def logged_step(trainer: pl.Trainer) -> int:
    """The ``step`` that Lightning logs with: optimizer steps so far, counted once a batch with several optimizers.

    ``trainer.global_step`` counts each optimizer.
    """
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def metrics_to_log(trainer: pl.Trainer) -> dict[str, Any]:
    """The metrics that Lightning hands to the loggers after the callbacks' present hook.

    ``trainer.logged_metrics`` has those that were logged before.
    """
    return trainer._logger_connector.metrics["log"]


def is_at_epoch_end(checkpoint: dict[str, Any]) -> bool:
    """Whether a checkpoint was written in ``on_train_epoch_end``.

    Its ``epoch`` is the same as within that epoch; only the state of Lightning's loops tells.
    """
    progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
    return progress["processed"] == progress["ready"]


def is_mid_epoch(checkpoint: dict[str, Any]) -> bool:
    """Whether batches of an epoch that had begun were still to come."""
    loop = checkpoint["loops"]["fit_loop"]
    return not (is_at_epoch_end(checkpoint) or loop["epoch_loop.batch_progress"]["is_last_batch"])


def within_epoch(checkpoint: dict[str, Any]) -> None:
    """Makes a checkpoint resume within its epoch, which ``max_steps`` or ``max_time`` cut short.

    Lightning counts such an epoch as complete: resumed, it would begin the next one.
    """
    loop = checkpoint["loops"]["fit_loop"]
    for count in ("total", "current"):
        epochs, batches = loop["epoch_progress"][count], loop["epoch_loop.batch_progress"][count]
        epochs["processed"] = epochs["completed"] = epochs["started"] - 1
        # Resumed, Lightning counts the last batch and its step itself.
        batches["completed"] = batches["processed"] - 1
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1


def epochs_trained(checkpoint: dict[str, Any]) -> int:
    """The epochs of which all batches were trained; ``epoch`` in a checkpoint is that in which it was written."""
    processed = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    return processed + (not is_at_epoch_end(checkpoint) and not is_mid_epoch(checkpoint))


def has_data_position(checkpoint: dict[str, Any]) -> bool:
    """Whether a checkpoint holds the position of the loaders, with which an epoch can be continued."""
    return bool(checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader"))


def begin_epoch_anew(checkpoint: dict[str, Any], counts_steps: bool) -> None:
    """Changes a checkpoint from within an epoch: resumed, it begins that epoch anew, with ``continue_as_new``.

    Args:
        checkpoint: changed in place.
        counts_steps: ``global_step`` counts the steps as the loggers do (automatic optimization).

    Only the state of Lightning's loops tells the batches that are done.
    """
    loop = checkpoint["loops"]["fit_loop"]
    for count in ("total", "current"):
        progress = loop["epoch_progress"][count]
        progress |= dict.fromkeys(("ready", "started", "completed"), progress["processed"])
        batches = loop["epoch_loop.batch_progress"][count]
        done = batches["processed"] if count == "total" else 0
        batches |= dict.fromkeys(("ready", "started", "processed", "completed"), done)
    loop["state_dict"].pop("combined_loader", None)
    state = loop["epoch_loop.state_dict"]
    # Lightning counts the last step only when it resumes.
    state["_batches_that_stepped"] = (
        checkpoint["global_step"] if counts_steps else state.get("_batches_that_stepped", 0) + 1
    )


def continue_as_new(trainer: pl.Trainer) -> None:
    """Has the next epoch begin as in a run that was not resumed; in ``on_train_start``."""
    trainer.fit_loop.restarting = False


def resumes_within_epoch(trainer: pl.Trainer) -> bool:
    """Whether the run was resumed within an epoch, whose ``on_train_epoch_start`` Lightning then skips.

    To be asked in ``on_train_start``. The Trainer's public attributes tell only the epoch.
    """
    return trainer.fit_loop.restarted_mid_epoch or trainer.fit_loop.restarted_on_epoch_end


def set_max_steps(trainer: pl.Trainer, max_steps: int) -> None:
    """Changes ``trainer.max_steps``, which can only be read.

    With ``max_steps``, Lightning takes an epoch for unfinished whose checkpoint was written at its end: it counts a
    step too many. Without, while it restores, the run continues with the next epoch.
    """
    trainer.fit_loop.epoch_loop.max_steps = max_steps


def leave_signals_alone(trainer: pl.Trainer) -> None:
    """Keeps the Trainer from setting its own handlers of signals.

    Lightning's handler of SIGTERM starts a collective operation wherever the process happens to be, and ends the
    process with status 0; its handler for SLURM writes a checkpoint in the middle of a step. There is no setting.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


def requeue_signal(trainer: pl.Trainer) -> int | None:
    """The signal by which SLURM announces the end of a job that is to be requeued; None without auto-requeueing.

    The Trainer shows its strategy, but not the environment that it found.
    """
    from pytorch_lightning.plugins.environments import SLURMEnvironment

    environment = trainer._accelerator_connector.cluster_environment
    if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
        return None
    return environment.requeue_signal or signal.SIGUSR1


def child_processes(trainer: pl.Trainer) -> list[Any]:
    """The processes that the Trainer started for the other devices, as ``subprocess.Popen``.

    Strategies have a launcher, whose processes are its own business.
    """
    return list(getattr(trainer.strategy.launcher, "procs", []))


def start_children_within(trainer: pl.Trainer, context: Callable[[], AbstractContextManager[None]]) -> None:
    """Has the Trainer start the processes for the other devices, if it starts any, within ``context()``.

    There is no hook between the start of a process and the time from which the launcher knows it.
    """
    launcher: Any = trainer.strategy.launcher
    if (start := getattr(launcher, "_call_children_scripts", None)) is not None:

        def start_within() -> None:
            with context():
                start()

        launcher._call_children_scripts = start_within


def dump_checkpoint(trainer: pl.Trainer) -> dict[str, Any]:
    """What ``trainer.save_checkpoint`` writes; that waits for all processes, and this does not."""
    return trainer._checkpoint_connector.dump_checkpoint()


def before_validation(checkpoint: dict[str, Any]) -> None:
    """Changes a checkpoint that was made during a validation within the training: resumed, it validates from the start.

    The state of Lightning's loops says how far the validation is; resumed, it would do the rest alone.
    """
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    done = progress["total"]["completed"] - progress["current"]["completed"]
    # A first batch that was started, and not finished.
    for name, count in (("total", done), ("current", 0)):
        progress[name] |= {"ready": count + 1, "started": count + 1, "processed": count, "completed": count}
    progress["is_last_batch"] = False


# Module and name of those functions within which a Trainer or ``load_from_checkpoint`` restores.
RESTORING = {
    ("pytorch_lightning.trainer.connectors.checkpoint_connector", "_restore_modules_and_callbacks"),
    ("pytorch_lightning.trainer.connectors.checkpoint_connector", "restore_training_state"),
    ("pytorch_lightning.core.saving", "_load_from_checkpoint"),
}


def raised_while_restoring(error: BaseException) -> bool:
    """Whether Lightning was restoring a checkpoint when the error was raised, not writing one or training.

    Lightning raises whatever a damaged checkpoint provokes, and has no hook around all that it restores.
    """
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any((frame.f_globals.get("__name__"), frame.f_code.co_name) in RESTORING for frame in frames)


def trains_in_children(trainer: pl.Trainer) -> bool:
    """Whether the Trainer does its work in processes forked or spawned from this one (``ddp_spawn``, ``ddp_fork`` ...).

    The launchers are not public.
    """
    from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher

    return isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)


def limit_batch_sizes(finder: pl.callbacks.BatchSizeFinder, fits: Callable[[int], bool]) -> None:
    """Keeps a ``BatchSizeFinder`` from batch sizes of which the data has no whole batch.

    It doubles the size until memory is full. Its ``max_val`` stops it only after it has built loaders of a larger one.
    """
    size, trials = finder._init_val, 1
    while trials < finder._max_trials and fits(2 * size):
        size, trials = 2 * size, trials + 1
    finder._max_trials = trials


# ------------------------------------------------------------------------------------------------ loggers, processors


def give_loggers_a_folder() -> None:
    """From here on ``TensorBoardLogger`` and ``CSVLogger`` need no ``save_dir``: as W&B's, it is "." by default.

    Without a default the parser refuses them before the run folder is known.
    """
    for cls in (pl.loggers.TensorBoardLogger, pl.loggers.CSVLogger):
        arguments = cls.__init__.__code__.co_varnames[1 : cls.__init__.__code__.co_argcount]
        defaults = cls.__init__.__defaults__ or ()
        if arguments[0] == "save_dir" and len(defaults) == len(arguments) - 1:
            cls.__init__.__defaults__ = (".", *defaults)  # type: ignore[misc]


def drop_wandb_setting(logger: pl.loggers.WandbLogger, name: str) -> None:
    """Keeps Lightning from passing on a setting that W&B no longer has, and warns of.

    ``WandbLogger`` passes it whether or not it was given.
    """
    logger._wandb_init.pop(name, None)


def run_uncompiled_what_fails() -> None:
    """From here on, what ``torch.compile`` fails at runs uncompiled, and torch logs why.

    The setting is public in name only: ``torch._dynamo.config`` is documented, and private.
    """
    import torch._dynamo

    torch._dynamo.config.suppress_errors = True


def cpu_has_bfloat16() -> bool:
    """Whether the CPU computes in bfloat16 itself (AVX-512 or AMX).

    torch's public checks cover CUDA alone; on other processors the functions are missing or say no.
    """
    import torch

    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)


# ------------------------------------------------------------------------------------- the messages of jsonargparse
# It raises one class of exception for all mistakes; only the text tells them apart. ``messages.py`` reads them.

# On the command line: an option of no parser.
UNRECOGNIZED = re.compile(r"[Uu]nrecognized arguments: (?P<arguments>.+)")
# In a file: a key that its group, or the whole configuration, doesn't have.
UNKNOWN_IN_GROUP = re.compile(r"Group '(?P<group>[\w.]+)' does not accept option '(?P<option>[\w.]+)'")
UNKNOWN_KEY = re.compile(r"Option '(?P<key>[\w.]+)' is not accepted")
# The keys of the configuration that lead to the mistake, the outermost first.
PARSER_KEY = re.compile(r'Parser key "([^"]+)"')
# A class whose arguments were asked for.
OF_HELP = re.compile(r"--(?P<key>[\w.]+)\.help: (?:Expected a dot import path string: |\"|.*')(?P<value>[\w.]+)")
# An option without its value.
NEEDS_VALUE = re.compile(r"argument (?P<option>[\w./+-]+)[^:]*: expected one argument")
# An option, or an argument of a class, that has no default and was not given.
MISSING = re.compile(r"^the following arguments are required: (?P<keys>.+)")
# Attempts that every value makes, and the lines around them: they say nothing about the mistake.
NOISE = re.compile(
    r"Expected a path but|Expected a <class 'NoneType'>|Not a valid subclass of|Does not validate against|Subtypes:"
    r"|Errors:|Given value type:|Subclass types|a class path \(str\)|a dict with"
)
# A class in whose arguments the mistake is. In a slot for something to call, only the value tells the class.
PROBLEM = re.compile(r"Problem with given class_path '([^']+)':")
OF_CALLABLE = re.compile(r"Type .+? expects a function or a callable class: ")
GOT_CLASS = re.compile(r"Got value: Namespace\(class_path='([^']+)'")
# An argument that a class doesn't have.
NOT_ACCEPTED = re.compile(r"Option '(?P<option>[^']+)' is not accepted")
# A class that is not there, by its short name or its path; one that doesn't fit; one whose module needs another.
NO_SUCH_CLASS = re.compile(r"Expected a dot import path string: (?P<cls>\S+)")
CLASS_PATH = re.compile(r"'?class_path'?[:=] ?'(?P<cls>[\w.]+)'")
NO_SUBCLASS = re.compile(
    r"Import path ?(?P<cls>\S*) does not correspond to a subclass|Expected '(?P<other>[^']+)' to be a subclass of"
)
NO_MODULE = re.compile(r"No module named '(?P<module>[^']+)'")
NO_ATTRIBUTE = re.compile(r"module '[^']+' has no attribute '")
# A value of another type: what was expected, as one of the attempts at a union of types, and what was given.
UNION = "Union subtypes"
EXPECTED_TYPE = re.compile(r"Expected an? (.+?)(?:\. Got value: .*)?$", re.MULTILINE)
SEQUENCE = re.compile(r"Sequence|[Ll]ist|Iterable|[Tt]uple|[Ss]et\b")
GOT_VALUE = re.compile(r"\. Got value: (.+?)(?=\. Got value: |$)", re.MULTILINE)
GIVEN_VALUE = re.compile(r"Given value: ?(.*)")
NESTED_VALUE = re.compile(r"NestedArg\(key='[^']+', val=(.+)\)$", re.MULTILINE)
TYPE = re.compile(r"<class '([\w.]+)'>")
LITERAL = re.compile(r"typing\.Literal\[(.+?)\]")
MODULES = re.compile(r"\b[a-z_]\w*\.(?=[\w.]*\w)")
