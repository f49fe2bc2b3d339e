"""A given partition in any form, as one label or path per node."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np


def by_node(modules: Any, names: Sequence[Any], ids: np.ndarray | None) -> Any:
    """Labels or paths in the order of the nodes.

    Args:
        modules: a dict or a pandas series by name; a table as ``Partition.to_dataframe`` gives it; a list of sets of
            names; a ``.tree`` or ``.clu`` file; a result of a search; anything else is taken to be in the order of the
            nodes already, and returned as it is.
        names: of the n nodes; equal ones are told apart as by ``distinct``.
        ids: ``(n,)`` numbers of the nodes in the graph's file, or None.

    Raises:
        ValueError: for a node without a module, with two, or a name that the graph lacks.
        DataError: what ``readers.graphs.read_partition`` raises.
    """
    if isinstance(modules, str | os.PathLike):
        return from_file(modules, names, ids)
    if hasattr(modules, "columns") and hasattr(modules, "index"):
        modules = from_table(modules, names)
    if hasattr(modules, "communities") and hasattr(modules, "paths"):
        if modules.names == list(names):
            return modules.table
        modules = dict(zip(distinct(modules.names, modules.ids), modules.paths, strict=True))
    if isinstance(modules, Mapping) or (hasattr(modules, "items") and hasattr(modules, "index")):
        return in_order(list(modules.items()), distinct(names, ids))
    if isinstance(modules, Iterable) and not hasattr(modules, "dtype") and not hasattr(modules, "detach"):
        modules = list(modules)
        if modules and all(isinstance(members, set | frozenset) for members in modules):
            given = [(name, number) for number, members in enumerate(modules) for name in members]
            return in_order(given, distinct(names, ids))
    return modules


def distinct(names: Sequence[Any], ids: np.ndarray | None) -> Sequence[Any]:
    """The names; those that belong to several nodes with the node's id, or else its place, behind: ``John (2)``."""
    if isinstance(names, range) or len(set(names)) == len(names):
        return names
    numbers = range(len(names)) if ids is None else ids.tolist()
    owners: dict[Any, set[int]] = {}
    for name, number in zip(names, numbers, strict=True):
        owners.setdefault(name, set()).add(number)
    return [
        f"{name} ({number})" if len(owners[name]) > 1 else name for name, number in zip(names, numbers, strict=True)
    ]


def in_order(given: Iterable[tuple[Any, Any]], names: Sequence[Any], what: str = "modules") -> list[Any]:
    """The labels of pairs (name, label) in the order of the names; see ``by_node``."""
    places = {name: place for place, name in enumerate(names)}
    labels: list[Any] = [None] * len(names)
    there = np.zeros(len(names), bool)
    for name, label in given:
        place = places.get(name)
        if place is None:
            raise ValueError(f"{what}: the graph has no node {name!r}")
        if there[place] and labels[place] != label:
            raise ValueError(f"{what}: the node {name!r} is in two modules")
        labels[place], there[place] = label, True
    if not there.all():
        missing = np.flatnonzero(~there)
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise ValueError(f"{what}: no module for the node {names[int(missing[0])]!r}{others}")
    return labels


def from_table(table: Any, names: Sequence[Any]) -> Any:
    """The paths or modules of a data frame as ``Partition.to_dataframe`` gives it: by name, or in order if it is."""
    columns = list(table.columns)
    node = next((name for name in ("state", "node", "name") if name in columns), None)
    if node is None or "module" not in columns:
        raise ValueError(f"a table of modules has columns node and module, not {columns}; give one column or a dict")
    nodes, labels = table[node].tolist(), table["module"].tolist()
    if "path" in columns and all(isinstance(path, tuple) for path in table["path"]):
        labels = table["path"].tolist()
    return labels if nodes == list(names) else dict(zip(nodes, labels, strict=True))


def from_file(path: str | os.PathLike[str], names: Sequence[Any], ids: np.ndarray | None) -> list[Any]:
    """The paths of a ``.tree`` or ``.clu`` file.

    Nodes are found by their ids in the file, if the graph's nodes have such (see ``numbers_of``), else by name; a bare
    number that is no name is then a node's place, as Infomap numbers the nodes of graph objects.
    """
    from readers.graphs import read_partition

    numbers = numbers_of(names, ids)
    by_id = {str(number): place for place, number in enumerate(range(len(names)) if numbers is None else numbers)}
    by_name = {str(name): place for place, name in enumerate(names)}
    first, second = (by_name, by_id) if numbers is None else (by_id, by_name)
    given = []
    for node in read_partition(os.fspath(path)):
        key, other = (node.name, node.id) if numbers is None else (node.id, node.name)
        place = first.get(other if key is None else key)  # type: ignore[arg-type]
        if place is None and (numbers is None or key is None):
            place = second.get(key if other is None else other)  # type: ignore[arg-type]
        if place is None:
            raise ValueError(f"{os.fspath(path)}: the graph has no node {node.name if node.id is None else node.id}")
        given.append((place, node.path))
    return in_order(given, range(len(names)), os.fspath(path))


def numbers_of(names: Sequence[Any], ids: np.ndarray | None) -> Sequence[int] | None:
    """The integers by which files call the nodes: their ids, else names that are such; None if there are neither."""
    if ids is not None:
        return ids.tolist()
    if isinstance(names, range):
        return names
    if any(isinstance(name, bool) or not is_number(str(name)) for name in names):
        return None
    numbers = [int(name) for name in names]
    return numbers if len(set(numbers)) == len(numbers) else None


def is_number(text: str) -> bool:
    """Whether a text is a whole number from 0 to 2^63 - 1 in its usual form."""
    return text.isdecimal() and len(text) < 20 and str(int(text)) == text and int(text) < 1 << 63
