"""Graphs and the labels of their nodes, from files, as NumPy arrays and plain values."""

from ..errors import DataError
from ..files import output_file, replacing
from .files import read_graph
from .graph import Graph
from .labels import read_labels
from .partitions import GivenNode, read_partition
from .state_networks import StateNetwork, read_state_network

__all__ = [
    "DataError",
    "GivenNode",
    "Graph",
    "StateNetwork",
    "output_file",
    "read_graph",
    "read_labels",
    "read_partition",
    "read_state_network",
    "replacing",
]
