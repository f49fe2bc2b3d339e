"""Gathering values from the processes of a distributed run."""

from typing import TypeVar

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
