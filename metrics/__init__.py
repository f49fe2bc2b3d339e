"""Metrics (``torchmetrics.Metric`` subclasses) and the probes behind them."""

from metrics.parsing import ParseF1 as ParseF1
from metrics.representation import RepresentationQuality as RepresentationQuality
from metrics.triple_rules import SKE_RULES as SKE_RULES
from metrics.triple_rules import ExcludeSubjects as ExcludeSubjects
from metrics.triple_rules import Symmetric as Symmetric
from metrics.triple_rules import TripleRule as TripleRule
from metrics.triple_rules import apply_rules as apply_rules
from metrics.triples import ExtractedTriple as ExtractedTriple
from metrics.triples import TripleF1 as TripleF1
from metrics.triples import overlap_types as overlap_types
