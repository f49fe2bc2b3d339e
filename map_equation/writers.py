"""The files that a partition is written to."""

import csv
import json
import os
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .codelength import book_costs, module_rates, read_table
from .flow import UNDIRECTED, kind_of
from .labels import is_number, numbers_of
from .modules import Modules


def write(partition: Modules, path: str | Path, level: int = 1) -> None:
    """``Partition.write``."""
    path = check_path(path)
    if path.suffix == ".clu":
        write_file(path, partial(write_clu, partition, level=level))
    else:
        write_file(path, partial(WRITERS[path.suffix], partition))


def write_file(path: str | Path, write: Callable[[Path], None]) -> None:
    """Has a function write a new file, which replaces the one at ``path`` when it is complete."""
    from readers.graphs import replacing

    with replacing(check_folder(path)) as part:
        write(part)


def check_path(path: str | Path) -> Path:
    """The path, without a ``~``, if ``Partition.write`` can write it.

    Raises:
        ValueError: it has another extension, is a folder, or its folder isn't there.
    """
    path = Path(path)
    if path.suffix not in WRITERS:
        raise ValueError(f"{path} must end in {', '.join(WRITERS)}")
    return check_folder(path)


def check_folder(path: str | Path) -> Path:
    """The path, without a ``~``, if a file can be written there; ValueError if not."""
    from readers.graphs import output_file

    path = Path(os.path.expanduser(path))
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file")
    if not (folder := output_file(path).parent).is_dir():
        raise ValueError(f"{path}: there is no folder {folder}; create it first")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{path}: no permission to write into the folder {folder}")
    return path


def write_tree(partition: Modules, path: Path) -> None:
    """``1:2:3 flow "name" id``, numbers from 1, the last one within the module; ids as in ``node_ids``.

    Of states: ``1:2:3 flow "name of the physical node" state_id node_id`` and perhaps ``layer_id``, as Infomap.

    Names are written as by ``quote``. Nodes that are siblings of modules are numbered after them, so paths are unique.
    """
    columns, states = {"node_id": node_ids(partition)}, partition.states
    if states is not None:
        columns = {"state_id": columns["node_id"], "node_id": states.nodes}
        if states.layers is not None:
            columns["layer_id"] = states.layers
    ids = np.stack(list(columns.values()), 1).tolist()
    with path.open("w", encoding="utf-8") as file:
        file.write(f"{header(partition)}# path flow name {' '.join(columns)}\n")
        for node, place in tree_paths(partition):
            last = " ".join(map(str, (quote(partition.labels[node]), *ids[node])))
            file.write(f"{':'.join(map(str, place))} {partition.flow[node]:.12g} {last}\n")


def write_clu(partition: Modules, path: Path, level: int = 1) -> None:
    """``node module flow`` for each node, modules of one level (``Partition.modules_at``) numbered from 1.

    A node is given by its name, in quotes unless it is a whole number; or, where the file of the graph has both, by its
    id, with the name in quotes as the last column.
    """
    modules = partition.modules_at(level)
    numbers = None if partition.ids is None else partition.ids.tolist()
    with path.open("w", encoding="utf-8") as file:
        file.write(f"{header(partition)}# module level {level}\n# node{'_id' if numbers else ''} module flow")
        file.write(" name\n" if numbers else "\n")
        for node in partition.order().tolist():
            name = partition.names[node]
            known = numbers[node] if numbers else name if is_number(str(name)) else quote(name)
            rest = f" {quote(name)}" if numbers else ""
            file.write(f"{known} {modules[node] + 1} {partition.flow[node]:.12g}{rest}\n")


def write_csv(partition: Modules, path: Path) -> None:
    """One line per node in tree order: name, module, top module, path (all from 1), flow."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["name", *([] if partition.states is None else ["state"]), "module", "top_module", "path", "flow"]
        )
        for node in partition.order():
            place = ":".join(str(number + 1) for number in partition.table[node] if number >= 0)
            module, top = partition.modules[node] + 1, partition.top_modules[node] + 1
            state = [] if partition.states is None else [partition.names[node]]
            writer.writerow([partition.labels[node], *state, module, top, place, f"{partition.flow[node]:.12g}"])


def write_json(partition: Modules, path: Path) -> None:
    """The tree as the Infomap Network Navigator reads it: nodes, modules, and the flow between siblings."""
    ids = node_ids(partition).tolist()
    places = dict(tree_paths(partition))
    nodes = [
        {
            "path": list(place),
            "modules": [int(partition.top_modules[node]) + 1] if len(place) < 3 else list(place[:-1]),
            "name": str(partition.labels[node]),
            "flow": float(partition.flow[node]),
            "id": ids[node] if partition.states is None else int(partition.states.nodes[node]),
            **({} if partition.states is None else {"stateId": ids[node]}),
        }
        for node, place in places.items()
    ]
    document = {
        "version": "map_equation",
        "codelength": partition.codelength,
        "indexCodelength": partition.index_codelength,
        "oneLevelCodelength": partition.one_level_codelength,
        "codelengths": partition.codelengths,
        "numLevels": partition.num_levels,
        "numTopModules": partition.num_top_modules,
        "relativeCodelengthSavings": partition.relative_savings,
        "directed": kind_of(partition.links) != UNDIRECTED,
        "flowModel": partition.flow_model,
        "higherOrder": partition.states is not None,
        "nodes": nodes,
        "modules": list_modules(partition, places),
    }
    with path.open("w", encoding="utf-8") as file:
        json.dump(document, file, ensure_ascii=False)
        file.write("\n")


def list_modules(partition: Modules, places: dict[int, tuple[int, ...]]) -> list[dict[str, Any]]:
    """Path, rates, code length and links between the children of each module, the root's path being ``[0]``."""
    children: dict[tuple[int, ...], set[int]] = defaultdict(set)
    for place in places.values():
        for depth, number in enumerate(place):
            children[place[:depth]].add(number)
    rates = module_numbers(partition)
    links = sibling_links(partition, places)
    modules = []
    for path in sorted(children):
        enter, leave, bits = rates[path]
        inside = [{"source": a, "target": b, "flow": flow} for (a, b), flow in links[path].items()]
        modules.append(
            {
                "path": list(path) or [0],
                "enterFlow": enter,
                "exitFlow": leave,
                "numEdges": len(inside),
                "numChildren": len(children[path]),
                "codelength": bits,
                "links": inside,
            }
        )
    return modules


