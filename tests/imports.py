"""What files import, read from their syntax: inside functions and under TYPE_CHECKING too."""

import ast
from functools import cache, lru_cache
from pathlib import Path

from tests.conftest import ROOT

PRODUCT = (
    *("readers", "layers", "map_equation", "metrics", "datamodules", "callbacks", "lightning_modules", "experiment"),
    *("scripts", "benchmarks"),
)


@lru_cache(maxsize=1)
def modules() -> dict[str, Path]:
    """The files of the project by their module names; a package is its ``__init__``."""
    found = {}
    for folder in PRODUCT:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def statements(module: str) -> list[tuple[str, str | None]]:
    """(module, name) of each import, names of relative ones made absolute; without name ``import module``."""
    path = modules()[module]
    return parse(path.read_text(), module if path.name == "__init__.py" else module.rpartition(".")[0])


def parse(source: str, package: str) -> list[tuple[str, str | None]]:
    """As ``statements``, of a source in a package."""
    found: list[tuple[str, str | None]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([node.module] if node.module else [])])
            found += [(base, alias.name) for alias in node.names]
    return found


@cache
def imported(module: str) -> frozenset[str]:
    """The modules of ours that a module names in its imports."""
    found = set()
    for base, name in statements(module):
        target = f"{base}.{name}"
        found.add(target if target in modules() else base)
    return frozenset(found & modules().keys() - {module})


def defining(base: str, name: str | None) -> set[str]:
    """The modules in which the names of an import are defined: through the ``__init__`` of packages."""
    if name is not None and f"{base}.{name}" in modules():
        return {f"{base}.{name}"}
    if base not in modules():
        return set()
    if modules()[base].name != "__init__.py":
        return {base}
    found = set()
    for inner, exported in statements(base):
        if inner in modules() and inner != base and (exported == name or (exported == "*" and name in exports(inner))):
            found |= defining(inner, name)
    return found or {base}


@cache
def exports(package: str) -> frozenset[str]:
    """The names in a module's ``__all__``."""
    for node in ast.parse(modules()[package].read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return frozenset(ast.literal_eval(node.value))
    return frozenset()


def closure(*starts: str) -> set[str]:
    """All modules that are needed for some, where packages hand names on without being read themselves."""
    found, open_ = set(), list(starts)
    while open_:
        module = open_.pop()
        if module not in found:
            found.add(module)
            open_ += [inner for base, name in statements(module) for inner in defining(base, name)]
    return found


def circles() -> list[set[str]]:
    """Modules that import each other, directly or by way of others (strongly connected components, Tarjan 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for other in imported(module):
            if other not in order:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], order[other])
        if low[module] == order[module]:
            place = stack.index(module)
            if len(stack) - place > 1:
                found.append(set(stack[place:]))
            del stack[place:]

    for module in modules():
        if module not in order:
            visit(module)
    return found
