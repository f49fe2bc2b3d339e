"""Neuromap: what it finds, its checkpoints, half precision, and prediction for files."""

import csv
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import EdgeListDataModule
from experiment.errors import run_main
from experiment.predict import predict
from layers import GCN, GraphSAGE
from lightning_modules import Neuromap
from map_equation import Network
from tests.tools import quiet_trainer

trainer = partial(quiet_trainer, enable_checkpointing=True, num_sanity_val_steps=2)
GRAPH = "a b\na c\nb c\nc d\nd e\nd f\ne f\n"


def build(data: EdgeListDataModule, **arguments) -> Neuromap:
    torch.manual_seed(0)
    return Neuromap(**{"num_nodes": data.num_nodes, "num_features": data.num_features, **arguments})


@pytest.fixture(scope="module")
def karate(tmp_path_factory) -> tuple[Path, Neuromap, EdgeListDataModule]:
    """A checkpoint of a network trained on the karate club, the network, and its data."""
    data = EdgeListDataModule(graph="karate", steps_per_epoch=50)
    module = build(data, network=partial(GCN, hidden_size=64), num_clusters=8)
    folder = tmp_path_factory.mktemp("karate")
    run = trainer(default_root_dir=folder, max_epochs=6)
    run.fit(module, data)
    run.save_checkpoint(folder / "karate.ckpt")
    return folder / "karate.ckpt", module.eval(), data


def test_the_karate_club(karate):
    _, module, data = karate
    (tested,) = quiet_trainer().test(module, data, verbose=False)
    assert tested["test/codelength"] == pytest.approx(4.087423159, abs=1e-6)
    assert (tested["test/num_modules"], tested["test/num_levels"]) == (3, 2)
    assert tested["test/ami"] > 0.6
    assert tested["test/modularity"] > 0.4
    loss = module.prepare(data.graph_batch).loss(module(data.graph_batch))
    assert 4.087423159 - 1e-6 < float(loss.detach()) < 4.12


def test_a_checkpoint_loads_without_data(karate):
    path, module, data = karate
    again = Neuromap.load_from_checkpoint(path, weights_only=True).eval()
    torch.testing.assert_close(again(data.graph_batch), module(data.graph_batch), rtol=0, atol=0)
    assert again.node_names == data.graph_batch.names.tolist()
    state = torch.load(path, weights_only=True)["state_dict"]
    assert all(name.startswith(("network.", "temperature")) for name in state), "the graph is not in the checkpoint"


def test_the_walk_is_computed_once(tmp_path, monkeypatch):
    made = []

    def make(*arguments, **options) -> Network:
        made.append(options)
        return Network(*arguments, **options)

    monkeypatch.setattr("map_equation.Network", make)
    data = EdgeListDataModule(graph="two_triangles", steps_per_epoch=3)
    module = build(data)
    run = trainer(default_root_dir=tmp_path, max_epochs=2)
    run.fit(module, data)
    run.test(module, data, verbose=False)
    assert len(made) == 1


@pytest.mark.parametrize("flow", ["directed_recorded", "uniform_recorded", None])
def test_directed_graphs(tmp_path, flow):
    data = EdgeListDataModule(directed=True, sample_num_nodes=60, steps_per_epoch=2)
    module = build(data, flow=flow)
    graph = data.graph_batch
    trainer(default_root_dir=tmp_path).fit(module, data)
    prepared = module.eval().prepare(graph)
    labels = module(graph).argmax(1)
    walk = Network(graph.edges.numpy(), graph.weights.numpy(), num_nodes=60, flow=flow or "directed")
    one_hot = torch.nn.functional.one_hot(labels).float()
    assert float(prepared.loss(one_hot)) == pytest.approx(walk.codelength(labels.numpy()), abs=1e-6)


def test_half_precision(tmp_path):
    data = EdgeListDataModule(graph="two_triangles", steps_per_epoch=60)
    module = build(data)
    run = trainer(default_root_dir=tmp_path, precision="bf16-mixed")
    run.fit(module, data)
    with torch.autocast("cpu", torch.bfloat16):
        shares = module.eval()(data.graph_batch)
    assert shares.dtype == torch.float32
    assert run.test(module, data, verbose=False)[0]["test/codelength"] == pytest.approx(2.320730357, abs=1e-6)
    with pytest.raises(ValueError, match=r"has rounded the weights of the links to bfloat16, .* take bf16-mixed"):
        trainer(default_root_dir=tmp_path, precision="bf16-true").fit(build(data), data)


def read(path: Path) -> list[tuple[str, int, float]]:
    with path.open(newline="") as file:
        return [(row["name"], int(row["module"]), float(row["probability"])) for row in csv.DictReader(file)]


@pytest.fixture
def triangles(tmp_path, monkeypatch) -> tuple[Neuromap, Path]:
    """A network whose soft modules are known, and the file of its graph."""
    file = tmp_path / "graph.txt"
    file.write_text(GRAPH)
    data = EdgeListDataModule(source=str(file))
    module = build(data, num_clusters=3)
    module.prepare(data.graph_batch)
    shares = torch.tensor([[0.05, 0.0, 0.95]] * 3 + [[0.3, 0.15, 0.55]] + [[0.9, 0.0, 0.1]] * 2)
    logits = dict(zip("abcdef", (shares + 1e-9).log() * 0.5, strict=True))
    monkeypatch.setattr(module.network, "forward", lambda *_: torch.stack([logits[name] for name in module.node_names]))
    return module, file


