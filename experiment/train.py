"""``scripts/train.py``: fits, tests the best checkpoint, leaves a run folder."""

import platform
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torchmetrics
from pytorch_lightning.loggers import WandbLogger

from .arguments import check_config_files, flags_and_values, without_configs, write_temporary_config
from .checkpoints import AtomicCheckpointIO, RunCheckpoints
from .cli import DEFAULT_CONFIG, ExperimentCLI, num_launched_processes, process_rank
from .console import print_metrics, progress_callbacks, quiet, say
from .errors import UserError
from .loggers import FolderLogger, prepare_wandb
from .parser import import_class
from .restoring import load_checkpoint, refuse_other_data, restoring
from .run_folder import (
    RunFolder,
    choose_run_folder,
    folder_of_other_rank,
    forget_handed_down,
    hand_down,
    new_below,
    newest_unfinished,
    resumed_config,
)


class TrainCLI(ExperimentCLI):
    """Parses, opens the run folder, builds the parts with the run's loggers and checkpoints.

    Args:
        args: the command line.
        name: name of the run, for its folder.
        stack: closes the run folder in the end.
    """

    folder: RunFolder
    is_new: bool
    checkpoints: RunCheckpoints
    run_config: dict[str, Any]
    checkpoint: Path | None = None

    def __init__(self, args: list[str], name: str, stack: ExitStack) -> None:
        self.name = name
        self.stack = stack
        super().__init__(args)

    def before_instantiate_classes(self) -> None:
        # As given: what is chosen for this machine and filled in for this run below is no part of what reruns it.
        config = self.run_config = self.plain_config()
        super().before_instantiate_classes()
        model_class = import_class(self.config.model.class_path)
        if not hasattr(model_class, "monitor"):
            raise UserError(f"{model_class.__name__} declares no `monitor` and `mode` for the best checkpoint")
        self._open_folder()
        checkpoint = load_checkpoint(self.checkpoint) if self.checkpoint else {}
        self.hyperparameters = checkpoint.get("hyper_parameters", {})
        self._prepare_loggers(checkpoint.get("experiment", {}).get("wandb_id"))
        self.checkpoints = RunCheckpoints(
            self.folder, config, model_class.monitor, model_class.mode, save_every=self.config.save_every
        )
        self.trainer_arguments = {
            "logger": [FolderLogger(self.folder)],
            "callbacks": [*progress_callbacks(), self.checkpoints],
            "plugins": [AtomicCheckpointIO()],
            "default_root_dir": str(self.folder.path),
            "enable_model_summary": False,
            "enable_progress_bar": sys.stdout.isatty(),
        }

    def _open_folder(self) -> None:
        run_dir = Path(self.config.run_dir) if self.config.run_dir else None
        resume = self.config.resume
        launched = num_launched_processes() > 1
        if launched and run_dir is None and process_rank() == 0:
            raise UserError("several processes of one launcher need --run_dir, so that all of them know the run folder")
        if process_rank() > 0:
            self.folder, self.checkpoint = folder_of_other_rank(run_dir, resume)
            return
        if resume == "auto":
            found = newest_unfinished(run_dir, self.name, self.run_config, below=not launched)
            say(f"resuming {found.path}" if found else "no unfinished run of this configuration: starting a new one")
            if found is not None:
                resume, run_dir = str(found.path), None
            elif run_dir is not None and RunFolder(run_dir).exists():
                resume, run_dir = None, new_below(run_dir).path
            else:
                resume = None
        self.folder, self.checkpoint = choose_run_folder(run_dir, self.name, resume)
        self.is_new = not self.folder.exists()
        self.folder.lock()
        self.stack.push(self._close)
        if resume is not None and self.checkpoint is None:
            say(f"{self.folder.path} has no checkpoint yet: starting from the beginning")
        if self.is_new:
            self.folder.write_config(self.run_config)
        hand_down(self.folder, self.checkpoint)

    def _close(self, error: type[BaseException] | None, *_: Any) -> None:
        if error is not None and self.is_new:
            self.folder.discard_if_unused()
        self.folder.unlock()
        forget_handed_down()

    def _prepare_loggers(self, wandb_id: str | None) -> None:
        loggers = self.config.trainer.logger
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            if getattr(logger, "class_path", "").endswith("WandbLogger"):
                note = prepare_wandb(logger.init_args, self.folder, wandb_id)
                if note:
                    say(note)


