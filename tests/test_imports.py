"""Imports go one way, in no circle, and a technique's sample needs no file of another technique."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import callbacks
import datamodules
import lightning_modules
from tests.conftest import ROOT
from tests.imports import PRODUCT, circles, closure, imported, modules, parse, statements
from tests.techniques import files_of, techniques

# What each folder may import of ours, itself aside.
ALLOWED: dict[str, set[str]] = {
    "readers": set(),
    "layers": set(),
    "map_equation": {"readers.graphs"},
    "metrics": {"map_equation"},
    "datamodules": {"readers"},
    "callbacks": {"layers"},
    "lightning_modules": {"layers", "map_equation", "metrics", "readers", "datamodules.batches"},
    "experiment": set(PRODUCT) - {"scripts"},
    "scripts": {"experiment"},
    "benchmarks": set(PRODUCT) - {"scripts"},
}
MOST_FILES = 22  # directly in a folder


def forbidden(folder: str, found: list[tuple[str, str | None]]) -> set[str]:
    """Modules of ours that a file in a folder imports against the rules."""
    wrong = set()
    for base, name in found:
        full = f"{base}.{name}" if f"{base}.{name}" in modules() else base
        if full.split(".")[0] not in (*PRODUCT, "tests") or full.split(".")[0] == folder:
            continue
        if not any(full == rule or full.startswith(rule + ".") for rule in ALLOWED[folder]):
            wrong.add(full)
    return wrong


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_go_one_way(module: str):
    found = statements(module)
    assert not forbidden(module.split(".")[0], found)
    assert not any(base.split(".")[0] == "lightning" for base, _ in found), "import pytorch_lightning, not lightning"
    if module == "datamodules.batches":
        assert not imported(module)


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("readers", "from datamodules.batches import GraphBatch"),
        ("layers", "import metrics"),
        ("callbacks", "from lightning_modules import DeepInfoMax"),
        ("callbacks", "def f():\n    from datamodules.batches import ImageBatch"),
        ("lightning_modules", "from datamodules.images import ImageDataModule"),
        ("lightning_modules", "from datamodules import ImageDataModule"),
        ("lightning_modules", "import experiment.run_folder"),
        ("datamodules", "if TYPE_CHECKING:\n    from layers import ONLSTM"),
        ("scripts", "import layers"),
    ],
)
def test_a_forbidden_import_is_found(folder: str, source: str):
    assert forbidden(folder, parse(source, folder))


def test_allowed_imports_pass():
    source = "from datamodules.batches import ImageBatch\nfrom layers import JSD\nfrom datamodules import batches"
    assert not forbidden("lightning_modules", parse(source, "lightning_modules"))
    assert not forbidden("callbacks", parse("import torch\nfrom layers import x\nfrom .pictures import y", "callbacks"))


def test_there_is_no_circle_of_files():
    assert not circles()


def test_imports_are_relative_inside_a_package_and_absolute_across():
    for module, path in modules().items():
        if path.parts[len(ROOT.parts)] in ("scripts", "benchmarks"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and not node.level:
                assert (node.module or "").split(".")[0] != module.split(".")[0], f"{path}, line {node.lineno}"


@pytest.mark.parametrize(
    ("imports", "absent"),
    [
        ("readers.graphs", {"torch", "pytorch_lightning", "numba", "networkx", "pandas"}),
        ("readers.triples, readers.text, readers.images, readers.logic", {"pytorch_lightning", "torch", "datasets"}),
        ("map_equation", {"torch", "pytorch_lightning"}),
        ("layers", {"pytorch_lightning"}),
    ],
)
def test_what_is_not_loaded(imports: str, absent: set[str]):
    code = f"import sys, {imports}; print(*sorted(set(sys.modules) & {absent}))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not loaded.split()


def test_folders_are_not_crowded():
    for folder in PRODUCT:
        for place in [ROOT / folder, *(ROOT / folder).rglob("*/")]:
            assert len(list(place.glob("*.py"))) <= MOST_FILES, place


# ----------------------------------------------------------------------------------------------------------- techniques


def classes_of(config: dict) -> set[str]:
    """The modules of the classes that a configuration names, at any depth."""
    found = set()
    for package in (lightning_modules, datamodules, callbacks):
        for name, value in vars(package).items():
            if isinstance(value, type) and f"'{name}'" in repr(config):
                found.add(value.__module__)
    return found


def sample_closure(name: str) -> set[Path]:
    config = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())
    starts = classes_of(config)
    assert len(starts) >= 2
    return {modules()[module] for module in closure(*starts)}


@pytest.mark.parametrize("name", techniques())
def test_a_sample_needs_no_file_of_another_technique(name: str):
    own = files_of(techniques()[name], ROOT)
    others = {file for other in techniques() for file in files_of(techniques()[other], ROOT)} - own
    needed = sample_closure(name)
    assert needed & own
    assert not {str(file.relative_to(ROOT)) for file in needed & others}


def test_every_module_and_its_configurations_belong_to_a_technique():
    owned = {file for patterns in techniques().values() for file in files_of(patterns, ROOT)}
    for package in (lightning_modules, datamodules):
        for value in vars(package).values():
            if isinstance(value, type) and value.__module__.startswith(f"{package.__name__}."):
                assert modules()[value.__module__] in owned, value
    for path in [*(ROOT / "configs").glob("*.yaml"), *(ROOT / "configs" / "variants").glob("*.yaml")]:
        assert path in owned, path
