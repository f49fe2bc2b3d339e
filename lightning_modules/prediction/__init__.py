"""Predictions for files: reading, batching, writing."""
