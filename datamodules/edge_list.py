"""A graph from a user's file, or a generated one."""

from functools import cached_property
from typing import Any, get_args

from readers.errors import DataError
from readers.graphs import Graph, read_graph
from readers.graphs.graph import check_links, drop_light_links

from .arguments import check_at_least, check_seed
from .batches import GraphBatch
from .graph_data import GraphDataModule
from .samples.graphs import SampleGraph, classic_graph, lfr_graph, planted_partition


class EdgeListDataModule(GraphDataModule):
    """A graph from a file, or a sample: a random graph or a classic.

    A batch is the whole graph (``GraphBatch``), on every rank; validation and test have one batch.

    Args:
        source: ``sample``, or a file in a format of ``readers.graphs.read_graph``, such as an edge list.
        graph: which graph ``sample`` is: ``planted_partition`` (with features), ``lfr``, or one of ``classic_graph``.
        directed: whether links are directed; None: as the file says, else undirected. Of the samples only
            ``planted_partition`` can be directed.
        labels_file: known labels, for files only: lines ``node label``, or see ``readers.graphs.read_labels``.
        min_weight: drop lighter links; their nodes stay.
        weighted: use the weights; else every link has weight 1.
        steps_per_epoch: training batches per epoch. A search needs one; a network trains much faster with many short
            steps between two validations and checkpoints.
        seed: of ``planted_partition`` and ``lfr``.
        sample_num_nodes: number of nodes of ``planted_partition`` (default 400) and ``lfr`` (default 1000).
        sample_num_communities: number of communities of ``planted_partition``.
        sample_mean_degree: mean degree of ``planted_partition`` and ``lfr``.
        sample_mixing: share of links between communities, in [0, 1], of ``planted_partition`` and ``lfr``. The actual
            share is higher, above all in networkx's LFR graphs: see ``describe``.
        sample_num_features: number of features of ``planted_partition``.

    Attributes:
        graph_batch: the graph.
        num_nodes: number of nodes.
        num_features: features per node; 0 if there are none.
        num_classes: number of known classes; 0 if there are none.

    Raises:
        ValueError: an argument is out of range.
        DataError: the source is ``hub``, or can't be read (the message names file and line).

    Example:
        data:
          class_path: EdgeListDataModule
          init_args: {source: graph.txt, directed: true}
    """

    def __init__(
        self,
        source: str = "sample",
        graph: SampleGraph = "planted_partition",
        directed: bool | None = None,
        labels_file: str | None = None,
        min_weight: float = 0.0,
        weighted: bool = True,
        steps_per_epoch: int = 1,
        seed: int = 0,
        sample_num_nodes: int | None = None,
        sample_num_communities: int = 8,
        sample_mean_degree: float = 14.0,
        sample_mixing: float = 0.3,
        sample_num_features: int = 32,
    ) -> None:
        super().__init__()
        if graph not in get_args(SampleGraph):
            raise ValueError(f"graph ({graph}) must be one of {', '.join(get_args(SampleGraph))}")
        if source == "sample" and directed and graph != "planted_partition":
            raise ValueError(f"directed: the sample {graph} is undirected; planted_partition can be directed")
        if source == "sample" and labels_file is not None:
            raise ValueError("labels_file is not read with source sample, which knows its own labels")
        check_at_least(1, steps_per_epoch=steps_per_epoch, sample_num_communities=sample_num_communities)
        check_at_least(4, sample_num_nodes=sample_num_nodes)
        check_at_least(0, sample_num_features=sample_num_features)
        if not sample_mean_degree > 0:
            raise ValueError(f"sample_mean_degree ({sample_mean_degree}) must be positive")
        if not 0 <= sample_mixing <= 1:
            raise ValueError(f"sample_mixing ({sample_mixing}) must be in [0, 1]")
        if not min_weight >= 0:
            raise ValueError(f"min_weight ({min_weight}) must not be negative")
        check_seed(seed)
        if source == "hub":
            raise DataError("data.source: the hub has no graphs; give the file of your graph, or sample")
        self.source = source
        self.graph: SampleGraph = graph
        self.directed = directed
        self.labels_file = labels_file
        self.min_weight = min_weight
        self.weighted = weighted
        self.steps_per_epoch = steps_per_epoch
        self.seed = seed
        self.sample_num_nodes = sample_num_nodes
        self.sample_num_communities = sample_num_communities
        self.sample_mean_degree = sample_mean_degree
        self.sample_mixing = sample_mixing
        self.sample_num_features = sample_num_features

    @cached_property
    def graph_batch(self) -> GraphBatch:
        if self.source == "sample":
            graph = drop_light_links(self._make(), self.min_weight, f"the sample {self.graph}")
        else:
            graph = check_links(
                read_graph(
                    self.source, directed=self.directed, labels_file=self.labels_file, min_weight=self.min_weight
                ),
                self.source,
            )
        return GraphBatch.from_arrays(*(graph if self.weighted else graph._replace(weights=None)))

    def _make(self) -> Graph:
        if self.graph == "planted_partition":
            return planted_partition(
                self.sample_num_nodes or 400,
                self.sample_num_communities,
                self.sample_mean_degree,
                self.sample_mixing,
                self.sample_num_features,
                bool(self.directed),
                self.seed,
            )
        if self.graph == "lfr":
            return lfr_graph(self.sample_num_nodes or 1000, self.sample_mean_degree, self.sample_mixing, self.seed)
        return classic_graph(self.graph)

    def describe(self) -> dict[str, Any]:
        """What the run was trained on, as plain values."""
        which = {"graph": self.graph} if self.source == "sample" else {}
        return {"source": self.source, **which, **super().describe()}
