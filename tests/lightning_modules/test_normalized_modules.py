"""``model.weight_normalization`` of every module: trained, loaded alone, tested again, predicted with, started from."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from experiment.errors import run_main
from experiment.evaluate import evaluate
from experiment.predict import predict
from experiment.resuming.warm_start import warm_start
from experiment.train import train
from layers import remove_weight_normalization
from layers.weights.functions import SpectralNormalization
from lightning_modules.trained_models import build_model, import_model_class, read_model
from tests.conftest import ROOT
from tests.test_configs import TWO_STEPS, other_files, small_arguments

# Where a module has weights to normalise; InfomapClustering has none.
MODULES = {
    "AutoEncoder": ("autoencoder_sample", "encoder.*weight"),
    "DeepInfoMax": ("infomax_sample", "weight"),
    "FeatureProbe": ("feature_probe_sample", "top"),
    "Neuromap": ("neuromap_karate", "weight"),
    "ONLSTMLanguageModel": ("on_lstm_sample", "weight"),
    "SentencePairClassifier": ("on_lstm_logic", "weight"),
    "SparseTransformer": ("sparse_transformer_sample", "weight"),
    "TripleExtractor": ("triples_sample", "weight"),
}


@pytest.mark.parametrize("name", MODULES)
def test_every_module_takes_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    experiment, pattern = MODULES[name]
    path = ROOT / "configs" / f"{experiment}.yaml"
    arguments = [*small_arguments(yaml.safe_load(path.read_text())), *other_files(path, tmp_path)]
    monkeypatch.chdir(tmp_path)
    for variable in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.delenv(variable, raising=False)
    arguments += ["--model.weight_normalization", json.dumps({pattern: "spectral"}), "--trainer.callbacks=null"]
    assert run_main(train, ["-c", str(path), *TWO_STEPS, *arguments, "--run_dir=run"]) == 0
    checkpoint = Path("run/checkpoints/best.ckpt")

    # Without trainer or data.
    model_class = import_model_class(read_model(checkpoint)[0]["_class_path"])
    assert model_class.__name__ == name
    model = model_class.load_from_checkpoint(checkpoint, weights_only=True)
    functions = [module for module in model.modules() if isinstance(module, SpectralNormalization)]
    assert functions
    for owner in model.modules():
        for weight in getattr(owner, "parametrizations", {}):
            used = getattr(owner, weight)
            if used.dim() == 1 and used.any():
                assert used.norm().item() == pytest.approx(1, abs=1e-3)

    # The test again.
    assert run_main(evaluate, ["run", "--json", "again.json", *TWO_STEPS[:4]]) == 0
    before = json.loads(Path("run/summary.json").read_text())["metrics"]
    again = json.loads(Path("again.json").read_text())["metrics"]
    for key, value in again.items():
        assert value == pytest.approx(before[key], rel=1e-5, abs=1e-6, nan_ok=True), key

    # A new run from its weights, and from plain ones.
    hyperparameters, weights = read_model(checkpoint)
    fresh = build_model(hyperparameters)
    warm_start(fresh, "run")
    assert all(torch.equal(value, weights[key]) for key, value in fresh.state_dict().items() if key in weights)
    plain = remove_weight_normalization(model).state_dict()
    torch.save({"state_dict": plain}, "plain.ckpt")
    warm_start(build_model(hyperparameters), "plain.ckpt")


def test_predictions_of_a_normalised_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = ROOT / "configs" / "on_lstm_sample.yaml"
    monkeypatch.chdir(tmp_path)
    for variable in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.delenv(variable, raising=False)
    small = small_arguments(yaml.safe_load(path.read_text()))
    normalised = [
        "--model.weight_normalization={cells: spectral_persistent, embedding: l2}",
        "--trainer.callbacks=null",
    ]
    assert run_main(train, ["-c", str(path), *TWO_STEPS, *small, *normalised, "--run_dir=run"]) == 0
    Path("sentences.txt").write_text("a b c\n")
    assert run_main(predict, ["run", "--input", "sentences.txt", "--output", "trees.txt"]) == 0
    assert Path("trees.txt").read_text().strip()
    resumed = ["-c", str(path), *TWO_STEPS, *small, *normalised, "--init_from=run", "--run_dir=second"]
    assert run_main(train, resumed) == 0
