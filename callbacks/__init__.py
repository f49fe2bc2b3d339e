"""Callbacks: one trick or one picture per file."""

from callbacks.code_map import CodeMap as CodeMap
from callbacks.metric_curves import MetricCurves as MetricCurves
from callbacks.nearest_neighbors import NearestNeighbors as NearestNeighbors
