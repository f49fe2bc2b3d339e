"""The README's commands run, in its order, as written (made small by options behind them)."""

import re
import shlex
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import ROOT, TINY, run_lines


def lines_of(document: str) -> list[str]:
    """The lines of a document's blocks of shell."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / document).read_text(), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


SETUPS = [line for line in lines_of("README.md") if line.startswith("python3 -m venv")]
COMMANDS = [line for line in lines_of("README.md") if line.startswith("python scripts/")]


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
    photos = tmp_path / "photos"  # what a reader has in ~/Pictures
    photos.mkdir()
    for index, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (60, 40, 50, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(photos / f"{index}.jpg")
    lines = []
    for command in COMMANDS:
        arguments = shlex.split(command.replace("~/Pictures", str(photos)))
        # What sizes the sample does not fit every command.
        small = [option for option in TINY if "callbacks" not in option and "max_epochs" not in option]
        if "infomax_folder" in command:
            small.append("--min_steps=1")
        if "train.py" in command and "--help" not in command and "--resume" not in command:
            if "infomax_cifar10" in command:
                small = [option for option in small if "score.units" not in option]
            arguments += small + ([] if "max_epochs" in command else ["--trainer.max_epochs=1"])
        if "--resume" in command:
            arguments[arguments.index("--trainer.max_epochs=12")] = "--trainer.max_epochs=2"
        lines.append(shlex.join(arguments))
    statuses, output = run_lines(lines, tmp_path)
    assert statuses == [0] * len(lines), output
    assert (tmp_path / "runs/own.csv").is_file()
    assert (tmp_path / "runs/first.json").is_file()
    shutil.rmtree(photos)
    assert {path.name for path in tmp_path.iterdir()} == {"scripts", "configs", "runs"}, "only what git ignores"


def test_every_command_about_running_runs(tmp_path: Path):
    for name in ("scripts", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    lines = []
    for command in lines_of("docs/running.md"):
        if not command.startswith("python scripts/train.py"):
            continue  # SLURM's, W&B's, and predictions by a model of text
        arguments = shlex.split(command.replace("configs/X.yaml", "configs/infomax_sample.yaml"), comments=True)
        if not find_spec("tensorboard"):
            arguments = [word for word in arguments if "TensorBoard" not in word]
        if "--resume" in arguments and "auto" not in arguments:  # with the run's own configuration
            lines.append(shlex.join(word.replace("max_epochs=50", "max_epochs=2") for word in arguments))
        else:
            small = [option for option in TINY if "callbacks" not in option and "max_epochs" not in option]
            lines.append(shlex.join([*arguments, *small, "--trainer.max_epochs=1", "--compile=false"]))
    assert len(lines) >= 12
    statuses, output = run_lines(lines, tmp_path)
    assert statuses == [0] * len(lines), output
    assert {path.name for path in tmp_path.iterdir()} == {"scripts", "configs", "runs"}, "only what git ignores"


def test_links_of_the_documents_lead_somewhere():
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if not target.startswith("https://"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"
