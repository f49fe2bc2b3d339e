"""The search run as training: trials, keeping the best, checkpoints, resuming, prediction from a configuration."""

from functools import partial
from typing import get_args

import networkx as nx
import numpy as np
import pytest
import pytorch_lightning as pl
import scipy.io

import map_equation
from datamodules import EdgeListDataModule
from experiment.errors import run_main
from experiment.predict import predict
from lightning_modules import InfomapClustering
from lightning_modules.graph_walk import FlowModel
from tests.conftest import ROOT
from tests.tools import quiet_trainer

TRIALS = 4
trainer = partial(quiet_trainer, enable_checkpointing=True, num_sanity_val_steps=2)


def data(**changes) -> EdgeListDataModule:
    # Enough mixing for trials to end in different partitions.
    sizes = {"sample_num_nodes": 200, "sample_mixing": 0.45, "sample_mean_degree": 8.0}
    return EdgeListDataModule(source="sample", **{**sizes, **changes})


def test_it_keeps_the_best_of_the_trials(tmp_path):
    graph = data().graph_batch
    lengths = [
        map_equation.infomap(graph.edges.numpy(), graph.weights.numpy(), num_nodes=200, num_trials=n).codelength
        for n in range(1, TRIALS + 1)
    ]
    assert lengths[-1] < lengths[0]
    module, seen = InfomapClustering(), []

    class Follow(pl.Callback):
        def on_validation_end(self, trainer, pl_module):
            seen.append(float(trainer.callback_metrics["val/codelength"]))

    run = quiet_trainer(Follow(), max_epochs=TRIALS, default_root_dir=tmp_path, enable_checkpointing=True)
    run.fit(module, data())
    assert seen == pytest.approx(lengths, abs=1e-9)
    assert float(module.trials.detach()) == TRIALS
    (tested,) = run.test(module, data(), verbose=False)
    assert tested["test/codelength"] == pytest.approx(lengths[-1], abs=1e-9)
    partition = module.partition(graph)
    best = map_equation.infomap(graph.edges.numpy(), graph.weights.numpy(), num_nodes=200, num_trials=TRIALS)
    assert partition.modules.tolist() == best.modules.tolist()
    assert tested["test/num_modules"] == partition.num_modules


def test_the_checkpoint_holds_the_partition(tmp_path):
    module = InfomapClustering()
    run = trainer(default_root_dir=tmp_path, max_epochs=2)
    run.fit(module, data())
    run.save_checkpoint(tmp_path / "run.ckpt")
    loaded = InfomapClustering.load_from_checkpoint(tmp_path / "run.ckpt", weights_only=True)
    graph = data().graph_batch
    ours, theirs = loaded.partition(graph), module.partition(graph)
    assert np.array_equal(ours.table, theirs.table)
    assert ours.codelength == theirs.codelength
    assert ours.names == graph.names.tolist()
    with pytest.raises(ValueError, match="modules of 200 nodes, but this graph has 150 other nodes"):
        loaded.partition(data(sample_num_nodes=150).graph_batch)


def test_a_partition_of_other_nodes_is_refused(tmp_path):
    module = InfomapClustering()
    trainer(default_root_dir=tmp_path).fit(module, data())
    graph = data().graph_batch
    with pytest.raises(ValueError, match="200 other nodes: to cluster another graph"):
        module.partition(graph._replace(names=graph.names[::-1].copy()))


def test_a_finished_search_continues_with_new_trials_only(tmp_path):
    done = InfomapClustering()
    run = trainer(default_root_dir=tmp_path, max_epochs=2)
    run.fit(done, data())
    run.save_checkpoint(tmp_path / "done.ckpt")
    more = trainer(default_root_dir=tmp_path, max_epochs=TRIALS)
    more.fit(done, data(), ckpt_path=tmp_path / "done.ckpt", weights_only=True)
    assert int(done.trials_done) == TRIALS
    late = InfomapClustering()  # possible after another number of processes: no epoch done, no trial left
    late.trials_done.fill_(TRIALS)
    trainer(default_root_dir=tmp_path, max_epochs=TRIALS).fit(late, data())
    assert len(late.table) == 0


