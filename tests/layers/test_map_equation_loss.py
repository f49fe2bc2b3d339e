"""The map equation of soft assignments: against loops, the code length of partitions, and finite differences."""

import copy
from math import log2

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from layers import MapEquationLoss, SparseMatrix
from layers.graphs import map_equation_loss
from map_equation import Network
from map_equation.graph import FLOWS


def random_walk(flow: str, seed: int = 0, n: int = 40) -> Network:
    """A walk on a graph with multi-edges, self-loops and nodes that no link leaves."""
    random = np.random.default_rng(seed)
    edges = random.integers(0, n, (3 * n, 2))
    edges = edges[edges[:, 0] > 3]
    return Network(edges, random.random(len(edges)) * 5, num_nodes=n, flow=flow)


def arguments(walk: Network) -> tuple:
    return walk.link_flow(), walk.flow, *(walk.teleportation_rates() or ())


def by_loops(shares: list[list[float]], walk: Network) -> float:
    """The formula entry by entry, over the dense flow including teleportation."""
    flow = walk.link_flow().toarray()
    for leave, land in [walk.teleportation_rates()] if walk.teleportation_rates() else []:
        flow += np.outer(leave, land)
    nodes, clusters = range(len(shares)), range(len(shares[0]))
    rates = [[0.0] * 3 for _ in clusters]
    for m in clusters:
        for a in nodes:
            rates[m][2] += shares[a][m] * walk.flow[a]
            for b in nodes:
                rates[m][0] += flow[a, b] * shares[a][m] * (1 - shares[b][m])
                rates[m][1] += flow[a, b] * (1 - shares[a][m]) * shares[b][m]
    length = plogp(sum(enter for _, enter, _ in rates)) - sum(plogp(rate) for rate in walk.flow)
    for leave, enter, visits in rates:
        length += plogp(leave + visits) - plogp(leave) - plogp(enter)
    return length


def plogp(x: float) -> float:
    return x * log2(x) if x > 0 else 0.0


