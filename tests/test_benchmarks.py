"""Every benchmark runs and gives the rows that others read."""

import importlib
import json
import math
from pathlib import Path

import pytest

import experiment.train  # noqa: F401 (once loaded, it leaves the environment alone)
from tests.conftest import ROOT, script

NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_benchmark_gives_rows(name: str, tmp_path: Path):
    result = script("benchmark", name, "--quick", "--json", "rows.json", "--pictures", "pictures", cwd=tmp_path)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert rows
    for row in rows:
        assert {"benchmark", "case", "peer", "ratio"} <= row.keys()
        assert row["benchmark"] == name
        assert math.isfinite(row["ratio"])
        assert row["ratio"] > 0
    assert "ratio" in result.stdout
    drawn = [path.stem for path in (tmp_path / "pictures").glob("*.png")]
    assert drawn == ([name] if hasattr(importlib.import_module(f"benchmarks.{name}"), "picture") else [])


def test_unknown_benchmark_gets_the_nearest_name(tmp_path: Path):
    result = script("benchmark", "infomx", cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert "did you mean 'infomax'?" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
