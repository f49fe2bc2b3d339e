"""The scripts of docs/notebooks do what they say, in ten lines for a trick; so does the chain of optimizer tricks."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiment.errors import run_main
from experiment.train import train
from tests.conftest import ROOT
from tests.test_configs import TWO_STEPS, small_arguments

FOLDER = ROOT / "docs" / "notebooks"
CELL = re.compile(r"^# %%(?P<kind>.*)\n", re.MULTILINE)


def run(name: str) -> dict[str, Any]:
    return runpy.run_path(str(FOLDER / f"{name}.py"))


def code_cells(path: Path) -> list[list[str]]:
    """Lines of code of each code cell; the imports and helpers of the first are left out."""
    parts = CELL.split(path.read_text())
    cells = [text for kind, text in zip(parts[1::2], parts[2::2], strict=True) if "markdown" not in kind]
    return [[line for line in cell.splitlines() if line.strip()] for cell in cells[1:]]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_a_trick_is_ten_lines(path: Path):
    cells = code_cells(path)
    assert len(cells) >= 5
    assert max(map(len, cells)) <= 10


def test_outputs_and_normalisation(capsys: pytest.CaptureFixture):
    found = run("cooler_outputs")
    assert 0 < found["plain"]["train/reconstruction"] < 0.1
    assert set(found["sparse"]) >= {"train/reconstruction", "train/activity"}
    assert found["measured"]["train/x_h_norm"] > 0
    assert found["largest"] <= 0.5 + 1e-6
    assert found["sigma"] == pytest.approx(1.05, abs=0.15)
    assert found["rows"].tolist() == pytest.approx([1.0] * 784, abs=1e-5)
    assert "a plain model again, with the weights that were used: True" in capsys.readouterr().out


def test_reuse(capsys: pytest.CaptureFixture):
    run("cooler_reuse")
    lines = capsys.readouterr().out.splitlines()
    assert "weights of a layer called twice: 72 of two layers: 144" in lines
    assert "a copy with weights agrees: True - one without: False" in lines
    assert "shared inside: True" in lines
    assert "a tied model has: {'embedding.weight': (50, 8), 'output.bias': (50,)}" in lines
    assert "features: {'1': (4, 8), '3': (4, 8)}" in lines
    assert "features of a Transformer: {'layers.0': 'Tensor', 'layers.1.self_attn': 'tuple'}" in lines
    assert lines.count("tail(head(x)) is model(x): True") == 2
    assert "also of a Transformer: True" in lines


def test_the_chain_of_the_page_runs_in_the_order_of_its_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    page = (ROOT / "docs" / "derived_optimizers.md").read_text()
    block = page.split("```yaml\n")[1].split("```")[0]
    (tmp_path / "chain.yaml").write_text(block)
    lines = [line for line in block.splitlines() if "class_path" in line]
    named = [entry["class_path"] for entry in yaml.safe_load(block)["trainer"]["callbacks+"]]
    assert len(lines) == len(named)  # one line each
    path = ROOT / "configs" / "on_lstm_logic.yaml"
    monkeypatch.chdir(tmp_path)
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.delenv(name, raising=False)
    small = small_arguments(yaml.safe_load(path.read_text()))
    assert run_main(train, ["-c", str(path), "-c", "chain.yaml", *TWO_STEPS, *small]) == 0
    (chain,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Update chain of ")]
    parts = chain.split(": ", 1)[1].split(" -> ")
    assert [part.split(": ", 1)[1].split("(")[0] for part in parts] == named
    # The comment of each line begins with its phase.
    assert [part.split(": ")[0] for part in parts] == [line.split("# ")[1].split(":")[0] for line in lines]
