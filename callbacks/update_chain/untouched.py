"""Steps of a module on the side: what they change is afterwards what it was."""

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn


@contextmanager
def untouched(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Iterator[None]:
    """Within it nothing is logged; afterwards the module and the global random states are what they were.

    Of each module in it: weights, buffers, attributes (a metric's state, a recurrent state, a counter, the mode, a
    random generator) and what lies in lists and dictionaries.
    """
    give_back = [*_keep_attributes(pl_module), *_keep_generators(pl_module.modules())]
    loggers, trainer.loggers = trainer.loggers, [DummyLogger() for _ in trainer.loggers]
    vars(pl_module).update(log=lambda *_, **__: None, log_dict=lambda *_, **__: None)
    try:
        with isolate_rng():
            yield
    finally:
        trainer.loggers = loggers
        with torch.no_grad():
            for each in give_back:
                each()


@contextmanager
def kept_generators(owners: Iterable[Any]) -> Iterator[None]:
    """Afterwards the random generators among the attributes of these objects are in the state that they were in."""
    give_back = [*_keep_generators(owners)]
    try:
        yield
    finally:
        for each in give_back:
            each()


def _keep_attributes(pl_module: nn.Module) -> Iterator[Callable[[], None]]:
    # Parameters, buffers and submodules lie in dictionaries among the attributes.
    waiting: list[Any] = [vars(module) for module in pl_module.modules()]
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            if not value.is_inference():  # else no step could change it
                yield partial(_give_back_tensor, value, value._version, value.detach().clone())
        elif isinstance(value, dict):
            yield partial(_give_back_dict, value, dict(value))
            waiting += value.values()
        elif isinstance(value, list | tuple):
            if type(value) is list:
                yield partial(value.__setitem__, slice(None), list(value))
            waiting += value


def _give_back_tensor(tensor: Tensor, version: int, kept: Tensor) -> None:
    if tensor._version != version:
        tensor.copy_(kept)


def _give_back_dict(container: dict[Any, Any], kept: dict[Any, Any]) -> None:
    for name in container.keys() - kept.keys():
        del container[name]
    for name, value in kept.items():
        if name not in container or container[name] is not value:
            container[name] = value


def _keep_generators(owners: Iterable[Any]) -> Iterator[Callable[[], None]]:
    values = [value for owner in owners for value in getattr(owner, "__dict__", {}).values()]
    for generator in {id(value): value for value in values}.values():
        if isinstance(generator, torch.Generator):
            yield partial(_call, generator.set_state, generator.get_state())
        elif isinstance(generator, random.Random):
            yield partial(_call, generator.setstate, generator.getstate())
        elif isinstance(generator, np.random.Generator):
            yield partial(setattr, generator.bit_generator, "state", generator.bit_generator.state)


def _call(set_state: Callable[[Any], Any], state: Any) -> None:
    set_state(state)
