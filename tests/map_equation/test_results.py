"""The result of a search: what it offers, and the files it is written to, some of them read by infomap."""

import copy
import json
import os
import pickle
from dataclasses import FrozenInstanceError, replace

import networkx as nx
import numpy as np
import pytest

from map_equation import Network, codelength, infomap

EDGES = np.array([[0, 1], [0, 2], [1, 2], [2, 3], [3, 4], [3, 5], [4, 5]])
NAMED = nx.relabel_nodes(nx.Graph(EDGES.tolist()), dict(enumerate("ABCDEF")))
PAJEK = """*Vertices 7
11 "plain"
12 "a \\"x\\" b"
13 "back\\slash"
14 "same"
15 "same"
16 "7"
17 "alone"
*Edges
11 12
12 13
13 11
13 14
14 15
15 16
16 14
"""


def test_what_belongs_together():
    found = infomap(nx.les_miserables_graph(), num_trials=3)
    assert len(found) == found.num_modules == len(found.communities) == len(list(found))
    table, members = found.to_dict(), found.to_dataframe()
    assert list(members.columns) == ["node", "module", "path", "flow"]
    for i, name in enumerate(found.names):
        assert name in found.communities[found.modules[i]]
        assert table[name] == found.modules[i]
        assert isinstance(table[name], int)
        assert members.node[i] == name
        assert members.module[i] == found.modules[i]
        assert members.path[i] == found.paths[i]
        assert members.flow[i] == found.flow[i]
    assert found.num_top_modules == len(set(found.top_modules.tolist()))
    assert found.one_level == found.one_level_codelength
    savings = 1 - found.codelength / found.one_level
    assert found.relative_savings == found.relative_codelength_savings == pytest.approx(savings, abs=1e-15)
    single = [Network(nx.les_miserables_graph()).search(trial=trial).codelength for trial in range(3)]
    assert found.codelengths == single
    assert min(found.codelengths) == found.codelength


def test_equal_partitions():
    found = infomap(NAMED)
    shuffled = nx.Graph()
    shuffled.add_nodes_from("FBDACE")
    shuffled.add_edges_from(NAMED.edges)
    assert found == infomap(shuffled)
    assert hash(found) == hash(infomap(shuffled))
    assert found != infomap(NAMED, flow="directed_recorded")
    assert found != Network(NAMED).partition([0, 0, 1, 1, 1, 1])
    assert found != "other"
    ring = nx.ring_of_cliques(16, 4)
    assert infomap(ring) != infomap(ring, two_level=True)
    for twin in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert twin == found
        assert twin.to_networkx().edges == found.to_networkx().edges


def test_nothing_can_be_changed():
    found = infomap(NAMED)
    with pytest.raises(FrozenInstanceError):
        found.codelength = 1.0
    for array in (found.modules, found.top_modules, found.flow, found.table):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    network = Network(NAMED)
    for first, second in ((network.search(), network.search()), (found, replace(found))):
        for values in (first.names, first.passes, first.codelengths, network.names):
            before = list(values)
            values.append("x")
            assert (second.names, len(network.search().names)) == (list(NAMED), 6)
            values[:] = before


def test_modules_at_each_level():
    found = Network(EDGES).partition([(0, 0), (0, 1), (0, 1), (1,), (2, 0), (2, 1)])
    assert found.modules_at(1).tolist() == found.top_modules.tolist()
    assert found.modules_at(2).tolist() == found.modules_at(-1).tolist() == found.modules.tolist()
    deep = infomap(nx.ring_of_cliques(16, 4))
    for level in range(1, deep.num_levels):
        rows = {tuple(row) for row in deep.table[:, :level].tolist()}
        assert len(set(deep.modules_at(level).tolist())) == len(rows)
    with pytest.raises(ValueError, match=r"level \(3\) must be 1 to 2"):
        found.modules_at(3)


def text_rows(path):
    return [line for line in path.read_text().splitlines() if line[0] != "#"]


