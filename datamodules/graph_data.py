"""The base of the graph datamodules: one graph, which is the whole data set."""

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
        steps_per_epoch: training batches per epoch.
        graph_batch: the graph, a ``GraphBatch``.
        num_nodes: number of nodes.
        num_features: features per node; 0 if there are none.
        num_classes: number of known classes; 0 if there are none.
    """

    steps_per_epoch = 1

    # The graph is read on first use: building the datamodule for --help costs nothing.

    @property
    @abstractmethod
    def graph_batch(self) -> GraphBatch:
        """The graph."""

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return self.graph_batch.num_nodes

    @property
    def num_features(self) -> int:
        """Features per node; 0 if there are none."""
        return self.graph_batch.features.shape[1]

    @property
    def num_classes(self) -> int:
        """Number of known classes; 0 if there are none."""
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
        digest = hashlib.sha256(repr((graph.num_nodes, bool(graph.directed), graph.bipartite)).encode())
        for tensor in (graph.edges, graph.weights, graph.labels, graph.features):
            digest.update(tensor.numpy().data)
        described: dict[str, Any] = {
            "nodes": graph.num_nodes,
            "links": len(graph.edges),
            "total_weight": float(graph.weights.sum()),
            "self_loops": int((graph.edges[:, 0] == graph.edges[:, 1]).sum()),
            "directed": bool(graph.directed),
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
    """Yields the same graph ``steps`` times per epoch, on every rank: a graph can't be split like items."""

    def __init__(self, graph: GraphBatch, steps: int = 1) -> None:
        self.steps = steps
        super().__init__(lambda _: graph, 1, 1)

    def __len__(self) -> int:
        return self.steps

    def plan(self, epoch: int) -> Sequence[Tensor]:
        return [torch.zeros(1, dtype=torch.int64)] * self.steps


def mixing(graph: GraphBatch) -> float:
    """The weight of links between nodes of different classes, as a share of that between all nodes of known class.

    Self-loops are ignored.
    """
    source, target = graph.edges.unbind(1)
    labels = graph.labels
    counted = (labels[source] >= 0) & (labels[target] >= 0) & (source != target)
    between = counted & (labels[source] != labels[target])
    weight = float(graph.weights[counted].sum())
    return float(graph.weights[between].sum()) / weight if weight else 0.0
