"""Metrics (``torchmetrics.Metric`` subclasses), the probes behind them, and rules on triples."""

from .grouped_accuracy import GroupedAccuracy as GroupedAccuracy
from .parsing import ParseF1 as ParseF1
from .representation import RepresentationQuality as RepresentationQuality
from .threshold_counts import ThresholdCounts as ThresholdCounts
from .triple_official import OfficialTripleF1 as OfficialTripleF1
from .triple_rules import SKE_RULES as SKE_RULES
from .triple_rules import ExcludeSubjects as ExcludeSubjects
from .triple_rules import Symmetric as Symmetric
from .triple_rules import TripleRule as TripleRule
from .triple_rules import apply_rules as apply_rules
from .triples import ExtractedTriple as ExtractedTriple
from .triples import TripleF1 as TripleF1
from .triples import overlap_types as overlap_types
