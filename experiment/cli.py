"""What the commands share: configuration files and options to a datamodule, a model and a Trainer.

``ExperimentCLI(args)`` parses; Lightning's constructor calls, in this order:

    init_parser                 Lightning's: the options of Trainer, model and data, on our ``Parser``
    add_arguments_to_parser     --run_dir, --resume, --init_from, --save_every, --min_steps …
    parse_arguments             ``config``, or one line about what is wrong with it
                                (Lightning seeds the random generators)
    before_instantiate_classes  the last check of the configuration
    instantiate_classes         nothing yet

Then the command looks at ``config`` and changes what is its own business (``choose_precision()``, loggers, callbacks),
and ``build()`` makes ``datamodule``, ``model`` and ``trainer`` of it.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, Self

import pytorch_lightning as pl
import torch
import yaml
from jsonargparse import ActionYesNo, Namespace
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.utilities.model_helpers import is_overridden

# Classes are known by their short names once their packages are imported.
import callbacks  # noqa: F401
import datamodules  # noqa: F401
import lightning_modules  # noqa: F401

from .arguments import CONFIGS, check_config_files, naming_file
from .classes import import_class, is_importable, parameters
from .compiling import compile_parts
from .console import say
from .errors import UserError
from .parsing.build_errors import naming, naming_instantiators
from .parsing.parser import Parser
from .private_api import cpu_has_bfloat16, recording_instantiator
from .run_length import chooses_length

DEFAULT_CONFIG = CONFIGS / "infomax_sample.yaml"

DESCRIPTION = """\
Trains a model on its data, tests the best checkpoint, and leaves everything in a run folder.

  train.py                                     the default job, configs/infomax_sample.yaml
  train.py -c configs/X.yaml                   another experiment
  train.py -c configs/X.yaml -c configs/with/Y.yaml --model.lr=1e-4
                                               later files and options override earlier ones
  train.py --resume auto                       continue the newest unfinished run of this configuration
  train.py -c configs/X.yaml --print_config=comments
                                               all settings with their meanings