def train(argv: list[str]) -> None:
    """Trains as the command line says."""
    quiet()
    started = time.time()
    arguments, name = resolve_arguments(argv)
    with ExitStack() as stack:
        _fit_and_test(TrainCLI(arguments, name, stack), started)


def _fit_and_test(cli: TrainCLI, started: float) -> None:
    trainer, model, data, folder = cli.trainer, cli.model, cli.datamodule, cli.folder
    config = cli.run_config
    wandb_loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
    for logger in wandb_loggers:
        # Lightning passes on a setting that W&B no longer has, and W&B warns of it.
        logger._wandb_init.pop("anonymous", None)
        logger.log_hyperparams(config)
    say(f"run folder: {folder.path}")
    if cli.checkpoint is not None:
        refuse_other_data(load_checkpoint(cli.checkpoint), model)
    with restoring(cli.checkpoint):
        trainer.fit(model, data, ckpt_path=cli.checkpoint, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    cli.checkpoints.begin(trainer)  # where there was nothing left to train
    path = next((path for path in (folder.best, folder.last) if path.is_file()), None)
    results = trainer.test(model, data, ckpt_path=path, weights_only=True, verbose=False)
    metrics = {name: value for result in results for name, value in result.items()}
    if trainer.is_global_zero:
        summary = {
            "metrics": metrics,
            "config": config,
            "versions": versions(),
            "seconds": round(time.time() - started, 1),
            "data": describe_data(data),
        }
        folder.write_summary(summary)
        for logger in wandb_loggers:
            logger.experiment.summary.update({name: summary[name] for name in ("versions", "seconds", "data")})
        print_metrics(
            metrics, f"{type(model).__name__} on {type(data).__name__}: test of {path.name if path else 'the model'}"
        )
        for picture in sorted(folder.pictures.glob("*.png")):
            say(f"picture: {picture}")
        say(f"run folder: {folder.path}")
        if wandb_loggers:
            import wandb

            wandb.finish()


def resolve_arguments(argv: list[str]) -> tuple[list[str], str]:
    """Puts in the default configuration, or that of the run to resume; also gives the run's name.

    The name is that of the first configuration file; a resumed run keeps its folder whatever the name.
    """
    files = [value for flag, value in flags_and_values(argv) if flag in ("-c", "--config")]
    resume = next((value for flag, value in flags_and_values(argv) if flag == "--resume"), None)
    if resume in (None, "auto"):
        if not files and not {"-h", "--help"} & set(argv) and not any(a.split("=")[0].endswith(".help") for a in argv):
            return ["-c", str(DEFAULT_CONFIG), *argv], DEFAULT_CONFIG.stem
        return argv, Path(files[0]).stem if files else DEFAULT_CONFIG.stem
    config_file = resumed_config(resume)
    if config_file is None:
        config_file = write_temporary_config(load_checkpoint(Path(resume))["experiment"]["config"], Path(resume).stem)
    # The run's own configuration has the files' contents already; what is given beside them still overrides.
    check_config_files(argv)
    if files:
        say(f"--resume: the settings are those of the run; {', '.join(files)} is not read again")
    return ["-c", str(config_file), *without_configs(argv)], Path(files[0]).stem if files else config_file.stem


def versions() -> dict[str, str]:
    """Of Python and of the libraries that results depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pytorch_lightning": pl.__version__,
        "torchmetrics": torchmetrics.__version__,
    }


def describe_data(data: pl.LightningDataModule) -> dict[str, Any]:
    """What the datamodule says of itself."""
    describe = getattr(data, "describe", None)
    return {"class": type(data).__name__, **(describe() if describe else {})}