@pytest.mark.parametrize("wrong", [{"teleportation": 2.0}, {"markov_time": 0.0}, {"seed": -1}])
def test_arguments_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        InfomapClustering(**wrong)


@pytest.mark.parametrize("directed", [False, True])
def test_the_walk_is_directed_if_the_graph_is(directed):
    module = InfomapClustering(two_level=True)
    graph = data(directed=directed).graph_batch
    assert module.partition(graph).flow_model == ("directed" if directed else "undirected")
    edges, flow = graph.edges.numpy(), "directed" if directed else "undirected"
    expected = map_equation.codelength(edges, np.zeros(200), weights=graph.weights, num_nodes=200, flow=flow)
    assert module.partition(graph).codelength == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["g.gml", "g.graphml", "g.metis", "g.mtx", "directed.gml", "g.txt"])
@pytest.mark.parametrize("flow", ["directed", "directed_recorded_to_nodes", "undirected"])
def test_training_walks_a_file_as_the_search_does(tmp_path, name, flow):
    """A directed walk follows links that the file calls undirected both ways, others one way."""
    graph = nx.gnm_random_graph(30, 70, seed=1, directed=name == "directed.gml")
    if name == "g.metis":
        lines = [" ".join(str(other + 1) for other in graph[node]) for node in graph]
        (tmp_path / name).write_text("\n".join(["30 70", *lines]) + "\n")
    elif name == "g.mtx":
        scipy.io.mmwrite(tmp_path / name, nx.to_scipy_sparse_array(graph), symmetry="symmetric")
    else:
        write = {"gml": nx.write_gml, "graphml": nx.write_graphml, "txt": nx.write_edgelist}[name.split(".")[-1]]
        write(graph, tmp_path / name)
    batch = EdgeListDataModule(str(tmp_path / name)).graph_batch
    rates = InfomapClustering(flow=flow).network(batch).flow
    assert rates == pytest.approx(map_equation.Network(tmp_path / name, flow=flow).flow, abs=1e-14)
    assert batch.directed == {"directed.gml": True, "g.txt": None}.get(name, False)


def test_a_file_is_clustered_in_one_call(tmp_path, capsys):
    edges = [("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("d", "e"), ("e", "f"), ("d", "f")]
    graph, output = tmp_path / "graph.txt", tmp_path / "graph.tree"
    graph.write_text("".join(f"{a} {b}\n" for a, b in edges))
    config = str(ROOT / "configs/infomap_edges.yaml")
    predict([config, "--input", str(graph), "--output", str(output)])
    assert "6 nodes, 7 links: 2 modules, 2 levels, 2.320730 bits" in capsys.readouterr().out
    lines = [line.split() for line in output.read_text().splitlines() if line[0] != "#"]
    module = {name.strip('"'): path.split(":")[0] for path, _, name, _ in lines}
    assert module["a"] == module["b"] == module["c"] != module["d"] == module["e"] == module["f"]
    assert run_main(predict, [config, "--input", str(graph), "--output", f"{output}2"]) == 2
    assert "graph.tree2 must end in .tree, .clu, .csv" in capsys.readouterr().err


def test_a_directed_walk_on_a_bipartite_graph_is_refused(tmp_path):
    (tmp_path / "two.net").write_text("*Vertices 4\n*Bipartite 3\n1 3\n2 3\n2 4\n")
    with pytest.raises(ValueError, match="bipartite needs undirected flow, not 'directed'"):
        InfomapClustering(flow="directed").predict_file(tmp_path / "two.net", tmp_path / "out.csv")
    assert "4 nodes" in InfomapClustering().predict_file(tmp_path / "two.net", tmp_path / "out.csv")


def test_walks_to_choose_from_are_those_of_the_search():
    assert get_args(FlowModel) == get_args(map_equation.FlowModel)
