"""All that the command line uses of other libraries without their promise to keep it: the private doors.

Each function is one door: what it does, why no public way exists, and the version it was tried with. Below them are
jsonargparse's English messages, as patterns. ``tests/experiment/test_private_api.py`` goes through each door and names
the one that closed; pyproject.toml admits only minor versions that were tried.
"""

import re
import traceback
from collections.abc import Callable, Collection
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

# --------------------------------------------------------------------------------------------------- the command line


def recording_instantiator(cli: LightningCLI, key: str) -> Callable[..., Any]:
    """What builds the class at ``key`` and gives it its configuration as hyperparameters, for its checkpoints.

    LightningCLI registers it by itself, but with all links to the data, those included that the class doesn't take.
    Tried: pytorch-lightning 2.6.6.
    """
    from pytorch_lightning.cli import _InstantiatorFn

    return _InstantiatorFn(cli, key)


def class_path_in(checkpoint: dict[str, Any]) -> str:
    """The import path of the model that a checkpoint holds; "" where it names none.

    LightningCLI stores it among the hyperparameters under a key that it documents nowhere.
    Tried: pytorch-lightning 2.6.6.
    """
    return checkpoint.get("hyper_parameters", {}).get("_class_path", "")


def parser_actions(parser: LightningArgumentParser) -> list[Any]:
    """The options of a parser, each with ``dest``, ``help`` and ``option_strings``.

    argparse can print its options, but not list them.
    Tried: jsonargparse 4.53.0.
    """
    return parser._actions


def forget_links(parser: LightningArgumentParser, key: str) -> None:
    """Takes back all links of a parser, whose targets are arguments of the class at ``key``.

    jsonargparse can only add links; ours depend on the class that is chosen during parsing.
    Tried: jsonargparse 4.53.0.
    """
    if hasattr(parser, "_links_group"):  # there since the first link
        parser._links_group._group_actions.clear()
        action: Any = next(action for action in parser._actions if action.dest == key)
        action.sub_add_kwargs["linked_targets"] = set()


def keep_links(parser: LightningArgumentParser, names: Collection[str]) -> None:
    """Drops those links of a parser whose targets are arguments of other names, before anything is built.

    jsonargparse skips a link without source by itself, but writes the source object into a log message first, for
    which Lightning begins to read the loaders of a datamodule.
    Tried: jsonargparse 4.53.0.
    """
    links = parser._links_group._group_actions  # type: ignore[attr-defined]
    links[:] = [link for link in links if link.target[0].rsplit(".", 1)[-1] in names]


def start_from_own_defaults() -> None:
    """From here on, a class that replaces another in a configuration starts from its own defaults.

    jsonargparse keeps those arguments of the old class that the new one has too, even where they were only defaults:
    ``encoder: DIMEncoder`` would get the code size of the default ``BlogEncoder``. There is no setting for it.
    Tried: jsonargparse 4.53.0.
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
    Tried: pytorch-lightning 2.6.6.
    """
    return trainer.fit_loop._should_accumulate()


def batches_trained(trainer: pl.Trainer) -> int:
    """Batches of all epochs so far, the present one included.

    The Trainer tells steps, and the batches of the present epoch, but not this.
    Tried: pytorch-lightning 2.6.6.
    """
    return trainer.fit_loop.epoch_loop.total_batch_idx + 1


def logs_now(trainer: pl.Trainer) -> bool:
    """Whether Lightning logs metrics after the present batch, by ``log_every_n_steps``.

    It counts steps in its own way (see ``logged_step``), and tells nobody.
    Tried: pytorch-lightning 2.6.6.
    """
    return trainer._logger_connector.should_update_logs


def logged_step(trainer: pl.Trainer) -> int:
    """The ``step`` that Lightning logs with: optimizer steps so far, counted once a batch with several optimizers.

    ``trainer.global_step`` counts each optimizer.
    Tried: pytorch-lightning 2.6.6.
    """
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def metrics_to_log(trainer: pl.Trainer) -> dict[str, Any]:
    """The metrics that Lightning hands to the loggers after the callbacks' present hook.

    ``trainer.logged_metrics`` has those that were logged before.
    Tried: pytorch-lightning 2.6.6.
    """
    return trainer._logger_connector.metrics["log"]


def is_at_epoch_end(checkpoint: dict[str, Any]) -> bool:
    """Whether a checkpoint was written in ``on_train_epoch_end``.

    Its ``epoch`` is the same as within that epoch; only the state of Lightning's loops tells.
    Tried: pytorch-lightning 2.6.6.
    """
    progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
    return progress["processed"] == progress["ready"]


