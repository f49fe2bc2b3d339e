"""Modules that a user gives: in any form, by name or in the order of the nodes."""

import networkx as nx
import numpy as np
import pandas
import pytest
import torch

from map_equation import Network, codelength, infomap

EDGES = np.array([[0, 1], [0, 2], [1, 2], [2, 3], [3, 4], [3, 5], [4, 5]])
HALVES = [0, 0, 0, 1, 1, 1]
EXPECTED = 2.320730356834
NAMED = nx.relabel_nodes(nx.Graph(EDGES.tolist()), dict(enumerate("ABCDEF")))


def test_labels_of_any_kind():
    assert codelength(EDGES, list("aaabbb")) == codelength(EDGES, HALVES)
    assert codelength(EDGES, torch.tensor(HALVES)) == codelength(EDGES, HALVES)
    assert codelength(EDGES, [1, 1, 1, "1", "1", "1"]) == codelength(EDGES, HALVES)
    assert codelength(EDGES, [None, None, None, 2**80, 2**80, 2**80]) == codelength(EDGES, HALVES)
    for wrong in (np.zeros((6, 1, 1), int), np.zeros((6, 2))):
        with pytest.raises(ValueError, match=r"modules .*\(n, depth\)"):
            codelength(EDGES, wrong)


@pytest.mark.parametrize(
    "given",
    [
        dict(zip("FEDCBA", "xxxyyy", strict=True)),
        dict(zip("ABCDEF", [(0,)] * 3 + [(1,)] * 3, strict=True)),
        [{"A", "B", "C"}, {"D", "E", "F"}],
        (frozenset("DEF"), frozenset("ABC")),
        pandas.Series(HALVES, index=list("ABCDEF")),
        infomap(NAMED),
        infomap(NAMED).to_dict(),
        infomap(NAMED).communities,
        infomap(NAMED).to_dataframe().set_index("node").module,
        infomap(NAMED).to_dataframe(),
        infomap(NAMED).to_dataframe()[::-1][["node", "module"]],
    ],
)
def test_modules_by_name(given):
    assert codelength(NAMED, given) == pytest.approx(EXPECTED, abs=1e-9)
    assert infomap(NAMED, initial=given).passes[0] == pytest.approx(EXPECTED, abs=1e-9)


def test_a_table_of_states_or_levels(tmp_path):
    (tmp_path / "layers.net").write_text("*Intra\n1 1 2\n1 2 3\n1 3 1\n2 1 4\n2 4 5\n2 5 1\n")
    for graph in (nx.ring_of_cliques(16, 4), tmp_path / "layers.net"):
        found = infomap(graph)
        assert Network(graph).partition(found.to_dataframe()) == found
        assert codelength(graph, found.to_dataframe()[::-1]) == pytest.approx(found.codelength, abs=1e-12)


def test_modules_by_name_are_those_of_the_nodes():
    """Nodes in another order, and labels that would be nonsense in the order of the dict."""
    karate = nx.karate_club_graph()
    clubs = {name: karate.nodes[name]["club"] for name in reversed(list(karate))}
    in_order = [karate.nodes[name]["club"] for name in karate]
    assert codelength(karate, clubs) == codelength(karate, in_order)
    assert codelength(karate, clubs) == pytest.approx(4.254142470, abs=1e-9)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"A": 0}, "no module for the node 'B' and 4 others"),
        ({**dict.fromkeys("ABCDEF", 0), "G": 1}, "the graph has no node 'G'"),
        ([set("ABC"), set("CDEF")], "the node 'C' is in two modules"),
        ([0, 1], "each of the 6 nodes, not 2"),
        ([list("ABC"), list("DEF")], r"not 2: groups of nodes must be sets, \[set"),
        (pandas.DataFrame({"node": list("ABCDEF"), "group": 1}), "a table of modules has columns node and module"),
    ],
)
def test_modules_that_do_not_fit(given, message):
    for use in (codelength, lambda graph, modules: infomap(graph, initial=modules)):
        with pytest.raises(ValueError, match=message):
            use(NAMED, given)


def test_files_that_do_not_fit(tmp_path):
    bad = {
        "a.tree": ("1:1 0.5 x\n", r"line 1: expected a line such as 1:2 0\.25"),
        "a.clu": ("# x\nA\n", "line 2: expected a node and its module"),
        "b.clu": ("A 1\nZ 1\n", "the graph has no node Z"),
        "c.clu": ('"A" 1\n"B" 1\n', "no module for the node"),
        "d.clu": ("# nothing\n", "has no modules"),
        "e.txt": ("A 1\n", "end in .tree, .ftree, .clu"),
        "f.clu": ("A 1\n9 1\n", "the graph has no node 9"),
    }
    for name, (text, message) in bad.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=message) as error:
            codelength(NAMED, tmp_path / name)
        assert name in str(error.value)
    with pytest.raises(ValueError, match="cannot read"):
        codelength(NAMED, "none.tree")


def test_a_clu_file_by_hand(tmp_path):
    (tmp_path / "a.clu").write_text("A 1\nB 1\nC 1\nD 2\nE 2\n5 2\n")  # the last by its place
    assert codelength(NAMED, tmp_path / "a.clu") == pytest.approx(EXPECTED, abs=1e-9)
    (tmp_path / "b.clu").write_text("".join(f"{name} {name // 4}\n" for name in range(1, 7)))
    assert codelength(EDGES + 1, str(tmp_path / "b.clu")) == pytest.approx(EXPECTED, abs=1e-9)


def test_a_hierarchy_from_a_file_is_searched_from(tmp_path):
    ring = nx.ring_of_cliques(16, 4)
    found = infomap(ring)
    found.write(tmp_path / "a.tree")
    assert Network(ring).partition(tmp_path / "a.tree") == found
    assert infomap(ring, initial=tmp_path / "a.tree").codelength <= found.codelength + 1e-12
