"""The result of a search: modules, as sets, tables and files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .flow import UNDIRECTED, kind_of
from .labels import distinct
from .modules import Modules
from .states import memberships
from .writers import write, write_clu, write_csv, write_file, write_json, write_tree

if TYPE_CHECKING:
    import networkx
    import pandas


@dataclass(frozen=True, eq=False, repr=False)
class Partition(Modules):
    """Modules of a graph and their code length; all attributes are described in ``Modules``.

    A search puts every node into a bottom module, one without links into one of its own. The length of a partition is
    the number of bottom modules, and iterating yields them as sets of names. Two are equal if they have the same
    modules of the same nodes, in all levels, and the same flow model. Where nodes have equal names, sets, dicts and
    graphs have them with the node's id behind: ``John (2)``.
    """

    @property
    def _distinct(self) -> Sequence[Any]:
        """The names of the (physical) nodes, without equal ones."""
        return distinct(self.labels, self.ids if self.states is None else self.states.nodes)

    @property
    def communities(self) -> list[set[Any]]:
        """The names of the (physical) nodes of each bottom module, by its number; those of states may overlap."""
        found: list[set[Any]] = [set() for _ in range(self.num_modules)]
        for name, module in zip(self._distinct, self.modules.tolist(), strict=True):
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
        """The bottom module of each node by name; of a physical node, that in which it is visited most."""
        if self.states is None:
            return dict(zip(self._distinct, self.modules.tolist(), strict=True))
        return {name: next(iter(rates)) for name, rates in self.memberships().items()}

    def memberships(self) -> dict[Any, dict[int, float]]:
        """The bottom modules of each (physical) node by name, by decreasing flow, and the node's flow in each.

        A physical node with several states may be in several modules.
        """
        return memberships(self._distinct, self.modules, self.flow)

    def to_dataframe(self) -> "pandas.DataFrame":
        """A row for each node, in their order: ``node`` (its name), ``module`` (bottom), ``path``, ``flow``.

        Of states: ``node`` (the physical node), ``state``, perhaps ``layer``, then as above.
        """
        import pandas

        columns: dict[str, Any] = {"node": self.labels}
        if self.states is not None:
            columns["state"] = self.names
            if self.states.layers is not None:
                columns["layer"] = self.states.layers
        columns |= {"module": self.modules, "path": self.paths, "flow": self.flow}
        return pandas.DataFrame(columns)

    def write(self, path: str | Path, level: int = 1) -> None:
        """Writes a file in the format of the extension of ``path``: ``.tree``, ``.clu``, ``.csv`` or ``.json``.

        An existing file is replaced only when the new one is complete. See ``writers`` for the formats.

        Args:
            path: the file.
            level: whose modules a ``.clu`` file has: 1 for the top modules, -1 for the bottom ones.

        Raises:
            ValueError: for any other extension, a folder that isn't there, or a level that there isn't.
        """
        write(self, path, level)

    def to_tree(self, path: str | Path) -> None:
        """Writes a ``.tree`` file, see ``writers.write_tree``."""
        write_file(path, partial(write_tree, self))

    def to_clu(self, path: str | Path, level: int = 1) -> None:
        """Writes a ``.clu`` file, see ``writers.write_clu``."""
        write_file(path, partial(write_clu, self, level=level))

    def to_csv(self, path: str | Path) -> None:
        """Writes a ``.csv`` file, see ``writers.write_csv``."""
        write_file(path, partial(write_csv, self))

    def to_json(self, path: str | Path) -> None:
        """Writes a ``.json`` file, see ``writers.write_json``."""
        write_file(path, partial(write_json, self))

    def to_networkx(self) -> "networkx.Graph":
        """The graph with ``flow`` on its links and ``module``, ``top_module``, ``path``, ``flow`` on its nodes.

        A ``DiGraph`` if the flow is directed. Self-loops are left out, as they carry no flow between modules.
        """
        import networkx

        undirected = kind_of(self.links) == UNDIRECTED
        graph = networkx.Graph() if undirected else networkx.DiGraph()
        names = distinct(self.names, self.ids)
        for node, place in enumerate(self.paths):
            graph.add_node(
                names[node],
                module=int(self.modules[node]),
                top_module=int(self.top_modules[node]),
                path=place,
                flow=float(self.flow[node]),
            )
        row = np.repeat(np.arange(len(self.flow)), np.diff(self.links.indptr))
        chosen = (row < self.links.neighbour) if undirected else self.links.out > 0
        for a, b, rate in zip(row[chosen], self.links.neighbour[chosen], self.links.out[chosen], strict=True):
            graph.add_edge(names[a], names[b], flow=float(rate) * (2 if undirected else 1))
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