"""
USAGE = "[-c CONFIG]... [--run_dir DIR] [--resume PATH|auto] [--print_config[=comments]] [--KEY=VALUE]..."


class ExperimentCLI(LightningCLI):
    """LightningCLI without subcommand that parses when it is made, and builds when ``build()`` is called.

    Args:
        args: the command line, without the name of the program.
        description: what ``--help`` says first.
        usage: the line of usage, without the program.
        prog: name of the program.
    """

    parser: Parser

    def __init__(self, args: Sequence[str], description: str = DESCRIPTION, usage: str = USAGE, prog: str = "train.py"):
        super().__init__(
            model_class=pl.LightningModule,
            datamodule_class=pl.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=1,
            parser_class=Parser,
            parser_kwargs={
                "description": description,
                "usage": f"{prog} {usage}",
                "prog": prog,
                "of_experiment": True,
            },
            args=list(args),
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # ``build`` sees to it
        )

    # ----------------------------------------------------------------------------------------------------- parsing

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run_dir", type=str | None, default=None, help="Folder of the run (default: runs/<name>/<time>)."
        )
        parser.add_argument(
            "--resume",
            type=str | None,
            default=None,
            help="Continue a run folder or a checkpoint, or `auto`: the newest unfinished run of this configuration.",
        )
        parser.add_argument(
            "--init_from",
            type=str | None,
            default=None,
            help="Start a new run from the weights of a run folder or checkpoint; all else starts fresh.",
        )
        parser.add_argument(
            "--init_from_partly",
            action=ActionYesNo,
            default=False,
            help="With --init_from: what fits neither name nor shape starts fresh, and is named.",
        )
        parser.add_argument(
            "--save_every",
            type=float,
            default=60.0,
            help="Seconds between two writes of last.ckpt within an epoch; 0: after each optimizer step.",
        )
        parser.add_argument(
            "--min_steps",
            type=int,
            default=0,
            help="Train more epochs than max_epochs where these are fewer optimizer steps, so that small data is "
            "learnt; not with --trainer.max_epochs and the like on the command line.",
        )
        parser.add_argument(
            "--check_finite", type=bool, default=True, help="Stop the training at the first loss that is not finite."
        )
        parser.add_argument("--compile", type=bool, default=False, help="Compile the model's layers by torch.compile.")
        parser.add_argument(
            "--float32_matmul_precision",
            type=Literal["highest", "high", "medium"],
            default="highest",
            help="Of products of float32 matrices: high and medium are faster where the hardware has TF32 or bfloat16.",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        if "--trainer.help" in args:
            self.parser.print_trainer_help()
        check_config_files(args)
        args = ["--print_config=comments" if argument == "--print_config" else argument for argument in args]
        length = ["--min_steps=0"] if chooses_length(args) else []
        try:
            self.config: Namespace = parser.parse_args([*args, *length])
        except UserError as error:
            raise UserError(naming_file(str(error), args)) from error

    def before_instantiate_classes(self) -> None:
        """Raises UserError if the configuration sets an argument of the model that the data sets."""
        if self.config.init_from_partly and not self.config.init_from:
            raise UserError("--init_from_partly: name the run or checkpoint with --init_from")
        model_class, data_class = (import_class(self.config[key].class_path) for key in ("model", "data"))
        for name in getattr(model_class, "data_links", ()):
            default = parameters(model_class)[name].default
            given = self.config.model.init_args.get(name, default)
            if _as_lists(given) != _as_lists(default) and name in parameters(data_class):
                raise UserError(f"model.{name} comes from the data: set data.{name}")

    def instantiate_classes(self) -> None:
        """Not yet: ``build`` does it."""

    def plain_config(self) -> dict[str, Any]:
        """The configuration as plain values, as ``config.yaml`` keeps it: without what belongs to this invocation."""
        plain = yaml.safe_load(self.parser.dump(self.config, skip_link_targets=True, skip_none=False, format="yaml"))
        # The weights that a run starts from, and what it was asked of its length, are part of what reruns it.
        unset = [key for key in ("init_from", "init_from_partly", "min_steps") if not plain[key]]
        return {key: value for key, value in plain.items() if key not in ("run_dir", "resume", "config", *unset)}

    # ---------------------------------------------------------------------------------------------------- building

    def choose_precision(self) -> None:
        """If the precision is left open: bf16-mixed where the hardware has it natively, else 32 bits."""
        if self.config.trainer.precision is None:
            native = has_native_bfloat16(self.config.trainer.accelerator)
            self.config.trainer.precision = "bf16-mixed" if native else "32-true"
            reason = "native here" if native else "bfloat16 is not native here"
            say(f"precision: {self.config.trainer.precision} ({reason})")

    def build(
        self,
        hyperparameters: Mapping[str, Any] = MappingProxyType({}),
        adopted: Mapping[str, Any] | None = None,
        **trainer_arguments: Any,
    ) -> Self:
        """Builds ``datamodule``, ``model`` with what it takes from the data, and ``trainer``; returns itself.

        Args:
            hyperparameters: the model's in the checkpoint that is resumed or tested.
            adopted: those of which data with a method ``adopt`` takes what it can (a vocabulary); None: the same.
            trainer_arguments: these override the configured ones; callbacks, loggers and plugins are added to them.
        """
        adopted = hyperparameters if adopted is None else adopted
        record_data, record_model = (recording_instantiator(self, key) for key in ("data", "model"))

        def build_data(cls: type, *args: Any, applied_instantiation_links: dict, **kwargs: Any) -> Any:
            with naming("data", cls):
                data = record_data(cls, *args, applied_instantiation_links={}, **kwargs)
            if adopted and hasattr(data, "adopt"):
                data.adopt(adopted)
            self._drop_links_without_source(data)
            return data

        def build_model(cls: type, *args: Any, applied_instantiation_links: dict, **kwargs: Any) -> Any:
            taken = parameters(cls)
            links = {key: v for key, v in applied_instantiation_links.items() if key.rsplit(".", 1)[-1] in taken}
            # What the model once found in a file that may be gone by now; its checkpoint has it.
            for name in set(getattr(cls, "checkpoint_arguments", ())) & hyperparameters.keys():
                kwargs[name] = hyperparameters[name]
            with naming("model", cls):
                return record_model(cls, *args, applied_instantiation_links=links, **kwargs)

        instantiators = [
            (build_data, pl.LightningDataModule, True),
            (build_model, pl.LightningModule, True),
            *naming_instantiators(),
        ]
        parts = self.parser.instantiate(self._config_with_files(hyperparameters), instantiators=instantiators)
        self.datamodule, self.model = parts.data, parts.model
        torch.set_float32_matmul_precision(self.config.float32_matmul_precision)
        if self.config.compile:
            compile_parts(self.model)
        self.trainer = _build_trainer(parts.trainer, trainer_arguments)
        return self

    def _config_with_files(self, hyperparameters: Mapping[str, Any]) -> Namespace:
        """The configuration with what the model's slots once read from files that may be gone by now: their
        ``checkpoint_arguments``, as a checkpoint's hyperparameters have them."""
        config = self.config.clone()
        slots = config.model.get("init_args") or {}
        for name, saved in hyperparameters.items():
            slot, kept = slots.get(name), saved.get("class_path", "") if isinstance(saved, Mapping) else ""
            if not isinstance(slot, Namespace) or "class_path" not in slot or not is_importable(kept):
                continue
            cls, arguments = import_class(kept), saved.get("init_args") or {}
            if import_class(slot.class_path) is cls:
                for argument in set(getattr(cls, "checkpoint_arguments", ())) & arguments.keys():
                    slot.init_args[argument] = arguments[argument]
        return config

    def _drop_links_without_source(self, data: pl.LightningDataModule) -> None:
        """Keeps only the links whose source the data has, now that it is built.

        Raises:
            UserError: the data has nothing of what the model takes from its data.
        """
        model_class = import_class(self.config.model.class_path)
        wanted = getattr(model_class, "data_links", ())
        present = [name for name in wanted if hasattr(data, name)]
        if wanted and not present:
            raise UserError(
                f"{model_class.__name__} takes {' and '.join(wanted)} from its data, which {type(data).__name__} does "
                "not have: choose a datamodule that fits (--data=CLASS)"
            )
        # jsonargparse skips a link without source by itself, but writes the data into a log message first, for which
        # Lightning begins to read its loaders.
        self.parser.link_to_data(present)


