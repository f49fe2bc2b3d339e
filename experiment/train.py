"""``scripts/train.py``: fits, tests the best checkpoint, leaves a run folder.

``train`` tells the whole story. What happens inside its steps, in this order:

    resolve_arguments           the default configuration, or that of the run to resume
    ExperimentCLI(arguments)    parses and seeds; the order of its hooks stands in cli.py
    open_run                    the run folder, locked until the end
    cli.build                   datamodule, model, Trainer
    trainer.fit                 hooks of RunCheckpoints: on_load_checkpoint, on_fit_start, on_train_start (the run is
                                under way), on_train_batch_end, on_validation_end, on_train_epoch_end (checkpoints)
    trainer.test                the best checkpoint
    folder.write_summary        the run is finished
"""

import platform
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytorch_lightning as pl
import torch
import torchmetrics
import yaml
from pytorch_lightning.utilities.model_helpers import is_overridden

from .arguments import FILES, check_config_files, find_paths, flag_and_value, flags_and_values, write_temporary_config
from .checkpoints import BeforeEpochEnd, RunCheckpoints
from .classes import import_class
from .cli import DEFAULT_CONFIG, ExperimentCLI
from .compiling import compile_errors
from .console import print_metrics, progress_arguments, quiet, say
from .errors import UserError
from .finite_loss import FiniteLoss
from .lightning_parts import LightningParts, catch_up, prepare_checkpoint_callbacks, refuse_parts
from .loggers import FolderLogger, finish_wandb, log_config, prepare_loggers
from .open_run import open_run, run_and_checkpoint
from .private_api import trains_in_children
from .processes.agreement import StopTogether, stop_together, stopped_runs_can_continue
from .resuming.checkpoint_files import AtomicCheckpointIO, step_of
from .resuming.restoring import is_plain, load_checkpoint, refuse_other_data, restoring
from .resuming.resumed_settings import (
    ResumedSettings,
    changes_of_model,
    refuse_new_settings,
    refuse_what_only_a_new_run_reads,
)
from .resuming.warm_start import hyperparameters_in, warm_start
from .run_length import FitsSmallData


def train(argv: list[str]) -> ExperimentCLI:
    """Trains and tests as the command line says; returns what it built: ``trainer``, ``model``, ``datamodule``."""
    quiet()
    started = time.time()
    arguments, name = resolve_arguments(find_paths(argv))
    cli = ExperimentCLI(arguments)
    # As given, which reruns it anywhere: without what is chosen below for this machine and this run.
    config = cli.plain_config()
    cli.choose_precision()
    model_class = import_class(cli.config.model.class_path)
    if not hasattr(model_class, "monitor"):
        raise UserError(f"{model_class.__name__} declares no `monitor` and `mode` for the best checkpoint")
    if model_class.mode not in ("min", "max"):
        raise UserError(f"{model_class.__name__}.mode is '{model_class.mode}': min or max, whichever is better")
    refuse_parts(cli.config.trainer)

    with ExitStack() as stack:
        run_dir = cli.config.run_dir
        if is_trial := bool(cli.config.trainer.fast_dev_run):
            if cli.config.resume not in (None, "auto"):
                raise UserError(
                    "--trainer.fast_dev_run is a trial from the beginning that keeps nothing: without --resume"
                )
            run_dir = stack.enter_context(TemporaryDirectory(prefix="fast_dev_run-"))
        folder, path = stack.enter_context(open_run(run_dir, cli.config.resume, name, config))
        stack.enter_context(stopped_runs_can_continue(folder))
        saved = load_checkpoint(path, plain=True) if path else {}
        hyperparameters, wandb_id = saved.get("hyper_parameters", {}), saved.get("experiment", {}).get("wandb_id")
        if path is not None and "optimizer_states" not in saved:
            raise UserError(f"{path} holds weights alone: start a new run from them with --init_from {path}")
        before = saved.get("experiment", {}).get("config")
        if path is not None:
            refuse_what_only_a_new_run_reads(before, config)
        del saved  # it holds the weights
        is_warm = path is None and cli.config.init_from and not cli.config.init_from_partly
        wandb_id = prepare_loggers(cli.config.trainer.logger, folder, wandb_id)
        prepare_checkpoint_callbacks(cli.config.trainer.callbacks, folder)
        progress = progress_arguments(cli.config.trainer)
        finite = [FiniteLoss(folder)] if cli.config.check_finite else []
        checkpoints = RunCheckpoints(
            folder, config, model_class.monitor, model_class.mode, cli.config.save_every, wandb_id
        )
        cli.build(
            hyperparameters,
            hyperparameters_in(cli.config.init_from) if is_warm else None,
            logger=[FolderLogger(folder)],
            callbacks=[
                *(*progress["callbacks"], FitsSmallData(cli.config.min_steps), LightningParts(), StopTogether()),
                *(*finite, checkpoints),
            ],
            plugins=[AtomicCheckpointIO()],
            default_root_dir=str(folder.path),
            enable_model_summary=bool(cli.config.trainer.enable_model_summary),
            enable_progress_bar=progress["enable_progress_bar"],
        )
        stop_together(cli.trainer)
        cli.trainer.callbacks[:0] = [ResumedSettings(config), BeforeEpochEnd(checkpoints)]  # type: ignore[attr-defined]
        log_config(cli.trainer, config)
        where = "fast_dev_run: nothing is kept" if is_trial else f"run folder: {folder.path}"
        say(where)

        if path is not None:
            refuse_other_data(hyperparameters, cli.model)
        elif cli.config.init_from:
            warm_start(cli.model, cli.config.init_from, cli.config.init_from_partly)
        with restoring(path, changes_of_model(before, config)), compile_errors():
            cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=path, weights_only=True)
        if trains_in_children(cli.trainer):
            catch_up(cli.trainer, cli.datamodule, folder)
        else:
            checkpoints.begin(cli.trainer)  # where there was nothing left to train

        written = [path for path in (folder.best, folder.last) if path.is_file()]
        tested = None if is_trial or not written else written[0]
        results: Any = []
        if lacks := _lacks_for_test(cli):
            say(f"no test: {lacks}")
        else:
            results = cli.trainer.test(cli.model, cli.datamodule, ckpt_path=tested, weights_only=True, verbose=False)
        metrics = {name: value for result in results for name, value in result.items()}
        if cli.trainer.is_global_zero:
            summary = {
                "metrics": metrics,
                "config": config,
                "versions": versions(),
                "seconds": round(time.time() - started, 1),
                "data": describe_data(cli.datamodule),
            }
            if not is_trial:
                folder.write_summary(summary)
            for line in remarks(cli.datamodule):
                say(line)
            title = f"{type(cli.model).__name__} on {type(cli.datamodule).__name__}"
            if metrics:
                which = f"{tested.name}, step {step_of(tested)} of {cli.trainer.global_step}" if tested else "the model"
                print_metrics(metrics, f"{title}: test of {which}")
                for line in remarks_on(cli.model, metrics):
                    say(line)
            for picture in sorted(folder.pictures.glob("*.png")):
                say(f"picture: {picture}")
            say(where)
            finish_wandb(cli.trainer, {name: summary[name] for name in ("versions", "seconds", "data")})
    return cli


