"""Reuse of layers and models: tied weights, copies, features from inside a model, and models split in two."""

from .cloning import clone
from .splitting import features, nodes, split
from .tied_linear import TiedLinear

__all__ = ["TiedLinear", "clone", "features", "nodes", "split"]
