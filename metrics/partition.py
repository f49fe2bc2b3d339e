"""Scores of a partition of a graph: code length, sizes, modularity, and agreement with known classes."""

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from map_equation import Partition


def partition_scores(
    partition: "Partition",
    edges: NDArray[np.int64],
    weights: NDArray[np.float64],
    directed: bool,
    labels: NDArray[np.int64] | None = None,
) -> dict[str, float]:
    """The scores of a partition that are logged.

    Args:
        partition: of n nodes.
        edges: (E, 2) int64, source and target.
        weights: (E,) float64.
        directed: whether the links have a direction.
        labels: (n,) int64, known classes, -1 for unknown. None or empty: no agreement is computed.

    Returns:
        ``codelength`` and ``one_level_codelength`` in bits; ``num_modules``, ``num_top_modules`` and ``num_levels``;
        ``modularity`` (Newman's, of the bottom modules, for comparison); if labels are known, ``ami`` and ``nmi`` of
        the bottom modules in [0, 1] (scikit-learn's, arithmetic mean of the entropies; torchmetrics' AMI takes minutes
        for some thousand nodes), and in a hierarchy ``top_ami``, ``top_nmi`` of the top modules.
    """
    scores = {
        "codelength": partition.codelength,
        "one_level_codelength": partition.one_level_codelength,
        "num_modules": float(partition.num_modules),
        "num_top_modules": float(partition.top_modules.max() + 1),
        "num_levels": float(partition.num_levels),
        "modularity": modularity(partition.modules, edges, weights, directed),
    }
    if labels is not None and (labels >= 0).any():
        from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

        known = np.flatnonzero(labels >= 0)
        levels = {"": partition.modules, "top_": partition.top_modules}
        for prefix, modules in levels.items() if partition.num_levels > 2 else [("", partition.modules)]:
            with warnings.catch_warnings():
                # A search may find many classes for few nodes, which scikit-learn suspects to be a regression target.
                warnings.simplefilter("ignore", UserWarning)
                scores[f"{prefix}ami"] = float(adjusted_mutual_info_score(labels[known], modules[known]))
                scores[f"{prefix}nmi"] = float(normalized_mutual_info_score(labels[known], modules[known]))
    return scores


def modularity(
    modules: NDArray[np.int64], edges: NDArray[np.int64], weights: NDArray[np.float64], directed: bool
) -> float:
    """Newman's modularity: the share of weight inside modules, less its expectation given the strengths.

        Q = sum_c [ W_c / W - (S_c / 2W)^2 ]           undirected; W_c weight inside, S_c sum of strengths
        Q = sum_c [ W_c / W - out_c in_c / W^2 ]       directed (Leicht and Newman)

    Args:
        modules: (n,) int64 from 0.
        edges: (E, 2) int64.
        weights: (E,) float64, their sum W positive.
        directed: which formula.
    """
    count = int(modules.max()) + 1
    source, target = modules[edges[:, 0]], modules[edges[:, 1]]
    total = weights.sum()
    inside = weights[source == target].sum() / total
    leaving, entering = (np.bincount(end, weights, count) / total for end in (source, target))
    if directed:
        return float(inside - leaving @ entering)
    return float(inside - (((leaving + entering) / 2) ** 2).sum())
