"""The probe of a trained network: its features, what it trains, and its self-contained checkpoint."""

import csv
import json
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from datamodules import ImageDataModule
from datamodules.batches import ImageBatch
from experiment.errors import UserError, run_main
from experiment.evaluate import evaluate
from experiment.predict import predict
from experiment.resuming.resumed_settings import refuse_what_only_a_new_run_reads
from experiment.train import train
from layers import BlogEncoder, DIMEncoder, LinearClassifier, MLPClassifier
from layers.reuse import features
from lightning_modules import AutoEncoder, FeatureProbe, SparseTransformer
from tests.conftest import make_tiny_source, save_model
from tests.tools import quiet_trainer

CLASSES = ["disc", "ring", "square", "triangle", "cross", "star", "crescent", "bars", "arrow", "heart"]


def data(**changes) -> ImageDataModule:
    sizes = {"sample_train_size": 120, "sample_test_size": 40, "batch_size": 16, "memory_size": 1}
    return ImageDataModule(source="sample", **{**sizes, **changes})


def images(count: int = 5) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def source(tmp_path: Path):
    return make_tiny_source(tmp_path / "source.ckpt")


@pytest.mark.parametrize("encoder", [partial(BlogEncoder, channels=8, code_size=4), DIMEncoder])
def test_features_are_the_networks(tmp_path: Path, encoder):
    model = make_tiny_source(tmp_path / "source.ckpt", encoder=encoder, stochastic=encoder is not DIMEncoder)
    expected = model.encoder(images())
    blog = encoder is not DIMEncoder
    cuts = {
        "conv": "encoder.local_layers" if blog else "encoder.conv_layers",
        "fc": "encoder.global_layers" if blog else "encoder.fc_layers",
        "mean": "encoder.mean",
    }
    for field, cut in cuts.items():
        probe = FeatureProbe(tmp_path / "source.ckpt", cut, classes=CLASSES).eval()
        found = getattr(expected, field).flatten(1)
        torch.testing.assert_close(probe(images()), probe.top(found))
        assert probe.top.linear.in_features == found.shape[1]
    # Nothing from after the cut, or beside it.
    assert {name for name, _ in probe.named_parameters() if "logvar" in name or "score" in name} == set()
    assert not [name for name in probe.state_dict() if "logvar" in name]


def test_a_frozen_head_keeps_its_bytes_and_its_running_statistics(source, tmp_path: Path):
    probe = FeatureProbe(tmp_path / "source.ckpt", "encoder.global_layers", classes=CLASSES)
    head, top = weights(probe.head), weights(probe.top)
    probe.train()
    assert not any(module.training for module in probe.head.modules())
    assert probe.top.training
    quiet_trainer().fit(probe, data())
    assert same(head, probe.head.state_dict())
    assert not torch.equal(top["linear.weight"], probe.top.linear.weight)
    (group,) = probe.configure_optimizers().param_groups
    assert [id(parameter) for parameter in group["params"]] == [id(parameter) for parameter in probe.top.parameters()]


def test_a_head_with_a_learning_rate_is_fine_tuned_and_the_source_unchanged(source, tmp_path: Path):
    before = (tmp_path / "source.ckpt").read_bytes()
    probe = FeatureProbe(tmp_path / "source.ckpt", "encoder.mean", head_lr=1e-2, lr=1e-3, classes=CLASSES)
    head = weights(probe.head)
    quiet_trainer().fit(probe, data())
    top_group, head_group = probe.configure_optimizers().param_groups
    assert (top_group["lr"], head_group["lr"]) == (1e-3, 1e-2)
    assert {id(p) for p in head_group["params"]} == {id(p) for p in probe.head.parameters()}
    for name, value in probe.head.state_dict().items():
        assert not torch.equal(value, head[name]), name
    assert (tmp_path / "source.ckpt").read_bytes() == before


def test_images_without_a_class_teach_nothing(source, tmp_path: Path):
    probe = FeatureProbe(str(tmp_path / "source.ckpt"), "encoder.global_layers", classes=CLASSES)
    probe.log = lambda *_, **__: None
    labels = torch.tensor([3, -1, 0, -1, 9])
    loss = probe.training_step(ImageBatch(images(), labels), 0)
    known = labels >= 0
    torch.testing.assert_close(loss, F.cross_entropy(probe(images())[known], labels[known]))
    none = probe.training_step(ImageBatch(images(), torch.full((5,), -1)), 0)
    none.backward()
    assert none == 0
    assert all(not parameter.grad.any() for parameter in probe.top.parameters())


def test_other_channels_than_the_networks_are_refused(source, tmp_path: Path):
    with pytest.raises(ValueError, match=r"trained on images of 3 channels, the data's have 1: set data.channels=3"):
        FeatureProbe(str(tmp_path / "source.ckpt"), "encoder.global_layers", classes=CLASSES, channels=1)


