"""Autoencoders: image features learned by reconstruction, without labels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from datamodules.batches import ImageBatch
from layers.images import BlogEncoder, ConvolutionalDecoder, Decoder, Encoder, EncoderOutput, VariationalCode
from layers.images.channels import for_channels
from layers.losses import AddsLosses, collect_losses
from layers.weights import normalize_weights
from metrics.representation import RepresentationQuality

from .hyperparameters import add_slot_arguments, save_plain_hyperparameters
from .optimization import Interval, Optimized, OptimizerSlot, SchedulerSlot
from .prediction.endings import check_ending
from .prediction.images import FEATURE_FILES, encode_files, write_features
from .step_logging import log_losses
from .trained_models import LoadsTrained


class AutoEncoder(AddsLosses, Optimized, LoadsTrained, pl.LightningModule):
    """An autoencoder, plain or variational; its whole loss comes from ``add_loss`` in the forward of its parts.

        plain:        loss = mean((x' - x)^2),               x' = decoder(z), z = encoder(x)
        variational:  loss = mean((x' - x)^2) + beta * KL / D,   z ~ N(mean, exp(logvar)),   D = C S^2 values per image

    It is variational if the encoder is stochastic. Multiplied by -D / beta, the second loss is the evidence lower bound
    (up to a constant) of a decoder with Gaussian noise of variance beta / 2: beta 0.02 means a standard deviation of a
    tenth of the range from black to white.

    Batches: ``datamodules.batches.ImageBatch``; labels are used for the test accuracy only. In the test the first
    loader has the images to evaluate, the second those among which neighbours are searched.

    Logged: ``{train,val,test}/reconstruction``, the mean squared error with black as 0 and white as 1;
    ``{train,val,test}/kl`` of the variational form, in nats per image; ``{train,val,test}/loss``, the sum above;
    ``test/knn_accuracy`` of the code, in [0, 1].

    Source: kexue.fm/archives/6311 (784 -> 100 ReLU -> 784 sigmoid: DenseEncoder and DenseDecoder, here on three
    channels); Kingma and Welling, arXiv 1312.6114.

    Args:
        encoder: the encoder slot, called with the image size.
        decoder: the decoder slot, called with the size of the code and the image size.
        beta: weight of the KL term, at least 0; the plain form ignores it.
        weight_normalization: which weights are normalised before use, ``{pattern: kind}`` (see
            ``layers.normalize_weights``).
        lr: learning rate.
        optimizer: the optimizer slot, called with the parameters and ``lr``.
        scheduler: the slot of the learning-rate scheduler, called with the optimizer; None: a constant rate.
        scheduler_interval: when it moves on: after each ``epoch`` or each optimizer ``step``.
        image_size: S, side of the images in pixels; given by the data.
        pixel_range: values of black and white in the images; given by the data.
        channels: of the images; given by the data.

    Raises:
        ValueError: if beta is negative.

    Example:
        model:
          class_path: AutoEncoder
          init_args:
            beta: 0.05
            encoder: {class_path: BlogEncoder, init_args: {stochastic: true}}
    """

    hparams: Any  # Lightning types it as a mapping without attributes

    monitor = "val/loss"
    mode = "min"
    data_links = ("image_size", "pixel_range", "channels")

    def __init__(
        self,
        encoder: Callable[[int], Encoder] = BlogEncoder,
        decoder: Callable[[int, int], Decoder] = ConvolutionalDecoder,
        beta: float = 0.02,
        weight_normalization: dict[str, str] | None = None,
        lr: float = 1e-3,
        optimizer: OptimizerSlot = torch.optim.Adam,
        scheduler: SchedulerSlot | None = None,
        scheduler_interval: Interval = "epoch",
        image_size: int = 32,
        pixel_range: tuple[float, float] = (-0.5, 0.5),
        channels: int = 3,
    ) -> None:
        super().__init__()
        save_plain_hyperparameters(self)
        if beta < 0:
            raise ValueError(f"beta ({beta}) must be at least 0")
        self.set_optimizer(optimizer, scheduler, scheduler_interval)
        self.encoder = for_channels(encoder, image_size, in_channels=channels)
        add_slot_arguments(self, "encoder", self.encoder.portable_arguments())
        code_size = self.encoder.code_size
        self.code = VariationalCode(code_size, beta / (channels * image_size**2)) if self.encoder.stochastic else None
        self.decoder = for_channels(decoder, code_size, image_size, out_channels=channels)
        normalize_weights(self, weight_normalization)
        self.to(memory_format=torch.channels_last)

    @property
    def variational(self) -> bool:
        """Whether codes are sampled, so that new images can be generated."""
        return self.code is not None

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, S, S) in ``pixel_range``, encoded and decoded; adds the losses."""
        return self._decode_and_compare(self.encode(images), images)

    def encode(self, images: Tensor) -> EncoderOutput:
        """Output of the encoder for images (B, C, S, S) in ``pixel_range``; no sampling."""
        return self.encoder(images.contiguous(memory_format=torch.channels_last))

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, d) to images (B, C, S, S) in ``pixel_range``."""
        low, high = self.hparams.pixel_range
        # Codes are sampled in float32; a decoder in true half precision needs its own dtype.
        return low + (high - low) * self.decoder(codes.to(self.dtype)).float()

    def _decode_and_compare(self, output: EncoderOutput, images: Tensor) -> Tensor:
        code = output.mean if self.code is None else self.code(output.mean, output.logvar)
        reconstruction = self.decode(code)
        low, high = self.hparams.pixel_range
        self.add_loss("reconstruction", ((reconstruction - images) / (high - low)).square().mean())
        return reconstruction

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return self.optimize(self.parameters())

    # -------------------------------------------------------------------------------------------------------- steps

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        with collect_losses(self) as losses:
            self(batch.images)
        return log_losses(self, "train", losses)

    def validation_step(self, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        if dataloader_idx == 0:
            self._evaluate("val", self.encode(batch.images), batch, batch_idx)

    def on_test_epoch_start(self) -> None:
        self._quality = RepresentationQuality(probes=["knn"]).to(self.device)

    def test_step(self, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Returns the codes and, for the first loader's images, their reconstructions, for the pictures."""
        output = self.encode(batch.images)
        self._quality.update(output.mean, batch.labels, memory=dataloader_idx == 1)
        if dataloader_idx == 1:
            return {"code": output.mean}
        self._evaluate("test", output, batch, batch_idx)
        return {"code": output.mean, "reconstruction": self.decode(output.mean)}

    def on_test_epoch_end(self) -> None:
        for name, value in self._quality.compute().items():
            self.log(f"test/{name}", value, sync_dist=True)
        del self._quality

    def _evaluate(self, stage: str, output: EncoderOutput, batch: ImageBatch, batch_idx: int) -> None:
        # The same noise in every evaluation, without touching the random state of training.
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(batch_idx)
            with collect_losses(self) as losses:
                self._decode_and_compare(output, batch.images)
        log_losses(self, stage, losses, len(batch.images))

    # --------------------------------------------------------------------------------------------------- prediction

    @torch.inference_mode()
    def sample_images(self, count: int, seed: int = 0) -> Tensor:
        """New images from codes sampled from N(0, I): (count, 3, S, S) in ``pixel_range``, the same for the same seed.

        Raises:
            ValueError: in the plain form, whose codes have no distribution to sample from.
        """
        if not self.variational:
            raise ValueError("only a variational autoencoder generates images: set model.encoder.stochastic=true")
        self.eval()
        generator = torch.Generator().manual_seed(seed)
        return self.decode(torch.randn(count, self.encoder.code_size, generator=generator).to(self.device))

    @torch.inference_mode()
    def predict_file(
        self, input: Path, output: Path, batch_size: int = 256, on_error: Literal["stop", "skip"] = "stop"
    ) -> str:
        """Turns a folder of images into features: their codes (in the variational form, the means).

        Args:
            input: a folder of image files, sub-folders included, or one image file.
            output: the file to write: ``.npz`` with ``names`` (paths below the folder) and ``features`` (N, d) float32,
                or a table of both, ``.csv`` or ``.parquet``.
            batch_size: images per batch.
            on_error: at images that can't be read ``stop`` and name all of them, or ``skip`` them.

        Returns:
            A summary for the terminal.

        Raises:
            ValueError: if ``batch_size`` is below 1, the output has another ending, or there is no image or one that
                can't be read.
        """
        check_ending(output, FEATURE_FILES)
        names, features = encode_files(self, input, lambda images: self.encode(images).mean, batch_size, on_error)
        write_features(output, names, features)
        return f"{len(names)} images, {features.shape[1]} features each -> {output}"
