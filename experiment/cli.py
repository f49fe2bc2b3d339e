"""The command line: configuration files and options to a Trainer, a model and its data."""

import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytorch_lightning as pl
import torch
from jsonargparse import Namespace
from pytorch_lightning.cli import LightningCLI, _get_module_type, _InstantiatorFn
from pytorch_lightning.utilities.model_helpers import is_overridden

# Classes are known by their short names once their packages are imported.
import callbacks  # noqa: F401
import datamodules  # noqa: F401
import lightning_modules  # noqa: F401

from .arguments import check_config_files
from .console import say
from .errors import UserError
from .parser import Parser, import_class, plain_config

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "infomax_sample.yaml"

DESCRIPTION = """\
Trains a model on its data, tests the best checkpoint, and leaves everything in a run folder.

  train.py                                     the default job, configs/infomax_sample.yaml
  train.py -c configs/X.yaml                   another experiment
  train.py -c configs/X.yaml -c configs/with/Y.yaml --model.lr=1e-4
                                               later files and options override earlier ones
  train.py --resume auto                       go on with the newest unfinished run of this configuration
  train.py -c configs/X.yaml --print_config=comments
                                               all settings with their meanings
"""
USAGE = "[-c CONFIG]... [--run_dir DIR] [--resume PATH|auto] [--print_config[=comments]] [--KEY=VALUE]..."


class ExperimentCLI(LightningCLI):
    """LightningCLI without subcommand: parses, then builds ``datamodule``, ``model`` and ``trainer``.

    Args:
        args: the command line, without the name of the program.
        description: what ``--help`` says first.
        usage: the line of usage, without the program.
        prog: name of the program.
    """

    # The model's hyperparameters in the checkpoint that is gone on with or tested again.
    hyperparameters: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, args: Sequence[str], description: str = DESCRIPTION, usage: str = USAGE, prog: str = "train.py"):
        self.trainer_arguments: dict[str, Any] = {}
        super().__init__(
            model_class=pl.LightningModule,
            datamodule_class=pl.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=1,
            parser_class=Parser,
            parser_kwargs={"description": description, "usage": f"{prog} {usage}", "prog": prog},
            args=list(args),
            run=False,
            auto_configure_optimizers=False,
        )

    # ----------------------------------------------------------------------------------------------------- parsing

    def init_parser(self, **kwargs: Any) -> Parser:
        parser = super().init_parser(**kwargs)
        parser.narrow_help = True
        parser.links_model_to_data = True
        return parser

    def add_arguments_to_parser(self, parser: Parser) -> None:
        parser.add_argument(
            "--run_dir", type=str | None, default=None, help="Folder of the run (default: runs/<name>/<time>)."
        )
        parser.add_argument(
            "--resume",
            type=str | None,
            default=None,
            help="Go on with a run folder or a checkpoint, or `auto`: the newest unfinished run of this configuration.",
        )
        parser.add_argument(
            "--save_every",
            type=float,
            default=60.0,
            help="Seconds between two writes of last.ckpt inside an epoch; 0: after each optimizer step.",
        )

    def parse_arguments(self, parser: Parser, args: Any) -> None:
        if "--trainer.help" in args:
            parser.print_trainer_help()
        check_config_files(args)
        args = ["--print_config=comments" if argument == "--print_config" else argument for argument in args]
        self.config: Namespace = parser.parse_args(args)
        if self.config.get("model") is None or self.config.get("data") is None:
            missing = "model" if self.config.get("model") is None else "data"
            raise UserError(
                f"no {missing}: name one in a configuration file (-c configs/X.yaml) or with --{missing}=CLASS"
            )

    def refuse_what_the_data_gives(self) -> None:
        """Raises UserError where the configuration sets an argument of the model that the data sets."""
        model_class, data_class = (import_class(self.config[key].class_path) for key in ("model", "data"))
        for name in getattr(model_class, "data_links", ()):
            default = inspect.signature(model_class.__init__).parameters[name].default
            given = self.config.model.init_args.get(name, default)
            same = tuple(given) == tuple(default) if isinstance(default, tuple) else given == default
            if not same and name in inspect.signature(data_class.__init__).parameters:
                raise UserError(f"model.{name} comes from the data: set data.{name}")

    def drop_links_without_source(self, data: pl.LightningDataModule) -> None:
        """Leaves only links of which the data has the source, now that it is built.

        jsonargparse would skip the others too, but writes the datamodule into a message first, for which Lightning
        begins to read its loaders.

        Raises:
            UserError: if the data has nothing of what the model takes from its data.
        """
        model_class = import_class(self.config.model.class_path)
        wanted = getattr(model_class, "data_links", ())
        if not wanted:
            return
        present = [name for name in wanted if hasattr(data, name)]
        if not present:
            raise UserError(
                f"{model_class.__name__} takes {' and '.join(wanted)} from its data, which {type(data).__name__} does "
                "not have: choose a datamodule that fits (--data=CLASS)"
            )
        links = self.parser._links_group._group_actions
        links[:] = [link for link in links if link.target[0].rsplit(".", 1)[-1] in present]

    def plain_config(self) -> dict[str, Any]:
        """The configuration as plain values, as ``config.yaml`` keeps it."""
        return plain_config(self.config, self.parser)

    # ---------------------------------------------------------------------------------------------------- building

    def _add_instantiators(self) -> None:
        for key, cls in (("model", self._model_class), ("data", self._datamodule_class)):
            self.parser.add_instantiator(_Instantiator(self, key), _get_module_type(cls), subclasses=True)

    def before_instantiate_classes(self) -> None:
        self.refuse_what_the_data_gives()
        self.choose_precision()

    def choose_precision(self) -> None:
        """Where the configuration leaves the precision open: bf16-mixed if the hardware computes in it, else 32 bit."""
        if self.config.trainer.precision is None:
            native = has_native_bfloat16(self.config.trainer.accelerator)
            self.config.trainer.precision = "bf16-mixed" if native else "32-true"
            reason = "native here" if native else "bfloat16 is not native here"
            say(f"precision: {self.config.trainer.precision} ({reason})")

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        extra = {**self.trainer_arguments, **kwargs}
        for name in ("callbacks", "logger", "plugins"):
            own = extra.pop(name, None)
            if own is not None:
                given = self.config_init.trainer.get(name)
                given = given if isinstance(given, list) else ([] if given in (None, True, False) else [given])
                extra[name] = [*given, *own]
        extra["callbacks"] = latest_of_each(extra.get("callbacks") or self.config_init.trainer.callbacks or [])
        trainer_config = {**self.config_init.trainer, **extra}
        return pl.Trainer(**trainer_config)


