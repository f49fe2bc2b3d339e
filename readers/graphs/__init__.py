"""Graphs and what is known of their nodes, from files. No torch: arrays and plain values."""

from ..errors import DataError
from .files import read_graph
from .graph import Graph
from .labels import read_labels
from .state_networks import StateNetwork, read_state_network

__all__ = ["DataError", "Graph", "StateNetwork", "read_graph", "read_labels", "read_state_network"]
