"""Imports go one way (docs/make_your_own.md); nothing imports `lightning`."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = [
    "layers",
    "map_equation",
    "metrics",
    "datamodules",
    "callbacks",
    "lightning_modules",
    "experiment",
    "scripts",
    "benchmarks",
    "tests",
]
# What each folder may import of ours, itself aside.
ALLOWED = {
    "layers": set(),
    "map_equation": set(),
    "metrics": {"map_equation"},
    "datamodules": set(),
    "callbacks": {"layers"},
    "lightning_modules": {"layers", "map_equation", "metrics", "datamodules.batches"},
    "experiment": set(FOLDERS) - {"scripts", "tests"},
    "scripts": {"experiment"},
    "benchmarks": set(FOLDERS) - {"scripts", "tests"},
}


def imported_modules(source: str) -> set[str]:
    """Full names of the modules that a source imports absolutely."""
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules.add(node.module)
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def forbidden(folder: str, source: str) -> set[str]:
    """Modules of ours that a file in ``folder`` imports against the rules."""
    found = set()
    for module in imported_modules(source):
        top = module.split(".")[0]
        if top not in FOLDERS or top == folder:
            continue
        allowed = any(module == rule or module.startswith(rule + ".") for rule in ALLOWED[folder])
        # `from datamodules.batches import X` names the package itself nowhere.
        if not allowed:
            found.add(module)
    return found


def sources() -> list[Path]:
    files = [path for folder in ALLOWED for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(files) > 30
    return files


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path):
    folder = path.relative_to(ROOT).parts[0]
    assert not forbidden(folder, path.read_text())
    for module in imported_modules(path.read_text()):
        assert module.split(".")[0] != "lightning", "import pytorch_lightning, not lightning"


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("layers", "import metrics"),
        ("callbacks", "from lightning_modules import DeepInfoMax"),
        ("callbacks", "def f():\n    from datamodules.batches import ImageBatch"),
        ("lightning_modules", "from datamodules.images import ImageDataModule"),
        ("lightning_modules", "import experiment.run_folder"),
        ("datamodules", "import layers"),
        ("scripts", "import layers"),
    ],
)
def test_a_forbidden_import_is_found(folder: str, source: str):
    assert forbidden(folder, source)


def test_allowed_imports_pass():
    assert not forbidden("lightning_modules", "from datamodules.batches import ImageBatch\nfrom layers import JSD")
    assert not forbidden("callbacks", "import torch\nfrom layers import x\nfrom .pictures import y")


def test_packages_in_pyproject_are_those_that_are_there():
    import tomllib

    packages = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    expected = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for folder in FOLDERS
        if folder not in ("scripts", "benchmarks", "tests")
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert packages == expected
