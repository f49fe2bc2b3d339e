"""The chain of rules that derived optimizers share; it reshapes the update of any optimizer."""

from .chain import Action, Block, Phase, Rule, UpdateChain, in_order
from .kept_weights import KeepsWeights
from .rule import UpdateRule

__all__ = ["Action", "Block", "KeepsWeights", "Phase", "Rule", "UpdateChain", "UpdateRule", "in_order"]
