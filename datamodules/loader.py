"""A loader for data in memory: batches by index, resumable in the middle of an epoch."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_map


class BatchLoader:
    """Yields ``fetch(indices)`` for one batch of indices after another.

    Data in memory needs no worker processes: one indexing operation makes a whole batch. The order of an epoch is a
    function of ``(seed, epoch)`` alone, drawn from a separate generator, so the position in the data is two integers,
    and neither the global random state nor the number of batches already read affects what comes next.

    Lightning finds ``state_dict``/``load_state_dict`` and resumes from a checkpoint in the middle of an epoch with
    exactly the remaining batches. It also calls ``set_epoch`` before each epoch.

    In distributed training each rank takes every ``world_size``-th item of the same shuffled order. With ``drop_last``
    all ranks get the same number of full batches; otherwise no item is repeated, so the numbers may differ by one.

    In a process that uses CUDA a thread makes each batch while the one before is in use, in pinned memory, from which
    Lightning copies it without waiting.

    Args:
        fetch: makes a batch from a 1-D int64 tensor of indices (in subclasses, from an entry of their ``plan``).
        num_items: number of items in the data.
        batch_size: items per batch and rank.
        shuffle: a new order in each epoch, else the natural order.
        drop_last: drop the last, incomplete batch (other epochs have its items in other batches).
        seed: of the order.

    Raises:
        ValueError: ``drop_last`` leaves no batch at all.
    """

    def __init__(
        self,
        fetch: Callable[[Any], Any],
        num_items: int,
        batch_size: int,
        *,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        self.fetch = fetch
        self.num_items = num_items
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.seed = seed
        self.epoch = 0
        self._batches_done = 0
        self._resume: tuple[int, int] | None = None
        if len(self) == 0:
            _, processes = rank_and_world_size()
            items = "1 item is" if num_items == 1 else f"{num_items} items are"
            each = f" on each of {processes} processes" * (processes > 1)
            raise ValueError(f"{items} too few for a batch of {batch_size}{each}: lower data.batch_size")

    @property
    def batch_sampler(self) -> SimpleNamespace:
        """Lightning looks for ``set_epoch`` in ``batch_sampler.sampler``.

        It also looks in ``sampler``, but would then take this for torch's ``DataLoader`` and change the order.
        """
        return SimpleNamespace(sampler=self)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        rank, world_size = rank_and_world_size()
        if self.drop_last:
            return self.num_items // (self.batch_size * world_size)
        items = len(range(rank, self.num_items, world_size))
        return -(-items // self.batch_size)

    def plan(self, epoch: int) -> Sequence[Any]:
        """The argument of ``fetch`` for each batch of an epoch on this rank: a function of ``(seed, epoch)`` alone."""
        if self.shuffle:
            generator = torch.Generator().manual_seed(epoch_seed(self.seed, epoch))
            order = torch.randperm(self.num_items, generator=generator)
        else:
            order = torch.arange(self.num_items)
        rank, world_size = rank_and_world_size()
        return order[rank::world_size].split(self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        # A generator: its body first runs at the first batch, after Lightning has called `set_epoch`.
        epoch, resume = self.epoch, self._resume
        self._resume = None
        # A position in another epoch does not apply to this one (a checkpoint written at the end of an epoch).
        self._batches_done = resume[1] if resume is not None and resume[0] == epoch else 0
        plan = self.plan(epoch)
        first = self._batches_done
        batches = map(self.fetch, plan[first : len(self)])
        for number, batch in enumerate(pinned_ahead(batches) if torch.cuda.is_initialized() else batches, first + 1):
            self._batches_done = number
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The position in the data: ``epoch``, and ``batches_done`` in it."""
        if self._resume is not None:  # loaded, with no batch read since
            return {"epoch": self._resume[0], "batches_done": self._resume[1]}
        return {"epoch": self.epoch, "batches_done": self._batches_done}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue from a position, in the next iteration."""
        self._resume = (state_dict["epoch"], state_dict["batches_done"])


def pinned_ahead(batches: Iterator[Any]) -> Iterator[Any]:
    """The batches, their tensors in pinned memory, each made by a thread while the one before is in use."""

    def make() -> list[Any]:
        return [tree_map(_pinned, batch) for batch in islice(batches, 1)]

    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        coming = thread.submit(make)
        while made := coming.result():
            coming = thread.submit(make)
            yield made[0]


def _pinned(value: Any) -> Any:
    can_be = isinstance(value, Tensor) and value.device.type == "cpu" and value.layout == torch.strided
    return value.pin_memory() if can_be else value


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed per epoch, so that an epoch's draws depend on nothing else."""
    return seed * 1_000_003 + epoch


def mix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers that depend on others alone and look random.

    Source: the output function of SplitMix64 (Steele, Lea and Flood 2014), as a hash.
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def unit_interval(values: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Numbers in [0, 1), of the upper 53 bits of others."""
    return (values >> np.uint64(11)).astype(np.float64) * 2.0**-53


def rank_and_world_size() -> tuple[int, int]:
    """Rank of this process and number of processes; 0 and 1 if training isn't distributed."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
