"""The examples in the docstrings of all classes that a configuration may name."""

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml

import callbacks
import datamodules
import layers
import lightning_modules
import metrics
from datamodules.augmentation.images import Augmentation
from experiment.cli import ExperimentCLI
from layers.attention import MultiheadSelfAttention
from layers.classifiers import Classifier
from layers.graphs import GraphNetwork
from layers.images import Decoder, Encoder, Prior
from layers.infomax import Estimator, Negatives, Score
from layers.on_lstm import RecurrentLayer
from layers.triples import SequenceEncoder
from metrics import TripleRule
from tests.conftest import ROOT

# Base classes of what a configuration names: by class_path, or as the value of a slot.
BASES = (
    *(pl.LightningModule, pl.LightningDataModule, pl.Callback),
    *(Encoder, Decoder, Prior, Score, Negatives, Estimator, Classifier, Augmentation),
    *(RecurrentLayer, SequenceEncoder, MultiheadSelfAttention, GraphNetwork, TripleRule),
    torch.optim.lr_scheduler.LRScheduler,
)
EXAMPLE = re.compile(r"^Example:\n((?:[ ]{4}.*\n|\n)+)", re.MULTILINE)


def named_classes() -> list[type]:
    """The classes of this project that can be built and are below one of the bases."""
    found = {}
    for package in (layers, metrics, datamodules, callbacks, lightning_modules):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith(".cuda"):  # needs Triton
                continue
            for name, cls in vars(importlib.import_module(module.name)).items():
                if isinstance(cls, type) and cls.__module__ == module.name and issubclass(cls, BASES):
                    found[name] = cls
    return [cls for name, cls in sorted(found.items()) if not inspect.isabstract(cls) and not name.startswith("_")]


def example_of(cls: type) -> str:
    """The text below ``Example:`` in the docstring of a class."""
    (text,) = EXAMPLE.findall(inspect.getdoc(cls) + "\n")
    return textwrap.dedent(text)


def is_yaml(text: str) -> bool:
    return isinstance(yaml.safe_load(text), dict) if re.match(r"\w+\+?:", text) else False


def test_all_named_classes_are_found():
    assert len(named_classes()) > 60
    for base in BASES:
        assert any(issubclass(cls, base) for cls in named_classes())


@pytest.mark.parametrize("cls", named_classes(), ids=lambda cls: cls.__name__)
def test_example(cls: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = example_of(cls)
    assert cls.__name__ in text
    if is_yaml(text):
        (tmp_path / "example.yaml").write_text(text)
        monkeypatch.chdir(tmp_path)
        cli = ExperimentCLI(["-c", str(ROOT / "configs" / "infomax_sample.yaml"), "-c", "example.yaml"])
        assert f".{cls.__name__}'" in repr(cli.config)
    else:
        ast.parse(text)
        exec(compile(text, f"example of {cls.__name__}", "exec"), {"__name__": "example"})
