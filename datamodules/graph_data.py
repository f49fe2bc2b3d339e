"""What the datamodules of graphs share: one graph, which is the whole data."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from .batches import GraphBatch
from .loader import BatchLoader


class GraphDataModule(pl.LightningDataModule, ABC):
    """One graph: training, validation and test each have it as their only batch, on every rank.

    Attributes:
        steps_per_epoch: how often training has it in an epoch.
        graph_batch: the graph, a ``GraphBatch``.
        num_nodes: its nodes.
        num_features: features of a node; 0 without.
        num_classes: known classes of nodes; 0 without.
    """

    steps_per_epoch = 1

    # Everything is read when something first asks for it: building the datamodule for --help costs nothing.

    @property
    @abstractmethod
    def graph_batch(self) -> GraphBatch:
        """The graph."""

    @property
    def num_nodes(self) -> int:
        """How many nodes the graph has."""
        return self.graph_batch.num_nodes

    @property
    def num_features(self) -> int:
        """Features of a node; 0 without."""
        return self.graph_batch.features.shape[1]

    @property
    def num_classes(self) -> int:
        """Known classes of nodes; 0 without."""
        return int(self.graph_batch.labels.max()) + 1

    def setup(self, stage: str | None = None) -> None:
        """Make or read the graph; the same in every process and at every stage."""
        self.graph_batch  # noqa: B018

    def train_dataloader(self) -> "GraphLoader":
        return GraphLoader(self.graph_batch, self.steps_per_epoch)

    def val_dataloader(self) -> "GraphLoader":
        return GraphLoader(self.graph_batch)

    test_dataloader = predict_dataloader = val_dataloader

    def describe(self) -> dict[str, Any]:
        """What the run was trained on, as plain values."""
        graph = self.graph_batch
        digest = hashlib.sha256(repr((graph.num_nodes, graph.directed, graph.bipartite)).encode())
        for tensor in (graph.edges, graph.weights, graph.labels, graph.features):
            digest.update(tensor.numpy())
        described = {
            "nodes": graph.num_nodes,
            "links": len(graph.edges),
            "total_weight": float(graph.weights.sum()),
            "self_loops": int((graph.edges[:, 0] == graph.edges[:, 1]).sum()),
            "directed": graph.directed,
            "features": self.num_features,
            "classes": self.num_classes,
            "fingerprint": digest.hexdigest()[:16],
        }
        if graph.bipartite:
            described["first_kind"] = graph.bipartite
        if self.num_classes:
            described["mixing"] = mixing(graph)
        return described


class GraphLoader(BatchLoader):
    """Yields the same graph ``steps`` times an epoch, on every rank: a graph can't be divided as items can."""

    def __init__(self, graph: GraphBatch, steps: int = 1) -> None:
        self.steps = steps
        super().__init__(lambda _: graph, 1, 1)

    def __len__(self) -> int:
        return self.steps

    def plan(self, epoch: int) -> Sequence[Tensor]:
        return [torch.zeros(1, dtype=torch.int64)] * self.steps


def mixing(graph: GraphBatch) -> float:
    """The weight between nodes of different known classes, as a share of all between nodes of known class.

    Self-loops don't count.
    """
    source, target = graph.edges.unbind(1)
    labels = graph.labels
    counted = (labels[source] >= 0) & (labels[target] >= 0) & (source != target)
    between = counted & (labels[source] != labels[target])
    weight = float(graph.weights[counted].sum())
    return float(graph.weights[between].sum()) / weight if weight else 0.0
