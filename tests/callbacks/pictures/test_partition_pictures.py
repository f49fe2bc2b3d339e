"""Layout, pictures, tables and files of partitions."""

from types import SimpleNamespace
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning.loggers.logger import DummyLogger

import map_equation
from callbacks import CodelengthPasses, CommunityMap, LargestModules, ModuleHierarchy, PartitionFiles
from callbacks.pictures.base import PALETTE, distinct_colours, new_figure
from callbacks.pictures.community_map import ALIKE, node_colours
from callbacks.pictures.graph_layout import close_up, module_layout, push_apart
from callbacks.pictures.module_hierarchy import runs
from callbacks.pictures.node_names import overlaps, write_names
from datamodules import EdgeListDataModule
from lightning_modules import InfomapClustering
from tests.tools import quiet_trainer


class Album(DummyLogger):
    """Keeps pictures and tables, and lets files be written."""

    def __init__(self, folder) -> None:
        super().__init__()
        self.folder, self.pictures, self.tables = folder, {}, {}

    def log_image(self, key: str, images: list[Any]) -> None:
        assert all(isinstance(image, Image.Image) for image in images)
        self.pictures[key] = np.asarray(images[0])

    def log_table(self, key: str, columns: list[str], data: list[list[Any]]) -> None:
        self.tables[key] = (columns, data)

    def log_file(self, name: str, write: Any) -> None:
        write(self.folder / name)


def run(folder, graph: str = "ring_of_cliques", **options) -> tuple[Album, Any]:
    album = Album(folder)
    callbacks = [CodelengthPasses(), CommunityMap(**options), ModuleHierarchy(), LargestModules(), PartitionFiles()]
    trainer = quiet_trainer(*callbacks, max_epochs=2, num_sanity_val_steps=2, logger=album, log_every_n_steps=1)
    module, data = InfomapClustering(), EdgeListDataModule(source="sample", graph=graph)
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    return album, module.partition(data.graph_batch)


def test_pictures_and_files_of_a_hierarchy(tmp_path):
    album, partition = run(tmp_path)
    assert set(album.pictures) == {"codelength_passes", "communities", "hierarchy", "largest_modules"}
    assert all((picture < 250).any() for picture in album.pictures.values())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "largest_modules.md",
        "partition.clu",
        "partition.csv",
        "partition.tree",
    ]
    lines = [line for line in (tmp_path / "partition.tree").read_text().splitlines() if line[0] != "#"]
    paths = {int(line.split()[-1]): tuple(line.split()[0].split(":")[:-1]) for line in lines}
    edges = EdgeListDataModule(source="sample", graph="ring_of_cliques").graph_batch.edges.numpy()
    length = map_equation.codelength(edges, [paths[node] for node in range(len(paths))])
    assert length == pytest.approx(partition.codelength, abs=1e-9)


def test_a_large_graph_is_a_map_of_its_modules(tmp_path):
    album, _ = run(tmp_path, max_nodes=10, max_modules=5)
    assert (album.pictures["communities"] < 250).any()


def test_each_top_module_has_a_colour_of_its_own(tmp_path):
    assert len(set(distinct_colours(1000))) == 1000
    assert distinct_colours(3) == list(PALETTE[:3])
    album, partition = run(tmp_path)
    colours = node_colours(partition)
    assert len(set(zip(colours, partition.top_modules.tolist(), strict=True))) == len(set(colours)) > 2
    for picture in (album.pictures["communities"], run(tmp_path, max_nodes=10)[0].pictures["communities"]):
        seen = np.unique(picture.astype(int) @ [65536, 256, 1]).tolist()
        assert {int(colour[1:], 16) for colour in colours} <= set(seen)


def test_discs_that_are_all_top_modules_have_one_colour(tmp_path):
    album = Album(tmp_path)
    trainer = SimpleNamespace(is_global_zero=True, loggers=[album])
    graph = nx.ring_of_cliques(6, 4)
    outputs = {
        "partition": map_equation.infomap(graph, two_level=True),
        "graph": SimpleNamespace(edges=torch.tensor(list(graph.edges))),
    }
    CommunityMap(max_nodes=2).on_test_batch_end(trainer, None, outputs)
    pixels = album.pictures["communities"].reshape(-1, 3).astype(int)
    assert (pixels == list(bytes.fromhex(ALIKE[1:]))).all(1).mean() > 0.2
    assert (pixels.max(1) - pixels.min(1)).max() < 80, "no colour of the palette"


