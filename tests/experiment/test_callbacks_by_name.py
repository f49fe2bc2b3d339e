"""Callbacks of a configuration's list, changed and dropped by name, on the command line and in files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, TINY

DEFAULT = str(ROOT / "configs/infomax_sample.yaml")
NAMES = ["MetricCurves", "NearestNeighbors", "CodeMap"]
CURVES = {
    "metrics": ["train/local_mi", "val/local_mi"],
    "name": "mutual_information",
    "ylabel": "estimate of mutual information (nats)",
}


@pytest.fixture
def printed(call: Callable) -> Callable[..., list[tuple[str, dict[str, Any]]]]:
    """Names and arguments of the callbacks that ``--print_config`` shows for some arguments."""

    def run(*arguments: str) -> list[tuple[str, dict[str, Any]]]:
        status, out, err = call("train", *arguments, "--print_config")
        assert status == 0, err
        listed = yaml.safe_load(out)["trainer"]["callbacks"]
        return [(entry["class_path"].rpartition(".")[2], entry.get("init_args", {})) for entry in listed]

    return run


def write(folder: Path, text: str) -> list[str]:
    (folder / "edits.yaml").write_text(text)
    return ["-c", DEFAULT, "-c", "edits.yaml"]


NAME_AND_NO_LABEL = {"name": "x", "ylabel": None}
CHANGES = [
    (["--trainer.callbacks.MetricCurves.metrics=[val/loss]"], {"metrics": ["val/loss"]}),
    (["--trainer.callbacks.MetricCurves.init_args.metrics=[val/loss]"], {"metrics": ["val/loss"]}),
    (["--trainer.callbacks.MetricCurves.name", "x"], {"name": "x"}),
    (["--trainer.callbacks.MetricCurves={name: x, ylabel: y}"], {"name": "x", "ylabel": "y"}),
    (["--trainer.callbacks.MetricCurves.name=x", "--trainer.callbacks.MetricCurves.ylabel=null"], NAME_AND_NO_LABEL),
    (["--trainer.callbacks.MetricCurves.metrics+=a"], {"metrics": [*CURVES["metrics"], "a"]}),
]


@pytest.mark.parametrize(("options", "changed"), CHANGES)
def test_an_argument_is_changed(options: list[str], changed: dict[str, Any], printed: Callable):
    before = printed("-c", DEFAULT)
    after = printed("-c", DEFAULT, *options)
    assert [name for name, _ in after] == NAMES
    assert after[1:] == before[1:]
    assert after[0][1] == CURVES | changed


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("trainer: {callbacks.MetricCurves: {metrics: [val/loss]}}", {"metrics": ["val/loss"]}),
        ("trainer: {callbacks.MetricCurves.metrics: [val/loss]}", {"metrics": ["val/loss"]}),
        ("trainer: {callbacks.MetricCurves.init_args.name: x}", {"name": "x"}),
        ("trainer: {callbacks: {MetricCurves: {name: x, ylabel: null}}}", NAME_AND_NO_LABEL),
        ("trainer: {callbacks.MetricCurves: {init_args: {name: x}}}", {"name": "x"}),
        ("trainer.callbacks.MetricCurves.name: x", {"name": "x"}),
    ],
)
def test_an_argument_is_changed_in_a_second_file(text: str, changed: dict[str, Any], printed: Callable, tmp_path: Path):
    before = printed("-c", DEFAULT)
    after = printed(*write(tmp_path, text))
    assert [name for name, _ in after] == NAMES
    assert after[1:] == before[1:]
    assert after[0][1] == CURVES | changed


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--trainer.callbacks-=MetricCurves"], NAMES[1:]),
        (["--trainer.callbacks-", "callbacks.CodeMap"], NAMES[:2]),
        (["--trainer.callbacks-=[MetricCurves, CodeMap]"], NAMES[1:2]),
        (["--trainer.callbacks-=MetricCurves", "--trainer.callbacks-=CodeMap"], NAMES[1:2]),
        (["--trainer.callbacks-=CodeMap", "--trainer.callbacks+=CodeMap"], NAMES),
        (["--trainer.callbacks+=CodeMap", "--trainer.callbacks-=CodeMap"], NAMES[:2]),
    ],
)
def test_callbacks_are_dropped(options: list[str], left: list[str], printed: Callable):
    assert [name for name, _ in printed(*options)] == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("trainer: {callbacks-: MetricCurves}", NAMES[1:]),
        ("trainer: {callbacks-: [MetricCurves, CodeMap]}", NAMES[1:2]),
        ("trainer: {callbacks-: [{class_path: CodeMap}]}", NAMES[:2]),
        ("trainer: {callbacks+: [{class_path: CodeMap}], callbacks-: CodeMap}", NAMES),
        ("trainer: {callbacks: [{class_path: CodeMap}, {class_path: Lookahead}], callbacks-: CodeMap}", ["Lookahead"]),
        ("trainer: {max_epochs: 3}\ntrainer.callbacks-: CodeMap", NAMES[:2]),
    ],
)
def test_callbacks_are_dropped_in_a_second_file(text: str, left: list[str], printed: Callable, tmp_path: Path):
    assert [name for name, _ in printed(*write(tmp_path, text))] == left


def test_the_rest_of_such_a_file_counts_too(printed: Callable, call: Callable, tmp_path: Path):
    text = "trainer: {callbacks-: CodeMap, max_epochs: 7}\nmodel: {init_args: {lr: 1e-2}}\n"
    arguments = write(tmp_path, text)
    config = yaml.safe_load(call("train", *arguments, "--print_config")[1])
    assert (config["trainer"]["max_epochs"], config["model"]["init_args"]["lr"]) == (7, 0.01)


def test_what_was_added_is_changed_in_the_same_file(printed: Callable, tmp_path: Path):
    text = "trainer: {callbacks.Lookahead: {steps: 7}, callbacks+: [{class_path: Lookahead}]}"
    assert [(name, values.get("steps")) for name, values in printed(*write(tmp_path, text))][-1] == ("Lookahead", 7)


def test_of_several_the_last_is_changed_and_all_are_dropped(printed: Callable):
    two = ["--trainer.callbacks+={class_path: MetricCurves, init_args: {metrics: [a], name: b}}"]
    changed = printed(*two, "--trainer.callbacks.MetricCurves.name=c")
    assert [values.get("name") for _, values in changed] == ["mutual_information", None, None, "c"]
    assert [name for name, _ in printed(*two, "--trainer.callbacks-=MetricCurves")] == NAMES[1:]


def test_the_forms_of_jsonargparse_keep_working(printed: Callable):
    added = printed("--trainer.callbacks+=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.1")
    assert [name for name, _ in added] == [*NAMES, "StochasticWeightAveraging"]
    assert added[-1][1]["swa_lrs"] == 0.1
    assert printed("--trainer.callbacks.num_points=7")[-1][1]["num_points"] == 7
    assert [name for name, _ in printed("--trainer.callbacks=[CodeMap]")] == ["CodeMap"]


def test_a_printed_configuration_with_a_device_is_read_again(call: Callable, tmp_path: Path):
    options = ["--trainer.callbacks+=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.1"]
    text = call("train", "-c", DEFAULT, *options, "--print_config")[1]
    assert yaml.safe_load(text)["trainer"]["callbacks"][-1]["init_args"]["device"] == "cpu"
    (tmp_path / "printed.yaml").write_text(text)
    status, again, err = call("train", "-c", "printed.yaml", "--print_config")
    assert (status, again, err) == (0, text, "")


def test_a_run_keeps_its_edits_and_a_resumed_one_takes_new_ones(call: Callable, tmp_path: Path):
    tiny = [option for option in TINY if "callbacks" not in option]
    drops = ["--trainer.callbacks-=[NearestNeighbors, CodeMap]"]
    edit = "--trainer.callbacks.MetricCurves.name=first"
    status, _, err = call("train", "-c", DEFAULT, *tiny, *drops, edit, "--run_dir=run")
    assert status == 0, err
    summary = json.loads(Path("run/summary.json").read_text())
    for config in (yaml.safe_load(Path("run/config.yaml").read_text()), summary["config"]):
        (kept,) = config["trainer"]["callbacks"]
        assert kept["init_args"]["name"] == "first"
    assert [path.name for path in Path("run/pictures").iterdir()] == ["first.png"]
    more = ["--trainer.max_epochs=3", "--trainer.callbacks.MetricCurves.name=second"]
    status, _, err = call("train", "--resume=run", *more)
    assert status == 0, err
    assert {path.name for path in Path("run/pictures").iterdir()} == {"first.png", "second.png"}
