"""LightningModules: one file per technique."""

from .deep_infomax import DeepInfoMax
from .on_lstm import ONLSTMLanguageModel

__all__ = ["DeepInfoMax", "ONLSTMLanguageModel"]
