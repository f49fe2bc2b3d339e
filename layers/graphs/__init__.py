"""Networks that assign the nodes of a graph to clusters, and the map equation as their loss."""

from .map_equation_loss import MapEquationLoss, map_equation_loss
from .networks import GCN, GIN, GraphLinear, GraphMLP, GraphNetwork, GraphSAGE
from .sparse_matrix import SparseMatrix

__all__ = [
    "GCN",
    "GIN",
    "GraphLinear",
    "GraphMLP",
    "GraphNetwork",
    "GraphSAGE",
    "MapEquationLoss",
    "SparseMatrix",
    "map_equation_loss",
]
