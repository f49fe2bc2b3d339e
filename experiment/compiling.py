"""``--compile``: ``torch.compile`` on the parts of a model, in place."""

import contextlib
import logging
from collections.abc import Iterator

from torch import nn
from torchmetrics import Metric

from .console import say
from .errors import UserError
from .private_api import run_uncompiled_what_fails


def compile_parts(model: nn.Module) -> None:
    """Has ``torch.compile`` compile the layers that the model is made of, each when it is called first.

    Not the steps of the LightningModule, whose logging can't be part of a graph. In place, so the names in
    ``state_dict`` stay. What can't be compiled runs as it is, and a line says so.
    """
    handler = _OneLine()
    for name in ("torch._dynamo", "torch._inductor"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
    run_uncompiled_what_fails()
    for part in _parts(model):
        part.compile()


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost layers that are called; lists and dictionaries of layers are not."""
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from _parts(child)
        elif not isinstance(child, Metric):
            yield child


@contextlib.contextmanager
def compile_errors() -> Iterator[None]:
    """Turns what the compiler fails at only in the backward pass, where torch can't go on uncompiled, into one line.

    Raises:
        UserError: the compiler failed.
    """
    try:
        yield
    except Exception as error:
        if type(error).__module__.split(".")[:2] not in (["torch", "_inductor"], ["torch", "_dynamo"]):
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--compile: torch.compile failed, so leave it out: {reason}") from error


class _OneLine(logging.Handler):
    """Says once in one line what torch logs in many about each part that it could not compile."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        lines = [line.strip() for line in record.getMessage().splitlines() if line.strip()]
        text = lines[0] if lines else ""
        if text not in self._said:
            self._said.add(text)
            say(f"compile: {text[:300]}")
