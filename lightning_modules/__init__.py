"""The techniques: one LightningModule a file."""

from .deep_infomax import DeepInfoMax

__all__ = ["DeepInfoMax"]
