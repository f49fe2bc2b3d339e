"""The commands and the Python of README and of the pages run, in their order, as written (made small by options)."""

import gzip
import itertools
import re
import shlex
import shutil
import tomllib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.conftest import ROOT, TINY, run_lines
from tests.datamodules.triple_tools import SENTENCES, write
from tests.test_configs import TWO_STEPS, small_arguments

DOCS = ROOT / "docs"
# make_your_own.md has a test of its own; the commands of results.md take hours.
PAGES = sorted(set(DOCS.glob("*.md")) - {DOCS / "make_your_own.md", DOCS / "results.md"})
BLOCK = re.compile(r"```(bash|python)\n(.*?)```", re.DOTALL)


def lines_of(block: str) -> list[str]:
    """The commands of a block of shell, each on one line."""
    return [line for line in block.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


README = [
    line
    for kind, block in BLOCK.findall((ROOT / "README.md").read_text())
    if kind == "bash"
    for line in lines_of(block)
]
SETUPS = [line for line in README if line.startswith("python3 -m venv")]
COMMANDS = [line for line in README if line.startswith("python scripts/")]


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
    link_the_project(tmp_path)
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


# ------------------------------------------------------------------------------------------------------------ pages


def link_the_project(folder: Path) -> None:
    for name in ("scripts", "configs"):
        (folder / name).symlink_to(ROOT / name)


def write_inputs(folder: Path) -> None:
    """The files of a user that the pages name."""
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(16):
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{number}.png")
    text = "the old man sleeps .\nthe company said the old dog sleeps\nthe man said the company sleeps\n"
    for name in ("texts", "other_texts"):
        (folder / name).mkdir()
        for part, times in (("train", 60), ("valid", 20), ("test", 20)):
            (folder / name / f"{part}.txt").write_text(text * times)
    (folder / "sentences.txt").write_text(text)
    (folder / "sentences.txt.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "pairs.txt").write_text("a\t( a or b )\n( not c )\t( c and d )\n")
    (folder / "labelled").mkdir()
    for name, times in (("train_data", 8), ("dev_data", 2)):
        write(folder / "labelled" / f"{name}.json", SENTENCES * times)
    (folder / "graph.txt").write_text("1 2\n2 3\n1 3\n4 5\n5 6\n4 6\n3 4\n")
    vectors = random.normal(size=(5, 4))[np.arange(20) % 5] + 0.1 * random.normal(size=(20, 4))
    (folder / "map_equation_main.py").write_text(
        "import sys\nfrom map_equation.__main__ import main\nsys.exit(main())\n"
    )
    np.savez(folder / "vectors.npz", words=np.array([f"word{chr(97 + i)}" for i in range(20)]), vectors=vectors)


def small(command: str) -> str:
    """A command of a page as the test runs it: two steps on little data.

    Of one that needs the hub or a launcher only the configuration is made; test_configs.py runs two steps of each.
    """
    command = command.removeprefix("srun ")
    command = command.replace("python -m map_equation", "python map_equation_main.py")  # which ends the whole process
    launched = command.startswith("torchrun ")
    if launched:
        command = "python scripts/train.py" + command.partition("scripts/train.py")[2]
    arguments = shlex.split(command.replace("configs/X.yaml", "configs/infomax_sample.yaml"), comments=True)
    if launched or "/shared/" in command:
        return shlex.join([*arguments, "--print_config"])
    if arguments[:2] != ["python", "scripts/train.py"] or ".help=" in command or "--print_config" in command:
        return shlex.join(arguments)
    if "--resume" in arguments and "auto" not in arguments:  # with the run's own configuration
        return shlex.join(word.replace("max_epochs=50", "max_epochs=2") for word in arguments)
    if not find_spec("tensorboard"):
        arguments = [word for word in arguments if "TensorBoard" not in word]
    first = arguments[arguments.index("-c") + 1] if "-c" in arguments else "configs/infomax_sample.yaml"
    config = yaml.safe_load((ROOT / first).read_text())
    if config["data"]["init_args"].get("source") == "hub" and "--data.source" not in command:
        return shlex.join([*arguments, "--print_config"])
    steps = [option for option in TWO_STEPS if "data.source" not in option]
    return shlex.join([*arguments, *steps, *small_arguments(config), "--compile=false"])


OUTSIDE = ("wandb ",)


def test_every_command_and_all_python_of_the_pages_runs(tmp_path: Path):
    pytest.importorskip("transformers")
    link_the_project(tmp_path)
    write_inputs(tmp_path)
    lines, printed = [], []
    for page in [ROOT / "README.md", *PAGES]:
        for number, (kind, block) in enumerate(BLOCK.findall(page.read_text())):
            if kind == "python":
                file = tmp_path / f"{page.stem}_{number}.py"
                file.write_text(block)
                lines.append(f"python {file.name}")
                printed += re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)
            elif page in PAGES:  # README's commands have a test of their own
                lines += [small(command) for command in lines_of(block) if not command.startswith(OUTSIDE)]
    assert len(lines) > 60
    statuses, output = run_lines(lines, tmp_path)
    failed = [line for line, status in zip(lines, statuses, strict=True) if status]
    assert not failed, f"{failed}\n{output}"
    for expected in printed:
        assert expected in output
    page = (DOCS / "infomap.md").read_text()
    for shown in (r"^(6 nodes, .*) -> graph.tree$", r"^(# codelength 2.*)$", r"^(1:1 .*)$"):
        found = re.search(shown, page, re.MULTILINE)[1]
        assert found in output + (tmp_path / "graph.tree").read_text()


# --------------------------------------------------------------------------------------------- what the documents name

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def test_links_configurations_and_extras_of_the_documents_are_there():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for document in DOCUMENTS:
        text = document.read_text()
        assert set(re.findall(r'pip install -e "\.\[(\w+)\]"', text)) <= extras.keys()
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
            if not target.startswith("https://"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"
        if document.stem != "make_your_own":  # which makes some
            for config in re.findall(r"configs/[\w/]+\.yaml", text):
                assert (ROOT / config).exists() or config[8:-5].isupper(), f"{document.name}: {config}"


def test_lists_and_tables_begin_behind_a_blank_line_or_a_heading():
    # GitHub does without, the site does not.
    for document in DOCUMENTS:
        text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
        for before, line in itertools.pairwise(text.splitlines()):
            if line.startswith(("- ", "|")):
                assert not before or before.startswith((line[0], " ", "#")), f"{document.name}: {line}"


def test_every_picture_stands_on_a_page():
    text = "".join(document.read_text() for document in DOCUMENTS)
    for picture in (DOCS / "pictures").iterdir():
        assert f"pictures/{picture.name})" in text, picture.name


def test_the_site_has_every_page_and_every_package():
    def pages(entry) -> set[str]:
        entries = entry.values() if isinstance(entry, dict) else entry
        return {entry} if isinstance(entry, str) else set().union(*map(pages, entries))

    site = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    assert pages(site["nav"]) == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    public = {name.removesuffix(".*") for name in packages} - {"configs", "experiment"}
    assert {page.stem for page in (DOCS / "api").iterdir()} == public
