"""ON-LSTM: a language model whose ordered neurons give parse trees."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any
from zlib import crc32

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric

from datamodules.batches import ParseBatch, TokenBatch
from layers.cross_entropy import linear_cross_entropy
from layers.dropout import LockedDropout, WordDropout
from layers.losses import AddsLosses, collect_losses
from layers.on_lstm import ONLSTM, ActivationRegularization, RecurrentLayer
from layers.processes import by_rank
from layers.reuse import TiedLinear
from layers.weights import normalize_weights
from metrics.parsing import ParseF1
from metrics.trees import BASELINES, Tree, tree_from_distances, tree_spans
from readers.text.tokens import Level, Segmenter

from .hyperparameters import save_plain_hyperparameters
from .optimization import Interval, Optimized, OptimizerSlot, SchedulerSlot
from .prediction.on_lstm import ReadsTexts
from .step_logging import log_losses
from .trained_models import LoadsTrained

State = list[tuple[Tensor, Tensor]]
CHOOSES_LAYER = "corpus_f1_evalb"  # the paper's score


class ONLSTMLanguageModel(AddsLosses, Optimized, ReadsTexts, LoadsTrained, pl.LightningModule):
    """A recurrent language model, regularised as AWD-LSTM; with ON-LSTM cells it also parses.

        loss = cross-entropy + alpha * mean(h_dropped^2) + beta * mean((h_t - h_(t-1))^2),   h: output of the last layer

    Embedding, a stack of one-layer cells (embedding_size -> hidden_size ... -> embedding_size), and an output layer
    tied to the embedding. Locked dropout on the embedded words, between layers and on the output; dropout of whole
    words from the embedding; DropConnect on recurrent weights (the cell's ``dropconnect``). The hidden state is carried
    from batch to batch, detached, and reset to zero at each epoch. The rest of the recipe is callbacks:
    ``LengthScaledLR`` (windows of random length), ``NonMonotonicAverage`` (NT-ASGD); see ``configs/on_lstm_ptb.yaml``.

    Batches: ``datamodules.batches.TokenBatch``, contiguous in time; in validation and test also
    ``datamodules.batches.ParseBatch`` from a second loader. Its sentences are read from a zero state as
    ``<eos> w_1 ... w_n <eos>``, and each layer's distances give a tree by greedy splitting
    (``metrics.trees.tree_from_distances``).

    Logged: ``train/{loss,cross_entropy}`` and ``{val,test}/loss`` in nats per token (the latter without penalties),
    ``train/{activation_penalty,temporal_penalty}``, the two means,
    ``{val,test}/perplexity`` = exp(loss), for characters ``{val,test}/bits_per_character`` = loss / ln 2, for bytes
    ``{val,test}/bits_per_byte``. For parsing, in percent: ``val/corpus_f1_evalb/layer1`` ... (layers count from 1), by
    which the layer of predictions and pictures is chosen; ``test/sentence_f1_no_root/layer1`` ...,
    ``test/corpus_f1_evalb/layer1`` ..., the same for sentences of at most ten words (``..._wsj10``),
    ``test/recall/NP/layer1`` ..., and baseline trees on the same sentences:
    ``test/right_branching/sentence_f1_no_root`` ..., ``left_branching``, ``balanced``, ``random``.

    Source: Shen et al., arXiv 1810.09536; kexue.fm/archives/6621; Merity et al., arXiv 1708.02182.

    Args:
        cell: the cell slot, called with input and output size. ``LSTM`` trains by the same recipe but doesn't parse.
        embedding_size: size of the embedding and, since the output layer is tied to it, of the last cell.
        embedding_range: the embedding is drawn from U(-embedding_range, embedding_range). With the recipe's 0.1
            the deeper layers start to learn only after some thousand steps; use 1 for short runs.
        hidden_size: size of the other cells.
        num_layers: number of cells.
        input_dropout: locked dropout of the embedded words.
        word_dropout: share of words dropped from the embedding.
        layer_dropout: locked dropout between the cells.
        output_dropout: locked dropout of the last cell's output.
        activation_penalty: alpha.
        temporal_penalty: beta.
        weight_normalization: which weights are normalised before use, ``{pattern: kind}`` (see
            ``layers.normalize_weights``).
        lr: learning rate.
        optimizer: the optimizer slot, called with the parameters and ``lr``.
        scheduler: the slot of the learning-rate scheduler, called with the optimizer; None: a constant rate.
        scheduler_interval: when it moves on: after each ``epoch`` or each optimizer ``step``.
        vocabulary: all tokens, in the order of their indices; given by the data.
        level: what a token is; given by the data.
        segmenter: where words end; given by the data.
        keep_layout: whether blank lines and indentation are text; given by the data.

    Attributes:
        best_layer: the layer whose trees agreed best with the gold trees of the last validation, from 1; None: there
            were none.

    Raises:
        ValueError: if there are no layers, or ``<eos>`` or ``<unk>`` is not in the vocabulary.

    Example:
        model:
          class_path: ONLSTMLanguageModel
          init_args: {hidden_size: 650, num_layers: 2}
        data:
          class_path: TextDataModule
          init_args: {source: my_texts}
    """

    hparams: Any  # Lightning types it as a mapping without attributes

    monitor = "val/perplexity"
    mode = "min"
    data_links = ("vocabulary", "level", "segmenter", "keep_layout")

    def __init__(
        self,
        cell: Callable[[int, int], RecurrentLayer] = ONLSTM,
        embedding_size: int = 400,
        embedding_range: float = 0.1,
        hidden_size: int = 1150,
        num_layers: int = 3,
        input_dropout: float = 0.5,
        word_dropout: float = 0.1,
        layer_dropout: float = 0.3,
        output_dropout: float = 0.45,
        activation_penalty: float = 2.0,
        temporal_penalty: float = 1.0,
        weight_normalization: dict[str, str] | None = None,
        lr: float = 30.0,
        optimizer: OptimizerSlot = torch.optim.SGD,
        scheduler: SchedulerSlot | None = None,
        scheduler_interval: Interval = "epoch",
        # A plain Sequence: jsonargparse copies a Sequence[...] once per entry.
        vocabulary: Sequence = ("<eos>", "<unk>"),
        level: Level = "word",
        segmenter: Segmenter = "none",
        keep_layout: bool = False,
    ) -> None:
        super().__init__()
        save_plain_hyperparameters(self)
        if num_layers < 1:
            raise ValueError(f"num_layers ({num_layers}) must be at least 1")
        if "<eos>" not in vocabulary or "<unk>" not in vocabulary:
            raise ValueError("vocabulary: must contain <eos> and <unk>")
        self.set_optimizer(optimizer, scheduler, scheduler_interval)
        self.index = {token: i for i, token in enumerate(vocabulary)}
        self.embedding = nn.Embedding(len(vocabulary), embedding_size)
        self.embedding_range = embedding_range
        self.reset_parameters()
        sizes = [embedding_size, *[hidden_size] * (num_layers - 1), embedding_size]
        self.cells = nn.ModuleList(cell(*pair) for pair in pairwise(sizes))
        self.output = TiedLinear(self.embedding)
        self.word_dropout = WordDropout(word_dropout)
        self.input_dropout = LockedDropout(input_dropout)
        self.layer_dropout = LockedDropout(layer_dropout)
        self.output_dropout = LockedDropout(output_dropout)
        self.regularization = ActivationRegularization(activation_penalty, temporal_penalty)
        normalize_weights(self, weight_normalization)
        self.token_loss = MeanMetric()
        self.best_layer: int | None = None
        # Carried from batch to batch, in training and in evaluation; and the training state of a checkpoint, by rank.
        self._state: State | None = None
        self._epoch = 0
        self._evaluation_state: State | None = None
        self._saved_states: list[State | None] | None = None

    def reset_parameters(self) -> None:
        """Reinitialises the embedding; the cells initialise their own weights."""
        nn.init.uniform_(self.embedding.weight, -self.embedding_range, self.embedding_range)

    def forward(
        self, tokens: Tensor, state: State | None = None
    ) -> tuple[Tensor, Tensor, State, list[tuple[Tensor, Tensor] | None]]:
        """Reads tokens, starting from a state.

        Args:
            tokens: (B, T) int64.
            state: of each cell, (1, B, size) twice; None for zeros.

        Returns:
            The last cell's output (T, B, embedding_size); the same after dropout; the new state; each cell's distances
            (forget, input), (1, T, B) each, or None if the cell has none.
        """
        x = self.input_dropout(self.word_dropout(self.embedding, tokens.T))
        states, distances = [], []
        for number, cell in enumerate(self.cells):
            if number:
                x = self.layer_dropout(x)
            x, cell_state, cell_distances = cell(x, None if state is None else state[number])
            states.append(cell_state)
            distances.append(cell_distances)
        return x, self.output_dropout(x), states, distances

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return self.optimize(self.parameters())

    # ---------------------------------------------------------------------------------------------------- training

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        raw, dropped, state, _ = self(batch.inputs, self._carried(len(batch.inputs)))
        self._state = [(h.detach(), c.detach()) for h, c in state]
        with collect_losses(self) as losses:
            self.add_loss("cross_entropy", self._cross_entropy(dropped, batch.targets))
            self.regularization(raw, dropped)
        return log_losses(self, "train", losses)

    def _cross_entropy(self, output: Tensor, targets: Tensor) -> Tensor:
        return linear_cross_entropy(self.output, output.flatten(0, 1), targets.T.flatten())

    def _carried(self, batch_size: int) -> State | None:
        if self._saved_states is not None:
            saved, self._saved_states = self._saved_states, None
            own = saved[self.global_rank] if len(saved) == self.trainer.world_size else None
            self._state = None if own is None else [(h.to(self.device), c.to(self.device)) for h, c in own]
        # Not in Lightning's hook, which isn't called when resuming from the last step of an epoch.
        if self._epoch != self.current_epoch:
            self._state, self._epoch = None, self.current_epoch
        return _fitting(self._state, batch_size)

    def on_train_epoch_start(self) -> None:
        # Where a resumed run begins an epoch anew, with other data, nothing is carried into it.
        self._state = self._saved_states = None

    process_states: list[State | None] | None = None  # gathered for a checkpoint

    def process_state(self) -> State | None:
        """The hidden state of this process's rows, on the CPU."""
        return None if self._state is None else [(h.cpu(), c.cpu()) for h, c in self._state]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        states = self._saved_states or by_rank(self.process_state(), self.process_states)
        checkpoint["hidden_states"] = {"epoch": self._epoch, "states": states}
        checkpoint["best_layer"] = self.best_layer

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint["hidden_states"]
        self._epoch, self._saved_states = saved["epoch"], saved["states"]
        self.best_layer = checkpoint.get("best_layer")

    # -------------------------------------------------------------------------------------------------- evaluation

    def on_validation_epoch_start(self) -> None:
        self._begin_evaluation(self.trainer.val_dataloaders, [])

    def validation_step(self, batch: TokenBatch | ParseBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        if not isinstance(batch, ParseBatch):
            self._measure(batch)
        elif self.parses:
            self._score_layers(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_loss("val")
        scores = {place: _layer_score(metric) for place, metric in self.parse_scores.items()}
        for place, value in scores.items():
            self.log(f"val/{CHOOSES_LAYER}/{place}", value, sync_dist=True)
        if scores and not self.trainer.sanity_checking:
            self.best_layer = int(max(scores, key=scores.__getitem__).removeprefix("layer"))

    def on_test_epoch_start(self) -> None:
        self._begin_evaluation(self.trainer.test_dataloaders, [*BASELINES])

    def _begin_evaluation(self, loaders: Any, places: list[str]) -> None:
        self._evaluation_state = None
        has_trees = isinstance(loaders, list) and len(loaders) > 1
        places = [*places, *(f"layer{number}" for number in range(1, self.num_levels + 1))] if has_trees else []
        # All of them in every process, even one without sentences: they are summed over the processes.
        self.parse_scores = nn.ModuleDict({place: ParseF1() for place in places}).to(self.device)

    def test_step(
        self, batch: TokenBatch | ParseBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Any] | None:
        """Returns, for a ``ParseBatch``, ``distances`` (layers, B, words; nan after a sentence's end) and ``trees``,
        a list per layer, for the pictures; None for other batches or if the cells don't parse."""
        if isinstance(batch, ParseBatch):
            return self._parse_and_score(batch)
        self._measure(batch)
        return None

    def on_test_epoch_end(self) -> None:
        self._log_loss("test")
        for place, scores in self.parse_scores.items():
            assert isinstance(scores, ParseF1)
            for name, value in scores.compute().items():
                if place.startswith("layer"):
                    self.log(f"test/{name}/{place}", value, sync_dist=True)
                elif place == "right_branching" or not name.startswith("recall/"):
                    self.log(f"test/{place}/{name}", value, sync_dist=True)

    def _measure(self, batch: TokenBatch) -> None:
        state = _fitting(self._evaluation_state, len(batch.inputs))
        _, dropped, self._evaluation_state, _ = self(batch.inputs, state)
        asked = (batch.targets >= 0).sum()  # the last window is padded with targets of -100
        self.token_loss.update(self._cross_entropy(dropped, batch.targets), asked)

    def _log_loss(self, stage: str) -> None:
        loss = self.token_loss.compute()
        self.token_loss.reset()
        self.log(f"{stage}/loss", loss, sync_dist=True)
        self.log(f"{stage}/perplexity", loss.exp(), prog_bar=True, sync_dist=True)
        if self.hparams.level != "word":
            self.log(f"{stage}/bits_per_{self.hparams.level}", loss / math.log(2), sync_dist=True)

    # ----------------------------------------------------------------------------------------------------- parsing

    @property
    def parses(self) -> bool:
        """Whether the cells have distances and tokens are words."""
        return self.hparams.level == "word" and isinstance(self.cells[0], ONLSTM)

    @property
    def num_levels(self) -> int:
        """How many layers give trees."""
        return sum(cell.num_layers for cell in self.cells if isinstance(cell, ONLSTM)) if self.parses else 0

    def distances(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Distances of the words of sentences, each read from a zero state.

        Args:
            inputs: (B, T) int64, ``<eos> w_1 ... w_n <eos>`` and padding.
            lengths: (B,) int64, the number n of words.

        Returns:
            (layers, B, T - 2) float32, 1 - mean of the master forget gate at each word; nan after the end.
        """
        _, _, _, distances = self(inputs)
        words = torch.cat([forget[:, 1:-1] for forget, _ in distances]).transpose(1, 2).float()
        behind = torch.arange(words.shape[2], device=words.device) >= lengths[:, None]
        return words.masked_fill(behind, float("nan"))

    def parse_batch(self, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, list[list[Tree]]]:
        """The distances, and for each layer the binary trees of the sentences (nested tuples of word positions)."""
        distances = self.distances(inputs, lengths)
        counts = lengths.tolist()
        trees = [
            [tree_from_distances(row[:count].tolist()) for row, count in zip(layer, counts, strict=True)]
            for layer in distances.cpu()
        ]
        return distances, trees

    def _parse_and_score(self, batch: ParseBatch) -> dict[str, Any] | None:
        counts = batch.lengths.tolist()
        for name, baseline in BASELINES.items():
            # Seeded by the sentence: results don't depend on how sentences are divided into batches and processes.
            generators = (torch.Generator().manual_seed(crc32(" ".join(words).encode())) for words in batch.words)
            self._score(name, list(map(baseline, counts, generators)), batch, counts)
        if not self.parses:
            return None
        distances, trees = self._score_layers(batch)
        return {"distances": distances, "trees": trees}

    def _score_layers(self, batch: ParseBatch) -> tuple[Tensor, list[list[Tree]]]:
        distances, trees = self.parse_batch(batch.inputs, batch.lengths)
        for number, layer_trees in enumerate(trees, 1):
            self._score(f"layer{number}", layer_trees, batch, batch.lengths.tolist())
        return distances, trees

    def _score(self, place: str, trees: list[Tree], batch: ParseBatch, counts: list[int]) -> None:
        scores = self.parse_scores[place]
        assert isinstance(scores, ParseF1)
        scores.update([tree_spans(tree) for tree in trees], batch.spans, counts)


def _layer_score(metric: nn.Module) -> Tensor:
    assert isinstance(metric, ParseF1)
    return metric.compute()[CHOOSES_LAYER]


def _fitting(state: State | None, batch_size: int) -> State | None:
    """The state, unless its batch size differs (the last batch, or a changed batch size)."""
    return state if state is None or state[0][0].shape[1] == batch_size else None
