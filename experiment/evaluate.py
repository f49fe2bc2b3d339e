"""``scripts/evaluate.py``: tests a trained model again, on other data if asked."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lightning_modules.trained_models import find_checkpoint
from readers.files import user_path

from .arguments import check_output, flags_and_values, take_option, write_temporary_config
from .cli import ExperimentCLI
from .console import print_metrics, progress_arguments, quiet, say
from .errors import UserError, as_called
from .processes.agreement import StopTogether, stop_together
from .resuming.restoring import load_checkpoint, refuse_other_data, restoring
from .resuming.resumed_settings import changes_of_model
from .run_folder import write_atomically
from .train import describe_data, remarks, remarks_on

DESCRIPTION = """\
Tests a trained model again with the configuration stored in its checkpoint. The run folder stays as it is.

  evaluate.py runs/infomax_sample/2026-01-31_12-00-00
  evaluate.py best.ckpt --data.source=PATH --json metrics.json
"""
USAGE = "RUN_OR_CHECKPOINT [--json FILE] [--data.KEY=VALUE]... [--trainer.KEY=VALUE]..."

# Settings that a test ignores.
OF_TRAINING = {
    *("callbacks", "logger", "max_epochs", "min_epochs", "max_steps", "min_steps", "max_time", "default_root_dir"),
    *("limit_train_batches", "limit_val_batches", "limit_predict_batches", "overfit_batches", "val_check_interval"),
    *("check_val_every_n_epoch", "num_sanity_val_steps", "log_every_n_steps", "accumulate_grad_batches"),
    *("gradient_clip_val", "gradient_clip_algorithm", "enable_checkpointing", "enable_model_summary"),
    *("reload_dataloaders_every_n_epochs", "check_finite"),
}


def evaluate(argv: list[str]) -> None:
    """Tests as the command line says: parse, build without loggers and callbacks, test, table."""
    quiet()
    if not argv or argv[0] in ("-h", "--help"):
        print(as_called(f"usage: evaluate.py {USAGE}\n\n{DESCRIPTION}"))
        return
    target, json_file, options = _resolve_arguments(argv)
    path = find_checkpoint(target)
    checkpoint = load_checkpoint(path)
    hyperparameters = checkpoint.get("hyper_parameters", {})
    config_file = write_temporary_config(checkpoint["experiment"]["config"], path.stem)

    cli = ExperimentCLI(["-c", str(config_file), *options], DESCRIPTION, USAGE, "evaluate.py")
    cli.choose_precision()
    settings = cli.config.trainer
    settings.callbacks, settings.logger = None, False
    if settings.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        say("no GPU here: testing on the CPU")
        settings.accelerator, settings.devices = "cpu", 1
    progress = progress_arguments(settings)
    cli.build(
        hyperparameters,
        callbacks=[*progress["callbacks"], StopTogether()],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=progress["enable_progress_bar"],
        default_root_dir=tempfile.gettempdir(),
    )

    if hasattr(cli.datamodule, "measure_whole") and _is_other(cli.datamodule, checkpoint["experiment"]["config"]):
        cli.datamodule.measure_whole()
    stop_together(cli.trainer)
    refuse_other_data(hyperparameters, cli.model)
    with restoring(path, changes_of_model(checkpoint["experiment"]["config"], cli.plain_config())):
        results = cli.trainer.test(cli.model, cli.datamodule, ckpt_path=path, weights_only=True, verbose=False)
    metrics = {name: value for result in results for name, value in result.items()}
    if cli.trainer.is_global_zero:
        if json_file:
            about = {"data": describe_data(cli.datamodule)} if remarks(cli.datamodule) else {}
            write_atomically(Path(json_file), json.dumps({"metrics": metrics, **about}, indent=2) + "\n")
        for line in remarks(cli.datamodule):
            say(line)
        print_metrics(metrics, f"{type(cli.model).__name__} on {type(cli.datamodule).__name__}: test of {path}")
        for line in remarks_on(cli.model, metrics):
            say(line)


def _is_other(data: Any, config: Mapping[str, Any]) -> bool:
    """Whether data has another source than the training had."""
    trained = (config.get("data") or {}).get("init_args", {}).get("source", data.source)
    return data.source != trained and user_path(data.source).resolve() != user_path(trained).resolve()


def _resolve_arguments(argv: list[str]) -> tuple[str, str | None, list[str]]:
    """The run or checkpoint, the file of ``--json``, and the options."""
    rest = list(argv)
    json_file = take_option(rest, "--json")
    if not rest or rest[0].startswith("-"):
        raise UserError(f"name a run folder or a checkpoint first: evaluate.py {USAGE}")
    target, *options = rest
    for flag, _ in flags_and_values(options):
        if flag in ("-c", "--config", "--resume", "--run_dir", "--save_every", "--init_from", "--init_from_partly"):
            raise UserError(f"evaluate.py takes no {flag}: the configuration is that of the checkpoint")
        section, _, name = flag.removeprefix("--").partition(".")
        if (section == "trainer" and name.partition(".")[0].rstrip("+-") in OF_TRAINING) or section in OF_TRAINING:
            raise UserError(f"evaluate.py takes no {flag}: it is of training, and a test does nothing with it")
    json_file = str(user_path(json_file)) if json_file else json_file
    check_output("--json", json_file)
    return target, json_file, options
