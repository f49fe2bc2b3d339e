"""Checkpoints as files: written completely or not at all, readable without running code, of one run."""

import io
import os
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from lightning_modules.trained_models import read_checkpoint

from ..console import say
from ..errors import UserError
from ..run_folder import RunFolder

_PLAIN = (type(None), bool, int, float, complex, str, bytes, Tensor)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a file beside it, then renames that.

    Lightning writes to the system's temporary folder and copies from there: a kill or a full disk leaves half a file.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        refuse_unreadable(checkpoint)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        try:
            with open(temporary, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException as error:
            temporary.unlink(missing_ok=True)
            if isinstance(error, RuntimeError) and _is_disk_full(path.parent):
                # torch reports a failed write as a RuntimeError of its own.
                raise OSError(28, "No space left on device", str(path)) from error
            raise


def _is_disk_full(folder: Path) -> bool:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize < 1 << 26


# ---------------------------------------------------------------------------------------------------------- readable


def refuse_unreadable(checkpoint: dict[str, Any]) -> None:
    """Refuses to write what could only be read by running code in the file: NumPy's numbers, paths, own classes.

    Raises:
        UserError: names whose state it is.
    """
    for keys, value in _leaves(checkpoint):
        if not _is_readable(type(value), value):
            what, *inner = keys if keys[0] != "callbacks" else keys[1:]
            owner = f"trainer.callbacks: {what.split('{')[0]}" if keys[0] == "callbacks" else f"checkpoint['{what}']"
            cls = type(value)
            raise UserError(
                f"{owner} keeps a {cls.__module__}.{cls.__qualname__} ({'.'.join(inner)}), which a checkpoint can't "
                "hold: save it as a plain value (float, str, list) or a tensor"
            )


def _leaves(value: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each object in nested containers that is not plain, with the keys that lead to it."""
    if type(value) in (dict, OrderedDict):
        for key, entry in value.items():
            if type(key) not in _PLAIN:
                yield (*keys, str(key)), key
            yield from _leaves(entry, (*keys, str(key)))
    elif type(value) in (list, tuple, set):
        for entry in value:
            if type(entry) not in _PLAIN:
                yield from _leaves(entry, keys)
    elif type(value) not in _PLAIN:
        yield keys, value


_readable: dict[type, bool] = {}


def _is_readable(cls: type, value: Any) -> bool:
    """Whether a written object of this class can be read; by trying the first one. Tensors of all kinds can."""
    if issubclass(cls, Tensor):
        return True
    if cls not in _readable:
        file = io.BytesIO()
        try:
            torch.save(value, file)
            file.seek(0)
            torch.load(file, weights_only=True)
            _readable[cls] = True
        except Exception:  # nearly any, of pickle and torch
            _readable[cls] = False
    return _readable[cls]


# --------------------------------------------------------------------------------------------------------- of one run


def set_aside(folder: RunFolder, resumed: Path, step: int, is_same: bool, best_score: float | None) -> None:
    """Renames checkpoints of a run folder that are not of the run as it goes on from one of them.

    A run that was killed goes on from its ``last.ckpt`` as it was, and comes to its later ``best.ckpt`` again.

    Args:
        folder: of the run.
        resumed: the checkpoint that the run goes on from.
        step: that of the checkpoint.
        is_same: the configuration is that of the checkpoint.
        best_score: that of the checkpoint; None: there is none yet, or it was measured on other data.
    """
    if is_same and folder.last.is_file() and resumed.samefile(folder.last):
        return
    for path in (folder.last, folder.best):
        written = step_of(path)
        is_measured_otherwise = path == folder.best and best_score is None
        if written is None or not (written > step or is_measured_otherwise):
            continue
        kept = _free(path.with_name(f"{path.stem}-step={written}.ckpt"))
        path.rename(kept)
        reason = f"of step {written}" if written > step else "the best on other data"
        say(f"{path.name} is {reason}, and this run goes on from step {step}: kept as {kept.name}")
        if path == folder.last:
            temporary = path.with_name(path.name + ".tmp")
            shutil.copy(resumed, temporary)
            os.replace(temporary, path)


def step_of(path: Path) -> int | None:
    """The optimizer steps of a checkpoint; None if there is none, or it can't be read."""
    try:
        return read_checkpoint(path)["global_step"] if path.is_file() else None
    except (ValueError, KeyError, TypeError):
        return None


def _free(path: Path) -> Path:
    """A name like this one that no file has yet."""
    names = (path.with_stem(f"{path.stem}-v{number}") if number else path for number in count())
    return next(name for name in names if not name.exists())
