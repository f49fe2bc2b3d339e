"""The Sparse Transformer: an autoregressive model of text, of images byte by byte, and of synthetic sequences."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric

from datamodules.batches import ImageBatch, TokenBatch
from layers.attention import MultiheadSelfAttention, SparseAttention
from layers.transformers.positions import (
    ImagePositions,
    Positions,
    TokenPositions,
    bytes_of_images,
)
from layers.transformers.sparse_transformer import SparseTransformerNetwork
from layers.weights import normalize_weights
from readers.text.tokens import Level, Segmenter

from .hyperparameters import save_plain_hyperparameters
from .optimization import Interval, Optimized, OptimizerSlot, SchedulerSlot
from .prediction.sparse_transformer import GeneratesSequences
from .trained_models import LoadsTrained

BYTES = 256


class SparseTransformer(Optimized, GeneratesSequences, LoadsTrained, pl.LightningModule):
    """An autoregressive transformer with a slot for its attention: full, local, atrous, sparse, fixed, or alternating.

        loss = mean over tokens of -log p(token | tokens before it)

    The network is ``layers.transformers.SparseTransformerNetwork``. The data says what the tokens are:

    - ``datamodules.batches.TokenBatch``: text (``TextDataModule``, best with ``level=character`` and
      ``order=random``) or synthetic sequences (``CopyTaskDataModule``); a learned position is one vector.
    - ``datamodules.batches.ImageBatch``: the bytes of the images, row by row, pixel by pixel, red, green, blue; a
      learned vector precedes the first, and a learned position is the sum of row, column and colour. In validation
      and test only the first loader is used.

    Logged: ``train/loss``, ``{val,test}/loss`` in nats per token; for images ``{val,test}/bits_per_dim``, for
    characters ``{val,test}/bits_per_character``, for bytes ``{val,test}/bits_per_byte``, all loss / ln 2; for words
    ``{val,test}/perplexity``, exp(loss); for sequences without a vocabulary ``{val,test}/accuracy`` in [0, 1], the
    share of target tokens predicted as most probable.

    Source: Child et al., arXiv 1904.10509; kexue.fm/archives/6853 for atrous, local and sparse attention.

    Args:
        attention: the attention slot, called with ``embed_dim`` and ``num_heads``; or a list of them, which the layers
            take in turn, cyclically.
        embed_dim: size of all vectors.
        num_heads: heads of each attention.
        num_layers: number of blocks.
        feedforward_size: size inside the feed-forward networks.
        dropout: of the outputs of attention and feed-forward network in a block; nowhere else.
        positions: ``learned``: a vector per position is added to the input of the first block; ``rotary``: each
            attention rotates queries and keys (``layers.attention.rotate``); ``none``.
        tie_embedding: the output layer shares the weights of the embedding.
        activation_checkpointing: keep only the input of each block and recompute the block in the backward pass: less
            memory, a third more time.
        weight_normalization: which weights are normalised before use, ``{pattern: kind}`` (see
            ``layers.normalize_weights``).
        lr: learning rate.
        optimizer: the optimizer slot, called with the parameters and ``lr``.
        scheduler: the slot of the learning-rate scheduler, called with the optimizer; None: a constant rate.
        scheduler_interval: when it moves on: after each ``epoch`` or each optimizer ``step``.
        vocab_size: number of tokens; given by the data.
        sequence_length: the largest number of tokens in a sequence; given by the data.
        vocabulary: the tokens of a text, in the order of their indices; given by the data.
        level: what a token of a text is; given by the data.
        segmenter: where the words of a text end; given by the data.
        keep_layout: whether blank lines and indentation of a text are text; given by the data.
        image_size: side of the images in pixels; given by the data.
        pixel_range: values of black and white in the images; given by the data.

    Raises:
        ValueError: if there are no layers, or no attention.

    Example:
        model:
          class_path: SparseTransformer
          init_args:
            attention: {class_path: LocalAttention, init_args: {window: 32}}
        data:
          class_path: CopyTaskDataModule
    """

    hparams: Any  # Lightning types it as a mapping without attributes

    monitor = "val/loss"
    mode = "min"
    data_links = (
        "vocab_size",
        "sequence_length",
        "vocabulary",
        "level",
        "segmenter",
        "keep_layout",
        "image_size",
        "pixel_range",
    )

    def __init__(
        self,
        # The list first: in the other order jsonargparse can't serialise a list.
        attention: list[Callable[[int, int], MultiheadSelfAttention]]
        | Callable[[int, int], MultiheadSelfAttention] = SparseAttention,
        embed_dim: int = 256,
        num_heads: int = 4,
        num_layers: int = 4,
        feedforward_size: int = 1024,
        dropout: float = 0.0,
        positions: Literal["learned", "rotary", "none"] = "learned",
        tie_embedding: bool = False,
        activation_checkpointing: bool = False,
        weight_normalization: dict[str, str] | None = None,
        lr: float = 3.5e-4,
        optimizer: OptimizerSlot = torch.optim.AdamW,
        scheduler: SchedulerSlot | None = None,
        scheduler_interval: Interval = "epoch",
        vocab_size: int = 256,
        sequence_length: int = 1024,
        # A plain Sequence: jsonargparse copies a Sequence[...] once per entry.
        vocabulary: Sequence = (),
        level: Level = "word",
        segmenter: Segmenter = "none",
        keep_layout: bool = False,
        image_size: int | None = None,
        pixel_range: tuple[float, float] = (-0.5, 0.5),
    ) -> None:
        super().__init__()
        save_plain_hyperparameters(self)
        if num_layers < 1:
            raise ValueError(f"num_layers ({num_layers}) must be at least 1")
        patterns: list[Callable[..., MultiheadSelfAttention]] = (
            [*attention] if isinstance(attention, list) else [attention]
        )
        if not patterns:
            raise ValueError("attention is an empty list: name at least one class")
        if positions == "rotary":
            patterns = [partial(pattern, rotary=True) for pattern in patterns]
        self.set_optimizer(optimizer, scheduler, scheduler_interval)
        self.reads_images = image_size is not None
        self.network = SparseTransformerNetwork(
            BYTES if self.reads_images else vocab_size,
            embed_dim,
            [patterns[layer % len(patterns)] for layer in range(num_layers)],
            num_heads=num_heads,
            feedforward_size=feedforward_size,
            dropout=dropout,
            positions=self._make_positions(),
            start=self.reads_images,
            tie_embedding=tie_embedding,
            activation_checkpointing=activation_checkpointing,
        )
        normalize_weights(self, weight_normalization)
        self.token_loss, self.hits = MeanMetric(), MeanMetric()

    def _make_positions(self) -> TokenPositions | ImagePositions | None:
        arguments = self.hparams
        if arguments.positions != "learned":
            return None
        if self.reads_images:
            return ImagePositions(arguments.image_size, arguments.embed_dim)
        return TokenPositions(arguments.sequence_length, arguments.embed_dim)

    @property
    def positions(self) -> Positions | None:
        """The learned positions of the network, or None."""
        return self.network.positions

    @property
    def metric(self) -> str:
        """The metric logged besides the loss."""
        if self.reads_images:
            return "bits_per_dim"
        if not self.hparams.vocabulary:
            return "accuracy"
        return "perplexity" if self.hparams.level == "word" else f"bits_per_{self.hparams.level}"

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the token after each one: (B, T) int64 -> (B, T, vocab_size); for images also of the first byte,
        (B, T + 1, 256)."""
        return self.network(tokens)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return self.optimize(self.parameters())

    # ------------------------------------------------------------------------------------------ training and testing

    def logits_and_targets(self, batch: TokenBatch | ImageBatch) -> tuple[Tensor, Tensor]:
        """Logits (N, V) float32 and targets (N,) int64 of a batch, -100 where there is none."""
        if isinstance(batch, ImageBatch):
            targets = bytes_of_images(batch.images, self.hparams.pixel_range)
            logits = self(targets[:, :-1])
        else:
            targets = batch.targets
            logits = self(batch.inputs)
        return logits.flatten(0, 1).float(), targets.flatten()

    def training_step(self, batch: TokenBatch | ImageBatch, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(*self.logits_and_targets(batch))
        self.log("train/loss", loss.detach())
        self.log("loss", loss.detach(), prog_bar=True, logger=False)
        return loss

    def validation_step(self, batch: TokenBatch | ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        if dataloader_idx == 0:
            self._measure(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_measures("val")

    def test_step(
        self, batch: TokenBatch | ImageBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor] | None:
        """Returns the images, for the picture of completed ones."""
        if dataloader_idx:
            return None
        self._measure(batch)
        return {"images": batch.images} if isinstance(batch, ImageBatch) else None

    def on_test_epoch_end(self) -> None:
        self._log_measures("test")

    def _measure(self, batch: TokenBatch | ImageBatch) -> None:
        logits, targets = self.logits_and_targets(batch)
        asked = targets != -100
        count = asked.sum()
        # A sum, since a batch may have no targets.
        loss = F.cross_entropy(logits, targets, reduction="sum") / count.clamp(min=1)
        self.token_loss.update(loss, count)
        if self.metric == "accuracy":
            hits = ((logits.argmax(-1) == targets) & asked).sum() / count.clamp(min=1)
            self.hits.update(hits, count)

    def _log_measures(self, stage: str) -> None:
        loss = self.token_loss.compute()
        self.log(f"{stage}/loss", loss, sync_dist=True)
        if self.metric == "accuracy":
            value = self.hits.compute()
        else:
            value = loss.exp() if self.metric == "perplexity" else loss / math.log(2)
        self.log(f"{stage}/{self.metric}", value, prog_bar=True, sync_dist=True)
        self.token_loss.reset()
        self.hits.reset()
