"""Loaders of windows over a long text: contiguous rows for models that carry their state, or random windows."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from readers.errors import DataError

from . import loader
from .batches import IGNORED, TokenBatch
from .loader import BatchLoader, epoch_seed

SHORTEST = 5  # minimum length of a window of variable length, in tokens
HALF_CHANCE = 0.05  # probability that the mean length of a window is half of bptt

Alter = Callable[[Tensor, Tensor], Tensor]  # what the model reads, of int64 tokens and their places in the text


class ContiguousLoader(BatchLoader):
    """Yields a text as rows that continue from batch to batch: row b of a batch continues row b of the previous one.

    The text is cut into ``rows`` equal parts (the remainder, fewer than ``rows`` tokens, is dropped); a batch is a
    window over all of them. A model that carries its state must keep it from batch to batch, and reset it at the first
    batch of an epoch. In distributed training each process has its own ``rows``; with ``shared`` (for evaluation) there
    are ``rows`` in total, divided among the processes or, if that is impossible, read by each of them: either way the
    means over all processes equal those of a single one.

    Windows have ``bptt`` tokens, the last one the remaining ones. With ``variable`` the lengths are drawn in each
    epoch, the same on all ranks, following Merity et al. (arXiv 1708.02182, section 5):

        base = bptt with probability 0.95, else bptt / 2;    length = max(5, int(N(base, 5)))

    with one difference: every epoch has the same number of windows, the length of the text over the mean length of a
    window, because Lightning counts the batches only once. What the drawn lengths have too much or too little is taken
    from or added to randomly drawn windows, one token each.

    Args:
        text: (N,) integer tokens.
        rows: rows per batch and process.
        bptt: tokens per window.
        variable: windows of random length.
        shared: the processes share the rows.
        seed: of the lengths.
        name: what messages call the text.
        alter: what becomes of the tokens that are read and predicted.

    Yields:
        ``TokenBatch``, inputs and targets (rows, T) int64; the targets are the inputs shifted by one token.

    Raises:
        DataError: the text has fewer than two tokens per row.
    """

    def __init__(
        self,
        text: Tensor,
        rows: int,
        bptt: int,
        *,
        variable: bool = False,
        shared: bool = False,
        seed: int = 0,
        name: str = "the text",
        alter: Alter | None = None,
    ) -> None:
        self.text = text
        self.alter = alter
        self.rows = rows
        self.shared = shared
        self.bptt = bptt
        self.variable = variable
        self.name = name
        self._steps()  # reject a text that is too short now
        super().__init__(self._window, len(text), rows, seed=seed)

    def _division(self) -> tuple[int, int, int]:
        """Number of rows of all processes, first row of this one, and one past its last."""
        rank, world_size = loader.rank_and_world_size()
        if not self.shared:
            return self.rows * world_size, rank * self.rows, (rank + 1) * self.rows
        if self.rows % world_size:
            return self.rows, 0, self.rows
        own = self.rows // world_size
        return self.rows, rank * own, (rank + 1) * own

    def _steps(self) -> int:
        """Predicted tokens per row."""
        rows, _, _ = self._division()
        length = len(self.text) // rows
        if length < 2:
            raise DataError(
                f"{self.name} has {len(self.text)} tokens (with <eos>), too few for {rows} rows of "
                "at least 2: lower data.batch_size (or eval_batch_size, test_batch_size), or give more text"
            )
        return length - 1

    def __len__(self) -> int:
        steps = self._steps()
        if not self.variable:
            return -(-steps // self.bptt)
        long, short = max(SHORTEST, self.bptt), max(SHORTEST, self.bptt / 2)
        return max(1, round(steps / ((1 - HALF_CHANCE) * long + HALF_CHANCE * short)))

    def plan(self, epoch: int) -> list[tuple[int, int]]:
        """First step of each window of an epoch, and one past its last; the same on every rank."""
        ends = torch.tensor(self._lengths(epoch)).cumsum(0).tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def _lengths(self, epoch: int) -> list[int]:
        count, steps = len(self), self._steps()
        if not self.variable:
            return [self.bptt] * (count - 1) + [steps - self.bptt * (count - 1)]
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, epoch))
        base = torch.where(torch.rand(count, generator=generator) < HALF_CHANCE, self.bptt / 2, float(self.bptt))
        lengths = (base + 5 * torch.randn(count, generator=generator)).long().clamp(min=SHORTEST)
        shortest = min(SHORTEST, steps // count)
        while missing := steps - int(lengths.sum()):
            change = 1 if missing > 0 else -1
            order = torch.randperm(count, generator=generator)
            fit = order[lengths[order] + change >= shortest]
            lengths[fit[: abs(missing)]] += change
        return lengths.tolist()

    def _window(self, window: tuple[int, int]) -> TokenBatch:
        begin, end = window
        rows, first, last = self._division()
        length = len(self.text) // rows
        tokens = self.text[: rows * length].view(rows, length)[first:last, begin : end + 1].long()
        if self.alter is not None:
            places = torch.arange(first, last)[:, None] * length + torch.arange(begin, end + 1)
            tokens = self.alter(tokens, places)
        return TokenBatch(tokens[:, :-1], tokens[:, 1:])


class RandomWindowLoader(BatchLoader):
    """Yields the consecutive windows of ``bptt`` tokens of a text in random order: there is no state to carry.

    In training the order is new in each epoch, and only full batches of full windows are yielded; otherwise the order
    is natural, and the last window is padded with ignored targets (-100).

    Args:
        text: (N,) integer tokens.
        batch_size: windows per batch and process.
        bptt: tokens per window.
        training: shuffled, full windows and batches only.
        seed: of the order.
        name: what messages call the text.
        alter: what becomes of the tokens that are read and predicted.

    Yields:
        ``TokenBatch``, inputs and targets (batch_size, bptt) int64; the targets are the inputs shifted by one token.

    Raises:
        DataError: the text is too short for one batch.
    """

    def __init__(
        self,
        text: Tensor,
        batch_size: int,
        bptt: int,
        *,
        training: bool = False,
        seed: int = 0,
        name: str = "the text",
        alter: Alter | None = None,
    ) -> None:
        self.text = text
        self.alter = alter
        self.bptt = bptt
        windows = (len(text) - 1) // bptt if training else -(-(len(text) - 1) // bptt)
        _, world_size = loader.rank_and_world_size()
        if windows < (batch_size * world_size if training else 1):
            raise DataError(
                f"{name} has {len(text)} tokens (with <eos>), too few for a batch of {batch_size * world_size} windows "
                f"of {bptt}: lower data.batch_size or data.bptt, or give more text"
            )
        super().__init__(self._windows, windows, batch_size, shuffle=training, drop_last=training, seed=seed)

    def _windows(self, numbers: Tensor) -> TokenBatch:
        places = numbers[:, None] * self.bptt + torch.arange(self.bptt + 1)
        last = len(self.text) - 1
        # By NumPy: torch 2.9 has no such indexing of uint16.
        tokens = torch.from_numpy(self.text.numpy()[places.clamp(max=last).numpy()].astype(np.int64))
        tokens = tokens if self.alter is None else self.alter(tokens, places)
        return TokenBatch(tokens[:, :-1], tokens[:, 1:].masked_fill(places[:, 1:] > last, IGNORED))
