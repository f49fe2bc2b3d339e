"""Weights: selected by name, normalised before use, or constrained to a set."""

from .normalization import normalize_weights, remove_weight_normalization

__all__ = ["normalize_weights", "remove_weight_normalization"]
