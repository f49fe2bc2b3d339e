"""The result of a search: modules and code lengths."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .flow import UNDIRECTED, Flow, kind_of

if TYPE_CHECKING:
    import networkx
    import pandas


@dataclass(frozen=True, eq=False)
class Partition:
    """Modules of a graph and their code length. All code lengths are in bits per step of the flow model's walk.

    Modules are numbered from 0, siblings by decreasing flow; bottom modules are numbered in tree order. A search puts
    every node into a bottom module, one without links into one of its own. In a given partition nodes may be siblings
    of modules: directly under the root each counts as a module of its own, as in Infomap; under a module all of them
    count as one, after its sub-modules.

    ``names[i]``, ``modules[i]``, ``flow[i]``, ``paths[i]`` belong to one node. Its length is the number of bottom
    modules, and iterating yields them as sets of names. Two are equal if they have the same modules of the same nodes,
    in all levels, and the same flow model.

    Args:
        codelength: ``index_codelength + module_codelength``.
        index_codelength: cost of the root's code book, which names the top modules.
        module_codelength: cost of all other code books.
        one_level_codelength: cost without modules, the entropy of the visit rates.
        modules: ``(n,)`` int64, the bottom module of each node.
        top_modules: ``(n,)`` int64, the top module of each node.
        flow: ``(n,)`` visit rate of each node; they sum to 1, or are 0 in a graph without links.
        flow_model: the flow model of the code lengths; those of different models are not comparable.
        table: ``(n, num_levels - 1)`` number of the node's module among its siblings, level by level from the top,
            -1 below the bottom module (branches may differ in depth).
        links: the flow that was searched, as arrays.
        names: of the nodes: 0 ... n - 1 where they are ids without a gap.
        ids: ``(n,)`` the numbers of the nodes in the graph's file beside their names, or None.
        passes: code length at the start of the search (without modules, or with the initial ones) and after each pass
            (moves, tuning, levels), never increasing; the last one is ``codelength``.
        codelengths: of all trials, in order; empty for a given partition.
    """

    codelength: float
    index_codelength: float
    module_codelength: float
    one_level_codelength: float
    modules: np.ndarray
    top_modules: np.ndarray
    flow: np.ndarray
    flow_model: str
    table: np.ndarray
    links: Flow
    names: list[Any]
    ids: np.ndarray | None
    passes: list[float]
    codelengths: list[float]

    @property
    def num_modules(self) -> int:
        """Number of bottom modules."""
        return int(self.modules.max()) + 1

    @property
    def num_top_modules(self) -> int:
        """Number of top modules."""
        return int(self.top_modules.max()) + 1

    @property
    def num_levels(self) -> int:
        """Levels of the tree, nodes included: 2 for a flat partition."""
        return self.table.shape[1] + 1

    @property
    def one_level(self) -> float:
        """``one_level_codelength``."""
        return self.one_level_codelength

    @property
    def relative_savings(self) -> float:
        """``1 - codelength / one_level_codelength``; 0 if there is nothing to save."""
        return 1 - self.codelength / self.one_level_codelength if self.one_level_codelength > 0 else 0.0

    @property
    def relative_codelength_savings(self) -> float:
        """``relative_savings``, as Infomap calls it."""
        return self.relative_savings

    @property
    def paths(self) -> list[tuple[int, ...]]:
        """The modules of each node from top to bottom, each numbered among its siblings."""
        return [tuple(number for number in row if number >= 0) for row in self.table.tolist()]

    @property
    def communities(self) -> list[set[Any]]:
        """The names of the nodes of each bottom module, by its number."""
        found: list[set[Any]] = [set() for _ in range(self.num_modules)]
        for name, module in zip(self.names, self.modules.tolist(), strict=True):
            found[module].add(name)
        return found

    def __len__(self) -> int:
        return self.num_modules

    def __iter__(self) -> Iterator[set[Any]]:
        return iter(self.communities)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Partition):
            return NotImplemented
        if self.flow_model != other.flow_model or self.table.shape != other.table.shape:
            return False
        if self.names == other.names and (self.table == other.table).all():
            return True
        return self._groups() == other._groups()

    def __hash__(self) -> int:
        return hash((self.flow_model, self.table.shape, self.num_modules))

    def _groups(self) -> list[set[frozenset[Any]]]:
        """The sets of names that share a module, in each level."""
        levels: list[set[frozenset[Any]]] = []
        for level in range(1, self.num_levels):
            groups: dict[tuple[int, ...], list[Any]] = {}
            for name, row in zip(self.names, self.table[:, :level].tolist(), strict=True):
                if row[-1] >= 0:
                    groups.setdefault(tuple(row), []).append(name)
            levels.append({frozenset(group) for group in groups.values()})
        return levels

    def __repr__(self) -> str:
        return (
            f"Partition({self.num_modules} modules, {self.num_levels} levels, "
            f"{self.codelength:.6f} bits, {self.flow_model})"
        )

    def name(self, node: int) -> Any:
        """The name of a node."""
        return self.names[node]

    def to_dict(self) -> dict[Any, int]:
        """The bottom module of each node by name."""
        return dict(zip(self.names, self.modules.tolist(), strict=True))

    def to_dataframe(self) -> "pandas.DataFrame":
        """A row for each node, in their order: ``node`` (its name), ``module`` (bottom), ``path``, ``flow``."""
        import pandas

        columns = {"node": self.names, "module": self.modules, "path": self.paths, "flow": self.flow}
        return pandas.DataFrame(columns)

    def write(self, path: str | Path, level: int = 1) -> None:
        """Writes a file in the format of the extension of ``path``: ``.tree``, ``.clu``, ``.csv`` or ``.json``.

        An existing file is replaced only when the new one is complete. See ``writers`` for the formats.

        Args:
            path: the file.
            level: whose modules a ``.clu`` file has: 1 for the top modules, -1 for the bottom ones.

        Raises:
            ValueError: for any other extension, or a level that there isn't.
        """
        from .writers import write

        write(self, path, level)

    def to_tree(self, path: str | Path) -> None:
        """Writes a ``.tree`` file, see ``writers.write_tree``."""
        from .writers import write_tree

        write_tree(self, Path(path))

    def to_clu(self, path: str | Path, level: int = 1) -> None:
        """Writes a ``.clu`` file, see ``writers.write_clu``."""
        from .writers import write_clu

        write_clu(self, Path(path), level)

    def to_csv(self, path: str | Path) -> None:
        """Writes a ``.csv`` file, see ``writers.write_csv``."""
        from .writers import write_csv

        write_csv(self, Path(path))

    def to_json(self, path: str | Path) -> None:
        """Writes a ``.json`` file, see ``writers.write_json``."""
        from .writers import write_json

        write_json(self, Path(path))

    def modules_at(self, level: int) -> np.ndarray:
        """``(n,)`` int64, the modules of a level: 1 for the top, -1 for the bottom.

        A node whose bottom module lies higher up is in that module. Numbered in tree order.

        Raises:
            ValueError: for a level that there isn't.
        """
        if level == -1:
            return self.modules
        if not 1 <= level < self.num_levels:
            raise ValueError(f"level ({level}) must be 1 to {self.num_levels - 1}, or -1 for the bottom modules")
        if level == 1:
            return self.top_modules
        label = np.where(self.table[:, level - 1] >= 0, -1, self.modules)
        rows = np.column_stack([self.table[:, :level], label])
        first, place = np.unique(rows, axis=0, return_index=True, return_inverse=True)[1:]
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(self.modules[first], kind="stable")] = np.arange(len(first))
        return rank[place.ravel()]

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
