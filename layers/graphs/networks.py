"""Networks that assign the nodes of a graph to clusters, for Neuromap's slot: Linear, MLP, GCN, GraphSAGE, GIN."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .sparse_matrix import SparseMatrix

Features = Tensor | SparseMatrix


class GraphNetwork(nn.Module, ABC):
    """Base class of the assignment network slot: node features to one logit per cluster.

    A subclass is called with the two sizes, then with its own arguments.

    Args:
        input_size: number of features of a node; the number of nodes if the adjacency serves as features.
        num_clusters: number of clusters, the size of the output.

    Raises:
        ValueError: if a size is below 1.
    """

    def __init__(self, input_size: int, num_clusters: int) -> None:
        super().__init__()
        if input_size < 1 or num_clusters < 1:
            raise ValueError(f"input_size ({input_size}) and num_clusters ({num_clusters}) must be at least 1")

    @abstractmethod
    def forward(self, features: Features, adjacency: SparseMatrix) -> Tensor:
        """Logits of all nodes.

        Args:
            features: (n, input_size), dense or sparse.
            adjacency: (n, n), in row a the weights of the links over which node a hears from its neighbours.

        Returns:
            (n, num_clusters).
        """


class Projection(nn.Module):
    """A linear layer that also takes sparse input: (n, in) -> (n, out), x W + b.

    W is stored as (in, out), as sparse products read and write it; ``nn.Linear`` would copy it twice per step.
    """

    weight_output_dim = 1
    """Dimension of the output units, for ``layers.weights.functions.unit_dim``."""

    def __init__(self, input_size: int, output_size: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(input_size, output_size))
        self.bias = nn.Parameter(torch.empty(output_size)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises weight and bias as ``nn.Linear`` does."""
        bound = len(self.weight) ** -0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Features) -> Tensor:
        product = x @ self.weight
        return product if self.bias is None else product + self.bias


class GraphLinear(GraphNetwork):
    """One linear layer; nodes learn about their neighbours only through the loss.

    Example:
        model:
          class_path: Neuromap
          init_args:
            network: GraphLinear
    """

    def __init__(self, input_size: int, num_clusters: int) -> None:
        super().__init__(input_size, num_clusters)
        self.layer = Projection(input_size, num_clusters)

    def forward(self, features: Features, adjacency: SparseMatrix) -> Tensor:
        return self.layer(features)


class TwoLayers(GraphNetwork):
    """Two graph layers with BatchNorm, SELU and dropout between them.

    Args:
        input_size: see ``GraphNetwork``.
        num_clusters: see ``GraphNetwork``.
        hidden_size: units between the layers; None: four per cluster, at most 512.
        dropout: dropout rate of these units.
    """

    def __init__(
        self, input_size: int, num_clusters: int, hidden_size: int | None = None, dropout: float = 0.5
    ) -> None:
        super().__init__(input_size, num_clusters)
        hidden = min(4 * num_clusters, 512) if hidden_size is None else hidden_size
        if hidden < 1:
            raise ValueError(f"hidden_size ({hidden}) must be at least 1")
        self.first = self.make_layer(input_size, hidden)
        self.between = nn.Sequential(nn.BatchNorm1d(hidden), nn.SELU(), nn.Dropout(dropout))
        self.second = self.make_layer(hidden, num_clusters)

    @abstractmethod
    def make_layer(self, input_size: int, output_size: int) -> nn.Module:
        """A layer that is called with features and adjacency."""

    def forward(self, features: Features, adjacency: SparseMatrix) -> Tensor:
        return self.second(self.between(self.first(features, adjacency)), adjacency)


class GraphMLP(TwoLayers):
    """A perceptron on each node's own features.

    Example:
        model:
          class_path: Neuromap
          init_args:
            network:
              class_path: GraphMLP
              init_args: {dropout: 0.2}
    """

    def make_layer(self, input_size: int, output_size: int) -> nn.Module:
        return MLPLayer(input_size, output_size)


class GCN(TwoLayers):
    """Graph convolutions, see ``GCNLayer``.

    Example:
        model:
          class_path: Neuromap
          init_args:
            network: GCN
    """

    def make_layer(self, input_size: int, output_size: int) -> nn.Module:
        return GCNLayer(input_size, output_size)


class GraphSAGE(TwoLayers):
    """A node's own features plus the mean of its neighbours', see ``SAGELayer``.

    Example:
        model:
          class_path: Neuromap
          init_args:
            network:
              class_path: GraphSAGE
              init_args: {hidden_size: 128}
    """

    def make_layer(self, input_size: int, output_size: int) -> nn.Module:
        return SAGELayer(input_size, output_size)


class GIN(TwoLayers):
    """A perceptron on the sum over a node and its neighbours, see ``GINLayer``.

    Example:
        model:
          class_path: Neuromap
          init_args:
            network:
              class_path: GIN
              init_args: {hidden_size: 64, dropout: 0.2}
    """

    def make_layer(self, input_size: int, output_size: int) -> nn.Module:
        return GINLayer(input_size, output_size)


# Linear maps come before sums over neighbours, with which they commute: the sums are then over fewer units, and sparse
# features are multiplied by dense weights, never by another sparse matrix.


class MLPLayer(nn.Module):
    """y_a = W x_a + b; neighbours are ignored."""

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        self.own = Projection(input_size, output_size)

    def forward(self, x: Features, adjacency: SparseMatrix) -> Tensor:
        return self.own(x)


class GCNLayer(nn.Module):
    """y_a = sum_b (D^-1/2 (A + I) D^-1/2)_ab W x_b + b, D the row sums of A + I.

    Source: Kipf and Welling, arXiv 1609.02907.
    """

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        self.neighbors = Projection(input_size, output_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(output_size))

    def reset_parameters(self) -> None:
        """Zeroes the bias; the projection initialises its own weight."""
        nn.init.zeros_(self.bias)

    def forward(self, x: Features, adjacency: SparseMatrix) -> Tensor:
        return adjacency.gcn_normalized @ self.neighbors(x) + self.bias


class SAGELayer(nn.Module):
    """y_a = W x_a + b + V (sum_b A_ab x_b / sum_b A_ab), without the second term for a node without neighbours.

    Source: Hamilton, Ying, Leskovec, arXiv 1706.02216, the mean aggregator; here over all neighbours.
    """

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        self.own = Projection(input_size, output_size)
        self.neighbors = Projection(input_size, output_size, bias=False)

    def forward(self, x: Features, adjacency: SparseMatrix) -> Tensor:
        return self.own(x) + adjacency.row_normalized @ self.neighbors(x)


class GINLayer(nn.Module):
    """y_a = MLP((1 + epsilon) x_a + sum_b A_ab x_b), a perceptron with one hidden layer, epsilon learned.

    Source: Xu et al., arXiv 1810.00826.
    """

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        self.epsilon = nn.Parameter(torch.zeros(()))
        self.first = Projection(input_size, output_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(output_size))
        self.second = nn.Linear(output_size, output_size)

    def reset_parameters(self) -> None:
        """Zeroes epsilon and the first bias; the layers initialise their own weights."""
        nn.init.zeros_(self.epsilon)
        nn.init.zeros_(self.bias)

    def forward(self, x: Features, adjacency: SparseMatrix) -> Tensor:
        projected = self.first(x)
        summed = (1 + self.epsilon) * projected + adjacency @ projected
        return self.second(F.selu(summed + self.bias))
