"""Logical inference: the relation between two formulas, trained on short ones and tested on long ones."""

import hashlib
from functools import cached_property
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from readers.encodings import check_encoding
from readers.errors import DataError
from readers.files import user_path
from readers.logic import RELATIONS, VOCABULARY, Pair, read_pairs

from .arguments import check_at_least, check_seed, check_val_fraction
from .batches import SentencePairBatch
from .loader import BatchLoader, rank_and_world_size
from .samples.formulas import make_pairs


class LogicalInferenceDataModule(pl.LightningDataModule):
    """Pairs of formulas over six variables with ``not``, ``and``, ``or``, labelled by the relation of their truth sets.

    There are seven mutually exclusive relations: equivalence ``=``, entailment ``<`` and ``>``, negation ``^``,
    alternation ``|``, cover ``v``, independence ``#``. They are computed exactly, over all 64 assignments. Training has
    pairs with few operations, the test also pairs with many, so a model must generalise. Batches are
    ``SentencePairBatch``; a pair's number of operations is that of its longer formula.

    The pairs of ``sample`` are balanced over the relations, as far as short formulas allow (see
    ``datamodules.samples.formulas``): guessing is right one time in seven. No pair is in both training and test.

    Args:
        source: ``sample`` (made at load time, which defines the task), or a folder with the files of Bowman et al.,
            ``train*`` and ``test*``: relation, TAB, formula, TAB, formula.
        batch_size: pairs per training batch and process; of fewer pairs, all are one batch.
        eval_batch_size: pairs per batch in validation and test.
        train_max_operations: maximum number of operations of a pair in training and validation.
        max_operations: maximum number of operations of a test pair; the minimum is 1.
        val_fraction: fraction of the training pairs held out for validation, strictly between 0 and 1.
        seed: of pairs, validation split and order.
        sample_train_size: number of training pairs (including validation) of ``sample``.
        sample_test_size: number of test pairs of ``sample``.
        encoding: of the files.

    Attributes:
        vocabulary: ``<pad>``, which is 0, brackets, operations and variables; ``vocab_size`` is their number.
        classes: the symbols of the relations; ``num_classes`` is their number.

    Raises:
        ValueError: an argument is out of range.
        DataError: the source is ``hub``, or can't be read (the message names file and line).

    Source: Bowman et al. 2015 (arXiv 1506.04834), section 4; Tran et al. 2018 for training on up to 6 operations.
    Difference: theirs is not balanced over relations.

    Example:
        data:
          class_path: LogicalInferenceDataModule
          init_args: {train_max_operations: 4, max_operations: 8}
    """

    vocabulary = list(VOCABULARY)
    vocab_size = len(VOCABULARY)
    classes = RELATIONS
    num_classes = len(RELATIONS)

    def __init__(
        self,
        source: str = "sample",
        batch_size: int = 64,
        eval_batch_size: int = 256,
        train_max_operations: int = 6,
        max_operations: int = 12,
        val_fraction: float = 0.1,
        seed: int = 0,
        sample_train_size: int = 50000,
        sample_test_size: int = 6000,
        encoding: str = "utf-8",
    ) -> None:
        super().__init__()
        check_at_least(1, batch_size=batch_size, eval_batch_size=eval_batch_size)
        check_at_least(1, train_max_operations=train_max_operations, max_operations=max_operations)
        check_at_least(1, sample_train_size=sample_train_size, sample_test_size=sample_test_size)
        check_val_fraction(val_fraction)
        check_seed(seed)
        if source == "hub":
            raise DataError(
                "data.source: the hub has no logical inference data; give sample (exact, made at load time) or the "
                "folder of Bowman et al."
            )
        self.source = source
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.train_max_operations = train_max_operations
        self.max_operations = max_operations
        self.val_fraction = val_fraction
        self.seed = seed
        self.sample_train_size = sample_train_size
        self.sample_test_size = sample_test_size
        self.encoding = check_encoding(encoding)

    @cached_property
    def splits(self) -> "dict[str, PairTable]":
        """The pairs of ``train``, ``val`` and ``test``."""
        train, test = self._make() if self.source == "sample" else self._read()
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(self.seed)).tolist()
        held_out = max(1, round(self.val_fraction * len(train)))
        if len(train) <= held_out or not test:
            raise DataError(f"data.source {self.source}: {len(train)} training and {len(test)} test pairs are too few")
        parts = {"train": [train[i] for i in order[held_out:]], "val": [train[i] for i in order[:held_out]]}
        # Pairs of similar length in a batch: little padding.
        return {name: PairTable(part) for name, part in {**parts, "test": sorted(test, key=_length)}.items()}

    def _make(self) -> tuple[list[Pair], list[Pair]]:
        train = make_pairs(self.sample_train_size, range(self.train_max_operations + 1), self.seed, test=False)
        test = make_pairs(self.sample_test_size, range(1, self.max_operations + 1), self.seed, test=True)
        return train, test

    def _read(self) -> tuple[list[Pair], list[Pair]]:
        folder = user_path(self.source)
        files = {split: sorted(folder.glob(f"{split}*")) for split in ("train", "test")}
        for split, found in files.items():
            if not found:
                raise DataError(
                    f"data.source: {folder} has no file {split}*; give the folder of Bowman et al., or sample"
                )
        train, test = (
            [pair for file in files[split] for pair in read_pairs(file, self.encoding)] for split in ("train", "test")
        )
        return (
            [pair for pair in train if pair.operations <= self.train_max_operations],
            [pair for pair in test if 1 <= pair.operations <= self.max_operations],
        )

    def setup(self, stage: str | None = None) -> None:
        """Make or read all pairs; the same in every process and at every stage."""
        self.splits  # noqa: B018

    def train_dataloader(self) -> BatchLoader:
        table = self.splits["train"]
        _, processes = rank_and_world_size()
        size = min(self.batch_size, max(1, len(table) // processes))
        return BatchLoader(table.batch, len(table), size, shuffle=True, drop_last=True, seed=self.seed)

    def val_dataloader(self) -> BatchLoader:
        return BatchLoader(self.splits["val"].batch, len(self.splits["val"]), self.eval_batch_size)

    def test_dataloader(self) -> BatchLoader:
        return BatchLoader(self.splits["test"].batch, len(self.splits["test"]), self.eval_batch_size)

    def describe(self) -> dict[str, Any]:
        """What the run was trained on, as plain values."""
        digest = hashlib.sha256()
        for table in self.splits.values():
            for tensor in table.tensors:
                digest.update(tensor.numpy().tobytes())
        sizes = {f"{name}_pairs": len(table) for name, table in self.splits.items()}
        return {
            "source": self.source,
            **sizes,
            "train_max_operations": self.train_max_operations,
            "test_operations": sorted(set(self.splits["test"].tensors[-1].tolist())),
            "fingerprint": digest.hexdigest()[:16],
        }


class PairTable:
    """Pairs as tensors, one row each: formulas as bytes, padded with 0 to the longest, and their lengths."""

    def __init__(self, pairs: list[Pair]) -> None:
        formulas = ([pair.premise for pair in pairs], [pair.hypothesis for pair in pairs])
        columns = [column for part in formulas for column in (_padded(part), torch.tensor(list(map(len, part))))]
        numbers = torch.tensor([(pair.label, pair.operations) for pair in pairs])
        self.tensors: tuple[Tensor, ...] = (*columns, numbers[:, 0].contiguous(), numbers[:, 1].contiguous())

    def __len__(self) -> int:
        return len(self.tensors[0])

    def batch(self, rows: Tensor) -> SentencePairBatch:
        """The pairs of some rows (B,) int64, padded to the longest of them."""
        batch = SentencePairBatch(*(tensor[rows] for tensor in self.tensors))
        return batch._replace(
            premise=batch.premise[:, : int(batch.premise_lengths.max())].long(),
            hypothesis=batch.hypothesis[:, : int(batch.hypothesis_lengths.max())].long(),
        )


def _padded(formulas: list[bytes]) -> Tensor:
    width = max(map(len, formulas))
    return torch.from_numpy(
        np.frombuffer(bytearray(b"".join(formula.ljust(width, b"\0") for formula in formulas)), np.uint8).reshape(
            len(formulas), width
        )
    )


def _length(pair: Pair) -> int:
    return len(pair.premise) + len(pair.hypothesis)
