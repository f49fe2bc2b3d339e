"""Backbones of transformers as encoders: shapes, folders, fresh weights, checkpoints, probes."""

import json
import shutil
import sys
import tomllib
from functools import partial
from pathlib import Path

import pytest
import torch

from experiment.errors import run_main
from experiment.evaluate import evaluate
from experiment.train import train
from layers import DotScore, HuggingFaceVisionEncoder, untrained_copy
from layers.infomax import AllPairs, InfoNCE
from lightning_modules import DeepInfoMax, FeatureProbe
from tests.conftest import ROOT
from tests.lightning_modules.test_deep_infomax import data, merged
from tests.tools import quiet_trainer

pytest.importorskip("transformers")

CONFIGS = {
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 12, 16], "depths": [1, 1, 1], "layer_type": "basic"},
    "swin": {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4, "patch_size": 4},
    "dinov2": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 4},
}
MAPS = {"resnet": (12, 16, 4, 2), "swin": (8, 16, 8, 4), "dinov2": (16, 16, 8, 8)}  # channels, sides at 32 pixels


def make(name="resnet", size=32, **options):
    return HuggingFaceVisionEncoder(size, config={"model_type": name, **CONFIGS[name]}, code_size=4, **options)


@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize("name", CONFIGS)
def test_maps_vector_and_code_of_any_backbone(name, size):
    encoder = make(name, size, stochastic=True).eval()
    output = encoder(torch.randn(2, 3, size, size))
    local, conv, *sides = MAPS[name]
    first, last = (side * size // 32 for side in sides)
    assert output.local.shape == (2, local, first, first)
    assert output.conv.shape == (2, conv, last, last)
    torch.testing.assert_close(output.fc, output.conv.mean((2, 3)))
    torch.testing.assert_close(output.mean, encoder.mean(output.fc))
    assert output.logvar.shape == (2, 4)
    assert encoder.local_size == local
    assert encoder.global_network(5)(output.local).shape == (2, 5)
    sum(part.sum() for part in output).backward()
    trained = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, parameter in encoder.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("name", CONFIGS)
def test_grey_images_are_read_as_such(name, tmp_path):
    encoder = make(name, in_channels=1).eval()
    assert encoder(torch.randn(2, 1, 32, 32)).mean.shape == (2, 4)
    again = HuggingFaceVisionEncoder(32, code_size=4, in_channels=1, **encoder.portable_arguments())
    again.load_state_dict(encoder.state_dict())
    encoder.backbone.network.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"reads images of 1 channels, the data's have 3: set data\.channels=1"):
        HuggingFaceVisionEncoder(32, model=str(tmp_path))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_folder_has_the_weights_and_its_configuration_does_not(name, tmp_path):
    encoder = make(name)
    encoder.backbone.network.save_pretrained(tmp_path)
    loaded = HuggingFaceVisionEncoder(32, model=str(tmp_path), code_size=4)
    for key, value in encoder.backbone.state_dict().items():
        assert torch.equal(loaded.backbone.state_dict()[key], value)
    fresh = HuggingFaceVisionEncoder(32, config=str(tmp_path), code_size=4)
    images = torch.randn(2, 3, 32, 32)
    assert not torch.equal(fresh.eval()(images).local, loaded.eval()(images).local)
    rebuilt = HuggingFaceVisionEncoder(32, code_size=4, **loaded.portable_arguments())
    rebuilt.load_state_dict(loaded.state_dict())
    assert torch.equal(rebuilt.eval()(images).local, loaded(images).local)
    # All parameters begin anew, those outside of torch's layers too.
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.fill_(7.0)
    first, again = (untrained_copy(loaded).state_dict() for _ in range(2))
    for key, value in first.items():
        assert torch.equal(value, again[key])
        assert value.is_floating_point() is False or not (value == 7.0).all()


