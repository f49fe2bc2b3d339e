"""What a command loads, what it shows meanwhile, and what ``pip install .`` brings."""

import contextlib
import gc
import json
import os
import pty
import shutil
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import pytest

import experiment.train  # noqa: F401 (once loaded, it leaves the environment alone)
from experiment.arguments import find_config, find_paths
from experiment.errors import as_called
from experiment.main import COMMANDS, LOADING, loading, main
from tests.conftest import ROOT, TINY, config, script_environment
from tests.imports import PRODUCT

# Takes long to load, and no command needs all of it.
HEAVY = {
    *("ahocorasick", "datasets", "jieba", "matplotlib", "networkx", "numba", "pandas", "pyarrow", "scipy", "sklearn"),
    *("transformers", "wandb"),
}
SHOW_MODULES = "print('loaded', *{name.partition('.')[0] for name in sys.modules})"
RUN_COMMANDS = f"""
import json, sys
from experiment.main import run
for command, *arguments in json.loads(sys.argv[1]):
    assert run(command, arguments) == 0
{SHOW_MODULES}
"""


def loaded(code: str, *arguments: str, cwd: Path) -> set[str]:
    """Of HEAVY what some code has loaded at its end."""
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env=script_environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return HEAVY & set(result.stdout.splitlines()[-1].split())


@cache
def loaded_by_lightning() -> set[str]:
    return loaded(f"import sys, pytorch_lightning; {SHOW_MODULES}", cwd=ROOT)


def test_commands_load_what_they_use(tmp_path: Path):
    commands = [
        ["train", "--help"],
        ["train", "--run_dir", "run", *TINY],
        ["evaluate", "run"],
        ["predict", "run", "--input", str(ROOT / "docs" / "pictures" / "nearest_neighbors.png"), "--output", "x.npz"],
    ]
    assert loaded(RUN_COMMANDS, json.dumps(commands), cwd=tmp_path) <= loaded_by_lightning()
    assert (tmp_path / "x.npz").is_file()


def test_a_search_loads_the_compiler_and_nothing_else(tmp_path: Path):
    (tmp_path / "graph.txt").write_text("a b\nb c\nc a\nc d\n")
    commands = [["predict", config("infomap_edges").stem, "--input", "graph.txt", "--output", "graph.tree"]]
    assert loaded(RUN_COMMANDS, json.dumps(commands), cwd=tmp_path) - loaded_by_lightning() == {"numba"}


# ------------------------------------------------------------------------------------------------------- while it loads