def test_overlapping_communities_of_a_file(triangles, tmp_path):
    module, file = triangles
    output = tmp_path / "shares.csv"
    report = module.predict_file(file, output, threshold=0.12)
    assert "6 nodes, 7 links: 2 modules" in report
    assert "1 nodes in more than one" in report
    # The module of a, b, c, d has the largest flow and comes first; the cluster that is no node's largest comes last.
    rows = read(output)
    assert [row for row in rows if row[0] == "d"] == [
        ("d", 1, pytest.approx(0.55)),
        ("d", 2, pytest.approx(0.3)),
        ("d", 3, pytest.approx(0.15)),
    ]
    assert [row[:2] for row in rows if row[0] != "d"] == [("a", 1), ("b", 1), ("c", 1), ("e", 2), ("f", 2)]
    link = tmp_path / "link.csv"
    link.symlink_to(output)
    module.predict_file(file, link, threshold=1.0)
    assert len(read(output)) == 6, "the largest share is always listed"
    assert link.is_symlink()
    with pytest.raises(ValueError, match="threshold"):
        module.predict_file(file, output, threshold=2.0)


def test_shares_of_the_walk_show_overlap(triangles, tmp_path):
    module, file = triangles
    module.predict_file(file, tmp_path / "shares.csv", shares="walk", threshold=0.2)
    rows = {(name, number): share for name, number, share in read(tmp_path / "shares.csv")}
    # Its neighbours: c, e and f.
    assert rows["d", 1] == pytest.approx((0.95 + 2 * 0.1) / 3, abs=1e-4)
    assert rows["d", 2] == pytest.approx((0.05 + 2 * 0.9) / 3, abs=1e-4)
    # Neighbours of a and b: each other and c; of c: a, b and d.
    assert rows["a", 1] == pytest.approx(0.95, abs=1e-4)
    assert rows["c", 1] == pytest.approx((2 * 0.95 + 0.55) / 3, abs=1e-4)
    assert ("a", 2) not in rows


def test_the_order_of_lines_does_not_matter(karate, tmp_path):
    _, module, data = karate
    graph = data.graph_batch
    lines = [f"{a} {b} {weight}" for (a, b), weight in zip(graph.edges.tolist(), graph.weights.tolist(), strict=True)]
    found = []
    for name, order in (("one", lines), ("other", lines[::-1])):
        (tmp_path / f"{name}.txt").write_text("\n".join(order))
        again = Neuromap.load_from_checkpoint(karate[0], weights_only=True)
        again.predict_file(tmp_path / f"{name}.txt", tmp_path / f"{name}.csv", threshold=0.5)
        found.append({node: (cluster, share) for node, cluster, share in read(tmp_path / f"{name}.csv")})
    for node, row in enumerate(module(graph).tolist()):
        for rows in found:
            assert rows[str(node)][1] == pytest.approx(max(row), rel=1e-3)
        assert found[0][str(node)][0] == found[1][str(node)][0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GRAPH, "34 nodes that it was trained on, but the graph has a node 'a'"),
        ("0 1\n1 2\n", "34 nodes that it was trained on, but the graph has 3 nodes"),
        ("0 1 x\n", "graph.txt, line 1"),
    ],
)
def test_another_graph_needs_features(karate, tmp_path, capsys, text, message):
    (tmp_path / "graph.txt").write_text(text)
    path = tmp_path / "model.ckpt"
    checkpoint = torch.load(karate[0], weights_only=True)
    torch.save({**checkpoint, "experiment": {"config": {}}}, path)
    arguments = [str(path), "--input", str(tmp_path / "graph.txt"), "--output", str(tmp_path / "out.csv")]
    assert run_main(predict, arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out.csv").exists()


def test_another_graph_with_features(tmp_path):
    data = EdgeListDataModule(sample_num_nodes=60, sample_num_features=4)
    module = build(data, network=GraphSAGE)
    random = np.random.default_rng(0)
    edges = random.integers(0, 30, (90, 2))
    np.savez(tmp_path / "with.npz", edges=edges, features=random.random((30, 4), np.float32))
    np.savez(tmp_path / "without.npz", edges=edges)
    with pytest.raises(ValueError, match=r"out\.tree\) must end in \.csv"):
        module.predict_file(tmp_path / "with.npz", tmp_path / "out.tree")
    assert "30 nodes" in module.predict_file(tmp_path / "with.npz", tmp_path / "out.csv")
    with pytest.raises(ValueError, match="4 features, these have none"):
        module.predict_file(tmp_path / "without.npz", tmp_path / "out.csv")


def test_other_data_in_training_and_test(karate):
    _, module, _ = karate
    with pytest.raises(ValueError, match="only the 34 nodes"):
        quiet_trainer().test(module, EdgeListDataModule(graph="two_triangles"), verbose=False)
    with pytest.raises(ValueError, match=r"num_clusters \(0\)"):
        Neuromap(num_clusters=0)


def test_a_directed_walk_on_a_bipartite_graph_is_refused(tmp_path):
    (tmp_path / "two.net").write_text("*Vertices 4\n*Bipartite 3\n1 3\n2 3\n2 4\n")
    with pytest.raises(ValueError, match=r"model.flow \(directed\): a bipartite graph takes undirected flow only"):
        Neuromap(flow="directed", num_nodes=4).predict_file(tmp_path / "two.net", tmp_path / "out.csv")
    assert "4 nodes" in Neuromap(num_nodes=4).predict_file(tmp_path / "two.net", tmp_path / "out.csv")
