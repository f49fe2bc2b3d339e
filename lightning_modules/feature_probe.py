"""A feature probe: a trained network cut at any layer, with a new classifier on top."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from datamodules.batches import ImageBatch
from layers.classifiers import Classifier, LinearClassifier
from layers.images import Encoder
from layers.images.channels import for_channels
from layers.reuse import features
from layers.weights import normalize_weights

from .hyperparameters import add_slot_arguments, save_plain_hyperparameters
from .optimization import Interval, Optimized, OptimizerSlot, SchedulerSlot
from .prediction.endings import check_ending
from .prediction.images import encode_files
from .trained_models import LoadsTrained, build_model, find_checkpoint, read_model


class FeatureProbe(Optimized, LoadsTrained, pl.LightningModule):
    """Measures what a layer of a trained network has learned, by a new classifier on top of that layer.

        logits = top(flatten(head(images))),   loss = cross-entropy,   head: the trained network up to ``cut``

    The rows of the Deep InfoMax paper's tables are such probes of its layers. With ``head_lr: 0`` the head is frozen,
    weights and running statistics alike; otherwise it is fine-tuned at its own learning rate.

    The network is the ``forward`` of any module of this project that reads images (``DeepInfoMax``, ``AutoEncoder``,
    another probe); ``layers.reuse.nodes`` lists where it can be cut. The paper's conv, fc and Y are, in a
    ``layers.BlogEncoder``, ``encoder.local_layers``, ``encoder.global_layers``, ``encoder.mean``; in a
    ``layers.DIMEncoder``, ``encoder.conv_layers``, ``encoder.fc_layers``, ``encoder.mean``.

    The probe's own checkpoint holds the head and how it was built: the trained model's checkpoint is read only once,
    when training starts.

    Batches: ``datamodules.batches.ImageBatch`` with labels. In validation and test only the first loader is used.

    Logged: ``{train,val,test}/loss`` in nats, ``{val,test}/accuracy`` in [0, 1].

    Source: Hjelm et al., arXiv 1808.06670, section 4.1; kexue.fm/archives/6985, tricks 5 to 7.

    Args:
        checkpoint: the trained model: its run folder (the best checkpoint there) or a checkpoint file.
        encoder: instead of ``checkpoint``, the encoder slot, called with the image size: a pretrained network that was
            not trained here, such as ``HuggingFaceVisionEncoder``.
        cut: name of the node whose output is the features.
        top: the classifier slot, called with the numbers of features and classes.
        head_lr: learning rate of the head; 0 freezes it.
        weight_normalization: which weights are normalised before use, ``{pattern: kind}`` (see
            ``layers.normalize_weights``).
        lr: learning rate of the top.
        optimizer: the optimizer slot, called with parameter groups and ``lr``.
        scheduler: the slot of the learning-rate scheduler, called with the optimizer; None: a constant rate.
        scheduler_interval: when it moves on: after each ``epoch`` or each optimizer ``step``.
        leaf_modules: paths of modules that are not traced into but kept whole.
        source: hyperparameters of the trained model; read from its checkpoint, not set by the user.
        image_size: side of the images in pixels; given by the data.
        pixel_range: values of black and white in the images; given by the data. Images are rescaled to the range that
            the trained network expects.
        classes: names of the classes; given by the data.
        channels: of the images; given by the data.

    Raises:
        ValueError: if there is no such checkpoint, or it holds no network for images of this size; if there is no such
            node (similar names are listed); if the data has no classes, or ``head_lr`` is negative.

    Example:
        model:
          class_path: FeatureProbe
          init_args:
            checkpoint: runs/infomax_sample/first
            cut: encoder.global_layers
            head_lr: 1.0e-4
    """

    hparams: Any  # Lightning types it as a mapping without attributes

    monitor = "val/accuracy"
    mode = "max"
    data_links = ("image_size", "pixel_range", "channels", "classes")
    # What a run that is resumed or tested again takes from its checkpoint.
    checkpoint_arguments = ("source",)
    # What such a run has no use for.
    only_read_by_new_runs = ("checkpoint",)

    def __init__(
        self,
        checkpoint: str | None = None,
        cut: str = "encoder.mean",
        top: Callable[[int, int], Classifier] = LinearClassifier,
        head_lr: float = 0.0,
        weight_normalization: dict[str, str] | None = None,
        lr: float = 1e-3,
        optimizer: OptimizerSlot = torch.optim.Adam,
        scheduler: SchedulerSlot | None = None,
        scheduler_interval: Interval = "epoch",
        leaf_modules: Sequence[str] = (),
        source: dict | None = None,
        encoder: Callable[[int], Encoder] | None = None,
        image_size: int = 32,
        pixel_range: tuple[float, float] = (-0.5, 0.5),
        # A plain Sequence: jsonargparse copies a Sequence[...] once per entry.
        classes: Sequence = (),
        channels: int = 3,
    ) -> None:
        super().__init__()
        save_plain_hyperparameters(self)
        self.head: nn.Module
        if head_lr < 0:
            raise ValueError(f"head_lr ({head_lr}) must be at least 0")
        if len(classes) < 2:
            raise ValueError("the data has no classes: a probe needs labelled images, one sub-folder per class")
        if encoder is None:
            self.head, self.network_range = self._trained_head(source)
        elif checkpoint is None:
            network = _Encoding(for_channels(encoder, image_size, in_channels=channels))
            add_slot_arguments(self, "encoder", network.encoder.portable_arguments())
            self.head, self.network_range = features(network, cut, leaf_modules), pixel_range
        else:
            raise ValueError("checkpoint and encoder both name a network: give one of them")
        self.set_optimizer(optimizer, scheduler, scheduler_interval)
        self.frozen = head_lr == 0
        self.head.requires_grad_(not self.frozen)
        self.top = top(_num_features(self.head, cut, (channels, image_size, image_size)), len(classes))
        normalize_weights(self, weight_normalization)
        self.loss, self.accuracy = MeanMetric(), MulticlassAccuracy(len(classes), average="micro")
        self.train()

    def _trained_head(self, source: dict[str, Any] | None) -> tuple[nn.Module, tuple[float, float]]:
        """The trained model of the checkpoint up to the cut, and the pixel range that it expects."""
        weights = None
        if source is None:
            if self.hparams.checkpoint is None:
                raise ValueError("no network to probe: set model.checkpoint=RUN, or model.encoder")
            source, weights = read_model(find_checkpoint(self.hparams.checkpoint))
        # In a resumed run too: the command line stored the arguments given, not the source read from the checkpoint.
        self.hparams["source"] = source
        network_range = _pixel_range_of(source, self.hparams.image_size, self.hparams.channels)
        return _head(source, weights, self.hparams.cut, self.hparams.leaf_modules), network_range

    def train(self, mode: bool = True) -> "FeatureProbe":
        super().train(mode)
        if self.frozen:
            self.head.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, S, S) in ``pixel_range``."""
        (low, high), (network_low, network_high) = self.hparams.pixel_range, self.network_range
        if (low, high) != (network_low, network_high):
            images = (images - low) * ((network_high - network_low) / (high - low)) + network_low
        return self.top(self.head(images)[self.hparams.cut].flatten(1))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        groups: list[dict[str, Any]] = [{"params": list(self.top.parameters())}]
        if not self.frozen:
            groups.append({"params": list(self.head.parameters()), "lr": self.hparams.head_lr})
        return self.optimize(groups)

    # ------------------------------------------------------------------------------------------ training and testing

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        # The mean over the images with a class; a batch may have none.
        total = F.cross_entropy(self(batch.images).float(), batch.labels, ignore_index=-1, reduction="sum")
        loss = total / (batch.labels >= 0).sum().clamp(min=1)
        self.log("train/loss", loss.detach())
        self.log("loss", loss.detach(), prog_bar=True, logger=False)
        return loss

    def validation_step(self, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._measure(batch, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        self._log_measures("val")

    def test_step(self, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._measure(batch, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        self._log_measures("test")

    def _measure(self, batch: ImageBatch, dataloader_idx: int) -> None:
        if dataloader_idx:  # images for neighbour search
            return
        logits, labels = self(batch.images).float(), batch.labels
        self.loss.update(F.cross_entropy(logits, labels), len(labels))
        self.accuracy.update(logits, labels)

    def _log_measures(self, stage: str) -> None:
        self.log(f"{stage}/loss", self.loss.compute(), sync_dist=True)
        self.log(f"{stage}/accuracy", self.accuracy.compute(), prog_bar=True, sync_dist=True)
        self.loss.reset()
        self.accuracy.reset()

    # -------------------------------------------------------------------------------------------------- prediction

    @torch.inference_mode()
    def predict_file(
        self, input: Path, output: Path, batch_size: int = 256, on_error: Literal["stop", "skip"] = "stop"
    ) -> str:
        """Classifies images.

        Args:
            input: a folder of image files, sub-folders included, or one image file.
            output: the ``.csv`` file to write, one row per image: ``name`` (path below the folder), the most probable
                ``class`` and its ``probability``.
            batch_size: images per batch.
            on_error: at images that can't be read ``stop`` and name all of them, or ``skip`` them.

        Returns:
            A summary for the terminal.

        Raises:
            ValueError: if ``batch_size`` is below 1, the output has another ending, or there is no image or one that
                can't be read.
        """
        check_ending(output, (".csv", ""))
        names, probabilities = encode_files(
            self, input, lambda images: self(images).float().softmax(1), batch_size, on_error
        )
        best, indices = probabilities.max(1)
        rows = [
            [name, self.hparams.classes[index], f"{probability:.4f}"]
            for name, index, probability in zip(names, indices.tolist(), best.tolist(), strict=True)
        ]
        # Opened only now: an image that can't be read must not cost the file's old content.
        # File names that are not valid UTF-8 are written byte for byte.
        with open(output, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            csv.writer(file).writerows([["name", "class", "probability"], *rows])
        return f"{len(rows)} images classified, {len(self.hparams.classes)} classes -> {output}"


class _Encoding(nn.Module):
    """An encoder under the name that it has in a trained model."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images).mean


def _pixel_range_of(source: dict[str, Any], image_size: int, channels: int) -> tuple[float, float]:
    """The pixel range that a trained model expects.

    Raises:
        ValueError: if it doesn't read images of this size and number of channels.
    """
    name = source["_class_path"].rpartition(".")[2]
    if source.get("image_size") is None or source.get("pixel_range") is None:
        raise ValueError(f"checkpoint: {name} does not read images, so it has no image features")
    if source["image_size"] != image_size:
        raise ValueError(
            f"checkpoint: {name} was trained on images of {source['image_size']} pixels, the data's are {image_size}: "
            f"set data.image_size={source['image_size']}"
        )
    if source.get("channels", 3) != channels:  # older checkpoints don't say
        raise ValueError(
            f"checkpoint: {name} was trained on images of {source.get('channels', 3)} channels, the data's have "
            f"{channels}: set data.channels={source.get('channels', 3)}"
        )
    low, high = source["pixel_range"]
    return float(low), float(high)


def _head(
    source: dict[str, Any], weights: dict[str, Tensor] | None, cut: str, leaf_modules: Sequence[str]
) -> nn.Module:
    model = build_model(source)
    if weights is not None:
        model.load_state_dict(weights)
    return features(model, cut, leaf_modules)


@torch.no_grad()
def _num_features(head: nn.Module, cut: str, image_shape: tuple[int, int, int]) -> int:
    """How many features an image has, found by a trial run.

    Raises:
        ValueError: if the network doesn't read images, or its output at the cut is not features of the images.
    """
    head.eval()
    try:
        value = head(torch.zeros(2, *image_shape))[cut]
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"cut {cut}: the network up to there can't read images: {reason}") from error
    if not isinstance(value, Tensor) or value.ndim < 2 or len(value) != 2 or not value.is_floating_point():
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"cut {cut}: features of two images are (2, ...) floats, but there is {shape}: cut elsewhere")
    return value.flatten(1).shape[1]