@pytest.mark.parametrize("flow", FLOWS)
def test_soft_assignments_against_loops(flow: str):
    walk = random_walk(flow)
    shares = torch.randn(40, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).softmax(1)
    assert float(map_equation_loss(shares, *arguments(walk))) == pytest.approx(
        by_loops(shares.tolist(), walk), abs=1e-12
    )


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("n", [40, 3000])
def test_one_hot_is_the_code_length(flow: str, dtype: torch.dtype, tolerance: float, n: int):
    walk = random_walk(flow, n=n)
    labels = np.random.default_rng(2).integers(0, n // 20, n)
    shares = one_hot(torch.from_numpy(labels), n // 20 + 3).to(dtype)  # three clusters are empty
    loss = MapEquationLoss(*arguments(walk), dtype=dtype)(shares)
    assert float(loss) == pytest.approx(walk.codelength(labels), abs=tolerance)
    together = MapEquationLoss(*arguments(walk), dtype=dtype)(torch.ones(n, 1, dtype=dtype))
    assert float(together) == pytest.approx(walk.one_level_codelength, abs=tolerance)


def test_two_triangles_by_hand():
    walk = Network([[0, 1], [0, 2], [1, 2], [2, 3], [3, 4], [3, 5], [4, 5]])
    shares = torch.eye(2, dtype=torch.float64).repeat_interleave(3, 0)
    assert float(map_equation_loss(shares, *arguments(walk))) == pytest.approx(2.320730356834, abs=1e-11)


def test_kinds_of_nodes():
    walk = Network([[0, 3], [1, 3], [1, 4], [2, 4]], [1, 1, 0.25, 1], bipartite=3)
    labels = [0, 0, 1, 0, 1]
    loss = map_equation_loss(one_hot(torch.tensor(labels)).double(), *arguments(walk))
    assert float(loss) == pytest.approx(walk.codelength(labels), abs=1e-12)


@pytest.mark.parametrize("flow", ["undirected", "directed", "directed_recorded"])
def test_gradient(flow: str):
    walk = random_walk(flow, n=12)
    loss = MapEquationLoss(*arguments(walk), dtype=torch.float64)
    logits = torch.randn(12, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: loss(x.softmax(1)), logits)
    assert torch.autograd.gradgradcheck(lambda x: loss(x.softmax(1)), logits)
    # The gradient is that of the formula for rows that don't sum to 1, too.
    assert torch.autograd.gradcheck(loss, logits.detach().exp().requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_where_clusters_are_empty(dtype: torch.dtype):
    loss = MapEquationLoss(*arguments(random_walk("directed")), dtype=dtype)
    for shares in (one_hot(torch.arange(40) // 20, 4).to(dtype), torch.eye(40, dtype=dtype)[:, :1].expand(40, 3) * 0):
        shares = shares.requires_grad_()
        loss(shares).backward()
        assert shares.grad.isfinite().all()
    # So far apart that softmax is one-hot to the last bit.
    logits = (1e4 * one_hot(torch.arange(40) // 20, 4).to(dtype)).requires_grad_()
    loss(logits.softmax(1)).backward()
    assert logits.grad.isfinite().all()


def test_half_precision_is_computed_in_single():
    walk = random_walk("undirected")
    shares = one_hot(torch.arange(40) % 4)
    loss = MapEquationLoss(*arguments(walk))
    with torch.autocast("cpu", torch.bfloat16):
        for dtype in (torch.bfloat16, torch.float32):
            assert float(loss(shares.to(dtype))) == pytest.approx(walk.codelength(np.arange(40) % 4), abs=1e-6)


def test_torch_sparse_flow():
    walk = random_walk("directed_recorded")
    flow, *rates = arguments(walk)
    rates = [torch.from_numpy(rate) for rate in rates]
    shares = torch.full((40, 3), 1 / 3, dtype=torch.float64)
    dense = torch.from_numpy(flow.toarray())
    expected = float(map_equation_loss(shares, *arguments(walk)))
    for sparse in (dense.to_sparse_coo(), dense.to_sparse_csr()):
        assert float(map_equation_loss(shares, sparse, *rates)) == pytest.approx(expected, abs=1e-14)


def test_a_copy_of_a_module_that_holds_the_loss():
    module = torch.nn.Linear(3, 3)
    module.loss = MapEquationLoss(*arguments(random_walk("directed_recorded")))  # SWA and EMA copy it
    shares = torch.full((40, 3), 1 / 3)
    assert float(copy.deepcopy(module).loss(shares)) == float(module.loss(shares))


def test_bad_shapes_are_named():
    flow, rates = np.eye(3), np.ones(3) / 3
    with pytest.raises(ValueError, match="leave and land"):
        MapEquationLoss(flow, rates, leave=rates)
    with pytest.raises(ValueError, match=r"node_flow \(2,\) and link_flow \(3, 3\)"):
        MapEquationLoss(flow, rates[:2])


def test_sparse_products_and_their_gradients():
    random = torch.Generator().manual_seed(0)
    dense = torch.rand(5, 7, dtype=torch.float64, generator=random)
    dense[dense < 0.6] = 0
    for matrix in (dense, dense @ dense.T):  # the second is symmetric
        sparse = SparseMatrix(matrix.to_sparse_coo(), torch.float64)
        x = torch.rand(matrix.shape[1], 3, dtype=torch.float64, generator=random, requires_grad=True)
        torch.testing.assert_close(sparse @ x, matrix @ x)
        assert torch.autograd.gradcheck(lambda x, sparse=sparse: sparse @ x, x)
        assert torch.autograd.gradgradcheck(lambda x, sparse=sparse: (sparse @ x).square(), x)
        assert (sparse.transposed is sparse.matrix) == (matrix is not dense)
