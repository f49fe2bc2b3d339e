"""The README's commands run, in its order, as written (made small by options behind them)."""

import re
import shlex
from pathlib import Path

from tests.conftest import ROOT, TINY, run_lines

BLOCKS = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
SETUPS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("python3 -m venv")]
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("python scripts/")]


def test_setup_commands_are_those_that_ci_runs():
    run, test = SETUPS
    assert run.endswith("&& .venv/bin/python scripts/train.py")
    ci = (ROOT / ".ci/run").read_text()
    install = re.search(r"pip install (.+?) &&", test)[1]
    assert f"install --quiet {install}" in ci
    assert "-m pytest" in test
    assert "-m pytest" in ci


def test_every_command_runs(tmp_path: Path):
    assert len(COMMANDS) >= 8
    for name in ("scripts", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    lines = []
    for command in COMMANDS:
        arguments = shlex.split(command)
        # Pictures stay on where the next command needs them; what sizes the sample does not fit every command.
        small = [option for option in TINY if "callbacks" not in option and "max_epochs" not in option]
        if "train.py" in command and "--help" not in command and "--resume" not in command:
            if "infomax_cifar10" in command:
                small = [option for option in small if "score.units" not in option]
            arguments += small + ([] if "max_epochs" in command else ["--trainer.max_epochs=1"])
        if "--resume" in command:
            arguments[arguments.index("--trainer.max_epochs=12")] = "--trainer.max_epochs=2"
        lines.append(shlex.join(arguments))
    statuses, output = run_lines(lines, tmp_path)
    assert statuses == [0] * len(lines), output
    assert (tmp_path / "features.npz").is_file()
    assert (tmp_path / "metrics.json").is_file()


def test_links_of_the_documents_lead_somewhere():
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if not target.startswith("https://"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"
