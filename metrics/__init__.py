"""Metrics (``torchmetrics.Metric`` subclasses) and the probes behind them."""

from metrics.representation import RepresentationQuality as RepresentationQuality
