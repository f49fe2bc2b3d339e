"""Callbacks that draw: one picture per file."""

from .attention_maps import AttentionMaps as AttentionMaps
from .code_map import CodeMap as CodeMap
from .codelength_passes import CodelengthPasses as CodelengthPasses
from .community_map import CommunityMap as CommunityMap
from .completed_images import CompletedImages as CompletedImages
from .distance_histogram import DistanceHistogram as DistanceHistogram
from .largest_modules import LargestModules as LargestModules
from .metric_curves import MetricCurves as MetricCurves
from .module_hierarchy import ModuleHierarchy as ModuleHierarchy
from .nearest_neighbors import NearestNeighbors as NearestNeighbors
from .parse_trees import ParseTrees as ParseTrees
from .precision_recall import PrecisionRecallCurve as PrecisionRecallCurve
from .predicate_f1 import PredicateF1 as PredicateF1
from .reconstructions import Reconstructions as Reconstructions
from .triple_sentences import TripleSentences as TripleSentences
