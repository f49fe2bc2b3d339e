"""The result of a search: modules, code lengths, and the files they are written to."""

import csv
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .flow import UNDIRECTED, Flow, kind_of

if TYPE_CHECKING:
    import networkx


@dataclass(frozen=True, eq=False)
class Partition:
    """Modules of a graph and their code length. All code lengths are in bits per step of the flow model's walk.

    Modules are numbered from 0, siblings by decreasing flow; bottom modules are numbered in tree order. A search puts
    every node into a bottom module. In a given partition nodes may be siblings of modules: directly under the root each
    counts as a module of its own, as in Infomap; under a module all of them count as one, after its sub-modules.

    Args:
        codelength: ``index_codelength + module_codelength``.
        index_codelength: cost of the root's code book, which names the top modules.
        module_codelength: cost of all other code books.
        one_level_codelength: cost without modules, the entropy of the visit rates.
        modules: ``(n,)`` int64, the bottom module of each node.
        top_modules: ``(n,)`` int64, the top module of each node.
        num_modules: number of bottom modules.
        num_levels: levels of the tree, nodes included: 2 for a flat partition.
        flow: ``(n,)`` visit rate of each node; they sum to 1.
        flow_model: the flow model of the code lengths; those of different models are not comparable.
        table: ``(n, num_levels - 1)`` number of the node's module among its siblings, level by level from the top,
            -1 below the bottom module (branches may differ in depth).
        links: the flow that was searched, as arrays.
        names: node names of a graph object, or None.
        passes: code length at the start of the search (without modules, or with the initial ones) and after each pass
            (moves, tuning, levels), never increasing; the last one is ``codelength``.
    """

    codelength: float
    index_codelength: float
    module_codelength: float
    one_level_codelength: float
    modules: np.ndarray
    top_modules: np.ndarray
    num_modules: int
    num_levels: int
    flow: np.ndarray
    flow_model: str
    table: np.ndarray
    links: Flow
    names: list[Any] | None
    passes: list[float]

    @property
    def paths(self) -> list[tuple[int, ...]]:
        """The modules of each node from top to bottom, each numbered among its siblings."""
        return [tuple(int(number) for number in row if number >= 0) for row in self.table]

    def __repr__(self) -> str:
        return (
            f"Partition({self.num_modules} modules, {self.num_levels} levels, "
            f"{self.codelength:.6f} bits, {self.flow_model})"
        )

    def name(self, node: int) -> Any:
        """The name of a node in a graph object, else its number."""
        return self.names[node] if self.names else node

    def write(self, path: str | Path) -> None:
        """Writes a file in the format of the extension of ``path``: ``.tree``, ``.clu`` or ``.csv``.

        An existing file is replaced only when the new one is complete.

        Raises:
            ValueError: for any other extension.
        """
        path = check_ending(path)
        part = path.with_name(f"{path.name}.part")
        WRITERS[path.suffix](self, part)
        os.replace(part, path)

    def to_tree(self, path: str | Path) -> None:
        """Writes a ``.tree`` file: ``1:2:3 flow "name" node``, numbers from 1, the last one within the module.

        Nodes that are siblings of modules are numbered after them, so paths are unique.
        """
        with Path(path).open("w", encoding="utf-8") as file:
            file.write(f"# codelength {self.codelength:.12g} bits, flow {self.flow_model}\n# path flow name node_id\n")
            last: dict[tuple[int, ...], int] = defaultdict(int)  # number of the last child of a module
            for node in self.order():
                modules = tuple(number + 1 for number in self.table[node].tolist() if number >= 0)
                for depth, number in enumerate(modules):
                    last[modules[:depth]] = number
                last[modules] += 1
                place = ":".join(map(str, (*modules, last[modules])))
                file.write(f'{place} {self.flow[node]:.12g} "{self.name(node)}" {node}\n')

    def to_clu(self, path: str | Path) -> None:
        """Writes a ``.clu`` file: ``node module flow`` per node, with top modules numbered from 1.

        Nodes are given by name, in quotes unless it is a number; without names by their number from 0.
        """
        with Path(path).open("w", encoding="utf-8") as file:
            file.write(f"# codelength {self.codelength:.12g} bits, flow {self.flow_model}\n# node module flow\n")
            for node in self.order():
                name = str(self.name(node))
                name = name if name.isdecimal() else f'"{name}"'
                file.write(f"{name} {self.top_modules[node] + 1} {self.flow[node]:.12g}\n")

    def to_csv(self, path: str | Path) -> None:
        """Writes one line per node in tree order: name, module, top module, path (all from 1), flow."""
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["name", "module", "top_module", "path", "flow"])
            for node in self.order():
                place = ":".join(str(number + 1) for number in self.table[node] if number >= 0)
                module, top = self.modules[node] + 1, self.top_modules[node] + 1
                writer.writerow([self.name(node), module, top, place, f"{self.flow[node]:.12g}"])

    def order(self) -> np.ndarray:
        """Nodes by bottom module, within it by decreasing flow."""
        return np.lexsort((np.arange(len(self.flow)), -self.flow, self.modules))

    def to_networkx(self) -> "networkx.Graph":
        """The graph with ``flow`` on its links and ``module``, ``top_module``, ``path``, ``flow`` on its nodes.

        A ``DiGraph`` if the flow is directed. Self-loops are left out, as they carry no flow between modules.
        """
        import networkx

        undirected = kind_of(self.links) == UNDIRECTED
        graph = networkx.Graph() if undirected else networkx.DiGraph()
        for node, place in enumerate(self.paths):
            graph.add_node(
                self.name(node),
                module=int(self.modules[node]),
                top_module=int(self.top_modules[node]),
                path=place,
                flow=float(self.flow[node]),
            )
        row = np.repeat(np.arange(len(self.flow)), np.diff(self.links.indptr))
        chosen = (row < self.links.neighbour) if undirected else self.links.out > 0
        for a, b, rate in zip(row[chosen], self.links.neighbour[chosen], self.links.out[chosen], strict=True):
            graph.add_edge(self.name(a), self.name(b), flow=float(rate) * (2 if undirected else 1))
        return graph


