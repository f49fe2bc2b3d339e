"""Metrics (``torchmetrics.Metric`` subclasses) and the probes behind them."""

from metrics.parsing import ParseF1 as ParseF1
from metrics.representation import RepresentationQuality as RepresentationQuality
from metrics.triples import ExtractedTriple as ExtractedTriple
from metrics.triples import TripleF1 as TripleF1
from metrics.triples import overlap_types as overlap_types
