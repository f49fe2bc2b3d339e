"""The recipe for one's own folder, on images whose colours say nothing about the class."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from experiment.errors import run_main
from experiment.train import train
from metrics.probes import linear_probe_accuracy
from tests.conftest import ROOT
from tests.patterns import PATTERNS, draw_patterns, write_folder


def test_colours_say_nothing_about_the_pattern():
    images, labels = draw_patterns(1500, 16, 0)
    assert np.bincount(labels).tolist() == [300] * len(PATTERNS)
    pixels = images.reshape(len(images), -1, 3) / 255
    features = torch.tensor(np.concatenate([pixels.mean(1), pixels.min(1), pixels.max(1)], 1), dtype=torch.float32)
    answers = torch.tensor(labels)
    accuracy = linear_probe_accuracy(features[:1000], answers[:1000], features[1000:], answers[1000:])
    assert accuracy < 0.35  # chance: 0.2; min and max say a little about how much is covered


@pytest.mark.slow
def test_the_trained_code_is_ahead_of_the_untrained_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    folder = write_folder(tmp_path / "patterns", 1200, 500)
    arguments = ["-c", str(ROOT / "configs" / "infomax_folder.yaml"), f"--data.source={folder}", "--run_dir=run"]
    assert run_main(train, arguments) == 0
    found = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    assert found["test/untrained/knn_accuracy"] <= 0.5
    assert found["test/knn_accuracy"] >= found["test/untrained/knn_accuracy"] + 0.10
    assert found["test/linear_probe_accuracy"] >= found["test/untrained/linear_probe_accuracy"] + 0.05
