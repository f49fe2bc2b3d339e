"""Gathering values from the processes of a distributed run."""

from collections.abc import Iterable
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def gather_objects(value: T) -> list[T]:
    """The values of all processes, by rank; in a single-process run ``[value]``.

    A collective operation: every process must call it.

    Args:
        value: anything that can be pickled; its type and shape may differ between processes.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    values: list = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def by_rank(own: Any, gathered: list[Any] | None) -> list[Any]:
    """The values of all processes: those that were gathered, else this process's own at its rank and None elsewhere.

    For what a checkpoint holds of each process. Nothing may be gathered while a checkpoint is put together, as a single
    process may write one; so whoever writes checkpoints calls ``gather_process_states`` before.

    Args:
        own: the value of this process.
        gathered: the values of all processes by rank, or None.
    """
    if gathered is not None:
        return list(gathered)
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [own]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    values[torch.distributed.get_rank()] = own
    return values


def gather_process_states(parts: Iterable[object]) -> None:
    """Tells the parts of a run what each of them holds on the other processes; before a checkpoint is written.

    A part that holds something of its own on each process has a method ``process_state()`` that returns it; the values
    of all processes, by rank, become its ``process_states``, for ``by_rank``. A collective operation: every process
    must call it.

    Args:
        parts: the module and the callbacks; those without ``process_state`` are left alone.
    """
    holders: list[Any] = [part for part in parts if hasattr(part, "process_state")]
    rows = gather_objects([holder.process_state() for holder in holders])
    for number, holder in enumerate(holders):
        holder.process_states = [row[number] for row in rows]


def forget_process_states(parts: Iterable[object]) -> None:
    """Takes back what ``gather_process_states`` told them, as it changes with the next step."""
    for part in parts:
        if hasattr(part, "process_state"):
            part.process_states = None  # type: ignore[attr-defined]
