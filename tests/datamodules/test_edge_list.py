"""One graph for every stage, epoch and rank; arguments; the description of the data."""

import json
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from datamodules import DataError, EdgeListDataModule
from datamodules.batches import GraphBatch
from tests.tools import in_two_processes, quiet_trainer


def test_sample_is_the_default():
    data = EdgeListDataModule()
    assert (data.num_nodes, data.num_features, data.num_classes) == (400, 32, 8)
    assert isinstance(data.graph_batch, GraphBatch)
    described = data.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["nodes"] == 400
    assert described["links"] == 2800
    assert described["classes"] == 8
    assert described["mixing"] == pytest.approx(0.3, abs=0.1)
    assert described == EdgeListDataModule().describe()
    other = EdgeListDataModule(seed=1).describe()
    assert described["fingerprint"] != other["fingerprint"]


def test_sizes_of_the_samples_are_arguments():
    data = EdgeListDataModule(
        sample_num_nodes=100, sample_num_communities=4, sample_mean_degree=6, sample_num_features=3, sample_mixing=0.1
    )
    assert (data.num_nodes, data.num_features, data.num_classes, len(data.graph_batch.edges)) == (100, 3, 4, 300)
    assert EdgeListDataModule(directed=True).graph_batch.directed
    assert EdgeListDataModule(graph="lfr", sample_num_nodes=300, sample_mean_degree=10).num_nodes == 300
    assert EdgeListDataModule(graph="florentine_families").num_classes == 0


def test_a_graph_without_weights():
    data = EdgeListDataModule(graph="nine_triangles")
    assert data.describe()["total_weight"] == pytest.approx(38.4)
    assert EdgeListDataModule(graph="nine_triangles", weighted=False).describe()["total_weight"] == 39
    assert len(EdgeListDataModule(graph="nine_triangles", min_weight=0.9).graph_batch.edges) == 36


def test_a_file(tmp_path):
    (tmp_path / "graph.csv").write_text("a,b,0.5\nb,c,2\nc,c,1\n")
    (tmp_path / "labels.txt").write_text("a x\nb y\n")
    data = EdgeListDataModule(
        str(tmp_path / "graph.csv"), directed=True, labels_file=str(tmp_path / "labels.txt"), min_weight=1.0
    )
    graph = data.graph_batch
    assert graph.names.tolist() == ["a", "b", "c"]
    assert graph.edges.tolist() == [[1, 2], [2, 2]]
    assert graph.weights.tolist() == [2, 1]
    assert graph.directed
    assert graph.labels.tolist() == [0, 1, -1]
    described = data.describe()
    assert described["self_loops"] == 1
    assert described["mixing"] == 0
    assert "graph" not in described


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"graph": "karat"}, r"graph \(karat\) must be one of planted_partition"),
        ({"graph": "karate", "directed": True}, "karate is undirected"),
        ({"labels_file": "x"}, "labels_file is not read with source sample"),
        ({"sample_num_nodes": 3}, r"sample_num_nodes \(3\) must be at least 4"),
        ({"sample_num_communities": 0}, "sample_num_communities"),
        ({"sample_num_features": -1}, "sample_num_features"),
        ({"sample_mean_degree": 0.0}, "sample_mean_degree"),
        ({"sample_mixing": 1.5}, "sample_mixing"),
        ({"min_weight": -1.0}, "min_weight"),
        ({"min_weight": float("nan")}, "min_weight"),
        ({"seed": -1}, "seed"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        EdgeListDataModule(**arguments)


def test_unavailable_graphs_are_reported(tmp_path):
    with pytest.raises(DataError, match="hub has no graphs"):
        EdgeListDataModule("hub")
    with pytest.raises(DataError, match=r"cannot read .*nothing"):
        EdgeListDataModule(str(tmp_path / "nothing")).setup()
    with pytest.raises(DataError, match="sample karate has no link that weighs 99 or more"):
        EdgeListDataModule(graph="karate", min_weight=99).setup()


class Recorder(pl.LightningModule):
    """Records what it receives at each stage."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def record(self, stage, batch):
        assert isinstance(batch, GraphBatch)
        self.seen.append((stage, self.current_epoch, batch.num_nodes, int(batch.edges.sum()), len(batch.names)))

    def training_step(self, batch, batch_idx):
        self.record("train", batch)
        return self.weight * batch.weights.sum()

    def validation_step(self, batch, batch_idx):
        self.record("val", batch)

    def test_step(self, batch, batch_idx):
        self.record("test", batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def run(folder=None, ckpt_path=None, max_epochs=2, **options):
    module, data = Recorder(), EdgeListDataModule(graph="karate")
    trainer = quiet_trainer(max_epochs=max_epochs, **options)
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    trainer.test(module, data, verbose=False)
    if folder is not None:
        trainer.save_checkpoint(folder / "last.ckpt")
    return module.seen


def expected(*epochs):
    edges = EdgeListDataModule(graph="karate").graph_batch.edges
    what = (34, int(edges.sum()), 34)
    fitted = [(stage, epoch, *what) for epoch in epochs for stage in ("train", "val")]
    return fitted, ("test", *what)


@pytest.mark.filterwarnings("ignore")
def test_every_stage_has_the_graph_once_an_epoch_and_resumes(tmp_path):
    seen = run(tmp_path)
    fitted, tested = expected(0, 1)
    assert seen[:-1] == fitted
    assert (seen[-1][0], *seen[-1][2:]) == tested
    resumed = run(ckpt_path=tmp_path / "last.ckpt", max_epochs=4)
    assert resumed[:-1] == expected(2, 3)[0]


def process(rank: int, folder: Path) -> None:
    seen = run(devices=2, strategy=pl.strategies.DDPStrategy(process_group_backend="gloo"))
    torch.save(seen, folder / f"{rank}.pt")


@pytest.mark.filterwarnings("ignore")
def test_every_rank_has_the_graph(tmp_path):
    in_two_processes(process, tmp_path)
    for rank in range(2):
        seen = torch.load(tmp_path / f"{rank}.pt")
        fitted, tested = expected(0, 1)
        assert seen[:-1] == fitted
        assert (seen[-1][0], *seen[-1][2:]) == tested
