"""The scripts of docs/notebooks run, do what they say, and need ten lines for a trick."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning  # noqa: F401 - which sets environment variables when it is first imported

from tests.conftest import ROOT

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
