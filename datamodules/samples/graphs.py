"""Sample graphs: a planted partition with features, the LFR benchmark, and the classics of the field."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from readers.errors import DataError
from readers.graphs.graph import Graph, name_array, number_names

if TYPE_CHECKING:
    import networkx

SampleGraph = Literal[
    "planted_partition",
    "lfr",
    "two_triangles",
    "nine_triangles",
    "ring_of_cliques",
    "caveman",
    "karate",
    "les_miserables",
    "florentine_families",
]
Link = tuple[int, int, float]


def classic_graph(name: str) -> Graph:
    """One of the undirected graphs that are well known in the field.

    - ``two_triangles``: 6 nodes, joined by one link.
    - ``nine_triangles``: 27 nodes; three links join three triangles, and three of weight 0.8 join these groups.
    - ``ring_of_cliques``: 16 cliques of 4 nodes.
    - ``caveman``: 10 caves of 5 nodes, one link of each rewired to the previous cave.
    - ``karate``: 34 members and the weights of their friendships; the classes are the two clubs they split into.
    - ``les_miserables``: 77 characters, weighted by the chapters they share; no classes.
    - ``florentine_families``: 15 families, joined by marriages; no classes.

    The classes of the first four are their triangles, cliques and caves.

    Raises:
        KeyError: there is no such graph.
    """
    return CLASSICS[name]()


def two_triangles() -> Graph:
    """Two triangles, joined by a link; each is a class."""
    return from_links([*_cliques(2, 3), (2, 3, 1.0)], np.arange(6) // 3)


def nine_triangles() -> Graph:
    """Nine triangles in three groups of three, linked within groups and weakly between them; each is a class.

    There are three levels: nodes, triangles, groups.
    """
    # Three links within each group of three triangles (nodes 0..8), and three between the groups.
    bridges = [(9 * group + a, 9 * group + b, 1.0) for group in range(3) for a, b in ((1, 3), (2, 6), (5, 7))]
    return from_links([*_cliques(9, 3), *bridges, (4, 9, 0.8), (8, 18, 0.8), (17, 22, 0.8)], np.arange(27) // 3)


def ring_of_cliques() -> Graph:
    """16 cliques of 4 nodes in a ring, each joined to the next by a link; each is a class."""
    num_cliques, size = 16, 4
    nodes = num_cliques * size
    ring = [(size * clique + 1, size * (clique + 1) % nodes, 1.0) for clique in range(num_cliques)]
    return from_links([*_cliques(num_cliques, size), *ring], np.arange(nodes) // size)


def caveman() -> Graph:
    """10 cliques of 5 nodes in a ring, one link of each rewired to the previous one; each is a class.

    Source: the connected caveman graph, Watts 1999.
    """
    num_caves, size = 10, 5
    nodes = num_caves * size
    links = [link for link in _cliques(num_caves, size) if link[0] % size or link[1] != link[0] + 1]
    turned = [(size * cave, (size * cave - 1) % nodes, 1.0) for cave in range(num_caves)]
    return from_links([*links, *turned], np.arange(nodes) // size)


def karate() -> Graph:
    """The friendships of a karate club and the two clubs that it split into, by networkx.

    Source: Zachary 1977.
    """
    import networkx

    graph = networkx.karate_club_graph()
    clubs = np.array([club != "Mr. Hi" for _, club in graph.nodes(data="club")], np.int64)
    return from_networkx(graph, clubs)


def les_miserables() -> Graph:
    """The characters of a novel, linked by the chapters that they share, by networkx; no classes.

    Source: Knuth 1993, The Stanford GraphBase.
    """
    import networkx

    return from_networkx(networkx.les_miserables_graph())


def florentine_families() -> Graph:
    """The marriages between families of Renaissance Florence, by networkx; no classes.

    Source: Breiger and Pattison 1986.
    """
    import networkx

    return from_networkx(networkx.florentine_families_graph())


CLASSICS: dict[str, Callable[[], Graph]] = {
    function.__name__: function
    for function in (
        two_triangles,
        nine_triangles,
        ring_of_cliques,
        caveman,
        karate,
        les_miserables,
        florentine_families,
    )
}


def lfr_graph(num_nodes: int, mean_degree: float, mixing: float, seed: int) -> Graph:
    """An LFR benchmark graph, by networkx: degrees and sizes of communities follow power laws; no features.

    Exponents are 2 for the degrees and 1.1 for the sizes, which are between 20 and 100; the maximum degree is
    ``2 sqrt(num_nodes)``. The actual mean degree and mixing are higher than requested: the datamodule's ``describe()``
    has the mixing.

    Raises:
        DataError: networkx finds no such graph.

    Source: Lancichinetti, Fortunato, Radicchi 2008; degrees as in Blöcker et al. (arXiv 2310.01144), whose exponent of
    1 for the sizes networkx doesn't accept.
    """
    import networkx

    largest = min(num_nodes - 1, round(2 * num_nodes**0.5))
    # The generator fails for some seeds; the derived ones are deterministic.
    for attempt in range(10):
        try:
            graph = networkx.LFR_benchmark_graph(
                num_nodes,
                2,
                1.1,
                mixing,
                average_degree=mean_degree,
                max_degree=largest,
                min_community=min(20, num_nodes // 4),
                max_community=min(100, num_nodes),
                max_iters=300,
                seed=seed + attempt * 1_000_003,
            )
        except networkx.ExceededMaxIterations:
            continue
        graph.remove_edges_from(list(networkx.selfloop_edges(graph)))
        first = np.array([min(members) for _, members in graph.nodes(data="community")])
        return from_networkx(graph, np.unique(first, return_inverse=True)[1])
    raise DataError(
        f"networkx finds no LFR graph of {num_nodes} nodes, mean degree {mean_degree} and mixing {mixing} with seed "
        f"{seed}: lower data.sample_mixing, raise data.sample_num_nodes, or take another data.seed"
    )


def planted_partition(
    num_nodes: int,
    num_communities: int,
    mean_degree: float,
    mixing: float,
    num_features: int,
    directed: bool,
    seed: int,
) -> Graph:
    """Communities of different sizes, nodes of different degrees, and features that hint at the community.

    Community sizes differ by a factor of up to three. Node i attracts links in proportion to ``θ_i``, which is Pareto
    distributed with exponent 2.5 and truncated at ten times the minimum. A link begins at a node drawn by θ; with
    probability ``mixing`` it ends in another community, else in its own, again drawn by θ. Repeated links and
    self-loops are redrawn.

    Features are 0 or 1. A quarter of them are typical of each community: these are 1 with probability 0.35 in its
    nodes, all others with 0.1.

    Args:
        num_nodes: number of nodes.
        num_communities: number of communities.
        mean_degree: mean number of links per node, in and out together.
        mixing: share of links between communities, in [0, 1].
        num_features: F.
        directed: keep the direction in which links are drawn.
        seed: of everything.

    Raises:
        ValueError: there are too few nodes for so many communities or links.

    Source: the degree-corrected stochastic block model, Karrer and Newman 2011.
    """
    if num_communities > num_nodes:
        raise ValueError(
            f"{num_nodes} nodes are too few for {num_communities} communities: lower sample_num_communities, or raise "
            "sample_num_nodes"
        )
    random = np.random.default_rng([seed, 6])
    sizes = random.uniform(0.5, 1.5, num_communities)
    ends = np.floor(np.cumsum(sizes) / sizes.sum() * (num_nodes - num_communities)).astype(np.int64)
    ends[-1] = num_nodes - num_communities
    labels = np.repeat(np.arange(num_communities), np.diff(ends, prepend=0) + 1)
    attraction = np.minimum((1 - random.random(num_nodes)) ** (-1 / 1.5), 10)
    edges = _draw_links(labels, attraction, round(num_nodes * mean_degree / 2), mixing, directed, random)
    # Until here the nodes were sorted by community.
    place = random.permutation(num_nodes)
    shuffled = np.empty(num_nodes, np.int64)
    shuffled[place] = labels
    typical = random.random((num_communities, num_features)).argsort(1) < num_features / 4
    chance = np.where(typical, 0.35, 0.1)[shuffled]
    features = (random.random((num_nodes, num_features)) < chance).astype(np.float32)
    edges = place[edges]
    edges = edges[np.lexsort((edges[:, 1], edges[:, 0]))]
    return Graph(edges, number_names(np.arange(num_nodes)), None, directed, 0, shuffled, features)


def _draw_links(
    labels: NDArray[np.int64],
    attraction: NDArray[np.float64],
    num_links: int,
    mixing: float,
    directed: bool,
    random: np.random.Generator,
) -> NDArray[np.int64]:
    """(num_links, 2) distinct links without self-loops; ``labels`` are ascending."""
    nodes = len(labels)
    until = np.cumsum(attraction)
    bounds = np.searchsorted(labels, np.arange(labels[-1] + 2))
    ends = np.concatenate([[0.0], until])[bounds]
    if labels[-1] == 0:
        mixing = 0.0
    links = np.empty(0, np.int64)
    for _ in range(100):
        missing = num_links - len(links)
        if missing <= 0:
            break
        draws = missing + missing // 8 + 16
        source = np.searchsorted(until, random.random(draws) * until[-1], side="right")
        low, high = ends[labels[source]], ends[labels[source] + 1]
        at = random.random(draws)
        inside = low + at * (high - low)
        outside = at * (until[-1] - (high - low))
        outside += np.where(outside >= low, high - low, 0)
        target = np.searchsorted(until, np.where(random.random(draws) < mixing, outside, inside), side="right")
        source, target = np.minimum(source, nodes - 1), np.minimum(target, nodes - 1)
        if not directed:
            source, target = np.minimum(source, target), np.maximum(source, target)
        new = np.setdiff1d((source * nodes + target)[source != target], links)
        links = np.concatenate([links, random.permutation(new)[:missing]])
    else:
        raise ValueError(
            f"{nodes} nodes are too few for {num_links} distinct links: lower sample_mean_degree, or raise "
            "sample_num_nodes"
        )
    return np.stack(np.divmod(links, nodes), 1)


def _cliques(number: int, size: int) -> list[Link]:
    return [
        (size * clique + a, size * clique + b, 1.0)
        for clique in range(number)
        for a in range(size)
        for b in range(a + 1, size)
    ]


def from_links(links: Iterable[Link], labels: NDArray[np.int64]) -> Graph:
    """An undirected graph from (node, node, weight) and a label per node."""
    links = list(links)
    edges = np.array([link[:2] for link in links], np.int64)
    weights = np.array([link[2] for link in links])
    return Graph(edges, number_names(np.arange(len(labels))), weights, False, labels=labels)


def from_networkx(graph: "networkx.Graph", labels: NDArray[np.int64] | None = None) -> Graph:
    """An undirected graph from networkx, with its order of nodes; a link without ``weight`` has 1."""
    index = {node: number for number, node in enumerate(graph)}
    links = [(index[a], index[b], float(weight)) for a, b, weight in graph.edges(data="weight", default=1.0)]
    edges = np.array([link[:2] for link in links], np.int64).reshape(-1, 2)
    weights = np.array([link[2] for link in links])
    return Graph(edges, name_array([str(node) for node in graph]), weights, False, labels=labels)