def latest_of_each(given: pl.Callback | Sequence[pl.Callback]) -> list[pl.Callback]:
    """Of callbacks whose states a checkpoint could not tell apart, only the last: later files override earlier ones."""
    given = given if isinstance(given, Sequence) else [given]
    last = {callback.state_key: callback for callback in given}
    kept = [c for c in given if last[c.state_key] is c or not is_overridden("state_dict", c)]
    for name in dict.fromkeys(type(callback).__name__ for callback in given if callback not in kept):
        say(f"trainer.callbacks has {name} twice: the last one counts")
    return kept


class _Instantiator(_InstantiatorFn):
    """Passes on to the hyperparameters only those links to the data that the class takes."""

    def __call__(self, class_type: type, *args: Any, applied_instantiation_links: dict, **kwargs: Any) -> Any:
        taken = inspect.signature(class_type.__init__).parameters
        links = {key: value for key, value in applied_instantiation_links.items() if key.rsplit(".", 1)[-1] in taken}
        if self.key == "model":
            # What the model found in a file that may be gone since, as its checkpoint has it.
            for name in set(getattr(class_type, "checkpoint_arguments", ())) & self.cli.hyperparameters.keys():
                kwargs[name] = self.cli.hyperparameters[name]
        built = super().__call__(class_type, *args, applied_instantiation_links=links, **kwargs)
        if self.key == "data":
            self.cli.drop_links_without_source(built)
        return built


def has_native_bfloat16(accelerator: str | Any = "auto") -> bool:
    """Whether the device that ``accelerator`` names computes in bfloat16 itself."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if accelerator in ("auto", "cpu"):
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, check, lambda: False)() for check in checks)
    return False


def num_launched_processes() -> int:
    """How many processes an outer launcher (torchrun, SLURM) has started; 1 where Lightning starts its own."""
    for name in ("WORLD_SIZE", "SLURM_NTASKS"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 1


def process_rank() -> int:
    """The rank that the launcher gave this process, before torch.distributed is up."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0
