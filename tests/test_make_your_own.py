"""Follows docs/make_your_own.md word by word, in a copy of the project."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT, script_environment

COPIED = ("callbacks", "configs", "datamodules", "experiment", "layers", "lightning_modules", "map_equation", "metrics")
STEP = re.compile(r"(New file|Add to)\s+`([\w./]+)`:\n\n```(?:python|yaml)\n(.*?)```", re.DOTALL)
COMMANDS = re.compile(r"### 6. Run it\n\n```bash\n(.*?)```", re.DOTALL)


def test_a_technique_from_an_empty_file(tmp_path: Path):
    page = (ROOT / "docs" / "make_your_own.md").read_text()
    for folder in (*COPIED, "scripts"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests" / "layers").mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    steps = STEP.findall(page)
    assert len(steps) == page.count("```python") + page.count("```yaml") == 8
    for what, name, text in steps:
        file = tmp_path / name
        assert file.exists() == (what == "Add to"), name
        file.write_text((file.read_text() + "\n\n" if what == "Add to" else "") + text)

    (commands,) = COMMANDS.findall(page)
    bad = "python scripts/train.py -c configs/margin_spirals.yaml --data.source=bad.csv"
    (tmp_path / "bad.csv").write_text("1,2,0\nthree,4,1\n")
    lines = [*commands.strip().splitlines(), "python -m pytest tests/layers/test_margin_softmax.py", bad]
    result = subprocess.run(
        [sys.executable, "-c", DRIVER, *lines],
        cwd=tmp_path,
        env=script_environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    assert re.findall(r"^status (\d)$", result.stdout, re.MULTILINE) == ["0"] * (len(lines) - 1) + ["2"], output
    assert "1 passed" in result.stdout
    assert "hidden_size" in result.stdout
    (line,) = [line for line in result.stderr.splitlines() if "bad.csv" in line]
    assert line.startswith("error: bad.csv: lines must be x,y,class")
    summary = json.loads((tmp_path / "runs" / "spirals" / "summary.json").read_text())
    assert summary["metrics"]["test/accuracy"] > 0.95
    assert (tmp_path / "classes.txt").read_text() in ("0\n", "1\n", "2\n")


# Runs the lines of a shell one after the other, those of Python in this one process, since starting takes seconds.
DRIVER = """
import os, runpy, shlex, sys

sys.path.insert(0, os.getcwd())
for line in sys.argv[1:]:
    shell, _, command = line.rpartition("&& ")
    assert os.system(shell.removesuffix(" ") or "true") == 0
    python, *sys.argv = shlex.split(command)
    os.environ.pop("PL_GLOBAL_SEED", None)
    try:
        if sys.argv[0] == "-m":
            del sys.argv[0]
            runpy.run_module(sys.argv[0], run_name="__main__")
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    print(f"status {status}", flush=True)
"""
