"""Deep InfoMax: image features without labels, by maximising mutual information."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from datamodules.batches import ImageBatch
from layers.images import AdversarialPrior, BlogEncoder, Encoder, EncoderOutput, GaussianPrior, Prior, untrained_copy
from layers.images.channels import for_channels
from layers.infomax import JSD, ConcatScore, Estimator, Negatives, Score, Shuffle
from layers.weights import normalize_weights
from metrics.representation import RepresentationQuality, baselines_ahead

from .hyperparameters import add_slot_arguments, save_plain_hyperparameters
from .optimization import Interval, Optimized, OptimizerSlot, SchedulerSlot
from .prediction.deep_infomax import EncodesImageFiles, Representation, representations
from .step_logging import log_epoch_means
from .trained_models import LoadsTrained

Probe = Literal["knn", "linear_probe", "mlp_probe"]


class DeepInfoMax(EncodesImageFiles, Optimized, LoadsTrained, pl.LightningModule):
    """Deep InfoMax: an encoder whose code keeps the mutual information with the image and its local features.

        loss = global_weight * L_global + local_weight * L_local + prior_weight * L_prior

    L_local separates pairs (code of an image, vectors of its own local feature map) from pairs with the maps of other
    images; L_global does the same with one vector per image; L_prior keeps the distribution of codes simple. The score
    of a pair, the choice of negatives, the bound used as loss, and the prior are slots. The defaults are the blog's
    form: weights 0.5, 1.5, 0.01, concatenation scores, one shuffled partner, JSD, analytic KL to N(0, I).
    The paper's form: DIMEncoder, DotScore, AllPairs, InfoNCE (or JSD, DonskerVaradhan), AdversarialPrior.

    With two versions of each image (``data.views: 2``) the code of one is paired with the features of the other, both
    ways, and the two losses are averaged: what the versions do not share, such as colours that the augmentation
    changes, no longer helps to recognise the image (the idea of AMDIM).

    Batches: ``datamodules.batches.ImageBatch``; labels are used by the evaluation probes only. In validation and test
    the first loader has the images to evaluate, the second those that the probes are trained on.

    Logged, in nats: ``{train,val}/{loss,global_loss,local_loss,prior_loss}`` and the estimates of mutual information
    ``{train,val}/{global_mi,local_mi}``; accuracies in [0, 1]: ``val/knn_accuracy`` (and the other ``val_probes``),
    ``test/knn_accuracy``, ``test/linear_probe_accuracy``, ``test/mlp_probe_accuracy`` of the code, and the same under
    ``test/fc/``, ``test/local/``, ``test/untrained/[fc/|local/]`` (the same encoder with fresh weights) and
    ``test/raw_pixels/``.
    InfoNCE values depend on the batch size per process. ``val/loss`` leaves out the term of an adversarial prior.

    Source: kexue.fm/archives/6024 (blog) and Hjelm et al., arXiv 1808.06670 (paper); Bachman et al., arXiv 1906.00910
    (AMDIM, which pairs feature maps of several scales too). Differences: scores are logits
    (the blog adds 1e-6 to probabilities), masked pairs are left out (the paper's code sets them to -10).

    Args:
        encoder: the encoder slot, called with the image size.
        score: the score slot, called with the sizes of codes and feature vectors; built once per objective.
        negatives: the negative-sampling slot.
        estimator: the estimator slot.
        prior: the prior slot, called with the size of the code. AdversarialPrior trains a discriminator with its own
            optimizer (manual optimization: no gradient clipping or accumulation by the Trainer).
        global_weight: weight of the global objective; 0 removes it and its networks.
        local_weight: weight of the local objective; 0 removes it and its networks.
        prior_weight: weight of the prior; 0 removes it, and with it the need for a stochastic encoder.
        global_pair: what the code is paired with in the global objective: ``code``, itself (the blog's form), or
            ``map``, the local map after a network like the encoder's remaining layers (the paper's DIM(G)).
        global_units: output size of that network.
        weight_normalization: which weights are normalised before use, ``{pattern: kind}`` (see
            ``layers.normalize_weights``), for example ``{local_score: spectral}`` for the local discriminator. The
            discriminators are ``local_score``, ``global_score``, ``global_network`` and ``prior.discriminator``.
        lr: learning rate.
        optimizer: the optimizer slot, called with the parameters and ``lr``.
        scheduler: the slot of the learning-rate scheduler, called with the optimizer; None: a constant rate. The
            discriminator of AdversarialPrior gets one of its own.
        scheduler_interval: when it moves on: after each ``epoch`` or each optimizer ``step``.
        representations: which features the test evaluates: the code, the feature vector before it (``fc``), the
            flattened last convolutional map (``local``).
        probes: the classifiers of the test.
        val_probes: the classifiers of each validation, of the code: with ``linear_probe`` its curve during training.
        baselines: also test the untrained encoder and raw pixels, without which the accuracies mean little.
        image_size: side of the images in pixels; given by the data.
        pixel_range: values of black and white in the images; given by the data.
        channels: of the images; given by the data.

    Raises:
        ValueError: if prior and encoder don't fit together, no weight is positive, or a pattern matches nothing.

    Example:
        model:
          class_path: DeepInfoMax
          init_args:
            encoder: DIMEncoder
            estimator: JSD
    """

    hparams: Any  # Lightning types it as a mapping without attributes

    monitor = "val/loss"
    mode = "min"
    data_links = ("image_size", "pixel_range", "channels")

    def __init__(
        self,
        encoder: Callable[[int], Encoder] = BlogEncoder,
        score: Callable[[int, int], Score] = ConcatScore,
        negatives: Callable[[], Negatives] = Shuffle,
        estimator: Callable[[], Estimator] = JSD,
        prior: Callable[[int], Prior] = GaussianPrior,
        global_weight: float = 0.5,
        local_weight: float = 1.5,
        prior_weight: float = 0.01,
        global_pair: Literal["code", "map"] = "code",
        global_units: int = 2048,
        weight_normalization: dict[str, str] | None = None,
        lr: float = 1e-3,
        optimizer: OptimizerSlot = torch.optim.Adam,
        scheduler: SchedulerSlot | None = None,
        scheduler_interval: Interval = "epoch",
        representations: Sequence[Representation] = ("code", "fc", "local"),
        probes: Sequence[Probe] = ("knn", "linear_probe", "mlp_probe"),
        val_probes: Sequence[Probe] = ("knn",),
        baselines: bool = True,
        image_size: int = 32,
        pixel_range: tuple[float, float] = (-0.5, 0.5),
        channels: int = 3,
    ) -> None:
        super().__init__()
        save_plain_hyperparameters(self)
        weights = {"global": global_weight, "local": local_weight, "prior": prior_weight}
        if min(weights.values()) < 0 or max(weights.values()) == 0:
            raise ValueError(
                f"global_weight, local_weight, prior_weight ({weights}) must be at least 0, and one of them positive"
            )
        self.weights = weights
        self.set_optimizer(optimizer, scheduler, scheduler_interval)
        self.encoder = for_channels(encoder, image_size, in_channels=channels)
        add_slot_arguments(self, "encoder", self.encoder.portable_arguments())
        self.prior = prior(self.encoder.code_size)
        self.prior.requires_grad_(prior_weight > 0)
        if self.prior.stochastic and not self.encoder.stochastic and prior_weight > 0:
            raise ValueError(
                f"{type(self.prior).__name__} needs a stochastic encoder: set model.encoder.stochastic=true"
            )
        if self.encoder.stochastic and not self.prior.stochastic:
            raise ValueError(
                f"{type(self.prior).__name__} does not use log-variances: set model.encoder.stochastic=false"
            )
        code_size = self.encoder.code_size
        self.local_score = score(code_size, self.encoder.local_size) if local_weight > 0 else None
        self.global_score = self.global_network = None
        if global_weight > 0:
            if global_pair == "map":
                self.global_network = self.encoder.global_network(global_units)
            self.global_score = score(code_size, global_units if global_pair == "map" else code_size)
        self.negatives = negatives()
        self.estimator = estimator()
        self.automatic_optimization = not (self.prior.adversarial and prior_weight > 0)
        normalize_weights(self, weight_normalization)
        # Convolutions in bfloat16 and on tensor cores are faster in channels-last format.
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """The code of images: (B, C, H, W) in ``pixel_range`` -> (B, d). No sampling."""
        return self.encoder(images.contiguous(memory_format=torch.channels_last)).mean

    def configure_optimizers(self) -> OptimizerLRScheduler:
        if self.automatic_optimization:
            return self.optimize(self.parameters())
        discriminator = {id(parameter) for parameter in self.prior.parameters()}
        cooperative = [parameter for parameter in self.parameters() if id(parameter) not in discriminator]
        return self.optimize(cooperative, self.prior.parameters())

    # ------------------------------------------------------------------------------------------------------ losses

    def losses(self, output: EncoderOutput, views: EncoderOutput | None = None) -> dict[str, Tensor]:
        """All loss terms for the encoder's outputs (B, ...), and for those of the images' other versions, if any.

        Returns:
            ``loss``, the weighted sum; those of ``global_loss``, ``local_loss``, ``prior_loss`` whose weights are
            positive; ``global_mi``, ``local_mi``, the estimates of mutual information, detached. All in nats.
        """
        if views is None:
            terms = self._terms(output, output)
        else:
            directions = self._terms(output, views), self._terms(views, output)
            terms = {name: (value + directions[1][name]) / 2 for name, value in directions[0].items()}
        loss = sum(weight * terms[f"{name}_loss"] for name, weight in self.weights.items() if weight > 0)
        assert isinstance(loss, Tensor)
        return {"loss": loss, **terms}

    def _terms(self, output: EncoderOutput, partner: EncoderOutput) -> dict[str, Tensor]:
        """The terms for the codes of ``output`` with the features of ``partner``."""
        terms: dict[str, Tensor] = {}
        code = self._code(output)
        if self.global_score is not None:
            if self.global_network is not None:
                features = self.global_network(partner.local)
            else:
                features = code if partner is output else self._code(partner)
            terms |= self._objective("global", self.global_score, code, features.unsqueeze(1))
        if self.local_score is not None:
            # (B, C, h, w) -> (B, h w, C): a view, as the map is channels-last in memory.
            locations = partner.local.permute(0, 2, 3, 1).flatten(1, 2)
            terms |= self._objective("local", self.local_score, code, locations)
        if self.weights["prior"] > 0:
            terms["prior_loss"] = self.prior(output.mean, output.logvar)
        return terms

    def _code(self, output: EncoderOutput) -> Tensor:
        """The codes (B, d), float32, that the objectives see."""
        return output.mean.float() if output.logvar is None else self.prior.sample(output.mean, output.logvar)

    def _encode(self, batch: ImageBatch) -> tuple[EncoderOutput, EncoderOutput | None]:
        """The encoder's outputs for the images and their other versions, in one pass."""
        if batch.views is None:
            return self.encoder(batch.images), None
        both = self.encoder(torch.cat([batch.images, batch.views]))
        halves = zip(*((part, part) if part is None else part.chunk(2) for part in both), strict=True)
        output, views = (EncoderOutput(*half) for half in halves)
        return output, views

    def _objective(self, name: str, score: Score, code: Tensor, features: Tensor) -> dict[str, Tensor]:
        positive, negative, mask = self.negatives(score, score.embed_codes(code), score.embed_features(features))
        loss = self.estimator(positive, negative, mask)
        # A mask excludes the image itself, as AllPairs' does; counting its entries would synchronise with the device.
        images = negative.shape[1] if mask is None else negative.shape[1] - 1
        bound = self.estimator.mutual_information(loss.detach(), images * negative.shape[2])
        return {f"{name}_loss": loss, f"{name}_mi": bound}

    # ---------------------------------------------------------------------------------------------------- training

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor | None:
        output, views = self._encode(batch)
        losses = self.losses(output, views)
        if not self.automatic_optimization:
            codes = output.mean if views is None else torch.cat([output.mean, views.mean])
            losses["discriminator_loss"] = self._adversarial_step(losses["loss"], codes)
        self.log_dict({f"train/{name}": value.detach() for name, value in losses.items()})
        self.log("loss", losses["loss"].detach(), prog_bar=True, logger=False)
        return losses["loss"] if self.automatic_optimization else None

    def _adversarial_step(self, loss: Tensor, mean: Tensor) -> Tensor:
        """One step of the encoder against the discriminator, and one of the discriminator on the same codes."""
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)
        discriminator_loss = cast(AdversarialPrior, self.prior).discriminator_loss(mean)
        for optimizer in optimizers:
            optimizer.zero_grad()
        # Neither loss has gradients for the other's parameters, so one backward pass serves both; under DDP each
        # parameter is then reduced once, as DDP expects.
        self.manual_backward(loss + discriminator_loss)
        for optimizer in optimizers:
            optimizer.step()
        self.step_schedulers()
        return discriminator_loss.detach()

    # -------------------------------------------------------------------------------------------------- evaluation

    def on_validation_epoch_start(self) -> None:
        self._qualities = {"": RepresentationQuality(probes=list(self.hparams.val_probes)).to(self.device)}

    def validation_step(self, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        output, views = self._encode(batch)
        memory = dataloader_idx == 1
        self._qualities[""].update(output.mean, batch.labels, memory=memory)
        if memory or len(batch.images) < 2:
            return
        # The same noise and partners in every validation, without touching the random state of training.
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(batch_idx)
            losses = self.losses(output, views)
        if self.prior.adversarial and "prior_loss" in losses:
            # Against a discriminator that learns, this term does not measure the encoder's progress.
            losses["loss"] = losses["loss"] - self.weights["prior"] * losses["prior_loss"]
        log_epoch_means(self, {f"val/{name}": value for name, value in losses.items()}, len(batch.images))

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self._log_qualities("val")

    def on_test_epoch_start(self) -> None:
        names = [name for name in ("code", "fc", "local") if name in self.hparams.representations]
        prefixes = [("" if name == "code" else f"{name}/") for name in names]
        if self.hparams.baselines:
            self._untrained = untrained_copy(self.encoder)
            prefixes += [f"untrained/{prefix}" for prefix in prefixes] + ["raw_pixels/"]
        self._qualities = {
            prefix: RepresentationQuality(probes=list(self.hparams.probes)).to(self.device) for prefix in prefixes
        }

    def test_step(self, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Returns the codes, with baselines also the untrained encoder's, for the pictures."""
        output = self.encoder(batch.images)
        features, codes = representations(output), {"code": output.mean}
        if self.hparams.baselines:
            untrained = representations(self._untrained(batch.images))
            codes["untrained_code"] = untrained[""]
            features |= {f"untrained/{prefix}": value for prefix, value in untrained.items()}
            features["raw_pixels/"] = batch.images.flatten(1).half()
        for prefix, quality in self._qualities.items():
            quality.update(features[prefix], batch.labels, memory=dataloader_idx == 1)
        return codes

    def on_test_epoch_end(self) -> None:
        self._log_qualities("test")
        if self.hparams.baselines:
            del self._untrained

    def _log_qualities(self, stage: str) -> None:
        for prefix in list(self._qualities):
            # One representation at a time, each freed before the next: the maps of all images are large.
            quality = self._qualities.pop(prefix)
            if quality.left_out:
                where = f"{stage}/{prefix}".rstrip("/")
                rank_zero_warn(f"{where}: the probes leave out {quality.left_out} images, so that memory suffices")
            for name, value in quality.compute().items():
                is_main = prefix == "" and name == "knn_accuracy"
                self.log(f"{stage}/{prefix}{name}", value, prog_bar=is_main, sync_dist=True)

    def remarks(self, metrics: Mapping[str, float]) -> list[str]:
        """What the table of a test does not say by itself: whether the training was worth it."""
        if not metrics and self.hparams.probes and self.hparams.representations:
            return [
                "The images have no classes, which the probes need: put those of each class into a folder of its name."
            ]
        behind = baselines_ahead(metrics)
        if not behind:
            return []
        views = (
            "two views instead of one, which take away what is easy to recognise, such as colours "
            "(configs/infomax_folder.yaml); "
        )
        if getattr(getattr(self._trainer, "datamodule", None), "views", 1) == 2:
            views = ""
        return [
            f"The trained code is not ahead of {' and '.join(behind)}. To try: {views}more epochs, watched by "
            "--model.val_probes=[knn,linear_probe]; the rows test/fc and test/local."
        ]
