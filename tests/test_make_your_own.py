"""Follows docs/make_your_own.md to the letter, in copies of the project."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, run_lines, script_environment
from tests.techniques import PAGE, across, files_of, techniques

COPIED = (
    *("callbacks", "configs", "datamodules", "experiment", "layers", "lightning_modules", "map_equation", "metrics"),
    *("readers", "scripts"),
)
STEP = re.compile(r"(New file|Add to)\s+`([\w./]+)`:\n\n```(?:python|yaml)\n(.*?)```", re.DOTALL)
COMMANDS = re.compile(r"Run it:?\n\n```bash\n(.*?)```", re.DOTALL)


def chapter(title: str) -> str:
    """The text below a heading, up to the next one of its level."""
    (text,) = re.findall(rf"^## {title}\n(.*?)(?=^## )", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return text


def copy_of_the_project(folder: Path) -> None:
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def follow(text: str, folder: Path, blocks: int) -> list[str]:
    """Writes the files of a chapter, and returns its commands."""
    steps = STEP.findall(text)
    assert len(steps) == text.count("```python") + text.count("```yaml") == blocks
    for what, name, content in steps:
        file = folder / name
        assert file.exists() == (what == "Add to"), name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text((file.read_text() + "\n\n" if what == "Add to" else "") + content)
    (commands,) = COMMANDS.findall(text)
    return commands.strip().splitlines()


def test_a_technique_and_a_trick_from_empty_files(tmp_path: Path):
    copy_of_the_project(tmp_path)
    technique = follow(chapter("From an empty file to a running configuration"), tmp_path, 8)
    trick = follow(chapter("A trick of your own"), tmp_path, 4)
    bad = "python scripts/train.py -c configs/margin_spirals.yaml --data.source=bad.csv"
    (tmp_path / "bad.csv").write_text("1,2,0\nthree,4,1\n")
    lines = [*technique, "python -m pytest tests/layers/test_margin_softmax.py", *trick, bad]
    statuses, output = run_lines(lines, tmp_path)
    assert statuses == [0] * (len(lines) - 1) + [2], output
    assert output.count("1 passed") == 2
    assert "hidden_size" in output
    assert "gradient: GradientCentralization()" in output
    (line,) = [line for line in output.splitlines() if "bad.csv:" in line]
    assert line.startswith("error: bad.csv: lines must be x,y,class")
    for name in ("spirals", "centralized"):
        summary = json.loads((tmp_path / "runs" / name / "summary.json").read_text())
        assert summary["metrics"]["test/accuracy"] > 0.95
    assert (tmp_path / "classes.txt").read_text() in ("0\n", "1\n", "2\n")


# -------------------------------------------------------------------------------------------------- only one technique

TWO_STEPS = [
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=2",
    "--trainer.limit_test_batches=2",
    "--trainer.num_sanity_val_steps=0",
    "--run_dir=run",
]
# What makes the data of a sample small, where they take seconds to make.
SMALL = {
    "on_lstm_logic": ["--data.sample_train_size=500", "--data.sample_test_size=200"],
    "infomax_sample": ["--data.sample_train_size=300", "--data.sample_test_size=60", "--model.probes=[knn]"],
}
LONG = pytest.mark.slow
IMPORT = re.compile(r"^from (\.+)([\w.]+) import .*\n", re.MULTILINE)


def only(name: str, folder: Path) -> None:
    """The steps of the chapter, in a copy of the project."""
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for file in tracked.stdout.splitlines():
        if (ROOT / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, folder / file)
    table = techniques()
    own = files_of(table[name], folder)
    others = {file for other in table for file in files_of(table[other], folder)}
    for file in (others - own) | files_of(across(), folder):
        file.unlink()
    for init in folder.rglob("__init__.py"):
        lines = init.read_text().splitlines(keepends=True)
        init.write_text("".join(line for line in lines if not (found := IMPORT.match(line)) or is_there(init, found)))


def is_there(init: Path, found: re.Match[str]) -> bool:
    """Whether an import of a package finds its file; of an import of another package it is not asked."""
    place = init.parent
    for _ in found[1][1:]:
        place = place.parent
    target = place / found[2].replace(".", "/")
    return target.with_suffix(".py").is_file() or (target / "__init__.py").is_file()


def run(root: Path, name: str, folder: Path, *arguments: str) -> dict[str, float]:
    """The ``test/`` metrics of two steps of a sample, with the code of a folder."""
    folder.mkdir()
    result = subprocess.run(
        [sys.executable, str(root / "scripts" / "train.py"), *arguments, *TWO_STEPS, *SMALL.get(name, [])],
        cwd=folder,
        env=script_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    if not arguments:
        first = min(path.name for path in (root / "configs").glob("*.yaml"))
        assert name == "infomax_sample" or f"configs/{first}" in result.stdout
    return json.loads((folder / "run" / "summary.json").read_text())["metrics"]


def test_the_default_job_is_run_only_by_tests_that_go_with_it():
    asking = {path for path in (ROOT / "tests").rglob("test_*.py") if "trained_run" in path.read_text()}
    assert asking <= files_of(techniques()["infomax_sample"], ROOT) | files_of(across(), ROOT)


@pytest.mark.parametrize(
    "name",
    [name if name == "on_lstm_sample" else pytest.param(name, marks=LONG) for name in techniques()],
)
def test_only_one_technique(name: str, tmp_path: Path):
    alone = tmp_path / "alone"
    only(name, alone)
    config = ["-c", str(alone / "configs" / f"{name}.yaml")]
    metrics = run(alone, name, tmp_path / "in_the_copy", *config)
    assert metrics == run(ROOT, name, tmp_path / "in_the_whole", *config)
    assert any(key.startswith("test/") for key in metrics)
    collected = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", ""], cwd=alone, capture_output=True, text=True
    )
    assert collected.returncode == 0, collected.stdout[-3000:]
    model = yaml.safe_load((alone / "configs" / f"{name}.yaml").read_text())["model"]["class_path"]
    assert len(list((alone / "lightning_modules").glob("*.py"))) < len(list((ROOT / "lightning_modules").glob("*.py")))
    assert model in (alone / "lightning_modules" / "__init__.py").read_text()


@LONG
@pytest.mark.parametrize("name", techniques())
def test_what_is_left_of_the_tests_passes(name: str, tmp_path: Path):
    only(name, tmp_path)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "auto"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-5000:]
