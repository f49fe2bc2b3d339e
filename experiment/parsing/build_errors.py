"""Errors of the classes that a configuration names, said with the key that holds them."""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from ..classes import parameters
from ..errors import UserError

# The sections of a configuration whose classes are built as they stand there.
_KEYS = {"trainer.callbacks": pl.Callback, "trainer.logger": pl.loggers.Logger}
_REQUIREMENT = re.compile(r"'(?P<package>[\w.-]+[^']*)' not met|No module named '(?P<module>[^']+)'")


def naming_instantiators() -> list[tuple[Callable[..., Any], type, bool]]:
    """What builds callbacks and loggers, as ``Parser.instantiate`` takes it."""

    def build_for(key: str) -> Callable[..., Any]:
        def build(cls: type, *args: Any, applied_instantiation_links: Any = None, **kwargs: Any) -> Any:
            with naming(key, cls):
                return cls(*args, **kwargs)

        return build

    return [(build_for(key), base, True) for key, base in _KEYS.items()]


@contextlib.contextmanager
def naming(key: str, cls: type) -> Iterator[None]:
    """Says where in the configuration the class stands whose constructor raises.

    Raises:
        UserError: with the message of what a constructor says for users.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        match = _REQUIREMENT.search(str(error))
        package = (match["package"] or match["module"]) if match else str(error)
        raise UserError(
            f"{key}: {cls.__name__} needs the package '{package}', which is not installed: pip install '{package}'"
        ) from error
    except (ValueError, MisconfigurationException) as error:
        message = " ".join(str(error).split())
        if f"--{key}" in message:
            raise
        first = re.match(r"`?(\w+)`?", message)
        is_argument = first is not None and first[1] in parameters(cls)
        if key in _KEYS:  # one of several, or one that few configurations name
            owner = "" if message.startswith(cls.__name__) else f"{cls.__name__}: "
            raise UserError(f"{key}: {owner}{message}") from error
        if not is_argument:
            raise
        raise UserError(f"{key}.{message}") from error
