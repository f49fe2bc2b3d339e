"""Assignment networks: each layer against a loop over neighbours, sparse input against dense."""

import pytest
import scipy.sparse
import torch
from torch import Tensor, nn

from layers import GCN, GIN, GraphLinear, GraphMLP, GraphNetwork, GraphSAGE, SparseMatrix
from layers.graphs.networks import GCNLayer, GINLayer, MLPLayer, SAGELayer

NETWORKS = [GraphLinear, GraphMLP, GCN, GraphSAGE, GIN]
# Node 3 hears nobody; node 0 also hears itself.
LINKS = {(0, 0): 0.5, (0, 1): 2.0, (0, 2): 1.0, (1, 0): 2.0, (1, 3): 0.25, (2, 0): 3.0, (4, 3): 1.5}
N, INPUT, OUTPUT = 5, 4, 3


@pytest.fixture
def adjacency() -> SparseMatrix:
    row, column = zip(*LINKS, strict=True)
    return SparseMatrix(scipy.sparse.coo_array((list(LINKS.values()), (row, column)), (N, N)))


def gcn(layer: GCNLayer, x: Tensor, node: int) -> Tensor:
    looped = {**LINKS, **{(a, a): LINKS.get((a, a), 0) + 1 for a in range(N)}}
    degree = [sum(weight for (a, _), weight in looped.items() if a == node) for node in range(N)]
    y = layer.bias.clone()
    for (a, b), weight in looped.items():
        if a == node:
            y = y + weight / (degree[a] * degree[b]) ** 0.5 * (x[b] @ layer.neighbors.weight)
    return y


def sage(layer: SAGELayer, x: Tensor, node: int) -> Tensor:
    total = sum(weight for (a, _), weight in LINKS.items() if a == node)
    mean = sum((weight / total * x[b] for (a, b), weight in LINKS.items() if a == node), torch.zeros(INPUT))
    return layer.own(x[node]) + mean @ layer.neighbors.weight


def gin(layer: GINLayer, x: Tensor, node: int) -> Tensor:
    total = (1 + layer.epsilon) * x[node]
    for (a, b), weight in LINKS.items():
        if a == node:
            total = total + weight * x[b]
    return layer.second(nn.functional.selu(total @ layer.first.weight + layer.bias))


def mlp(layer: MLPLayer, x: Tensor, node: int) -> Tensor:
    return x[node] @ layer.own.weight + layer.own.bias


@pytest.mark.parametrize(
    ("make", "loop"),
    [(GCNLayer, gcn), (SAGELayer, sage), (GINLayer, gin), (MLPLayer, mlp)],
    ids=lambda part: part.__name__,
)
@torch.no_grad()
def test_layer_against_a_loop_over_neighbours(make, loop, adjacency):
    layer = make(INPUT, OUTPUT)
    for parameter in layer.parameters():
        parameter.normal_()
    x = torch.randn(N, INPUT)
    expected = torch.stack([loop(layer, x, node) for node in range(N)])
    torch.testing.assert_close(layer(x, adjacency), expected)


@pytest.mark.parametrize("make", NETWORKS)
def test_sparse_input_equals_dense_input(make: type[GraphNetwork], adjacency):
    network = make(N, OUTPUT).eval()
    dense = torch.zeros(N, N)
    for place, weight in LINKS.items():
        dense[place] = weight
    gradients = []
    for features in (adjacency, dense):
        network.zero_grad()
        logits = network(features, adjacency)
        assert logits.shape == (N, OUTPUT)
        logits.square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    torch.testing.assert_close(network(dense, adjacency), network(adjacency, adjacency))
    torch.testing.assert_close(*gradients)
    assert all(gradient.abs().sum() > 0 for gradient in gradients[0])


@pytest.mark.parametrize("make", NETWORKS)
def test_autocast(make: type[GraphNetwork], adjacency):
    network = make(INPUT, OUTPUT).eval()
    x = torch.randn(N, INPUT)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(x, adjacency)
    torch.testing.assert_close(half.float(), network(x, adjacency), rtol=0.05, atol=0.05)


def test_normalised_adjacencies_are_computed_once(adjacency):
    assert adjacency.gcn_normalized is adjacency.gcn_normalized
    assert adjacency.row_normalized is adjacency.row_normalized


@pytest.mark.parametrize("make", NETWORKS)
def test_sizes_are_checked(make: type[GraphNetwork]):
    with pytest.raises(ValueError, match=r"num_clusters \(0\)"):
        make(4, 0)


def test_hidden_units():
    assert GCN(4, 3).first.bias.shape == (12,)
    assert GCN(4, 200).first.bias.shape == (512,)
    assert GCN(4, 3, hidden_size=8).second.neighbors.weight.shape == (8, 3)
    with pytest.raises(ValueError, match=r"hidden_size \(0\)"):
        GIN(4, 3, hidden_size=0)