def _lacks_for_test(cli: ExperimentCLI) -> str:
    """What a user's own module or data lacks for a test; "" for nothing."""
    parts = {"test_step": cli.model, "test_dataloader": cli.datamodule}
    lacking = [f"{type(part).__name__} has no {name}" for name, part in parts.items() if not is_overridden(name, part)]
    return ", ".join(lacking)


def resolve_arguments(argv: list[str]) -> tuple[list[str], str]:
    """Adds the default configuration, or that of the run to resume; also returns the run's name.

    The name is that of the first configuration file; a resumed run keeps its folder whatever the name.
    """
    files = [value for flag, value in flags_and_values(argv) if flag in FILES]
    given = dict(flags_and_values(argv))
    resume = given.get("--resume") or None  # without a value: the parser says so
    if resume not in (None, "auto") and "--init_from" in given:
        raise UserError("--init_from starts a new run and --resume continues one: leave one of them out")
    if resume in (None, "auto"):
        asks_for_help = any(
            argument in ("-h", "--help") or argument.split("=")[0].endswith(".help") for argument in argv
        )
        if files or asks_for_help:
            return argv, Path(files[0]).stem if files else DEFAULT_CONFIG.stem
        default = default_config()
        if default != DEFAULT_CONFIG and not any(argument.startswith("--print_config") for argument in argv):
            say(f"no {DEFAULT_CONFIG.name} in {DEFAULT_CONFIG.parent}: taking {default.name}")
        return ["-c", str(default), *argv], default.stem
    folder, _ = run_and_checkpoint(resume)
    if folder is not None:
        config_file = folder.config_file
    else:
        checkpoint = load_checkpoint(Path(resume), plain=True)
        if is_plain(checkpoint):
            if not files:
                raise UserError(f"{resume} was written by plain Lightning and holds no configuration: name it with -c")
            return argv, Path(files[0]).stem
        config_file = write_temporary_config(checkpoint["experiment"]["config"], Path(resume).stem)
    # The run's own configuration has the files' contents already; what is given beside them still overrides.
    check_config_files(argv)
    for file in files:
        refuse_new_settings(file, yaml.safe_load(config_file.read_text()))
    if files:
        say(f"--resume: the settings are those of the run; {', '.join(files)} is not read again")
    others = [argument for argument in argv if flag_and_value(argument)[0] not in FILES]
    return ["-c", str(config_file), *others], Path(files[0]).stem if files else config_file.stem


def default_config() -> Path:
    """The configuration of a bare ``train.py``: the default job or, where it was deleted, the first one by name.

    Raises:
        UserError: there is none.
    """
    if DEFAULT_CONFIG.is_file():
        return DEFAULT_CONFIG
    others = sorted(DEFAULT_CONFIG.parent.glob("*.yaml"))
    if not others:
        raise UserError(f"no configuration in {DEFAULT_CONFIG.parent}: name one with -c FILE")
    return others[0]


def versions() -> dict[str, str]:
    """Of Python and of the libraries that results depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pytorch_lightning": pl.__version__,
        "torchmetrics": torchmetrics.__version__,
    }


def remarks(data: pl.LightningDataModule) -> list[str]:
    """What the datamodule has to say about measures on it."""
    return data.remarks() if hasattr(data, "remarks") else []


def remarks_on(model: pl.LightningModule, metrics: dict[str, float]) -> list[str]:
    """What the module has to say about its measures: the last lines of the table."""
    say_about: Any = getattr(model, "remarks", None)
    return say_about(metrics) if say_about else []


def describe_data(data: pl.LightningDataModule) -> dict[str, Any]:
    """What the datamodule says about itself."""
    describe = getattr(data, "describe", None)
    return {"class": type(data).__name__, **(describe() if describe else {})}
