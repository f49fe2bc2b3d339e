"""What a search must find, for any order of its input."""

import gc

import networkx as nx
import numba
import numpy as np
import pytest
from classic_graphs import nine_triangles

from map_equation import codelength, infomap
from map_equation.compiled import sources
from map_equation.flow import compute_flow
from map_equation.graph import read_graph
from map_equation.inputs import read_links
from map_equation.search import levels, trial
from map_equation.search.derived import only_inside
from map_equation.search.walk_graph import changed_modules, renumber, touched, walk_graph


def planted(seed: int, n: int = 600, modules: int = 12, inside: int = 12, between: int = 3):
    """Edges and labels: ``inside`` links of each node within its module, ``between`` anywhere."""
    random = np.random.default_rng(seed)
    label = np.arange(n) % modules
    source = np.repeat(np.arange(n), inside + between)
    target = random.integers(0, n // modules, len(source)) * modules + label[source]
    free = np.tile(np.arange(inside + between) >= inside, n)
    target[free] = random.integers(0, n, free.sum())
    return np.stack([source, target], 1), label


def same_partition(a, b) -> bool:
    return len(set(zip(a, b, strict=True))) == len(set(a)) == len(set(b))


@pytest.mark.parametrize("flow", ["undirected", "directed", "directed_recorded", "uniform_recorded"])
def test_planted_modules_are_found(flow: str):
    edges, label = planted(0)
    found = infomap(edges, flow=flow, two_level=True)
    assert same_partition(found.modules, label)
    assert found.codelength == pytest.approx(codelength(edges, label, flow=flow), abs=1e-12)


@pytest.mark.parametrize(
    ("graph", "two_level", "expected", "modules", "top"),
    [
        (nx.ring_of_cliques(16, 4), True, 3.177873214, 16, 16),
        (nx.ring_of_cliques(16, 4), False, 3.090719919, 16, 6),
        (nx.connected_caveman_graph(10, 5), True, 3.119341191, 10, 10),
        (nx.florentine_families_graph(), True, 3.446961727, 4, 4),
        (nx.les_miserables_graph(), True, 4.204714637, 10, 10),
        (nx.karate_club_graph(), False, 4.087423159, 3, 3),
        (nine_triangles(0.8), True, 3.517754809, 9, 9),
        (nine_triangles(0.8), False, 3.371875026, 9, 5),
    ],
)
def test_known_optima(graph, two_level, expected, modules, top):
    found = infomap(graph, two_level=two_level, num_trials=10)
    assert found.codelength == pytest.approx(expected, abs=1e-9)
    assert found.num_modules == modules
    assert len(set(found.top_modules)) in ((5, 6) if top == 6 else (top,))  # in the ring of cliques both are as short
    assert found.codelength == pytest.approx(codelength(graph, found.paths), abs=1e-12)


@pytest.mark.parametrize("flow", ["undirected", "directed"])
def test_order_of_edges_does_not_matter(flow: str):
    edges, _ = planted(1, n=300, inside=6, between=4)
    random = np.random.default_rng(0)
    weights = random.random(len(edges))
    first = infomap(edges, weights, flow=flow, seed=3)
    for _ in range(3):
        order = random.permutation(len(edges))
        again = infomap(edges[order], weights[order], flow=flow, seed=3)
        assert again.codelength == first.codelength
        assert (again.modules == first.modules).all()


def test_order_of_named_links_does_not_matter():
    edges, _ = planted(1, n=300, inside=6, between=4)
    assert len(edges) >= 1250, "smaller graphs are reordered before they are searched"
    named = [(f"n{a}", f"n{b}") for a, b in edges.tolist()]
    first = infomap(named, seed=3)
    again = infomap([named[place] for place in np.random.default_rng(0).permutation(len(named))], seed=3)
    assert again.codelength == first.codelength
    assert again.to_dict() == first.to_dict()


def test_more_trials_are_never_worse_and_seeds_differ():
    edges, _ = planted(2, n=300, inside=2, between=2)
    lengths = [infomap(edges, num_trials=trials, seed=5).codelength for trials in (1, 2, 4, 8)]
    assert lengths == sorted(lengths, reverse=True)
    assert len({infomap(edges, seed=seed).codelength for seed in range(5)}) > 1


def test_hierarchy_is_not_longer_than_two_levels():
    edges, _ = planted(3, n=300, inside=6, between=2)
    for seed in range(3):
        flat, deep = (infomap(edges, two_level=two_level, seed=seed) for two_level in (True, False))
        assert deep.codelength <= flat.codelength + 1e-12
        assert flat.num_levels == 2


@pytest.mark.parametrize("flow", ["undirected", "directed", "directed_recorded"])
def test_hierarchy_is_not_longer_where_there_is_no_structure(flow):
    graph = nx.barabasi_albert_graph(120, 2, seed=6)
    for seed in range(10):
        flat, deep = (infomap(np.array(graph.edges), flow=flow, two_level=two, seed=seed) for two in (True, False))
        assert deep.codelength <= flat.codelength + 1e-12


def recursive_tree(n: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.array([(node, random.integers(0, node)) for node in range(1, n)])


def test_levels_of_a_tree_are_as_short_as_those_of_infomap():
    edges = recursive_tree(1000, 1)
    peer = pytest.importorskip("infomap")
    for two_level in (True, False):
        ours = [infomap(edges, two_level=two_level, seed=seed).codelength for seed in (1, 2, 3)]
        theirs = [peer.run(edges, silent=True, two_level=two_level, seed=seed).codelength for seed in (1, 2, 3)]
        assert np.mean(ours) < np.mean(theirs)


def test_no_structure_is_one_module():
    found = infomap(nx.complete_graph(20))
    assert (found.num_modules, found.num_levels) == (1, 2)
    assert found.codelength == found.one_level_codelength
    assert found.index_codelength == 0


def test_parts_that_are_not_connected_are_never_joined():
    triangles = [[3 * part + a, 3 * part + b] for part in range(4) for a, b in ((0, 1), (0, 2), (1, 2))]
    found = infomap(triangles, num_nodes=14)  # the last two nodes have no link
    assert same_partition(found.modules[:12], np.arange(12) // 3)
    assert found.flow[12:].tolist() == [0, 0]
    assert found.index_codelength == pytest.approx(0, abs=1e-12)


def test_siblings_are_numbered_by_flow():
    graph = nx.disjoint_union_all([nx.complete_graph(size) for size in (4, 8, 6)])
    found = infomap(graph, two_level=True)
    assert found.modules.tolist() == [2] * 4 + [0] * 8 + [1] * 6
    deep = infomap(nine_triangles(), num_trials=5)
    assert deep.num_levels == max(map(len, deep.paths)) + 1 == 3
    assert [path[0] for path in deep.paths] == deep.top_modules.tolist()


def test_small_modules_are_split():
    """Cliques of three, each a pair and a node; a single try often leaves them whole."""
    links, node = [], 1
    for number in range(40):
        size = 3 + number % 7
        links += [(node + a, node + b) for a in range(size) for b in range(a)] + [(0, node)]
        node += size
    lengths = [infomap(np.array(links), flow="directed", seed=seed).codelength for seed in (1, 2, 3)]
    assert lengths == pytest.approx([2.083982978] * 3, abs=1e-9)  # infomap 2.16's


@numba.njit
def look(graph, now, earlier):
    """The functions of the search that a test can't call by themselves."""
    earlier, now = earlier.copy(), now.copy()
    renumber(earlier)
    count = renumber(now)
    changed = changed_modules(now, count, earlier)
    return (
        earlier,
        now,
        changed,
        changed_modules(now, count, earlier[:0]),
        touched(graph, now, changed),
        only_inside(graph, now, changed),
    )


@pytest.mark.parametrize("seed", range(5))
def test_what_has_changed_between_two_partitions(seed: int):
    random = np.random.default_rng(seed)
    edges = random.integers(0, 30, (60, 2))
    earlier = random.integers(0, 8, 30).astype(np.int32)
    now = np.where(random.random(30) < 0.1, random.integers(0, 9, 30), earlier).astype(np.int32)
    links = read_links(edges, None, 30, None)
    graph = walk_graph(compute_flow(read_graph(links, "undirected"), "undirected", 0.15, 1.0, None)[0])
    earlier, now, changed, all_changed, near_changed, (kept, nodes, start) = look(graph, now, earlier)
    sets = [{*np.flatnonzero(earlier == a).tolist()} for a in range(earlier.max() + 1)]
    assert changed.tolist() == [{*np.flatnonzero(now == a).tolist()} not in sets for a in range(now.max() + 1)]
    assert all_changed.all()
    inside = {u for u in range(30) if changed[now[u]]}
    near = inside | {int(v) for pair in edges for u, v in (pair, pair[::-1]) if u in inside}
    assert near_changed.tolist() == sorted(near)
    assert nodes.tolist() == sorted(inside, key=lambda u: (now[u], u))
    assert len({start[u] for u in inside}) == len(inside)
    assert len({(start[u], now[u]) for u in range(30) if u not in inside}) == (~changed).sum()
    pairs = {(u, int(v)) for u in range(30) for v in kept.neighbour[kept.indptr[u] : kept.indptr[u + 1]]}
    both = {(int(u), int(v)) for pair in edges for u, v in (pair, pair[::-1]) if u != v}
    assert pairs == {(u, v) for u, v in both if u in inside and now[u] == now[v]}


def test_any_changed_source_is_compiled_anew(tmp_path):
    (tmp_path / "search").mkdir()
    for name in ("flow.py", "search/moves.py"):
        (tmp_path / name).write_text("x = 1\n")
    before = sources(tmp_path)
    assert sources(tmp_path) == before
    (tmp_path / "search" / "moves.py").write_text("x = 2\n")
    assert sources(tmp_path) != before


@pytest.mark.parametrize("compiled", [False, True])
def test_nothing_is_collected_while_the_search_compiles(compiled, monkeypatch):
    collects = []

    def find(*arguments):
        collects.append(gc.isenabled())
        return levels.find(*arguments)

    find.signatures = ["of a call"] if compiled else []
    monkeypatch.setattr(trial, "find", find)
    assert gc.isenabled()
    infomap(nine_triangles())
    assert set(collects) == {compiled}
    assert gc.isenabled()