WRITERS = {".tree": Partition.to_tree, ".clu": Partition.to_clu, ".csv": Partition.to_csv}


def check_ending(path: str | Path) -> Path:
    """The path, if its extension is one that ``Partition.write`` knows.

    Raises:
        ValueError: if it is not.
    """
    path = Path(path)
    if path.suffix not in WRITERS:
        raise ValueError(f"{path} must end in {', '.join(WRITERS)}")
    return path


def number_modules(table: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Module numbers among siblings by decreasing flow (ties: smallest node first), and bottom modules in tree order.

    Nodes that are siblings of modules come after them; each one directly under the root is a bottom module.

    Args:
        table: ``(n, depth)`` numbers that are unique in each level, -1 below the bottom module.
    """
    numbers = np.full_like(table, -1)
    above = np.zeros(len(table), np.int64)  # rank of the parent module in its level
    for level in range(table.shape[1]):
        label = table[:, level]
        here = np.flatnonzero(label >= 0)
        count = int(label.max()) + 1
        weight = np.bincount(label[here], flow[here], count)
        first, parent = np.full(count, len(table)), np.zeros(count, np.int64)
        np.minimum.at(first, label[here], here)
        parent[label[here]] = above[here]
        order = np.lexsort((first, -weight.round(14), parent))
        rank = np.empty(count, np.int64)
        rank[order] = np.arange(count)
        start = np.searchsorted(parent[order], np.arange(count + len(table) + 1))
        numbers[here, level] = (rank - start[parent])[label[here]]
        above[here] = rank[label[here]]
    level = (table >= 0).sum(1) - 1
    key = level * len(table) + np.where(level < 0, np.arange(len(table)), above)
    first, bottom = np.unique(key, return_index=True, return_inverse=True)[1:]
    places = np.where(numbers[first] < 0, len(table), numbers[first])
    order = np.lexsort((first, -flow[first].round(14), *places.T[::-1]))
    rank = np.empty(len(first), np.int64)
    rank[order] = np.arange(len(first))
    return numbers, rank[bottom]


def top_modules(numbers: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """``(n,)`` from the result of ``number_modules``: nodes directly under the root come after the modules."""
    top = numbers[:, 0].copy()
    alone = top < 0
    if alone.any():
        top[alone] = top.max() + 1 + bottom[alone] - bottom[alone].min()
    return top
