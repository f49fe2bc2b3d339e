"""Nodes that are states of physical nodes: memories of where a walk came from, or layers."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .links import number


class States(NamedTuple):
    """The physical node of each of n states.

    Args:
        names: n names of physical nodes; states of one node have the same.
        nodes: ``(n,)`` int64, the numbers of the physical nodes.
        layers: ``(n,)`` int64, the layers of the states; None if they are no layers.
        place: ``(n,)`` int64, the physical nodes numbered from 0 without a gap.
    """

    names: tuple[Any, ...]
    nodes: np.ndarray
    layers: np.ndarray | None
    place: np.ndarray


def read_states(physical: Any, n: int) -> States:
    """The physical nodes of n states: a label for each (any hashable values), or a ``readers.graphs.graph.States``.

    Raises:
        ValueError: if there is not one per state.
    """
    if hasattr(physical, "nodes") and hasattr(physical, "layers"):
        place = np.unique(physical.nodes, return_inverse=True)[1]
        return States(tuple(physical.names.tolist()), physical.nodes, physical.layers, place)
    labels = physical.tolist() if hasattr(physical, "tolist") else physical  # of an array, tensor or series
    if not isinstance(labels, Sequence) or isinstance(labels, str):
        raise ValueError(f"physical must be a list of labels or an array, not {type(physical).__name__}")
    if len(labels) != n:
        raise ValueError(f"physical must name the physical node of each of the {n} states, not {len(labels)} labels")
    place = number(labels, labels)[0][:, 0]
    numbers = np.asarray(labels) if all(type(label) is int for label in labels) else place
    return States(tuple(labels), numbers if numbers.dtype.kind in "iu" else place, None, place)


def memberships(names: Sequence[Any], modules: np.ndarray, flow: np.ndarray) -> dict[Any, dict[int, float]]:
    """The modules of each name, by decreasing flow, and the flow of the name in each."""
    found: dict[Any, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for name, module, rate in zip(names, modules.tolist(), flow.tolist(), strict=True):
        found[name][module] += rate
    return {name: dict(sorted(rates.items(), key=lambda pair: (-pair[1], pair[0]))) for name, rates in found.items()}
