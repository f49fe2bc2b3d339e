"""Communities of a graph by the map equation: a search run as training, one trial per epoch."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from datamodules.batches import GraphBatch
from layers.processes import gather_objects
from metrics.partition import partition_scores

from .graph_walk import FlowModel, walk_on
from .hyperparameters import save_plain_hyperparameters

if TYPE_CHECKING:
    from map_equation import Network, Partition


class InfomapClustering(pl.LightningModule):
    """InfoMap: the partition of a graph, flat or hierarchical, that describes a random walk on it in the fewest bits.

        L(M) = q H(Q) + sum_i p_i H(P_i)

    q, Q: rate and distribution of the code words that name modules; p_i, P_i: those of module i, its exit included.

    An epoch is one trial of the search (with several ``steps_per_epoch`` in the data, each step is one), so
    ``max_epochs`` is the number of trials. They are divided among the processes, and each trial has its own random
    stream: the best is the same for any number of processes. There is nothing to differentiate; the optimizer steps
    that Lightning expects count the trials. Only the best partition is kept, as part of the ``state_dict``.

    Batches: ``datamodules.batches.GraphBatch``, one per epoch, the same in every process.

    Logged, in bits per step of the walk: ``train/loss``, the code length of the epoch's best trial;
    ``train/pass_codelength`` after each pass of each trial (with ``train/trial`` and ``train/pass``);
    ``val/codelength``, ``test/codelength`` of the best partition so far. Also ``val/num_modules``,
    ``test/{one_level_codelength,num_modules,num_top_modules,num_levels,modularity}`` and, if classes are known,
    ``test/ami``, ``test/nmi`` of the bottom modules (in a hierarchy also ``test/top_ami``, ``test/top_nmi``).

    Source: kexue.fm/archives/7006; Rosvall and Bergstrom 2008, 2011. Difference: the search is our own, see
    ``map_equation``.

    Args:
        flow: the walk: ``undirected``, ``directed`` (unrecorded teleportation to links), ``directed_recorded``,
            ``directed_to_nodes``, ``directed_recorded_to_nodes``, or ``uniform_recorded``, the article's. None:
            ``directed`` if the graph is, else ``undirected``. Code lengths of different walks are not comparable.
        two_level: a flat partition, no hierarchy.
        teleportation: probability per step, in [0, 1]; ignored by ``undirected``.
        markov_time: steps per code word; above 1 gives larger modules, below 1 smaller ones.
        seed: of the search.

    Raises:
        ValueError: if an argument is out of range, or the graph has no links.

    Example:
        model:
          class_path: InfomapClustering
          init_args: {two_level: true}
        data:
          class_path: EdgeListDataModule
          init_args: {source: graph.csv}
    """

    hparams: Any  # Lightning types it as a mapping without attributes

    monitor = "val/codelength"
    mode = "min"
    needs_training = False
    table: Tensor
    trials_done: Tensor

    def __init__(
        self,
        flow: FlowModel | None = None,
        two_level: bool = False,
        teleportation: float = 0.15,
        markov_time: float = 1.0,
        seed: int = 1,
    ) -> None:
        super().__init__()
        save_plain_hyperparameters(self)
        if not 0 <= teleportation <= 1:
            raise ValueError(f"teleportation ({teleportation}) must be in [0, 1]")
        if not markov_time > 0:
            raise ValueError(f"markov_time ({markov_time}) must be positive")
        if seed < 0:
            raise ValueError(f"seed ({seed}) must not be negative")
        # Counted up by SGD with a gradient of -1, so checkpoints, callbacks and several processes work as usual.
        self.trials = nn.Parameter(torch.zeros(()))
        self.register_buffer("table", torch.empty(0, 0, dtype=torch.int32))
        self.register_buffer("trials_done", torch.zeros((), dtype=torch.int64))  # by all processes together
        self._best_length: float | None = None  # of the table, once known
        self._nodes: str | None = None  # digest of the names of the table's nodes
        self._network: tuple[np.ndarray, Network] | None = None

    def configure_optimizers(self) -> Optimizer:
        return SGD([self.trials], lr=1.0)

    def training_step(self, batch: GraphBatch, batch_idx: int) -> dict[str, Any]:
        network = self.network(batch)
        if self._best_length is None:
            self._best_length = network.codelength(self._table(batch)) if len(self.table) else float("inf")
        trial, found = int(self.trials_done) + self.global_rank, None
        if trial < self._num_trials():
            found = network.search(seed=self.hparams.seed, trial=trial, two_level=self.hparams.two_level)
        gathered = gather_objects((trial, found.codelength, found.passes) if found else None)
        outcomes = [outcome for outcome in gathered if outcome is not None]
        if not outcomes:  # resumed after all trials were done
            return {"loss": -self.trials, "passes": []}
        best, length, _ = min(outcomes, key=lambda outcome: (outcome[1], outcome[0]))
        if length < self._best_length:
            own = torch.from_numpy(found.table.astype(np.int32)) if found and trial == best else self.table
            self.table = self.trainer.strategy.broadcast(own, best - outcomes[0][0]).to(self.device)
            self._best_length, self._nodes = length, _digest(batch.names)
        self.trials_done += len(outcomes)
        for number, _, passes in outcomes:
            self._log_passes(number, passes)
        self._log("train/loss", length, prog_bar=True)
        return {"loss": -self.trials, "passes": [(number, passes) for number, _, passes in outcomes]}

    def on_train_epoch_end(self) -> None:
        if self.trials_done >= self._num_trials():
            self.trainer.should_stop = True

    def _num_trials(self) -> float:
        epochs = self.trainer.max_epochs
        assert epochs is not None
        return epochs * self.trainer.num_training_batches if epochs >= 0 else float("inf")

    def validation_step(self, batch: GraphBatch, batch_idx: int) -> None:
        partition = self.partition(batch)
        self._log("val/codelength", partition.codelength, prog_bar=True)
        self._log("val/num_modules", float(partition.num_modules), prog_bar=True)

    def test_step(self, batch: GraphBatch, batch_idx: int) -> dict[str, Any]:
        partition = self.partition(batch)
        edges, weights, labels = (tensor.cpu().numpy() for tensor in (batch.edges, batch.weights, batch.labels))
        scores = partition_scores(partition, edges, weights, bool(batch.directed), labels)
        for name, value in scores.items():
            self._log(f"test/{name}", value)
        return {"partition": partition, "graph": batch}

    def network(self, batch: GraphBatch) -> "Network":
        """The walk on a graph, built once per graph."""
        # The names stay the same array when the tensors are moved to a device.
        if self._network is None or self._network[0] is not batch.names:
            self._network = (batch.names, self._make_network(batch))
        return self._network[1]

    def partition(self, batch: GraphBatch) -> "Partition":
        """The best partition so far, its code length recomputed; before any trial, all nodes in one module.

        Raises:
            ValueError: if the module holds a partition of other nodes.
        """
        found = self.network(batch).partition(self._table(batch))
        return replace(found, names=batch.names.tolist(), ids=batch.ids)

    def _table(self, batch: GraphBatch) -> np.ndarray:
        if not len(self.table):
            return np.zeros((batch.num_nodes, 1), np.int64)
        if self._nodes != _digest(batch.names):
            raise ValueError(
                f"this run holds modules of {len(self.table)} nodes, but this graph has {batch.num_nodes} other nodes: "
                "to cluster another graph, use predict.py or train on it"
            )
        return self.table.cpu().numpy().astype(np.int64)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["nodes"] = self._nodes

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._nodes = checkpoint["nodes"]

    def predict_file(
        self,
        input: Path,
        output: Path,
        directed: bool | None = None,
        min_weight: float = 0.0,
        flow: FlowModel | None = None,
        two_level: bool | None = None,
        markov_time: float | None = None,
        seed: int | None = None,
        num_trials: int = 10,
        num_threads: int = 1,
        initial: Path | None = None,
        progress: bool = False,
    ) -> str:
        """Clusters the graph in a file, whatever the module was trained on; ``python -m map_equation`` does the same.

        Args:
            input: a graph file in any format that ``readers.graphs.read_graph`` knows (docs/infomap.md).
            output: the file to write: .tree (paths, flow and names), .clu (top modules), .csv (name, module, top
                module, path, flow), or .json (Infomap's Network Navigator).
            directed: whether links have a direction; by default what the file says, else undirected.
            min_weight: links with a smaller weight are dropped.
            flow: the walk; by default the module's.
            two_level: a flat partition, no hierarchy; by default as the module says.
            markov_time: steps per code word; by default the module's.
            seed: of the search; by default the module's.
            num_trials: independent searches; the best is kept.
            num_threads: threads that search at the same time.
            initial: a .tree or .clu file of this graph that the search starts from.
            progress: a line on stderr for each trial.

        Returns:
            A summary for the terminal.

        Raises:
            ValueError: if an argument is out of range, the output has another extension, or the file is no graph.
        """
        from map_equation.cluster_file import cluster_file

        return cluster_file(
            input,
            output,
            directed=directed,
            min_weight=min_weight,
            flow=flow or self.hparams.flow,
            two_level=self.hparams.two_level if two_level is None else two_level,
            teleportation=self.hparams.teleportation,
            markov_time=self.hparams.markov_time if markov_time is None else markov_time,
            seed=self.hparams.seed if seed is None else seed,
            num_trials=num_trials,
            num_threads=num_threads,
            initial=initial,
            progress=progress,
        )

    def _make_network(self, batch: GraphBatch) -> "Network":
        return walk_on(batch, self.hparams.flow, self.hparams.teleportation, self.hparams.markov_time)

    def _log(self, name: str, value: float, **options: Any) -> None:
        # Double precision, as code lengths are compared to the ninth digit. All processes have the same value.
        self.log(name, torch.tensor(value, dtype=torch.float64), batch_size=1, **options)

    def _log_passes(self, trial: int, passes: list[float]) -> None:
        for number, length in enumerate(passes, 1):
            row = {"train/trial": trial, "train/pass": number, "train/pass_codelength": length}
            for logger in self.loggers:
                logger.log_metrics({**row, "epoch": self.current_epoch}, step=self.global_step)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # The size of the partition depends on the graph, which is unknown when the module is built.
        if (table := state_dict.get(f"{prefix}table")) is not None:
            self.table = self.table.new_empty(table.shape)
            self._best_length = None
        super()._load_from_state_dict(state_dict, prefix, *args)


def _digest(names: np.ndarray) -> str:
    """Identifies the nodes: a digest of their names, in order."""
    return hashlib.sha256("\n".join(names.tolist()).encode()).hexdigest()
