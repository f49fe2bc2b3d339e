"""Every benchmark runs and gives the rows that others read."""

import importlib
import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

import experiment.train  # noqa: F401 (once loaded, it leaves the environment alone)
from experiment.benchmark import benchmark
from tests.conftest import ROOT, script

LONG = ("attention", "data", "derived_optimizers")
NAMES = [
    pytest.param(path.stem, marks=[pytest.mark.slow] * (path.stem in LONG))
    for path in sorted((ROOT / "benchmarks").glob("[!_]*.py"))
]


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


def test_rows_before_a_failure_are_printed_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    def run(quick: bool) -> list[dict]:
        if len(done) > 1:
            raise KeyboardInterrupt
        done.append({"benchmark": f"number {len(done)}", "case": "a case", "peer": "a peer", "ratio": 2.0})
        return done[-1:]

    done: list[dict] = []
    monkeypatch.setattr(importlib, "import_module", lambda name: SimpleNamespace(run=run))
    with pytest.raises(KeyboardInterrupt):
        benchmark(["all", "--json", str(tmp_path / "rows.json")])
    assert json.loads((tmp_path / "rows.json").read_text()) == done
    printed = capsys.readouterr().out
    assert "number 0" in printed
    assert "number 1" in printed