@pytest.fixture
def endless_torch(tmp_path: Path) -> dict[str, str]:
    """An environment in which the process ends with status 7 when it begins to load torch."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise SystemExit(7)\n")
    return script_environment(PYTHONPATH=str(tmp_path))


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "benchmark"])
def test_a_terminal_shows_what_happens_before_torch_is_loaded(command: str, endless_torch: dict[str, str]):
    terminal, inside = pty.openpty()
    arguments = [sys.executable, str(ROOT / "scripts" / f"{command}.py"), "--help"]
    result = subprocess.run(arguments, env=endless_torch, stdout=subprocess.PIPE, stderr=inside, check=False)
    os.close(inside)
    shown = ""
    with contextlib.suppress(OSError):  # as a terminal that nobody holds any more says at its end
        while part := os.read(terminal, 1000).decode():  # may come in pieces
            shown += part
    os.close(terminal)
    assert result.returncode == 7
    assert shown.startswith(f"{LOADING}\r")
    assert shown.split("\r")[1:] == [" " * len(LOADING), ""]
    assert result.stdout == b""


def test_a_pipe_gets_nothing_of_it_nor_a_terminal_from_other_processes(endless_torch: dict[str, str]):
    arguments = [sys.executable, str(ROOT / "scripts" / "train.py"), "--help"]
    piped = subprocess.run(arguments, env=endless_torch, capture_output=True, check=False)
    assert (piped.returncode, piped.stdout, piped.stderr) == (7, b"", b"")
    terminal, inside = pty.openpty()
    subprocess.run(arguments, env={**endless_torch, "LOCAL_RANK": "1"}, stderr=inside, check=False)
    os.write(inside, b"end")
    assert os.read(terminal, 1000) == b"end"
    os.close(inside)
    os.close(terminal)


def test_a_library_that_does_not_load_is_one_line(tmp_path: Path):
    (tmp_path / "pytorch_lightning").mkdir()
    (tmp_path / "pytorch_lightning" / "__init__.py").write_text("raise ImportError('broken installation')\n")
    arguments = [sys.executable, str(ROOT / "scripts" / "train.py"), "--help"]
    environment = script_environment(PYTHONPATH=str(tmp_path))
    result = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: ImportError: broken installation (--debug shows where)\n"


def test_garbage_is_not_looked_for_while_a_process_loads():
    code = """if True:
        import gc
        from experiment.main import loading
        with loading():
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    """
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    before = gc.get_freeze_count()
    with loading():  # torch is there
        assert gc.isenabled()
    assert gc.get_freeze_count() == before


# -------------------------------------------------------------------------------------------------- the console command


def test_console_command_lists_the_commands(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()[2:]] == list(COMMANDS) == ["train", "evaluate", "predict"]
    monkeypatch.setattr(sys, "argv", ["scientific-spaces"])
    assert main() == 0
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize(("given", "near"), [("trian", "did you mean 'train'?"), ("benchmark", "train, evaluate")])
def test_unknown_command(given: str, near: str, capsys: pytest.CaptureFixture):
    assert main([given, "--help"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith(f"error: no command '{given}'")
    assert near in line


def test_console_command_is_the_script_and_speaks_of_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        shown = []
        for name in (f"scripts/{command}.py", "/usr/bin/scientific-spaces"):
            monkeypatch.setattr(sys, "argv", [name])
            assert main([command, "--help"]) == 0
            shown.append(capsys.readouterr().out)
        assert shown[0].startswith(f"usage: {command}.py ")
        assert shown[1].startswith(f"usage: scientific-spaces {command} ")
        assert shown[1].replace(f"scientific-spaces {command}", f"{command}.py") == shown[0]
    assert main(["evaluate", "--json", "x.json"]) == 2
    assert "first: scientific-spaces evaluate RUN" in capsys.readouterr().err


def test_commands_are_named_as_they_were_called(monkeypatch: pytest.MonkeyPatch):
    text = "python scripts/train.py -c X; see evaluate.py, my/predict.py"
    monkeypatch.setattr(sys, "argv", ["scripts/train.py"])
    assert as_called(text) == text
    monkeypatch.setattr(sys, "argv", ["/home/me/.venv/bin/scientific-spaces"])
    assert as_called(text) == "scientific-spaces train -c X; see scientific-spaces evaluate, my/predict.py"


# ------------------------------------------------------------------------------------------------------- configurations


def test_configurations_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    own, lookahead = str(ROOT / "configs/infomax_sample.yaml"), str(ROOT / "configs/with/lookahead.yaml")
    for name in ("configs/infomax_sample.yaml", "infomax_sample.yaml", "infomax_sample", "configs/infomax_sample"):
        assert find_config(name) == own
    for name in ("configs/with/lookahead.yaml", "with/lookahead"):
        assert find_config(name) == lookahead
    for name in ("", "-x", "nope", "configs/nope.yaml", "configs", "with", "lookahead", "..", str(tmp_path / "none")):
        assert find_config(name) == name
    arguments = ["-c", "infomax_sample", "--run_dir", "infomax_sample", "-c=with/lookahead", "--config", "mine", "-c"]
    found = [f"-c={own}", "--run_dir", "infomax_sample", f"-c={lookahead}", "--config=mine", "-c"]
    assert find_paths(arguments) == found
    home = str(Path.home())
    assert find_paths(["-cinfomax_sample", "--run_dir=~/x", "--resume", "~", "-c=~/y.yaml"]) == [
        *(f"-c={own}", f"--run_dir={home}/x", "--resume", home, f"-c={home}/y.yaml")
    ]
    (tmp_path / "infomax_sample").mkdir()
    assert find_config("infomax_sample") == own
    (tmp_path / "infomax_sample").rmdir()
    (tmp_path / "configs").mkdir()
    for name in ("configs/infomax_sample.yaml", "infomax_sample"):
        (tmp_path / name).write_text("")
        assert find_config(name) == name  # the user's own


def test_a_configuration_by_its_name_is_that_of_its_path(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    shown = []
    for folder, ending in (("", ""), (f"{ROOT}/configs/", ".yaml")):
        files = [f"-c={folder}{name}{ending}" for name in ("infomax_sample", "with/debug")]
        assert main(["train", *files, "--print_config"]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert "DeepInfoMax" in shown[0]


# ---------------------------------------------------------------------------------------------------------- the package


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that ``pip install .`` would install, built in a copy."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "scratch", "wandb")
    shutil.copytree(ROOT, folder / "copy", ignore=ignored)
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder / "copy", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_the_packages_and_the_configurations(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        entries = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert archive.read(entries).decode().split() == [
            *("[console_scripts]", "scientific-spaces", "=", "experiment.main:main")
        ]
    folders = [*(folder for folder in PRODUCT if folder not in ("scripts", "benchmarks")), "configs"]
    there = [path for folder in folders for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts]
    assert names == {str(path.relative_to(ROOT)) for path in there if path.is_file()}


def test_installed_command_finds_its_configurations(wheel: Path, tmp_path: Path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = "import sys, experiment.main; print(experiment.main.__file__); sys.exit(experiment.main.main())"
    result = subprocess.run(
        [sys.executable, "-c", code, "train", "-c", "configs/infomax_sample.yaml", "--print_config"],
        cwd=tmp_path,
        env=script_environment(PYTHONPATH=str(tmp_path / "site")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(str(tmp_path / "site"))
    assert "class_path: lightning_modules.DeepInfoMax" in result.stdout