def test_images_are_rescaled_to_the_range_of_the_network(source, tmp_path: Path):
    own = FeatureProbe(tmp_path / "source.ckpt", "encoder.mean", classes=CLASSES).eval()
    other = FeatureProbe(tmp_path / "source.ckpt", "encoder.mean", classes=CLASSES, pixel_range=(0.0, 255.0)).eval()
    other.load_state_dict(own.state_dict())
    torch.testing.assert_close(other((images() + 0.5) * 255), own(images()))


def test_logged_are_loss_and_accuracy_of_all_test_images(source, tmp_path: Path):
    probe, images_of = FeatureProbe(tmp_path / "source.ckpt", "encoder.mean", classes=CLASSES), data(eval_batch_size=16)
    (logged,) = quiet_trainer().test(probe, images_of, verbose=False)[:1]
    every = [images_of.on_after_batch_transfer(batch, 0) for batch in images_of.test_dataloader()[0]]
    batch, labels = torch.cat([b.images for b in every]), torch.cat([b.labels for b in every])
    assert len(labels) == 40
    logits = probe.eval()(batch)
    assert logged["test/loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert logged["test/accuracy"] == pytest.approx((logits.argmax(1) == labels).double().mean().item())


def test_its_checkpoint_loads_alone_and_can_be_probed_again(source, tmp_path: Path):
    probe = FeatureProbe(str(tmp_path / "source.ckpt"), "encoder.local_layers", top=MLPClassifier, classes=CLASSES)
    fit = quiet_trainer()
    fit.fit(probe, data())
    fit.save_checkpoint(tmp_path / "probe.ckpt")
    (tmp_path / "source.ckpt").unlink()
    loaded = FeatureProbe.load_from_checkpoint(tmp_path / "probe.ckpt", weights_only=True).eval()
    assert torch.equal(loaded(images()), probe.eval()(images()))
    assert loaded.frozen
    again = FeatureProbe(tmp_path / "probe.ckpt", "top.layers.0", classes=CLASSES).eval()
    expected = probe.top.layers[0](probe.head(images())["encoder.local_layers"].flatten(1))
    torch.testing.assert_close(again.head(images())["top.layers.0"], expected)


def test_an_autoencoder_is_a_source(tmp_path: Path):
    model = AutoEncoder(partial(BlogEncoder, channels=8, code_size=4), image_size=8).eval()
    save_model(model, tmp_path / "source.ckpt")
    probe = FeatureProbe(tmp_path / "source.ckpt", "encoder.mean", image_size=8, classes=["a", "b"]).eval()
    small = images()[..., :8, :8]
    torch.testing.assert_close(probe(small), probe.top(model.encode(small).mean))


def test_mistakes_are_reported_in_one_line(source, tmp_path: Path):
    path = tmp_path / "source.ckpt"
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    save_model(
        SparseTransformer(embed_dim=8, num_heads=2, num_layers=1, feedforward_size=8), tmp_path / "text_model.ckpt"
    )
    save_model(
        SparseTransformer(embed_dim=8, num_heads=2, num_layers=1, feedforward_size=8, image_size=32),
        tmp_path / "byte_model.ckpt",
    )
    (tmp_path / "empty").mkdir()
    cases = [
        ((path, "encoder.fc"), {}, "DeepInfoMax has no node 'encoder.fc' to cut at; .*encoder.mean"),
        (
            (tmp_path / "sorce.ckpt", "encoder.mean"),
            {},
            "no such run folder or checkpoint: .*; did you mean source.ckpt",
        ),
        ((tmp_path / "empty", "encoder.mean"), {}, "no checkpoint in .*empty: name a run folder"),
        ((tmp_path / "text.ckpt", "encoder.mean"), {}, "corrupt checkpoint, or not a checkpoint: .*text.ckpt"),
        ((tmp_path / "foreign.ckpt", "encoder.mean"), {}, "foreign checkpoint: .*foreign.ckpt"),
        ((tmp_path / "text_model.ckpt", "network.norm"), {}, "SparseTransformer does not read images"),
        ((tmp_path / "byte_model.ckpt", "network.norm"), {}, "cut network.norm: the network up to there can't read"),
        ((path, "encoder.mean"), {"image_size": 64}, "images of 32 pixels, the data's are 64: set data.image_size=32"),
        ((path, "encoder.mean"), {"classes": []}, "the data has no classes"),
        ((path, "encoder.mean"), {"head_lr": -1.0}, r"head_lr \(-1.0\) must be at least 0"),
    ]
    for arguments, changes, message in cases:
        with pytest.raises(ValueError, match=message) as error:
            FeatureProbe(*arguments, **{"classes": CLASSES, **changes})
        assert "\n" not in str(error.value)


def test_the_classifiers_are_the_formulas():
    torch.manual_seed(0)
    x = torch.randn(50, 7) * 3 + 1
    linear, mlp = LinearClassifier(7, 4), MLPClassifier(7, 4)
    expected = linear.linear((x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt())
    torch.testing.assert_close(linear(x), expected)
    # The paper's: 200 hidden units with batch normalisation.
    assert sum(p.numel() for p in mlp.parameters()) == 7 * 200 + 200 + 2 * 200 + 200 * 4 + 4
    first, norm, last = mlp.layers[0], mlp.layers[1], mlp.layers[4]
    mlp(x)
    h = (first(x) - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(mlp.eval()(x), last(h.relu()))


def test_from_the_command_line_to_predictions_without_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.delenv(name, raising=False)
    run = tmp_path / "source"
    (run / "checkpoints").mkdir(parents=True)
    make_tiny_source(run / "checkpoints" / "best.ckpt")
    settings = {"model": {"class_path": "FeatureProbe"}, "data": {"class_path": "ImageDataModule"}}
    Path("probe.yaml").write_text(json.dumps(settings))
    small = ["sample_train_size=120", "sample_test_size=40", "batch_size=16", "memory_size=1", "source=sample"]
    options = ["--trainer.accelerator=cpu", "--trainer.max_epochs=1", *(f"--data.{option}" for option in small)]
    command = ["-c", "probe.yaml", *options, "--run_dir", "probe"]

    def told(*arguments: str) -> str:
        capfd.readouterr()
        assert run_main(train, [*command, *arguments]) == 2
        (line,) = capfd.readouterr().err.splitlines()
        return line

    # Before any training, and without creating a run folder.
    assert "checkpoint" in told("--model.cut=encoder.mean")
    assert "no such run folder or checkpoint: sorce; did you mean source?" in told(
        "--model.checkpoint=sorce", "--model.cut=encoder.mean"
    )
    assert "no node 'encoder.men' to cut at" in told("--model.checkpoint=source", "--model.cut=encoder.men")
    assert not Path("probe").exists()

    assert run_main(train, [*command, "--model.checkpoint=source", "--model.cut=encoder.mean"]) == 0
    metrics = json.loads(Path("probe/summary.json").read_text())["metrics"]
    assert metrics.keys() == {"test/loss", "test/accuracy"}

    shutil.rmtree(run)
    assert run_main(evaluate, ["probe", "--json", "again.json"]) == 0
    assert json.loads(Path("again.json").read_text())["metrics"] == pytest.approx(metrics)
    assert run_main(train, ["--resume", "probe", "--trainer.max_epochs=2"]) == 0

    rendered = data(seed=5)
    rendered.setup()
    Path("pictures").mkdir()
    pixels = rendered._images[:6].numpy()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(f"pictures/{number}.png")
    assert run_main(predict, ["probe", "--input", "pictures", "--output", "classes.csv", "--batch_size=4"]) == 0
    with open("classes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    loaded = FeatureProbe.load_from_checkpoint("probe/checkpoints/best.ckpt", weights_only=True).eval()
    batch = torch.from_numpy(np.moveaxis(pixels, 3, 1).astype(np.float32)) / 255 - 0.5
    probabilities, found = loaded(batch).softmax(1).max(1)
    assert [row["name"] for row in rows] == [f"{number}.png" for number in range(6)]
    assert [row["class"] for row in rows] == [CLASSES[index] for index in found]
    assert [float(row["probability"]) for row in rows] == pytest.approx(probabilities.tolist(), abs=1e-3)

    written = Path("classes.csv").read_bytes()
    Path("pictures/zz_broken.png").write_bytes(b"no image")
    assert run_main(predict, ["probe", "--input", "pictures", "--output", "classes.csv", "--batch_size=4"]) == 2
    assert Path("classes.csv").read_bytes() == written


def test_a_file_name_that_is_not_utf8_is_written_byte_for_byte(source, tmp_path: Path):
    name = b"caf\xe9.png"
    (tmp_path / "pictures").mkdir()
    try:
        Image.new("RGB", (32, 32)).save(tmp_path / "pictures" / os.fsdecode(name))
    except OSError:
        pytest.skip("file names here are UTF-8")
    probe = FeatureProbe(tmp_path / "source.ckpt", "encoder.mean", classes=CLASSES)
    probe.predict_file(tmp_path / "pictures", tmp_path / "classes.csv")
    assert (tmp_path / "classes.csv").read_bytes().splitlines()[1].startswith(name + b",")


def test_the_head_is_that_of_features(source, tmp_path: Path):
    probe = FeatureProbe(tmp_path / "source.ckpt", "encoder.local_layers.0", classes=CLASSES)
    expected = features(source, "encoder.local_layers.0")
    assert same(expected.state_dict(), probe.head.state_dict())


def test_an_argument_that_only_a_new_run_reads_is_refused():
    def config(checkpoint: str) -> dict:
        path = "lightning_modules.feature_probe.FeatureProbe"
        return {"seed_everything": 1, "model": {"class_path": path, "init_args": {"checkpoint": checkpoint}}}

    refuse_what_only_a_new_run_reads(config("a"), config("a"))
    with pytest.raises(UserError, match=r"--model\.checkpoint: only a new run reads it"):
        refuse_what_only_a_new_run_reads(config("a"), config("b"))
