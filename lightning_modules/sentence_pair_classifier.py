"""A classifier of sentence pairs, for logical inference."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from datamodules.batches import SentencePairBatch
from layers.on_lstm import ONLSTM, RecurrentLayer
from layers.weights import normalize_weights
from metrics.grouped_accuracy import GroupedAccuracy
from readers.logic import WrittenPair, read_written_pair, word_numbers

from .hyperparameters import save_plain_hyperparameters
from .optimization import Interval, Optimized, OptimizerSlot, SchedulerSlot
from .prediction.lines import OnError, predict_lines
from .step_logging import log_epoch_means
from .trained_models import LoadsTrained

LONG = 7  # operations: more than training formulas have
MAX_OPERATIONS = 12  # larger numbers count as this one


class SentencePairClassifier(Optimized, LoadsTrained, pl.LightningModule):
    """Predicts the relation between two sentences: one recurrent encoder for both, and a small network on top.

        features = [h1, h2, h1 * h2, |h1 - h2|] -> Linear -> ReLU -> Linear -> classes,   h: output at the last word

    The ON-LSTM paper's test of long-range structure: trained on formulas of up to six operations, tested on up to
    twelve.

    Batches: ``datamodules.batches.SentencePairBatch``.

    Logged: ``train/loss``, ``val/loss`` (nats), ``{val,test}/accuracy`` in [0, 1], and by number of operations:
    ``test/accuracy/operations_1`` ...; ``test/accuracy_7_and_more`` if there are such pairs.

    Source: Shen et al., arXiv 1810.09536, section 5.4; Bowman et al., arXiv 1506.04834.

    Args:
        cell: the cell slot, called with input and output size.
        embedding_size: size of the word embedding.
        hidden_size: size of the cell.
        units: hidden units of the network on top.
        dropout: of the embedded words and before each layer of the network on top.
        weight_normalization: which weights are normalised before use, ``{pattern: kind}`` (see
            ``layers.normalize_weights``).
        lr: learning rate.
        optimizer: the optimizer slot, called with the parameters and ``lr``.
        scheduler: the slot of the learning-rate scheduler, called with the optimizer; None: a constant rate.
        scheduler_interval: when it moves on: after each ``epoch`` or each optimizer ``step``.
        vocabulary: all words, in the order of their indices; given by the data.
        classes: names of the relations; given by the data.

    Example:
        model:
          class_path: SentencePairClassifier
          init_args: {cell: LSTM, hidden_size: 200}
        data:
          class_path: LogicalInferenceDataModule
          init_args: {source: sample}
    """

    hparams: Any  # Lightning types it as a mapping without attributes

    monitor = "val/accuracy"
    mode = "max"
    data_links = ("vocabulary", "classes")

    def __init__(
        self,
        cell: Callable[[int, int], RecurrentLayer] = ONLSTM,
        embedding_size: int = 128,
        hidden_size: int = 400,
        units: int = 400,
        dropout: float = 0.2,
        weight_normalization: dict[str, str] | None = None,
        lr: float = 1e-3,
        optimizer: OptimizerSlot = torch.optim.Adam,
        scheduler: SchedulerSlot | None = None,
        scheduler_interval: Interval = "epoch",
        vocabulary: Sequence[str] = ("<pad>",),
        classes: Sequence[str] = ("=",),
    ) -> None:
        super().__init__()
        save_plain_hyperparameters(self)
        self.set_optimizer(optimizer, scheduler, scheduler_interval)
        self.embedding = nn.Embedding(len(vocabulary), embedding_size)
        self.cell = cell(embedding_size, hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(4 * hidden_size, units),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(units, len(classes)),
        )
        normalize_weights(self, weight_normalization)
        self.accuracy = GroupedAccuracy(MAX_OPERATIONS + 1)

    def encode(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Output at the last word: (B, T) int64, (B,) int64 -> (B, hidden_size)."""
        output, _, _ = self.cell(self.dropout(self.embedding(tokens.T)))
        return output[lengths - 1, torch.arange(len(lengths), device=lengths.device)]

    def forward(self, batch: SentencePairBatch) -> Tensor:
        """Logits (B, classes)."""
        length = max(batch.premise.shape[1], batch.hypothesis.shape[1])
        both = [F.pad(tokens, (0, length - tokens.shape[1])) for tokens in (batch.premise, batch.hypothesis)]
        # One pass for both sentences: a step on twice the batch costs little more.
        encoded = self.encode(torch.cat(both), torch.cat([batch.premise_lengths, batch.hypothesis_lengths]))
        first, second = encoded.chunk(2)
        return self.head(torch.cat([first, second, first * second, (first - second).abs()], dim=1))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return self.optimize(self.parameters())

    def training_step(self, batch: SentencePairBatch, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch).float(), batch.labels)
        self.log("train/loss", loss.detach(), prog_bar=True)
        return loss

    def validation_step(self, batch: SentencePairBatch, batch_idx: int) -> None:
        loss = F.cross_entropy(self._count(batch).float(), batch.labels)
        log_epoch_means(self, {"val/loss": loss}, len(batch.labels))

    def test_step(self, batch: SentencePairBatch, batch_idx: int) -> None:
        self._count(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_accuracies("val")

    def on_test_epoch_end(self) -> None:
        self._log_accuracies("test")

    def _count(self, batch: SentencePairBatch) -> Tensor:
        """Counts the correct predictions of a batch; returns its logits (B, classes)."""
        logits = self(batch)
        self.accuracy.update(logits.argmax(1) == batch.labels, batch.operations.clamp(max=MAX_OPERATIONS))
        return logits

    def _log_accuracies(self, stage: str) -> None:
        correct, total = self.accuracy.compute()
        self.accuracy.reset()
        self.log(f"{stage}/accuracy", correct.sum() / total.sum(), prog_bar=True, sync_dist=True)
        if stage == "test":
            for operations in total.nonzero().flatten().tolist():
                accuracy = correct[operations] / total[operations]
                self.log(f"test/accuracy/operations_{operations}", accuracy, sync_dist=True)
            if total[LONG:].any():
                accuracy = correct[LONG:].sum() / total[LONG:].sum()
                self.log(f"test/accuracy_{LONG}_and_more", accuracy, sync_dist=True)

    @torch.inference_mode()
    def predict_file(
        self,
        input: Path,
        output: Path,
        batch_size: int = 256,
        on_error: OnError = "stop",
        resume: bool = False,
        encoding: str = "utf-8",
    ) -> str:
        """Predicts the relation between two formulas, for each line of a file.

        Empty lines stay empty. Files may be of any size; what is done is in ``<output>.part`` until all is.

        Args:
            input: a text file, gzipped or not, two formulas separated by a TAB per line, in the words that the model
                was trained on. They may be preceded by a relation and a TAB, as in the training files; it is ignored.
            output: the file to write, gzipped if it ends in ``.gz``, per line: relation, its probability in [0, 1], and
                the two formulas, separated by TABs.
            batch_size: pairs per batch.
            on_error: at a line that is no pair of formulas ``stop``, or name it and ``skip`` it: its line stays empty.
            resume: go on with the ``<output>.part`` of an interrupted prediction.
            encoding: of the input.

        Returns:
            A summary for the terminal.

        Raises:
            ValueError: if ``batch_size`` is below 1, the file can't be read, or a line is not a pair of formulas.
        """
        self.eval()
        numbers = word_numbers(self.hparams.vocabulary)
        pairs = 0

        def predict(items: list[WrittenPair], first: int) -> list[str]:
            nonlocal pairs
            pairs += len(items)
            batch = unlabelled([item.premise for item in items], [item.hypothesis for item in items], self.device)
            probabilities, relations = self(batch).float().softmax(1).max(1)
            return [
                "\t".join([self.hparams.classes[relation], f"{probability:.4f}", *item.formulas])
                for item, probability, relation in zip(items, probabilities.tolist(), relations.tolist(), strict=True)
            ]

        counts = predict_lines(
            Path(input),
            Path(output),
            lambda line, where: read_written_pair(line, numbers, where) if line.strip() else "",
            predict,
            batch_size=batch_size,
            size=lambda item: len(item.premise) + len(item.hypothesis),
            on_error=on_error,
            resume=resume,
            encoding=encoding,
        )
        return f"relations of {pairs} pairs{counts.remarks} -> {output}"


def unlabelled(premises: list[list[int]], hypotheses: list[list[int]], device: torch.device) -> SentencePairBatch:
    """A batch of pairs, given as word indices, whose relation is unknown (-1)."""

    def padded(sentences: list[list[int]]) -> tuple[Tensor, Tensor]:
        rows = [torch.tensor(sentence, device=device) for sentence in sentences]
        return pad_sequence(rows, batch_first=True), torch.tensor(list(map(len, sentences)), device=device)

    unknown = torch.full((len(premises),), -1, device=device)
    return SentencePairBatch(*padded(premises), *padded(hypotheses), unknown, unknown)
