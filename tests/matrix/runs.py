"""Runs of the matrix, in this process, through the command line's own classes, so that everything in a run is real."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import yaml
from PIL import Image
from pytorch_lightning.cli import instantiate_module

import datamodules
import lightning_modules
from datamodules.batches import GraphBatch
from tests.conftest import save_model
from tests.matrix.pairs import PAIRS, Pair
from tests.tools import equal

QUIET = {
    "accelerator": "cpu",
    "devices": 1,
    "precision": "32-true",
    "log_every_n_steps": 1,
    "num_sanity_val_steps": 0,
}


def all_six_tricks(pair: Pair) -> list[dict[str, Any]]:
    """The derived optimizers, as in a configuration; windows of two batches, synchronised after three steps."""
    tricks = {
        "GradientAccumulation": {"steps": 2},
        "PiecewiseLinearLR": {"schedule": {2: 1.0, 4: 0.5}, "log": True},
        "WeightDecay": {"rate": 0.1, "exclude": []},
        "LayerAdaptation": {"exclude": []},
        "LazyUpdates": {"include": [pair.embeddings], "freeze_state": True},
        "Lookahead": {"steps": 3, "log": True},
    }
    return [{"class_path": name, "init_args": arguments} for name, arguments in tricks.items()]


def write_config(pair: Pair, folder: Path) -> Path:
    """The configuration of a pair, with all six tricks if there are gradients."""
    (model, model_arguments), (data, data_arguments) = pair.model, pair.data
    arguments = dict(model_arguments)
    if pair.needs:
        arguments["checkpoint"] = str(save_source(pair, make_data(pair), folder))
    config = {
        "seed_everything": 1,
        "save_every": 0.0,  # a checkpoint after every step
        "trainer": {
            **QUIET,
            "max_epochs": pair.epochs,
            "limit_train_batches": pair.batches,
            "callbacks": all_six_tricks(pair) if pair.trainable else [],
        },
        "model": {"class_path": model, "init_args": arguments},
        "data": {"class_path": data, "init_args": {"source": "sample", **data_arguments}},
    }
    file = folder / f"{pair.name}.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def make_model(pair: Pair, data: pl.LightningDataModule, folder: Path, **changes: Any) -> pl.LightningModule:
    """The pair's module for its data, built without a command line, always with the same weights."""
    torch.manual_seed(1)
    return instantiate_module(model_class(pair), model_arguments(pair, data, folder) | changes)


def model_arguments(pair: Pair, data: pl.LightningDataModule, folder: Path) -> dict[str, Any]:
    """The module's arguments, including those given by the data."""
    links = getattr(model_class(pair), "data_links", ())
    arguments = {name: getattr(data, name) for name in links if hasattr(data, name)} | pair.model[1]
    return arguments | ({"checkpoint": str(save_source(pair, data, folder))} if pair.needs else {})


def model_class(pair: Pair) -> type[pl.LightningModule]:
    return getattr(lightning_modules, pair.model[0])


def save_source(pair: Pair, data: pl.LightningDataModule, folder: Path) -> Path:
    """The checkpoint that a module starts from."""
    (source,) = (other for other in PAIRS if other.name == pair.needs)
    model = make_model(source, data, folder)
    model.hparams.clear()
    class_path = f"lightning_modules.{source.model[0]}"
    model.hparams.update(model_arguments(source, data, folder), _class_path=class_path)
    save_model(model, folder / "source.ckpt")
    return folder / "source.ckpt"


def make_data(pair: Pair, **changes: Any) -> pl.LightningDataModule:
    """The pair's datamodule."""
    return getattr(datamodules, pair.data[0])(source="sample", **{**pair.data[1], **changes})


def write_input(data: pl.LightningDataModule, folder: Path) -> Path:
    """A user's file for ``predict.py``: of the same kind as the data, but not its items."""
    if hasattr(data, "pixel_range"):
        images = folder / "images"
        images.mkdir()
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(images / f"{number}.png")
        return images
    if hasattr(data, "graph_batch"):
        return write_graph(data.graph_batch, folder / "graph.npz")
    file = folder / "lines.txt"
    if hasattr(data, "schema"):
        lines = list(data.splits["test"].sentences[i].text for i in range(3))
    elif hasattr(data, "classes"):
        lines = ["( a and b )\tb", "(not (a or b))\t( a or ( b and c ) )", "=\ta\tc"]
    elif hasattr(data, "vocabulary"):
        lines = ["the cat sees a dog", "a b c"]
    else:
        lines = ["1 2 3", "4 1"]
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file


def write_graph(graph: GraphBatch, file: Path) -> Path:
    arrays = {"edges": graph.edges.numpy(), "weights": graph.weights.numpy(), "names": graph.names}
    if graph.features.shape[1]:
        arrays["features"] = graph.features.numpy()
    np.savez(file, directed=np.array(graph.directed), **arrays)
    return file


def rows_of(folder: Path) -> list[dict[str, str]]:
    """The rows of ``metrics.csv``, without empty cells."""
    with open(folder / "metrics.csv", newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


def assert_same_run(broken: Path, whole: Path) -> None:
    """Asserts that a resumed run is bit-identical to an uninterrupted one."""
    assert (broken / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    for name in ("best.ckpt", "last.ckpt"):
        ours, theirs = (torch.load(folder / "checkpoints" / name, weights_only=True) for folder in (broken, whole))
        different = {key for key in theirs if not equal(ours[key], theirs[key])}
        # The loops also count batches started; `experiment` has the configuration.
        assert not different - {"loops", "experiment"}, name
        assert equal(ours["experiment"]["random_states"], theirs["experiment"]["random_states"])
    summaries = [json.loads((folder / "summary.json").read_text())["metrics"] for folder in (broken, whole)]
    assert summaries[0] == summaries[1]
