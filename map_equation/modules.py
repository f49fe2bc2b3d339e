"""Modules of a graph as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .flow import Flow
from .states import States


@dataclass(frozen=True, eq=False)
class Modules:
    """Modules of a graph and their code length, in bits per step of the flow model's walk.

    Modules are numbered from 0, siblings by decreasing flow; bottom modules are numbered in tree order. Nodes may be
    siblings of modules: directly under the root each counts as a module of its own, as in Infomap; under a module all
    of them count as one, after its sub-modules. ``names[i]``, ``modules[i]``, ``flow[i]``, ``paths[i]`` belong to one
    node.

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
        states: the physical nodes, if the nodes are states of such, or None.
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
    states: States | None

    def __post_init__(self) -> None:
        for name in ("names", "passes", "codelengths"):  # a result's own, which another one doesn't share
            object.__setattr__(self, name, list(getattr(self, name)))

    @property
    def labels(self) -> Sequence[Any]:
        """``names``, or the names of the physical nodes, which their states share."""
        return self.names if self.states is None else self.states.names

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