def module_numbers(partition: Modules) -> dict[tuple[int, ...], tuple[float, float, float]]:
    """Enter rate, exit rate and bits of the code book of each module by its path from 1."""
    inside = partition.table >= 0
    table = read_table(partition.table) if inside.any() else np.empty((len(partition.table), 0), np.int64)
    costs = book_costs(partition.links, table, None if partition.states is None else partition.states.place)
    found: dict[tuple[int, ...], tuple[float, float, float]] = {(): (0.0, 0.0, float(costs[0][0]))}
    for level in range(table.shape[1]):
        label = np.ascontiguousarray(table[:, level])
        count = int(label.max()) + 1
        exits, enters = module_rates(partition.links, label, count)
        here = np.flatnonzero(label >= 0)
        labels, first = np.unique(label[here], return_index=True)
        for module, node in zip(labels.tolist(), here[first], strict=True):
            path = tuple((partition.table[node, : level + 1] + 1).tolist())
            found[path] = float(enters[module]), float(exits[module]), float(costs[level + 1][module])
    return found


def sibling_links(
    partition: Modules, places: dict[int, tuple[int, ...]]
) -> dict[tuple[int, ...], dict[tuple[int, int], float]]:
    """The flow between the children of each module; of an undirected link both ways together, listed once."""
    flow, undirected = partition.links, kind_of(partition.links) == UNDIRECTED
    row = np.repeat(np.arange(len(flow.flow)), np.diff(flow.indptr))
    chosen = (row < flow.neighbour) if undirected else flow.out > 0
    found: dict[tuple[int, ...], dict[tuple[int, int], float]] = defaultdict(lambda: defaultdict(float))
    ends = zip(row[chosen].tolist(), flow.neighbour[chosen].tolist(), flow.out[chosen].tolist(), strict=True)
    for source, target, rate in ends:
        a, b = places[source], places[target]
        depth = next(level for level, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1])
        pair = (min(a[depth], b[depth]), max(a[depth], b[depth])) if undirected else (a[depth], b[depth])
        found[a[:depth]][pair] += rate * (2 if undirected else 1)
    return found


ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"})
WRITERS = {".tree": write_tree, ".clu": write_clu, ".csv": write_csv, ".json": write_json}


def header(partition: Modules) -> str:
    """The first lines of text files."""
    return (
        f"# codelength {partition.codelength:.12g} bits, flow {partition.flow_model}\n"
        f"# {partition.num_levels} levels, {partition.num_top_modules} top modules, {partition.num_modules} modules\n"
        f"# relative codelength savings {100 * partition.relative_savings:.6g}%\n"
    )


def tree_paths(partition: Modules) -> list[tuple[int, tuple[int, ...]]]:
    """Nodes in tree order, each with its modules and its own number among its siblings, from 1."""
    last: dict[tuple[int, ...], int] = defaultdict(int)  # number of the last child of a module
    found = []
    rows = partition.table.tolist()
    for node in partition.order().tolist():
        modules = tuple(number + 1 for number in rows[node] if number >= 0)
        for depth, number in enumerate(modules):
            last[modules[:depth]] = number
        last[modules] += 1
        found.append((node, (*modules, last[modules])))
    return found


def node_ids(partition: Modules) -> np.ndarray:
    """``(n,)`` integers, one for each node: those of the graph's file, else names that are such, else 0 ... n - 1."""
    numbers = numbers_of(partition.names, partition.ids)
    return np.arange(len(partition.flow)) if numbers is None else np.asarray(numbers, np.int64)


def quote(name: Any) -> str:
    r"""A name in quotes, with a backslash before quotes and backslashes, and breaks of lines as ``\n`` and ``\r``."""
    return '"' + str(name).translate(ESCAPES) + '"'
