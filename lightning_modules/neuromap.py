"""Neuromap: communities of a graph by a network trained to minimise the map equation."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pytorch_lightning as pl
import scipy.sparse
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from datamodules.batches import GraphBatch
from layers.graphs import GraphNetwork, GraphSAGE, MapEquationLoss, SparseMatrix
from layers.weights import normalize_weights
from metrics.partition import partition_scores
from readers.graphs import read_graph

from .graph_walk import FlowModel, walk_on
from .hyperparameters import save_plain_hyperparameters
from .optimization import Interval, Optimized, OptimizerSlot, SchedulerSlot
from .prediction.endings import check_ending
from .prediction.neuromap import in_order_of, order_of_clusters, walked_shares, write_shares
from .trained_models import LoadsTrained

if TYPE_CHECKING:
    from map_equation import Network


class PreparedGraph(NamedTuple):
    """What the module computes once per graph.

    Args:
        names: the graph's array of node names, which identifies it.
        walk: its random walk.
        loss: the map equation of that walk, on the module's device.
        features: (n, F) input of the network: the nodes' features, else the adjacency matrix.
        adjacency: (n, n) weights of the messages from neighbours.
    """

    names: np.ndarray
    walk: "Network"
    loss: MapEquationLoss
    features: Tensor | SparseMatrix
    adjacency: SparseMatrix


class Neuromap(Optimized, LoadsTrained, pl.LightningModule):
    """Neuromap: soft communities of a graph, from a network whose loss is the map equation.

        S = softmax(network(X) / sigmoid(t)),   t learned, initially 0;   loss = L(S), bits

    A row of S assigns a node to ``num_clusters`` clusters; L is the code length of a random walk on the graph
    (``layers.MapEquationLoss``). The number of communities is not fixed: clusters that don't shorten the code stay
    empty. Rows with several entries are overlapping communities; for the partition that is scored, each node is in its
    largest. X are the nodes' features if the graph has them, else its adjacency matrix.

    Training is full-batch: a batch is the whole graph. Time and memory of the loss grow with links + nodes * clusters.

    Batches: ``datamodules.batches.GraphBatch``; labels are used for the test scores only.

    Logged, in bits per step of the walk: ``train/loss``, ``val/loss``, the code length of S; ``val/codelength``,
    ``test/codelength``, that of the partition. Also ``val/num_modules``,
    ``test/{one_level_codelength,num_modules,num_top_modules,num_levels,modularity}`` and, if classes are known,
    ``test/ami`` and ``test/nmi``.

    Source: Blöcker, Tan, Scholtes, arXiv 2310.01144. Differences: see the loss; the adjacency is divided by the mean
    link weight; messages pass along directed links both ways.

    Args:
        network: the slot of the assignment network, called with the number of features (without features, the number
            of nodes) and of clusters.
        num_clusters: s, the largest number of communities that can be found; None: four times the square root of the
            number of nodes (the paper takes the root itself; clusters die out in training, and too few merge
            communities).
        flow: the walk: ``undirected``, ``directed`` (unrecorded teleportation to links), ``directed_recorded``,
            ``directed_to_nodes``, ``directed_recorded_to_nodes``, or ``uniform_recorded``, the article's. None:
            ``directed`` if the graph is, else ``undirected``. Code lengths of different walks are not comparable.
        teleportation: probability per step, in [0, 1]; ignored by ``undirected``.
        weight_normalization: which weights are normalised before use, ``{pattern: kind}`` (see
            ``layers.normalize_weights``).
        lr: learning rate.
        optimizer: the optimizer slot, called with the parameters and ``lr``.
        scheduler: the slot of the learning-rate scheduler, called with the optimizer; None: a constant rate.
        scheduler_interval: when it moves on: after each ``epoch`` or each optimizer ``step``.
        num_nodes: nodes of the graph; given by the data.
        num_features: features per node, 0 for none; given by the data.

    Raises:
        ValueError: if there are fewer than 1 clusters, or the graph doesn't fit the network or the walk.

    Example:
        model:
          class_path: Neuromap
          init_args: {network: GCN, num_clusters: 20}
        data:
          class_path: EdgeListDataModule
          init_args: {source: graph.csv}
    """

    hparams: Any  # Lightning types it as a mapping without attributes

    monitor = "val/codelength"
    mode = "min"
    data_links = ("num_nodes", "num_features")

    def __init__(
        self,
        network: Callable[[int, int], GraphNetwork] = GraphSAGE,
        num_clusters: int | None = None,
        flow: FlowModel | None = None,
        teleportation: float = 0.15,
        weight_normalization: dict[str, str] | None = None,
        lr: float = 0.01,
        optimizer: OptimizerSlot = torch.optim.Adam,
        scheduler: SchedulerSlot | None = None,
        scheduler_interval: Interval = "epoch",
        num_nodes: int = 1,
        num_features: int = 0,
    ) -> None:
        super().__init__()
        save_plain_hyperparameters(self)
        if num_clusters is None:
            num_clusters = min(num_nodes, round(4 * num_nodes**0.5))
        if num_clusters < 1:
            raise ValueError(f"num_clusters ({num_clusters}) must be at least 1")
        self.set_optimizer(optimizer, scheduler, scheduler_interval)
        self.network = network(num_features or num_nodes, num_clusters)
        self.temperature = nn.Parameter(torch.zeros(()))
        normalize_weights(self, weight_normalization)
        self.node_names: list[str] | None = None
        self._prepared: PreparedGraph | None = None

    def __getstate__(self) -> dict[str, Any]:
        # What is computed anew when needed; sparse tensors can't be copied.
        return super().__getstate__() | {"_prepared": None}

    def forward(self, batch: GraphBatch) -> Tensor:
        """S (n, num_clusters): the share of each node in each cluster; rows sum to 1."""
        prepared = self.prepare(batch)
        logits = self.network(prepared.features, prepared.adjacency)
        return (logits.to(self.temperature.dtype) / self.temperature.sigmoid()).softmax(1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return self.optimize(self.parameters())

    # -------------------------------------------------------------------------------------------------------- steps

    def training_step(self, batch: GraphBatch, batch_idx: int) -> Tensor:
        loss = self.prepare(batch).loss(self(batch))
        self._log("train/loss", loss.detach(), prog_bar=True)
        return loss

    def validation_step(self, batch: GraphBatch, batch_idx: int) -> None:
        assignment = self(batch)
        prepared = self.prepare(batch)
        partition = prepared.walk.partition(_largest(assignment))
        self._log("val/loss", prepared.loss(assignment))
        self._log("val/codelength", partition.codelength, prog_bar=True)
        self._log("val/num_modules", float(partition.num_modules), prog_bar=True)

    def test_step(self, batch: GraphBatch, batch_idx: int) -> dict[str, Any]:
        """Returns the partition and the graph, for files and pictures."""
        partition = self.prepare(batch).walk.partition(_largest(self(batch)))
        edges, weights, labels = (tensor.cpu().numpy() for tensor in (batch.edges, batch.weights, batch.labels))
        scores = partition_scores(partition, edges, weights, bool(batch.directed), labels)
        for name, value in scores.items():
            self._log(f"test/{name}", value)
        return {"partition": replace(partition, names=batch.names.tolist()), "graph": batch}

    def _log(self, name: str, value: Tensor | float, prog_bar: bool = False) -> None:
        self.log(name, value, prog_bar=prog_bar, batch_size=1, sync_dist=not name.startswith("train"))

    # -------------------------------------------------------------------------------------------------------- graph

    def prepare(self, batch: GraphBatch) -> PreparedGraph:
        """Walk, loss and network input, computed once per graph and not saved in checkpoints.

        Raises:
            ValueError: if the graph doesn't fit the network.
        """
        known = self._prepared
        # The names stay the same array when the tensors are moved to a device.
        if known is None or known.names is not batch.names or known.adjacency.device != self.device:
            self._check_fits(batch)
            # Lightning validates in inference mode, whose tensors can't be used in training.
            with torch.inference_mode(False):
                self._prepared = known = self._prepare(batch)
        return known

    def _prepare(self, batch: GraphBatch) -> PreparedGraph:
        precision = torch.promote_types(self.temperature.dtype, torch.float32)
        walk = walk_on(batch, self.hparams.flow, self.hparams.teleportation)
        leave, land = walk.teleportation_rates() or (None, None)
        loss = MapEquationLoss(walk.link_flow(), walk.flow, leave, land, dtype=precision, device=self.device)
        adjacency = SparseMatrix(adjacency_matrix(batch), precision, self.device)
        features = batch.features.to(self.device, self.temperature.dtype) if self.hparams.num_features else adjacency
        return PreparedGraph(batch.names, walk, loss, features, adjacency)

    def _check_fits(self, batch: GraphBatch) -> None:
        if batch.states is not None:
            raise ValueError("Neuromap takes no states of physical nodes (*States, layers): InfomapClustering does")
        wanted, features = self.hparams.num_features, batch.features.shape[1]
        if wanted and features != wanted:
            raise ValueError(
                f"the network was trained on nodes with {wanted} features, these have {features or 'none'}: "
                "give them as `features` in an .npz file"
            )
        if wanted:
            return
        if batch.num_nodes != self.hparams.num_nodes:
            raise ValueError(
                f"without features the network knows only the {self.hparams.num_nodes} nodes that it was trained on, "
                f"but the graph has {batch.num_nodes}: train on this graph, or on nodes with features"
            )
        if self.node_names is None:
            self.node_names = batch.names.tolist()
        elif self.node_names != batch.names.tolist():
            raise ValueError(
                "without features the network knows only the nodes that it was trained on, in their order, but "
                "this graph has others: train on this graph, or on nodes with features"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["node_names"] = self.node_names

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.node_names = checkpoint["node_names"]

    # --------------------------------------------------------------------------------------------------- prediction

    @torch.inference_mode()
    def predict_file(
        self,
        input: Path,
        output: Path,
        directed: bool | None = None,
        min_weight: float = 0.0,
        shares: Literal["network", "walk"] = "network",
        threshold: float = 0.1,
    ) -> str:
        """Assigns the nodes of a graph to communities that may overlap.

        A network trained without features knows only its own nodes: the graph must have the same ones.

        Args:
            input: a graph file in any format that ``readers.graphs.read_graph`` knows (docs/infomap.md); only .npz
                holds features.
            output: the CSV file to write: name, module, probability; one line per community that a node has a share in,
                its largest first. Modules are numbered from 1 by decreasing flow.
            directed: whether links have a direction; by default what the file says, else undirected.
            min_weight: links with a smaller weight are dropped.
            shares: ``network``: the rows of S, which training drives towards one module per node; ``walk``: the share
                of the walk's steps into and out of a node that its neighbours' rows assign to each module, which still
                shows where communities overlap.
            threshold: smaller shares are left out, except the largest of each node.

        Returns:
            A summary for the terminal.

        Raises:
            ValueError: if ``threshold`` is out of range, the output has another extension, the file is no graph, or the
                graph doesn't fit the network.
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold ({threshold}) must be in [0, 1]")
        check_ending(output, (".csv",))
        self.eval()
        batch = GraphBatch.from_arrays(*read_graph(input, directed=directed, min_weight=min_weight))
        if not self.hparams.num_features and self.node_names is not None:
            batch = in_order_of(batch, self.node_names)
        assignment = self(batch)
        prepared = self.prepare(batch)
        partition = prepared.walk.partition(_largest(assignment))
        order = order_of_clusters(assignment.cpu().numpy(), partition)
        if shares == "walk":
            assignment = walked_shares(assignment, prepared.loss.symmetric)
        table = assignment.cpu().numpy()[:, order]
        listed = table >= threshold
        listed[np.arange(len(table)), table.argmax(1)] = True
        write_shares(Path(output), batch.names.tolist(), table, listed)
        return (
            f"{batch.num_nodes} nodes, {len(batch.edges)} links: {partition.num_modules} modules, "
            f"{partition.codelength:.6f} bits ({partition.one_level_codelength:.6f} without modules), flow "
            f"{partition.flow_model}; {int((listed.sum(1) > 1).sum())} nodes in more than one -> {output}"
        )


def adjacency_matrix(batch: GraphBatch) -> scipy.sparse.csr_array:
    """The adjacency matrix (n, n) of a graph with all links made undirected, scaled to mean link weight 1."""
    source, target = batch.edges.cpu().numpy().T
    weight = batch.weights.cpu().numpy()
    links = scipy.sparse.coo_array((weight / weight.mean(), (source, target)), (batch.num_nodes,) * 2).tocsr()
    return (links + links.T - scipy.sparse.diags_array(links.diagonal())).tocsr()


def _largest(assignment: Tensor) -> np.ndarray:
    return assignment.argmax(1).cpu().numpy()