def test_names_lie_beside_nodes():
    # A cross: the middle's four sides are taken, so its name goes into a corner.
    positions = np.array([[0.0, 0.0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    figure = new_figure(4, 4)
    axes = figure.add_subplot()
    axes.set(xlim=(-2, 2), ylim=(-2, 2))
    write_names(axes, positions, np.full(5, 30.0), {0: "middle", 1: "east"}, 7)
    figure.draw_without_rendering()
    centres = axes.transData.transform(positions)
    radius = 15 * figure.dpi / 72
    boxes = np.array([text.get_window_extent().extents for text in axes.texts])
    for box in boxes:
        nearest = np.clip(centres, box[:2], box[2:])
        assert np.hypot(*(nearest - centres).T).min() > 0.6 * radius
    assert overlaps(boxes[:1], boxes[1:]).item() == 0
    assert np.hypot(*(boxes[:, :2] + boxes[:, 2:] - 2 * centres[:2]).T).max() / 2 < 4 * radius
    assert overlaps(np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 1, 3, 3], [5, 5, 6, 6], [-1, 0, 1, 1]])).tolist() == [2]


def test_layouts_close_up():
    centres, radii = np.array([[-9.0, 0], [9, 0], [0, 9]]), np.ones(3)
    closer = close_up(centres, radii)
    distance = np.hypot(*(closer[:, None] - closer[None]).transpose(2, 0, 1))
    assert distance[~np.eye(3, dtype=bool)].min() > 1.95
    assert np.ptp(closer, 0).max() < 5


def test_the_largest_modules_are_named_by_their_busiest_nodes():
    graph = nx.disjoint_union(nx.wheel_graph(7), nx.complete_graph(3))
    graph.add_edge(6, 7)
    partition = map_equation.infomap(graph, two_level=True)
    rows = LargestModules(num_modules=2, num_names=2).rows(partition)
    assert [row[1] for row in rows] == [7, 3]
    assert rows[0][3].split(", ")[0] == "0"  # the hub of the wheel
    shares = [partition.flow[partition.modules == row[0] - 1].sum() for row in rows]
    assert [row[2] for row in rows] == pytest.approx(shares, abs=1e-6)


def test_discs_are_pushed_apart():
    random = np.random.default_rng(0)
    radii = random.uniform(0.2, 1.0, 40)
    centres = push_apart(np.concatenate([np.zeros((2, 2)), random.normal(size=(38, 2))]), radii, rounds=2000)
    distance = np.hypot(*(centres[:, None] - centres[None]).transpose(2, 0, 1))
    gap = distance - radii[:, None] - radii[None]
    assert gap[~np.eye(40, dtype=bool)].min() > -0.02 * radii.min()


def test_a_module_lies_in_a_disc_of_its_own():
    graph = nx.ring_of_cliques(16, 4)
    partition = map_equation.infomap(graph)
    edges = np.array(list(graph.edges))
    positions, radius = module_layout(edges, partition.table)
    assert np.hypot(*positions.T).max() <= radius
    centres = np.stack([positions[partition.top_modules == top].mean(0) for top in range(6)])
    own = np.hypot(*(positions - centres[partition.top_modules]).T)
    bottom = np.stack([positions[partition.modules == module].mean(0) for module in range(16)])
    nearest = np.hypot(*(positions[:, None] - bottom[None]).transpose(2, 0, 1)).argmin(1)
    assert (nearest == partition.modules).all()
    again, _ = module_layout(edges, partition.table)
    assert np.array_equal(again, positions)
    assert own.max() < radius


def test_runs_are_modules():
    paths = np.array([[0, 0], [0, 0], [0, 1], [1, -1], [2, 0]])
    assert runs(paths[:, :1]) == [(0, 3), (3, 4), (4, 5)]
    assert runs(paths) == [(0, 2), (2, 3), (4, 5)]


def test_passes_go_on_where_a_checkpoint_ends():
    first = CodelengthPasses()
    first.on_train_batch_end(None, None, {"loss": torch.zeros(()), "passes": [(0, [3.0, 2.5])]})
    second = CodelengthPasses()
    second.load_state_dict(first.state_dict())
    second.on_train_batch_end(None, None, {"loss": torch.zeros(()), "passes": [(1, [3.1, 2.4])]})
    assert second.passes == {0: [3.0, 2.5], 1: [3.1, 2.4]}


def test_what_other_modules_return_is_left_alone(tmp_path):
    trainer = SimpleNamespace(is_global_zero=True, loggers=[Album(tmp_path)])
    for outputs in (None, torch.zeros(()), {"loss": torch.zeros(())}):
        for callback in (CommunityMap(), ModuleHierarchy(), LargestModules(), PartitionFiles()):
            callback.on_test_batch_end(trainer, None, outputs)
        passes = CodelengthPasses()
        passes.on_train_batch_end(trainer, None, outputs)
        passes.on_train_end(trainer, None)
    assert not trainer.loggers[0].pictures
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("callback", [lambda: CommunityMap(max_nodes=0), lambda: LargestModules(num_names=0)])
def test_numbers_below_one_are_refused(callback):
    with pytest.raises(ValueError, match="at least 1"):
        callback()


def test_unknown_endings_are_refused():
    with pytest.raises(ValueError, match="gml is not one of tree, clu, csv"):
        PartitionFiles(["tree", "gml"])
