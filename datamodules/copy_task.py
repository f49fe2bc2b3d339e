"""Copying over a distance: random symbols, a long filler, the same symbols again."""

import hashlib
from functools import cached_property
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from readers.errors import DataError

from .arguments import check_at_least, check_seed
from .batches import IGNORED, TokenBatch
from .loader import BatchLoader

SPLITS = ("train", "val", "test")


class CopyTaskDataModule(pl.LightningDataModule):
    """Sequences whose end repeats their beginning, out of reach of any chain of short steps.

        x_1 ... x_L  0 ... 0  x_1 ... x_L,    x_i uniform over 1 ... num_symbols,    0: the filler

    A symbol and its copy are ``distance`` = L + fillers apart; only the copies are targets. The position that predicts
    a copy has read the symbol ``distance - 1`` positions earlier. Symbols are independent, so a model can know a copy
    only if its layers together reach back exactly that far; otherwise it is right once in ``num_symbols``:

    - windows of radius w in M layers reach back M w, and must fail if M w < distance - 1;
    - steps of a rate k alone (atrous) stay in one residue class: they get there in one layer if k divides
      ``distance - 1``, and must fail otherwise;
    - both together (sparse) get there in one layer or, for any distance, in two: the remainder and the multiple of k.
      Two steps that must be found together take far longer to learn.

    The default distance is out of reach of two layers with windows of 64, and 192 is a multiple of 16, 24, 32, 48, 64
    and 96. Batches are ``TokenBatch``.

    Args:
        source: ``sample``, made at load time, which defines the task.
        batch_size: sequences per training batch and process.
        eval_batch_size: sequences per batch in validation and test.
        length: L, the number of symbols to copy.
        distance: positions between a symbol and its copy.
        num_symbols: number of different symbols.
        seed: of the sequences and their order.
        sample_train_size: number of training sequences.
        sample_test_size: number of test sequences, and of validation sequences.

    Attributes:
        vocab_size: number of tokens: the symbols and the filler, which is 0.
        sequence_length: positions of a sequence, ``distance + length - 1``.

    Raises:
        ValueError: an argument is out of range.
        DataError: the source is not ``sample``.

    Example:
        data:
          class_path: CopyTaskDataModule
          init_args: {distance: 257, num_symbols: 16}
    """

    def __init__(
        self,
        source: str = "sample",
        batch_size: int = 32,
        eval_batch_size: int = 64,
        length: int = 32,
        distance: int = 193,
        num_symbols: int = 32,
        seed: int = 0,
        sample_train_size: int = 20000,
        sample_test_size: int = 500,
    ) -> None:
        super().__init__()
        check_at_least(1, batch_size=batch_size, eval_batch_size=eval_batch_size, length=length)
        check_at_least(1, sample_train_size=sample_train_size, sample_test_size=sample_test_size)
        check_at_least(2, num_symbols=num_symbols)
        if distance < length:
            raise ValueError(f"distance ({distance}) must be at least length ({length})")
        check_seed(seed)
        if source != "sample":
            raise DataError(f"data.source: the copy task is made at load time; give sample, not {source}")
        self.source = source
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.length = length
        self.distance = distance
        self.num_symbols = num_symbols
        self.seed = seed
        self.sample_train_size = sample_train_size
        self.sample_test_size = sample_test_size

    @property
    def vocab_size(self) -> int:
        """Number of tokens: the symbols and the filler."""
        return self.num_symbols + 1

    @property
    def sequence_length(self) -> int:
        """Positions of a sequence."""
        return self.distance + self.length - 1

    @cached_property
    def symbols(self) -> dict[str, Tensor]:
        """The symbols to copy, (sequences, length) int64, of ``train``, ``val`` and ``test``."""
        sizes = (self.sample_train_size, self.sample_test_size, self.sample_test_size)
        # Drawn in turn from one generator: no split repeats another's numbers, whatever the sizes.
        generator = torch.Generator().manual_seed(self.seed)
        return {
            split: torch.randint(1, self.num_symbols + 1, (size, self.length), generator=generator)
            for split, size in zip(SPLITS, sizes, strict=True)
        }

    def setup(self, stage: str | None = None) -> None:
        """Make all sequences; the same in every process and at every stage."""
        self.symbols  # noqa: B018

    def train_dataloader(self) -> BatchLoader:
        return self._loader("train", self.batch_size, shuffle=True, drop_last=True, seed=self.seed)

    def val_dataloader(self) -> BatchLoader:
        return self._loader("val", self.eval_batch_size)

    def test_dataloader(self) -> BatchLoader:
        return self._loader("test", self.eval_batch_size)

    def _loader(self, split: str, batch_size: int, **options: Any) -> BatchLoader:
        symbols = self.symbols[split]
        return BatchLoader(lambda rows: self.batch(symbols[rows]), len(symbols), batch_size, **options)

    def batch(self, symbols: Tensor) -> TokenBatch:
        """Sequences that require copying the given symbols.

        Shapes: (B, length) int64 -> inputs and targets (B, sequence_length) int64.
        """
        fillers = symbols.new_zeros(len(symbols), self.distance - self.length)
        tokens = torch.cat([symbols, fillers, symbols], dim=1)
        targets = tokens[:, 1:].clone()
        targets[:, : self.distance - 1] = IGNORED
        return TokenBatch(tokens[:, :-1], targets)

    def describe(self) -> dict[str, Any]:
        """What the run was trained on, as plain values."""
        digest = hashlib.sha256()
        for symbols in self.symbols.values():
            digest.update(symbols.numpy().tobytes())
        return {
            "source": self.source,
            **{f"{split}_sequences": len(symbols) for split, symbols in self.symbols.items()},
            "length": self.length,
            "distance": self.distance,
            "num_symbols": self.num_symbols,
            "fingerprint": digest.hexdigest()[:16],
        }
