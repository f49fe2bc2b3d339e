"""A random walk on a multilayer network, as links between states: a state is a node in a layer.

A walker in state (i, a) follows a link of layer a, or switches to another layer b and follows a link there:

    relaxed   P(i a -> j b) = (1 - r) [a = b] w^b_ij / s^b_i  +  r w^b_ij / sum_c s^c_i
    switched  W(i a -> j b) = [a = b] w^b_ij  +  d_i^ab w^b_ij / s^b_i

with weights w^b_ij of the links in layer b, s^b_i = sum_j w^b_ij, r the relax rate and d_i^ab the weight of the switch.
Source: De Domenico, Lancichinetti, Arenas, Rosvall, Phys. Rev. X 5, 011027 (2015), section II.
"""

import numpy as np
from numpy.typing import NDArray

Weighted = tuple[NDArray[np.int64], NDArray[np.float64]]


def relaxed_links(
    nodes: NDArray[np.int64], edges: NDArray[np.int64], weights: NDArray[np.float64], relax_rate: float
) -> Weighted:
    """Links of a walk that at the relax rate follows a link of its node in any layer.

    A state without links in its layer keeps only the second term.

    Args:
        nodes: (n,) the node of each state, from 0.
        edges: (E, 2) links inside layers, between states.
        weights: (E,) positive.
        relax_rate: r in [0, 1].

    Returns:
        links between states, possibly repeated, and the probabilities above.
    """
    source, target = edges.T
    node = nodes[source]
    in_layer = np.bincount(source, weights)[source]
    in_all = np.bincount(node, weights)[node]
    count = np.bincount(nodes)
    states = np.argsort(nodes, kind="stable")
    link, place = _ranges((np.cumsum(count) - count)[node], count[node])
    return (
        np.concatenate([edges, np.stack([states[place], target[link]], 1)]),
        np.concatenate([(1 - relax_rate) * weights / in_layer, (relax_rate * weights / in_all)[link]]),
    )


def switched_links(
    edges: NDArray[np.int64],
    weights: NDArray[np.float64],
    switches: NDArray[np.int64],
    switch_weights: NDArray[np.float64],
) -> Weighted:
    """Links of a walk that switches layers along given switches; those to a state without links are dropped.

    Args:
        edges: (E, 2) links inside layers, between states from 0.
        weights: (E,) positive.
        switches: (K, 2) states of one node in two layers.
        switch_weights: (K,) positive.

    Returns:
        links between states, possibly repeated, and the weights above.
    """
    source, target = edges.T
    size = int(max(source.max(), switches.max(initial=0))) + 1
    strength, count = np.bincount(source, weights, size), np.bincount(source, minlength=size)
    into = switches[:, 1]
    links = np.argsort(source, kind="stable")
    switch, place = _ranges((np.cumsum(count) - count)[into], count[into])
    link = links[place]
    shares = switch_weights[switch] * weights[link] / strength[source[link]]
    changes = np.stack([switches[switch, 0], target[link]], 1)
    return np.concatenate([edges, changes]), np.concatenate([weights, shares])


def _ranges(start: NDArray[np.int64], count: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Index and members of each range [start, start + count), concatenated."""
    number = np.repeat(np.arange(len(count)), count)
    return number, np.arange(len(number)) + (start - np.cumsum(count) + count)[number]
