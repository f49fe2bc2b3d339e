"""Follows docs/make_your_own.md word by word, in a copy of the project."""

import json
import re
import shutil
from pathlib import Path

from tests.conftest import ROOT, run_lines

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
    statuses, output = run_lines(lines, tmp_path)
    assert statuses == [0] * (len(lines) - 1) + [2], output
    assert "1 passed" in output
    assert "hidden_size" in output
    (line,) = [line for line in output.splitlines() if "bad.csv:" in line]
    assert line.startswith("error: bad.csv: lines must be x,y,class")
    summary = json.loads((tmp_path / "runs" / "spirals" / "summary.json").read_text())
    assert summary["metrics"]["test/accuracy"] > 0.95
    assert (tmp_path / "classes.txt").read_text() in ("0\n", "1\n", "2\n")
