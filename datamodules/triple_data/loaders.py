"""Batches for triple extraction: bucketed by length in training, whole sentences in evaluation."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from readers.triples.distant_supervision import OtherItems
from readers.triples.encoding import TripleEncoder
from readers.triples.json_lines import Sentence
from readers.triples.tables import Negatives, TripleTable, batch_arrays, concatenate, draw_spans, gather, take

from .. import loader
from ..batches import Triple, TripleBatch
from ..loader import BatchLoader, epoch_seed, mix64, unit_interval
from .augmentation import replace_entities

CHUNK = 50  # batches that are sorted by length together

Step = tuple[int, Tensor]  # epoch, rows


class BucketLoader(BatchLoader):
    """Full batches of rows of similar length, in a new random order in each epoch.

    An epoch shuffles all rows, sorts them by length within chunks of 50 batches, splits these into batches and
    shuffles the batches. In distributed training a batch is ``world_size`` times as large and divided evenly, so all
    ranks have the same number of batches, of nearly the same lengths at each step. Rows left over at the end of an
    epoch are used in others.

    Args:
        source: makes the batches.
        batch_size: rows per batch and process.
        seed: of the order.

    Raises:
        ValueError: there is not even one batch.
    """

    def __init__(self, source: "TrainingBatches", batch_size: int, seed: int) -> None:
        super().__init__(source.batch, len(source.table), batch_size, shuffle=True, drop_last=True, seed=seed)
        self.lengths = torch.from_numpy(np.array(source.table.lengths))

    def plan(self, epoch: int) -> list[Step]:
        rank, world_size = loader.rank_and_world_size()
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, epoch))
        size = self.batch_size * world_size

        def order(count: int) -> Tensor:  # Lightning switches ``shuffle`` off for ``overfit_batches``
            return torch.randperm(count, generator=generator) if self.shuffle else torch.arange(count)

        rows = order(self.num_items)[: len(self) * size]
        batches = [
            batch
            for chunk in rows.split(CHUNK * size)
            for batch in chunk[self.lengths[chunk].argsort(stable=True)].split(size)
        ]
        return [(epoch, batches[place][rank::world_size]) for place in order(len(batches)).tolist()]


class TrainingBatches:
    """Makes training batches from the rows of a table.

    The drawn subjects and the augmentation are functions of the seed, the epoch and the row alone.

    Args:
        table: the training rows.
        sentences: the training sentences; ``table.sentences`` are indices into them.
        encoder: the encoder of the table.
        negatives: how the subject is drawn, see ``draw_spans``.
        augment: the probability that the entities of a triple are replaced, in [0, 1]. Windows of longer texts, texts
            that would become longer than a row, and entities that stand only inside words are left unchanged.
        seed: of all draws.
    """

    def __init__(
        self,
        table: TripleTable,
        sentences: Sequence[Sentence],
        encoder: TripleEncoder,
        negatives: Negatives,
        augment: float,
        seed: int,
    ) -> None:
        self.table = table
        self.sentences = sentences
        self.encoder = encoder
        self.negatives: Negatives = negatives
        self.augment = augment
        self.seed = seed

    def batch(self, step: Step) -> TripleBatch:
        """The rows of a step; augmented rows are last."""
        epoch, rows = step[0], step[1].numpy()
        draws = uniform_draws(self.seed, epoch, rows, 5)
        table = take(self.table, rows)
        sentences = [self.sentences[number] for number in table.sentences.tolist()]
        if self.augment:
            table, sentences, order = self._augment(table, sentences, draws[2:])
            draws = draws[:, order]
        spans = draw_spans(table, draws[:2], self.negatives)
        table = dataclasses.replace(table, sentences=np.arange(len(table), dtype=np.int32))
        return TripleBatch.from_arrays(*batch_arrays(table, spans, sentences))

    def _augment(
        self, table: TripleTable, sentences: list[Sentence], draws: NDArray[np.float64]
    ) -> tuple[TripleTable, list[Sentence], list[int]]:
        """Replaces entities in some of the rows and puts these last.

        Args:
            table: the rows.
            sentences: the sentence of each.
            draws: (3, R) uniform in [0, 1): whether to augment, which triple, and the triple that replaces it.

        Returns:
            the new table and sentences, and the old row of each.
        """
        made: dict[int, Sentence] = {}
        origins: list[tuple[str, str]] = []
        for row in np.flatnonzero(draws[0] < self.augment).tolist():
            sentence = sentences[row]
            if len(sentence.text) != table.lengths[row] or not sentence.triples:
                continue
            triple = sentence.triples[int(draws[1, row] * len(sentence.triples))]
            choices = self._by_predicate[triple[1]]
            other, number = choices[int(draws[2, row] * len(choices))]
            changed = replace_entities(sentence, triple, other)
            if changed is not None and len(changed.text) <= self.encoder.max_length:
                made[row] = changed
                origins.append((sentence.text, self.sentences[number].text))
        if not made:
            return table, sentences, list(range(len(table)))
        kept = [row for row in range(len(table)) if row not in made]
        encoded, _ = self.encoder.encode(list(made.values()), lambda number: self._others.than(*origins[number]))
        table = concatenate(take(table, np.array(kept, np.int64)), encoded)
        return table, [*(sentences[row] for row in kept), *made.values()], [*kept, *made]

    @cached_property
    def _by_predicate(self) -> dict[str, list[tuple[Triple, int]]]:
        """The triples of each predicate, each with the number of its sentence."""
        found: dict[str, list[tuple[Triple, int]]] = {}
        for number, sentence in enumerate(self.sentences):
            for triple in sentence.triples:
                found.setdefault(triple[1], []).append((triple, number))
        return found

    @cached_property
    def _others(self) -> OtherItems:
        return OtherItems(self.sentences, self.encoder.known)


class EvaluationBatches:
    """Makes batches of whole sentences (all windows of each), shorter sentences first.

    Spans are drawn as in training, but are the same in every epoch, so that losses are comparable.

    Args:
        table: the rows.
        sentences: all sentences.
        negatives: how the subject of each row is drawn.
        seed: of all draws.
    """

    def __init__(self, table: TripleTable, sentences: Sequence[Sentence], negatives: Negatives, seed: int) -> None:
        self.table = table
        self.sentences = sentences
        self.negatives: Negatives = negatives
        self.seed = seed
        self._starts = np.searchsorted(table.sentences, np.arange(len(sentences) + 1))
        lengths = np.array([len(sentence.text) for sentence in sentences])
        self._order = np.argsort(lengths, kind="stable")

    def batch(self, places: Tensor) -> TripleBatch:
        """The sentences at some positions of the order."""
        numbers = self._order[places.numpy()]
        counts = self._starts[numbers + 1] - self._starts[numbers]
        rows = gather(self._starts[numbers], counts)
        owners = np.repeat(np.arange(len(numbers), dtype=np.int32), counts)
        table = dataclasses.replace(take(self.table, rows), sentences=owners)
        spans = draw_spans(table, uniform_draws(self.seed, 0, rows, 2), self.negatives)
        sentences = [self.sentences[number] for number in numbers.tolist()]
        return TripleBatch.from_arrays(*batch_arrays(table, spans, sentences))

    def loader(self, batch_size: int) -> BatchLoader:
        """All sentences, ``batch_size`` per batch and process."""
        return BatchLoader(self.batch, len(self.sentences), batch_size)


def uniform_draws(seed: int, epoch: int, rows: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """(count, R) numbers in [0, 1), each a function of seed, epoch, row and its own index alone."""
    start = np.array([epoch_seed(seed, epoch) % 2**64], np.uint64)
    state = mix64(mix64(start) + rows.astype(np.uint64))
    steps = np.arange(1, count + 1, dtype=np.uint64)[:, None] * np.uint64(0x9E3779B97F4A7C15)
    return unit_interval(mix64(state + steps))
