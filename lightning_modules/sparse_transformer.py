"""The Sparse Transformer: an autoregressive model of text, of images byte by byte, and of made sequences."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer
from torchmetrics import MeanMetric

from datamodules.batches import ImageBatch, TokenBatch
from layers.attention import MultiheadSelfAttention, SparseAttention
from layers.transformers.generation import generate
from layers.transformers.positions import (
    COLOURS,
    ImagePositions,
    Positions,
    TokenPositions,
    bytes_of_images,
    images_of_bytes,
)
from layers.transformers.sparse_transformer import SparseTransformerNetwork

from .hyperparameters import save_plain_hyperparameters
from .sparse_transformer_prediction import complete_image_files, continue_text_file

BYTES = 256


class SparseTransformer(pl.LightningModule):
    """An autoregressive transformer whose attention is a slot: full, local, atrous, sparse, fixed, or layers in turn.

        loss = mean over tokens of -log p(token | tokens before it)

    The network is ``layers.transformers.SparseTransformerNetwork``. The data says what the tokens are:

    - ``datamodules.batches.TokenBatch``: text (``TextDataModule``, best with ``level=character`` and
      ``order=random``) or made sequences (``CopyTaskDataModule``); a learned position is one vector.
    - ``datamodules.batches.ImageBatch``: the bytes of the images, row by row, pixel by pixel, red, green, blue; a
      learned vector stands before the first, and a learned position is the sum of row, column and colour. In
      validation and test only the first loader counts.

    Logged: ``train/loss``, ``{val,test}/loss`` in nats a token; and for images ``{val,test}/bits_per_dim``, for
    characters ``{val,test}/bits_per_character``, both loss / ln 2; for words ``{val,test}/perplexity``, exp(loss); for
    sequences without a vocabulary ``{val,test}/accuracy`` in [0, 1], the share of the tokens asked for that are the
    most probable ones.

    Source: Child et al., arXiv 1904.10509; kexue.fm/archives/6853 for atrous, local and sparse attention.

    Args:
        attention: the attention slot, called with ``embed_dim`` and ``num_heads``; or a list of such, which the layers
            take in turn, again and again.
        embed_dim: size of all vectors.
        num_heads: heads of each attention.
        num_layers: number of blocks.
        feedforward_size: size inside the feed-forward networks.
        dropout: of what attention and feed-forward network add to a block; nowhere else.
        positions: ``learned``: a vector each is added to what enters the first block; ``rotary``: each attention turns
            queries and keys by them (``layers.attention.rotate``); ``none``.
        tie_embedding: the output layer has the weights of the embedding.
        activation_checkpointing: keep only what enters each block, and compute the block again in the backward pass:
            less memory, a third more time.
        lr: learning rate.
        optimizer: the optimizer slot, called with the parameters and ``lr``.
        vocab_size: number of tokens; given by the data.
        sequence_length: the most tokens of a sequence; given by the data.
        vocabulary: the tokens of a text, in the order of their indices; given by the data.
        level: what a token of a text is; given by the data.
        image_size: side of the images in pixels; given by the data.
        pixel_range: values that black and white have in the images; given by the data.

    Raises:
        ValueError: if there are no layers, or no attention.
    """

    monitor = "val/loss"
    mode = "min"
    data_links = ("vocab_size", "sequence_length", "vocabulary", "level", "image_size", "pixel_range")

    def __init__(
        self,
        # The list first: the other way round jsonargparse can't write a list down again.
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
        lr: float = 3.5e-4,
        optimizer: Callable[[Iterable, float], Optimizer] = torch.optim.AdamW,
        vocab_size: int = 256,
        sequence_length: int = 1024,
        # A plain list: jsonargparse copies a list[...] anew for each of its entries.
        vocabulary: list = (),
        level: Literal["word", "character"] = "word",
        image_size: int | None = None,
        pixel_range: tuple[float, float] = (-0.5, 0.5),
    ) -> None:
        super().__init__()
        save_plain_hyperparameters(self)
        if num_layers < 1:
            raise ValueError(f"num_layers ({num_layers}) must be at least 1")
        patterns = attention if isinstance(attention, list) else [attention]
        if not patterns:
            raise ValueError("attention: an empty list; name at least one class")
        if positions == "rotary":
            patterns = [partial(pattern, rotary=True) for pattern in patterns]
        self.make_optimizer = optimizer
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
        """The learned positions of the network, if it has such."""
        return self.network.positions

    @property
    def metric(self) -> Literal["bits_per_dim", "bits_per_character", "perplexity", "accuracy"]:
        """What is logged beside the loss."""
        if self.reads_images:
            return "bits_per_dim"
        if not self.hparams.vocabulary:
            return "accuracy"
        return "bits_per_character" if self.hparams.level == "character" else "perplexity"

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the token behind each one: (B, T) int64 -> (B, T, vocab_size); of images also the first byte's,
        (B, T + 1, 256)."""
        return self.network(tokens)

    def configure_optimizers(self) -> Optimizer:
        return self.make_optimizer(self.parameters(), self.hparams.lr)

    # ------------------------------------------------------------------------------------------ training and testing

    def logits_and_targets(self, batch: TokenBatch | ImageBatch) -> tuple[Tensor, Tensor]:
        """Logits (N, V) float32 and targets (N,) int64 of a batch, -100 where nothing is asked."""
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
        # A sum, since a batch may ask for nothing.
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

    # ---------------------------------------------------------------------------------------------------- generation

    @torch.no_grad()
    def generate(
        self,
        prompts: Tensor,
        count: int,
        *,
        lengths: Tensor | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Goes on with tokens; arguments and result are those of ``layers.transformers.generate``."""
        options = {"temperature": temperature, "top_k": top_k}
        generator = torch.Generator(self.device).manual_seed(seed)
        return generate(self.network, prompts, count, lengths=lengths, generator=generator, **options)

    def complete_images(
        self, images: Tensor, *, temperature: float = 1.0, top_k: int | None = None, seed: int = 0
    ) -> Tensor:
        """Images whose lower half the model has drawn anew, given the upper: (B, 3, S, S) float -> the same.

        Raises:
            ValueError: if the model was not trained on images.
        """
        if not self.reads_images:
            raise ValueError("this model was trained on text: it has no images to complete")
        size, pixel_range = self.hparams.image_size, self.hparams.pixel_range
        values = bytes_of_images(images, pixel_range)
        given = (size // 2) * size * COLOURS
        options = {"temperature": temperature, "top_k": top_k, "seed": seed}
        return images_of_bytes(self.generate(values[:, :given], values.shape[1] - given, **options), size, pixel_range)

    def predict_file(
        self,
        input: Path,
        output: Path,
        length: int = 100,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int = 0,
        batch_size: int = 16,
    ) -> str:
        """Goes on with texts, or completes images from their upper halves.

        A model of text takes a text file, a prompt a line, and writes each with its continuation, one a line; what
        ends a line of the training text is written ``<eos>``, and stands before each prompt too. A model of sequences
        without a vocabulary reads and writes numbers. A model of images takes a folder of images or one image file.

        Args:
            input: a UTF-8 text file; or a folder of image files, sub-folders included, or one image file.
            output: the text file to write; for images a ``.png`` with a row for each image (the image, the upper half,
                the completed image), or a ``.npz``: ``names``, ``images`` and ``completed`` (N, S, S, 3) uint8.
            length: tokens to add to each prompt (images have their number).
            temperature: the logits are divided by it; 0 takes the most probable token.
            top_k: draw among so many of the most probable tokens only.
            seed: of the draws.
            batch_size: prompts or images at once.

        Returns:
            What was done, for the terminal.

        Raises:
            ValueError: an argument is out of its range, the file can't be read or has a line that is no prompt, or
                there are too few positions.
        """
        for name, value in (("length", length), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name} ({value}) must be at least 1")
        self.eval()
        options: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "seed": seed}
        if self.reads_images:
            return complete_image_files(self, Path(input), Path(output), batch_size, options)
        return continue_text_file(self, Path(input), Path(output), length, batch_size, options)
