"""The add-ons in configs/with: they have every argument, with a comment, and parse to the callbacks they name."""

import inspect
from pathlib import Path

import jsonargparse
import pytest
import pytorch_lightning as pl
import yaml

import callbacks

FOLDER = Path(__file__).parents[2] / "configs" / "with"
ADDONS = {
    "weight_decay": [callbacks.WeightDecay],
    "layer_adaptation": [callbacks.LayerAdaptation],
    "lamb": [callbacks.WeightDecay, callbacks.LayerAdaptation],
    "piecewise_linear_lr": [callbacks.PiecewiseLinearLR],
    "gradient_accumulation": [callbacks.GradientAccumulation],
    "lookahead": [callbacks.Lookahead],
    "lazy_updates": [callbacks.LazyUpdates],
    "average": [callbacks.AveragedWeights],
    "max_norm": [callbacks.WeightConstraint],
}


def parse(entries):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--callbacks", type=list[pl.Callback])
    return parser.instantiate(parser.parse_object({"callbacks": entries})).callbacks


@pytest.mark.parametrize("name", ADDONS)
def test_an_add_on_builds_its_callbacks_and_comments_every_argument(name):
    path = FOLDER / f"{name}.yaml"
    entries = yaml.safe_load(path.read_text())["trainer"]["callbacks+"]
    built = parse(entries)
    assert [type(callback) for callback in built] == ADDONS[name]
    lines = path.read_text().splitlines()
    for entry, callback in zip(entries, built, strict=True):
        for argument in inspect.signature(type(callback)).parameters:
            assert argument in entry["init_args"]
            assert any(line.strip().startswith(f"{argument}:") and "#" in line for line in lines), argument
        if name != "piecewise_linear_lr":
            for argument, value in entry["init_args"].items():
                kept = getattr(callback, {"log": "logs"}.get(argument, argument))  # Lightning sets `log` on callbacks
                assert kept == value or kept == {0: value}


@pytest.mark.parametrize(
    ("entry", "kept"),
    [
        (
            {"class_path": "GradientAccumulation", "init_args": {"steps": {0: 1, 1000: 4}}},
            {"steps": {0: 1, 1000: 4}},
        ),
        (  # keys from a shell
            {"class_path": "PiecewiseLinearLR", "init_args": {"schedule": {"10": 1, "20": 0.5}}},
            {"schedule": {0: 0.0, 10: 1, 20: 0.5}},
        ),
        (
            {"class_path": "ParameterwiseLR", "init_args": {"multipliers": {"type:Embedding": 2.0}}},
            {"multipliers": {"type:Embedding": 2.0}},
        ),
        ({"class_path": "WeightDecay", "init_args": {"include": [], "exclude": []}}, {"include": [], "exclude": []}),
        ({"class_path": "AveragedWeights"}, {"decay": 0.999, "ramp": False}),
    ],
)
def test_other_values_parse(entry, kept):
    (built,) = parse([entry])
    assert {name: getattr(built, name) for name in kept} == kept
