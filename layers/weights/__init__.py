"""Weights that are selected by name, normalised before use, or put back into a set."""

from .normalization import normalize_weights, remove_weight_normalization

__all__ = ["normalize_weights", "remove_weight_normalization"]