def _as_lists(value: Any) -> Any:
    """The value with lists in place of tuples, as a file has them."""
    return [_as_lists(item) for item in value] if isinstance(value, list | tuple) else value


def _build_trainer(configured: Namespace, added: dict[str, Any]) -> pl.Trainer:
    arguments = {**configured, **added}
    for name in {"callbacks", "logger", "plugins"} & added.keys():
        given = configured.get(name)
        given = given if isinstance(given, list) else ([] if given in (None, True, False) else [given])
        arguments[name] = [*given, *added[name]]
    arguments["callbacks"] = latest_of_each(arguments["callbacks"] or [])
    return pl.Trainer(**arguments)


def latest_of_each(given: pl.Callback | Sequence[pl.Callback]) -> list[pl.Callback]:
    """Of callbacks whose states a checkpoint can't tell apart, only the last: later files override earlier ones."""
    given = given if isinstance(given, Sequence) else [given]
    last = {callback.state_key: callback for callback in given}
    kept = [c for c in given if last[c.state_key] is c or not is_overridden("state_dict", c)]
    for name in dict.fromkeys(type(callback).__name__ for callback in given if callback not in kept):
        say(f"trainer.callbacks has {name} twice: the last one counts")
    return kept


def has_native_bfloat16(accelerator: Any = "auto") -> bool:
    """Whether the device that ``accelerator`` names computes in bfloat16 itself."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return accelerator in ("auto", "cpu") and cpu_has_bfloat16()
