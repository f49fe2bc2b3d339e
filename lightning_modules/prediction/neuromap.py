"""Soft communities of a user's graph: its nodes in the network's order, and the file to write."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from datamodules.batches import GraphBatch
from layers.graphs import SparseMatrix
from readers.files import replacing

if TYPE_CHECKING:
    from map_equation import Partition


def in_order_of(batch: GraphBatch, names: list[str]) -> GraphBatch:
    """The graph with its nodes in the order of ``names``.

    Raises:
        ValueError: if it has other nodes.
    """
    place = {name: number for number, name in enumerate(names)}
    own = batch.names.tolist()
    unknown = next((name for name in own if name not in place), None)
    if unknown is not None or len(own) != len(names):
        what = f"{len(own)} nodes" if unknown is None else f"a node {unknown!r} that is not among them"
        raise ValueError(
            f"without features the network knows only the {len(names)} nodes that it was trained on, but the graph has "
            f"{what}: train on this graph, or on nodes with features"
        )
    order = torch.tensor([place[name] for name in own])
    labels = torch.empty_like(batch.labels)
    labels[order] = batch.labels
    features = torch.empty_like(batch.features)
    features[order] = batch.features
    return batch._replace(edges=order[batch.edges], labels=labels, features=features, names=np.array(names))


def walked_shares(assignment: Tensor, flow: SparseMatrix) -> Tensor:
    """Where the neighbours of a node are, weighted by the walk between them: rows of ``flow @ assignment``, normalised.

    Args:
        assignment: (n, s), rows that sum to 1; a node without links keeps its row.
        flow: (n, n), the mean of the link flow and its transpose.
    """
    walked = flow @ assignment
    total = walked.sum(1, keepdim=True)
    return torch.where(total > 0, walked / total, assignment)


def order_of_clusters(shares: np.ndarray, partition: "Partition") -> np.ndarray:
    """Clusters in the order of the partition's modules, then those that are no node's largest, by decreasing share."""
    cluster = shares.argmax(1)
    rank = np.full(shares.shape[1], partition.num_modules)
    rank[cluster] = partition.modules
    return np.lexsort((-shares.sum(0), rank))


def write_shares(path: Path, names: list[str], shares: np.ndarray, listed: np.ndarray) -> None:
    """Writes name, module (from 1) and probability of the listed shares, the largest of each node first.

    Args:
        path: of the CSV file, which is replaced only when the new one is complete.
        names: of the n nodes.
        shares: (n, s) in the order of the modules.
        listed: (n, s) bool, which shares to write.
    """
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "module", "probability"])
        for name, row, chosen in zip(names, shares, listed, strict=True):
            modules = np.flatnonzero(chosen)
            for module in modules[np.argsort(-row[modules], kind="stable")]:
                writer.writerow([name, module + 1, f"{row[module]:.4g}"])