def test_deep_infomax_trains_it_and_a_probe_reads_it(tmp_path):
    module = DeepInfoMax(
        encoder=partial(HuggingFaceVisionEncoder, config={"model_type": "resnet", **CONFIGS["resnet"]}, code_size=4),
        score=partial(DotScore, units=8),
        negatives=AllPairs,
        estimator=InfoNCE,
        global_weight=0.0,
        prior_weight=0.0,
        representations=["code"],
        probes=["knn"],
        image_size=48,
    )
    images = data(image_size=48)
    trainer = quiet_trainer()
    trainer.fit(module, images)
    assert "test/untrained/knn_accuracy" in merged(trainer.test(module, images, verbose=False))
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = DeepInfoMax.load(tmp_path / "model.ckpt")
    pictures = torch.randn(2, 3, 48, 48)
    assert torch.equal(loaded(pictures), module.eval()(pictures))
    probe = FeatureProbe(str(tmp_path / "model.ckpt"), "encoder.pooling", image_size=48, classes=["a", "b"]).eval()
    assert torch.equal(probe(pictures), probe.top(module.encoder(pictures).fc))


def test_a_probe_reads_a_network_that_was_not_trained_here(tmp_path):
    make("dinov2").backbone.network.save_pretrained(tmp_path / "network")
    encoder = partial(HuggingFaceVisionEncoder, model=str(tmp_path / "network"))
    probe = FeatureProbe(encoder=encoder, cut="encoder.pooling", classes=list("abcdefghij"))
    trainer = quiet_trainer(limit_train_batches=1, limit_val_batches=1)
    trainer.fit(probe, data(sample_train_size=40))
    trainer.save_checkpoint(tmp_path / "probe.ckpt")
    (tmp_path / "network" / "config.json").unlink()  # the checkpoint has all
    loaded, pictures = FeatureProbe.load(tmp_path / "probe.ckpt"), torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(pictures), probe.eval()(pictures))
    with pytest.raises(ValueError, match="give one of them"):
        FeatureProbe("x.ckpt", encoder=encoder, classes=["a", "b"])
    with pytest.raises(ValueError, match=r"model\.checkpoint=RUN, or model\.encoder"):
        FeatureProbe(classes=["a", "b"])


def test_pretrained_weights_are_built_once_and_not_drawn(tmp_path):
    make("resnet").backbone.network.save_pretrained(tmp_path)
    built = []
    kind = type(make("resnet").backbone.network)
    original = kind.__init__

    def count(self, *args, **kwargs):
        original(self, *args, **kwargs)
        built.append(next(self.parameters()).device.type)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "__init__", count)
        HuggingFaceVisionEncoder(32, model=str(tmp_path))
    assert sum(device != "meta" for device in built) <= 1


def test_a_backbone_without_maps_is_named():
    config = {"model_type": "vitpose_backbone", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with pytest.raises(ValueError, match="no maps of places: take another backbone"):
        HuggingFaceVisionEncoder(32, config=config)


def test_a_run_is_tested_and_resumed_where_the_folder_is_gone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make("swin").backbone.network.save_pretrained("network")
    sizes = [
        "--data.sample_train_size=80",
        "--data.sample_test_size=20",
        "--data.batch_size=16",
        "--data.memory_size=1",
    ]
    model = ["--model.encoder=HuggingFaceVisionEncoder", "--model.encoder.model=network", "--model.cut=encoder.pooling"]
    config = ["-c", str(ROOT / "configs" / "feature_probe_sample.yaml"), "--min_steps=1", "--trainer.max_epochs=1"]
    assert run_main(train, [*config, *sizes, *model, "--run_dir=run"]) == 0
    shutil.rmtree("network")
    assert run_main(evaluate, ["run", "--json=run.json"]) == 0
    measured = json.loads(Path("run.json").read_text())["metrics"]
    assert measured == json.loads(Path("run/summary.json").read_text())["metrics"]
    assert run_main(train, ["--resume=run", "--trainer.max_epochs=2"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"encoder\.model.*encoder\.config"),
        ({"config": {"model_type": "nothing"}}, "no configuration of a backbone"),
        ({"config": {"model_type": "bert"}}, "no backbone"),
        ({"config": "/no/such/folder"}, "/no/such/folder"),
        ({"config": {"model_type": "resnet"}, "local_stage": "stage9"}, "stage9 is none of stem, stage1"),
    ],
)
def test_what_is_no_backbone_is_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as error:
        HuggingFaceVisionEncoder(32, **options)
    assert "\n" not in str(error.value)


def test_without_transformers_the_version_of_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    (wanted,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["transformers"]
    with pytest.raises(ImportError, match=wanted):
        make()
