"""The canonical graph against SciPy's sums of sparse entries."""

import numpy as np
import pytest
import scipy.sparse

from map_equation.graph import read_graph
from map_equation.inputs import read_links


@pytest.mark.parametrize("num_nodes", [1, 2, 40, 5_000])
@pytest.mark.parametrize("flow", ["undirected", "directed"])
@pytest.mark.parametrize("weighted", [False, True])
def test_links_are_summed(num_nodes, flow, weighted):
    random = np.random.default_rng(0)
    edges = random.integers(0, num_nodes, (3 * num_nodes, 2))
    edges = np.concatenate([edges, edges[::2], edges[::3, ::-1]])  # some up to four times
    weights = random.integers(1, 9, len(edges)) / 4 if weighted else None  # their sums are exact
    once = scipy.sparse.coo_array(
        (np.ones(len(edges)) if weights is None else weights, edges.T), (num_nodes, num_nodes)
    ).tocsr()
    loops = once.diagonal()
    once.setdiag(0)
    once.eliminate_zeros()
    both = (once + once.T).tocsr()
    both.sort_indices()

    graph = read_graph(read_links(edges, weights, num_nodes), flow)

    assert np.array_equal(graph.indptr, both.indptr)
    assert np.array_equal(graph.neighbour, both.indices)
    assert np.array_equal(graph.loops, loops)
    row = np.repeat(np.arange(num_nodes), np.diff(graph.indptr))
    for weight, expected in (
        (graph.out, both if flow == "undirected" else once),
        (graph.into, both if flow == "undirected" else once.T),
    ):
        found = scipy.sparse.csr_array((weight, (row, graph.neighbour)), (num_nodes, num_nodes))
        assert not (found != expected.tocsr()).nnz
