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
    give_back = [each for value in _reached(pl_module) for each in _keep(value)]
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
    """Afterwards the random generators among the attributes of these objects are in the state that they were in.

    Not those in their lists and dictionaries, which may have an entry for each row of a data set.
    """
    values = [value for owner in owners for value in getattr(owner, "__dict__", {}).values()]
    give_back = [each for value in values for each in _keep_generator(value)]
    try:
        yield
    finally:
        for each in give_back:
            each()


def _reached(pl_module: nn.Module) -> Iterator[Any]:
    """The attributes of each module, and what lies in lists, tuples and dictionaries among them; each once."""
    # Parameters, buffers and submodules lie in dictionaries among the attributes.
    waiting: list[Any] = [vars(module) for module in pl_module.modules()]
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value


def _keep(value: Any) -> Iterator[Callable[[], None]]:
    if isinstance(value, Tensor):
        if not value.is_inference():  # else no step could change it
            yield partial(_give_back_tensor, value, value._version, value.detach().clone())
    elif isinstance(value, dict):
        yield partial(_give_back_dict, value, dict(value))
    elif type(value) is list:
        yield partial(value.__setitem__, slice(None), list(value))
    else:
        yield from _keep_generator(value)


def _give_back_tensor(tensor: Tensor, version: int, kept: Tensor) -> None:
    if tensor._version != version:
        tensor.copy_(kept)


def _give_back_dict(container: dict[Any, Any], kept: dict[Any, Any]) -> None:
    for name in container.keys() - kept.keys():
        del container[name]
    for name, value in kept.items():
        if name not in container or container[name] is not value:
            container[name] = value


def _keep_generator(value: Any) -> Iterator[Callable[[], None]]:
    if isinstance(value, torch.Generator):
        yield partial(_call, value.set_state, value.get_state())
    elif isinstance(value, random.Random):
        yield partial(_call, value.setstate, value.getstate())
    elif isinstance(value, np.random.Generator):
        yield partial(setattr, value.bit_generator, "state", value.bit_generator.state)


def _call(set_state: Callable[[Any], Any], state: Any) -> None:
    set_state(state)
