"""Deep InfoMax: the training step, Lightning's loop and the scores of all pairs, each against the plain way."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.cli import instantiate_module

from benchmarks._timing import interleaved, medians
from datamodules import ImageDataModule
from experiment.cli import has_native_bfloat16
from layers.infomax import AllPairs, ConcatScore, DotScore, Score
from lightning_modules import DeepInfoMax

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ("infomax_cifar10", "infomax_sample", "dim_local_infonce_cifar10")


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Medians of interleaved rounds, on the CPU or the first GPU, at batch 64."""
    rounds = 1 if quick else 15
    rows = []
    for name in CONFIGS[:1] if quick else CONFIGS:
        rows += training_steps(name, rounds)
    rows.append(lightning_loop("infomax_cifar10", 1 if quick else 5, batches=2 if quick else 25))
    rows += scores(rounds)
    return rows


# ------------------------------------------------------------------------------------------------------ training step


def build(config: str) -> DeepInfoMax:
    """The shipped model of a configuration."""
    model = yaml.safe_load((ROOT / "configs" / f"{config}.yaml").read_text())["model"]
    torch.manual_seed(0)
    return instantiate_module(
        pl.LightningModule, {"_class_path": "lightning_modules.DeepInfoMax", **model["init_args"]}
    )


def sample_images(device: torch.device) -> torch.Tensor:
    """64 images of noise, (64, 3, 32, 32) float32 in [-0.5, 0.5], channels last."""
    pixels = torch.randint(0, 256, (64, 32, 32, 3), generator=torch.Generator().manual_seed(0))
    return (pixels.permute(0, 3, 1, 2).float() / 255 - 0.5).to(device)


def step_of(model: DeepInfoMax, images: torch.Tensor, bfloat16: bool) -> Callable[[], None]:
    """A training step written by hand."""
    optimizers = model.configure_optimizers()
    optimizers = optimizers if isinstance(optimizers, list) else [optimizers]

    def step() -> None:
        for optimizer in optimizers:
            optimizer.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
            output = model.encoder(images)
            loss = model.losses(output)["loss"]
            if not model.automatic_optimization:
                loss = loss + model.prior.discriminator_loss(output.mean)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()

    return step


def training_steps(config: str, rounds: int) -> list[dict[str, Any]]:
    """The shipped step (channels last, bf16 where native) and the same model in plain fp32 and default layout."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = sample_images(device)
    ours = build(config).to(device)
    plain = build(config).to(device).to(memory_format=torch.contiguous_format)
    native = has_native_bfloat16()
    arms = {
        "ours": step_of(ours, images, bfloat16=native),
        "plain": step_of(plain, images.contiguous(), bfloat16=False),
    }
    seconds = medians(interleaved(arms, rounds, warm_up=2))
    return [row(f"training step, {config}", "fp32, default layout", seconds["plain"], seconds["ours"], bf16=native)]


# ---------------------------------------------------------------------------------------------------- Lightning's loop


class _Clock(pl.Callback):
    """Time from before the first batch is fetched to the end of the last."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.seconds = time.perf_counter() - self.started


def lightning_loop(config: str, rounds: int, batches: int) -> dict[str, Any]:
    """Lightning's loop and one by hand: same model, precision, layout, data and loader."""
    bfloat16 = has_native_bfloat16()
    data = ImageDataModule(source="sample", sample_train_size=64 * (batches + 10), sample_test_size=64)
    data.setup()
    model, by_hand = build(config), build(config)
    optimizer = by_hand.configure_optimizers()
    seconds: dict[str, list[float]] = {"lightning": [], "hand": []}
    for number in range(rounds + 1):
        clock = _Clock()
        trainer = pl.Trainer(
            accelerator="cpu",
            precision="bf16-mixed" if bfloat16 else "32-true",
            max_epochs=1,
            limit_train_batches=batches,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[clock],
        )
        trainer.fit(model, data)
        started = time.perf_counter()
        for _, batch in zip(range(batches), data.train_dataloader(), strict=False):
            images = data.on_after_batch_transfer(batch, 0).images
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss = by_hand.losses(by_hand.encoder(images))["loss"]
            loss.backward()
            optimizer.step()
        hand = time.perf_counter() - started
        if number:  # the first round warms up
            seconds["lightning"].append(clock.seconds)
            seconds["hand"].append(hand)
    ours, peer = statistics.median(seconds["lightning"]), statistics.median(seconds["hand"])
    return row(f"{batches} batches, {config}", "loop by hand", peer, ours)


# ---------------------------------------------------------------------------------------------------------- all pairs


def scores(rounds: int) -> list[dict[str, Any]]:
    """Scores of all pairs at batch 64 with 16 locations: ours against a loop over the images."""
    rows = []
    codes, features = torch.randn(64, 256), torch.randn(64, 16, 256)
    for name, score in (("DotScore(512)", DotScore(256, 256, units=512)), ("ConcatScore", ConcatScore(256, 256))):
        arms = {
            "ours": lambda score=score: _all(score, codes, features),
            "loop": lambda score=score: _loop(score, codes, features),
        }
        seconds = medians(interleaved(arms, max(1, rounds // 3), warm_up=2))
        rows.append(row(f"scores of all pairs, {name}", "loop over the images", seconds["loop"], seconds["ours"]))
    return rows


def _all(score: Score, codes: torch.Tensor, features: torch.Tensor) -> None:
    AllPairs()(score, score.embed_codes(codes), score.embed_features(features))[1].sum().backward()


def _loop(score: Score, codes: torch.Tensor, features: torch.Tensor) -> None:
    """Each image's features with every code, one image after the other."""
    total = torch.zeros(())
    for image in features:
        repeated = image.expand(len(codes), *image.shape)
        total = total + score.matched(score.embed_codes(codes), score.embed_features(repeated)).sum()
    total.backward()


def row(case: str, peer: str, peer_seconds: float, our_seconds: float, **more: Any) -> dict[str, Any]:
    """A row of the table, with ``more`` beside the times."""
    return {
        "benchmark": "infomax",
        "case": case,
        "peer": peer,
        "ratio": peer_seconds / our_seconds,
        "ours_ms": our_seconds * 1e3,
        "peer_ms": peer_seconds * 1e3,
        **more,
    }
