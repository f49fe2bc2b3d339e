"""``scripts/predict.py``: a trained model on the user's own file."""

import contextlib
import errno
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from jsonargparse import ActionYesNo

from lightning_modules.trained_models import find_checkpoint, import_model_class
from readers.files import output_file, user_path

from .arguments import CONFIGS, check_output, find_config
from .classes import import_class
from .cli import ExperimentCLI
from .console import quiet, say
from .errors import UserError, as_called, did_you_mean
from .parsing.parser import Parser
from .processes.stopping import Stopped
from .resuming.restoring import load_checkpoint, restoring

DESCRIPTION = """\
Runs a trained model on a file (or folder) of yours.

  RUN_OR_CHECKPOINT  a run folder or a checkpoint; for a search that needs no training, a configuration file
  --input FILE       what to predict for, e.g. sentences, a folder of images, a graph
  --output FILE      the file to write

What formats a model takes and writes, and its other options:

  predict.py RUN_OR_CHECKPOINT --help
"""
CONTINUE = "Go on with what an interrupted prediction left in OUTPUT.part."
USAGE = "RUN_OR_CHECKPOINT --input FILE --output FILE [--OPTION=VALUE]..."


def predict(argv: list[str]) -> None:
    """Predicts as the command line says: find the model's class, parse its options, load it, run it on the file."""
    quiet()
    if not argv or argv[0].startswith("-"):
        if argv and argv[0] not in ("-h", "--help"):
            raise UserError(f"name a run folder or a checkpoint first: predict.py {USAGE}")
        print(as_called(f"usage: predict.py {USAGE}\n\n{DESCRIPTION}"))
        return
    is_run = (Path(argv[0]) / "checkpoints").is_dir()
    target, *given = argv[0] if is_run else find_config(argv[0]), *argv[1:]
    is_config = target.endswith((".yaml", ".yml"))
    model_class, load = _from_config(target) if is_config else _from_checkpoint(target)
    if not hasattr(model_class, "predict_file"):
        raise UserError(f"{model_class.__name__} has no predictions for files")
    parser = Parser(
        prog="predict.py",
        usage=f"predict.py {target} --input FILE --output FILE [--OPTION=VALUE]...",
        description=f"{model_class.__name__} of {target} on your own file.",
    )
    parser.add_method_arguments(model_class, "predict_file", fail_untyped=False, skip={"resume"})
    resumes = "resume" in inspect.signature(model_class.predict_file).parameters
    if resumes:
        parser.add_argument("--continue", action=ActionYesNo, default=False, help=CONTINUE)
    options = parser.parse_args(given).as_dict()
    options = {name: user_path(value) if isinstance(value, Path) else value for name, value in options.items()}
    if resumes:
        options["resume"] = options.pop("continue")
    _check_paths(options)
    with restoring(Path(target)):
        model = load()
    with _stops_between_lines(Path(f"{output_file(options['output'])}.part"), resumes):
        report = model.predict_file(**options)
    if report:
        say(report)


@contextlib.contextmanager
def _stops_between_lines(part: Path, resumes: bool) -> Iterator[None]:
    """A prediction that is told to stop, or finds the disk full, says how to go on.

    Args:
        part: what is written so far.
        resumes: whether the model takes ``--continue``.
    """
    how = f"what is done is in {part}; the same command with --continue carries on"
    try:
        yield
    except Stopped as stopped:
        if resumes and part.is_file():
            raise Stopped(stopped.signum, f"{stopped}: {how}") from None
        raise
    except OSError as error:
        if resumes and part.is_file() and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"no space left: {how}, once there is some") from error
        raise


def _from_config(target: str) -> tuple[Any, Callable[[], Any]]:
    """The class of the model in a configuration file, and a function that gives the model."""
    if not Path(target).is_file():
        raise UserError(f"no such configuration file: {target}")
    cli = ExperimentCLI(["-c", target], DESCRIPTION, USAGE, "predict.py")
    model_class = import_class(cli.config.model.class_path)
    if getattr(model_class, "needs_training", True):
        raise UserError(f"{model_class.__name__} has to be trained first: train.py -c {target}, then name the run")

    def load() -> Any:
        cli.choose_precision()
        cli.config.trainer.callbacks, cli.config.trainer.logger = None, False
        return cli.build(enable_checkpointing=False, enable_progress_bar=False).model

    return model_class, load


def _from_checkpoint(target: str) -> tuple[Any, Callable[[], Any]]:
    """The class of the model in a run or checkpoint, and a function that loads the model."""
    try:
        path = find_checkpoint(target)
    except ValueError as error:
        near = did_you_mean(target, [file.stem for file in CONFIGS.glob("*.yaml")])
        raise UserError(f"{error}{near if 'did you mean' not in str(error) else ''}") from None
    hyperparameters = load_checkpoint(path, plain=True).get("hyper_parameters", {})
    try:
        model_class: type[pl.LightningModule] = import_model_class(hyperparameters.get("_class_path", ""))
    except ValueError as error:
        raise UserError(f"{path} holds {error}") from None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model_class, lambda: model_class.load_from_checkpoint(path, map_location=device, weights_only=True).eval()


def _check_paths(options: dict[str, Any]) -> None:
    source, output = Path(str(options["input"])), Path(str(options["output"]))
    if not source.exists():
        beside = source.parent.glob("*") if source.parent.is_dir() else ()
        near = did_you_mean(source.name, [path.name for path in beside])
        raise UserError(f"--input: no such file or folder: {source}{near}")
    check_output("--output", output)
    for file in (output, Path(f"{output_file(output)}.part")):
        if file.exists() and file.samefile(source):
            raise UserError(f"--output {output} would be written over the input {source}; name another file")
