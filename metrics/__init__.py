"""Metrics (``torchmetrics.Metric`` subclasses) and the probes behind them."""

from metrics.parsing import ParseF1 as ParseF1
from metrics.representation import RepresentationQuality as RepresentationQuality