def set_max_steps(trainer: pl.Trainer, max_steps: int) -> None:
    """Changes ``trainer.max_steps``, which can only be read.

    With ``max_steps``, Lightning takes an epoch for unfinished whose checkpoint was written at its end: it counts a
    step too many. Without, while it restores, the run continues with the next epoch.
    Tried: pytorch-lightning 2.6.6.
    """
    trainer.fit_loop.epoch_loop.max_steps = max_steps


# Module and name of those functions within which a Trainer or ``load_from_checkpoint`` restores.
RESTORING = {
    ("pytorch_lightning.trainer.connectors.checkpoint_connector", "_restore_modules_and_callbacks"),
    ("pytorch_lightning.trainer.connectors.checkpoint_connector", "restore_training_state"),
    ("pytorch_lightning.core.saving", "_load_from_checkpoint"),
}


def raised_while_restoring(error: BaseException) -> bool:
    """Whether Lightning was restoring a checkpoint when the error was raised, not writing one or training.

    Lightning raises whatever a damaged checkpoint provokes, and has no hook around all that it restores.
    Tried: pytorch-lightning 2.6.6.
    """
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any((frame.f_globals.get("__name__"), frame.f_code.co_name) in RESTORING for frame in frames)


# ------------------------------------------------------------------------------------------------ loggers, processors


def wandb_id(logger: pl.loggers.WandbLogger) -> str | None:
    """The id of the W&B run, as it was configured; None where W&B chooses it (a sweep).

    ``logger.version`` is the id of the run that was begun, also where that is a dummy because W&B is disabled.
    Tried: pytorch-lightning 2.6.6.
    """
    return logger._wandb_init.get("id")


def drop_wandb_setting(logger: pl.loggers.WandbLogger, name: str) -> None:
    """Keeps Lightning from passing on a setting that W&B no longer has, and warns of.

    ``WandbLogger`` passes it whether or not it was given.
    Tried: pytorch-lightning 2.6.6.
    """
    logger._wandb_init.pop(name, None)


def cpu_has_bfloat16() -> bool:
    """Whether the CPU computes in bfloat16 itself (AVX-512 or AMX).

    torch's public checks cover CUDA alone; on other processors the functions are missing or say no.
    Tried: torch 2.13.0.
    """
    import torch

    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)


# ----------------------------------------------------------------------- the messages of jsonargparse (tried: 4.53.0)
# It raises one class of exception for all mistakes; only the text tells them apart. ``messages.py`` reads them.

# On the command line: an option of no parser.
UNRECOGNIZED = re.compile(r"[Uu]nrecognized arguments: (?P<arguments>.+)")
# In a file: a key that its group, or the whole configuration, doesn't have.
UNKNOWN_IN_GROUP = re.compile(r"Group '(?P<group>[\w.]+)' does not accept option '(?P<option>[\w.]+)'")
UNKNOWN_KEY = re.compile(r"Option '(?P<key>[\w.]+)' is not accepted")
# The keys of the configuration that lead to the mistake, the outermost first.
PARSER_KEY = re.compile(r'Parser key "([^"]+)"')
# An option, or an argument of a class, that has no default and was not given.
MISSING = re.compile(r"^the following arguments are required: (?P<keys>.+)")
MISSING_OF_CLASS = re.compile(
    r"class_path '[\w.]*?(?P<cls>\w+)':\s+the following arguments are required: (?P<argument>\w+)"
)
# An argument that a class doesn't have: of one problem of several, and where only the value tells the class.
PROBLEM = "- Problem with given class_path "
NOT_ACCEPTED = re.compile(r"class_path '(?P<cls>[^']+)':\s+Option '(?P<option>[^']+)' is not accepted")
NOT_ACCEPTED_IN_VALUE = re.compile(
    r"Option '(?P<option>[^']+)' is not accepted\. Got value: Namespace\(class_path='(?P<cls>[^']+)'"
)
# A class that is not there, by its short name or its path.
NO_SUCH_CLASS = re.compile(r"Expected a dot import path string: (?P<cls>\S+)")
CLASS_PATH = re.compile(r"'?class_path'?[:=] ?'(?P<cls>[\w.]+)'")
# A value of another type: what was expected, as one of the attempts at a union of types, and what was given.
UNION = "Union subtypes"
EXPECTED = re.compile(r"Expected .+")
GIVEN = re.compile(r"(?:Got|Given) value: (.+)")
TYPE = re.compile(r"<class '([\w.]+)'>")
