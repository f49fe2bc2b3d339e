"""Reuse of layers and models: tied weights, copies, features from inside, and models cut in two."""

from .cloning import clone
from .splitting import features, nodes, split
from .tied_linear import TiedLinear

__all__ = ["TiedLinear", "clone", "features", "nodes", "split"]