def test_tree_clu_and_graph(tmp_path):
    found = infomap(NAMED)
    found.to_tree(tmp_path / "graph.tree")
    found.to_clu(tmp_path / "graph.clu")
    assert (tmp_path / "graph.tree").read_text().startswith("# codelength 2.32073035683 bits, flow undirected\n")
    rows = text_rows(tmp_path / "graph.tree")
    # C and D have the largest flow of their modules.
    assert rows[0] == '1:1 0.214285714286 "C" 2'
    assert [row.split()[0] for row in rows] == ["1:1", "1:2", "1:3", "2:1", "2:2", "2:3"]
    clusters = [line.split()[:2] for line in text_rows(tmp_path / "graph.clu")]
    assert sorted(clusters) == [[f'"{name}"', str(number // 3 + 1)] for number, name in enumerate("ABCDEF")]
    drawn = found.to_networkx()
    assert set(drawn.edges) == set(NAMED.edges)
    assert drawn.nodes["A"]["module"] == 0
    assert sum(flow for *_, flow in drawn.edges(data="flow")) == pytest.approx(1)


def test_clu_of_a_level(tmp_path):
    found = infomap(nx.ring_of_cliques(16, 4))
    for level in (1, 2, -1):
        found.write(tmp_path / "out.clu", level=level)
        modules = {int(row.split()[0]): int(row.split()[1]) - 1 for row in text_rows(tmp_path / "out.clu")}
        assert modules == dict(enumerate(found.modules_at(level).tolist()))


def tree_of(partition, path) -> dict[int, tuple[int, ...]]:
    """Path of each node in a written ``.tree``."""
    partition.to_tree(path)
    rows = [line.split() for line in path.read_text().splitlines() if line[0] != "#"]
    return {int(row[-1]): tuple(map(int, row[0].split(":"))) for row in rows}


def test_paths_of_siblings_of_modules_are_unique(tmp_path):
    network = Network(EDGES)
    mixed = network.partition([(0, 0), (0, 1), (0,), (0,), (0, 1), (0, 0)])
    found = tree_of(mixed, tmp_path / "mixed.tree")
    # C and D, the nodes with the largest flow, come after their two sibling modules.
    assert found == {0: (1, 1, 1), 5: (1, 1, 2), 1: (1, 2, 1), 4: (1, 2, 2), 2: (1, 3), 3: (1, 4)}
    assert mixed.modules.tolist() == [0, 1, 2, 2, 1, 0]
    ragged = network.partition([(0, 0), (0, 0), (), (), (1,), (0, 1)])
    found = tree_of(ragged, tmp_path / "ragged.tree")
    assert found == {0: (1, 1, 1), 1: (1, 1, 2), 5: (1, 2, 1), 4: (2, 1), 2: (3,), 3: (4,)}
    assert ragged.top_modules.tolist() == [0, 0, 2, 3, 1, 0]


def test_infomap_reads_nodes_under_the_root_as_we_do(tmp_path):
    peer = pytest.importorskip("infomap")
    found = Network(EDGES).partition([(0, 0), (0, 0), (), (), (1,), (0, 1)])
    found.to_tree(tmp_path / "ragged.tree")
    result = peer.run(EDGES.tolist(), no_infomap=True, cluster_data=str(tmp_path / "ragged.tree"))
    assert result.num_top_modules == len(set(found.top_modules)) == 4
    theirs = result.modules()
    pairs = {(theirs[node], int(top)) for node, top in enumerate(found.top_modules)}
    assert len(pairs) == 4


def test_directed_flow_gives_a_directed_graph():
    drawn = infomap([[0, 1], [1, 2], [2, 0]], flow="directed").to_networkx()
    assert drawn.is_directed()
    assert set(drawn.edges) == {(0, 1), (1, 2), (2, 0)}


def test_csv_has_names_and_paths(tmp_path):
    partition = infomap(nx.ring_of_cliques(16, 4))
    partition.write(tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "name,module,top_module,path,flow"
    rows = [line.split(",") for line in lines[1:]]
    assert sorted(int(row[0]) for row in rows) == list(range(64))
    for name, module, top, place, rate in rows:
        node = int(name)
        assert int(module) == partition.modules[node] + 1
        assert int(top) == partition.top_modules[node] + 1
        assert place == ":".join(str(number + 1) for number in partition.paths[node])
        assert float(rate) == pytest.approx(partition.flow[node])
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_another_extension_is_refused(tmp_path):
    partition = infomap(nx.ring_of_cliques(4, 4))
    with pytest.raises(ValueError, match=r"must end in .tree, .clu, .csv, .json"):
        partition.write(tmp_path / "out.txt")


def test_where_files_are_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    found = infomap(NAMED)
    found.write("~/a.tree")
    found.to_csv("~/a.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.tree"]
    (tmp_path / "folder.clu").mkdir()
    for write in (found.write, found.to_clu):
        for path, message in (
            (tmp_path / "none" / "a.clu", r"there is no folder .*none; create it first"),
            ("~nobody-of-this-name/a.clu", "there is no folder ~nobody-of-this-name"),
            (tmp_path / "folder.clu", "is a folder: name a file"),
        ):
            with pytest.raises(ValueError, match=message):
                write(path)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write
    with pytest.raises(ValueError, match="no permission to write into the folder"):
        found.to_csv("~/b.csv")


@pytest.mark.parametrize("two_level", [True, False])
def test_infomap_scores_our_tree_at_our_code_length(tmp_path, two_level):
    peer = pytest.importorskip("infomap")
    (tmp_path / "g.net").write_text(PAJEK)
    random = np.random.default_rng(0)
    lines = [f"{a} {b} {w}" for a, b, w in random.integers(1, 40, (150, 3)).tolist()]
    (tmp_path / "g.txt").write_text("\n".join(lines))
    for name in ("g.net", "g.txt"):
        found = infomap(tmp_path / name, two_level=two_level)
        found.write(tmp_path / "g.tree")
        theirs = peer.run(str(tmp_path / name), no_infomap=True, cluster_data=str(tmp_path / "g.tree"))
        assert theirs.codelength == pytest.approx(found.codelength, abs=1e-9)
        assert theirs.num_top_modules == found.num_top_modules


def test_what_infomap_wrote_is_read(tmp_path):
    peer = pytest.importorskip("infomap")
    (tmp_path / "g.net").write_text(PAJEK)
    for given in (NAMED, nx.les_miserables_graph(), str(tmp_path / "g.net")):
        result = peer.run(given, two_level=True)
        for ending in ("tree", "clu", "ftree"):
            path = str(tmp_path / f"theirs.{ending}")
            (result.write_flow_tree if ending == "ftree" else getattr(result, f"write_{ending}"))(path)
            assert codelength(given, path) == pytest.approx(result.codelength, abs=1e-9)


def test_files_with_ids_and_names_are_read_back(tmp_path):
    (tmp_path / "g.net").write_text(PAJEK)
    found = infomap(tmp_path / "g.net")
    assert Network(tmp_path / "g.net").partition(found) == found  # two nodes have the same name
    assert found.names == ["plain", 'a "x" b', "back\\slash", "same", "same", "7", "alone"]
    for ending in ("tree", "clu"):
        found.write(tmp_path / f"out.{ending}", level=-1)
        assert Network(tmp_path / "g.net").partition(tmp_path / f"out.{ending}") == found
    rows = {row.rsplit(" ", 1)[1]: row for row in text_rows(tmp_path / "out.tree")}
    assert sorted(rows) == [str(number) for number in range(11, 18)]
    assert '"a \\"x\\" b"' in rows["12"]


def test_names_with_quotes_are_read_back(tmp_path):
    names = ['a "x" b', "c, d", "e\\", '"', "plain", "12", " blank ", "ü", "two\nlines", "\\n\r"]
    graph = nx.cycle_graph(len(names))
    graph = nx.relabel_nodes(graph, dict(enumerate(names)))
    found = Network(graph).partition([0, 0, 1, 1, 2, 2, 3, 3, 0, 1])
    for ending in ("tree", "clu"):
        found.write(tmp_path / f"out.{ending}")
        assert Network(graph).partition(tmp_path / f"out.{ending}") == found


def test_json_has_the_navigators_shape(tmp_path):
    peer = pytest.importorskip("infomap")
    graph = nx.DiGraph([(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3), (2, 3)])
    found = infomap(graph)
    found.write(tmp_path / "ours.json")
    result = peer.run(graph, directed=True)
    result.write_json(str(tmp_path / "theirs.json"))
    ours, theirs = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("ours", "theirs"))
    assert theirs["nodes"][0].keys() - {"mec"} <= ours["nodes"][0].keys()
    for key in ("numLevels", "numTopModules", "directed", "flowModel", "higherOrder"):
        assert ours[key] == theirs[key]
    assert ours["codelength"] == pytest.approx(theirs["codelength"], abs=1e-9)
    assert ours["relativeCodelengthSavings"] == pytest.approx(theirs["relativeCodelengthSavings"], abs=1e-9)
    for a, b in zip(ours["nodes"], theirs["nodes"], strict=True):
        assert (a["path"], a["modules"], a["id"]) == (b["path"], b["modules"], b["id"])
        assert a["flow"] == pytest.approx(b["flow"], abs=1e-5)
    for a, b in zip(ours["modules"], theirs["modules"], strict=True):
        assert (a["path"], a["numEdges"], a["numChildren"]) == (b["path"], b["numEdges"], b["numChildren"])
        assert [a[key] for key in ("enterFlow", "exitFlow")] == pytest.approx([b["enterFlow"], b["exitFlow"]], abs=1e-5)
    assert sum(module["codelength"] for module in ours["modules"]) == pytest.approx(found.codelength, abs=1e-12)
    inside = sum(link["flow"] for module in ours["modules"] for link in module["links"])
    assert inside == pytest.approx(Network(graph).link_flow().sum(), abs=1e-12)


@pytest.mark.parametrize("number", ["9223372036854775808", "9" * 5000])
def test_numbers_beyond_64_bits_are_names(tmp_path, number):
    graph = [(number, "2"), ("2", "3")]
    partition = infomap(graph)
    partition.write(tmp_path / "it.tree")
    lines = [line.split() for line in (tmp_path / "it.tree").read_text().splitlines() if line[0] != "#"]
    assert sorted((name.strip('"'), number) for *_, name, number in lines) == sorted(
        (name, str(place)) for place, name in enumerate(partition.names)
    )
    assert infomap(graph, initial=tmp_path / "it.tree").codelength == partition.codelength
