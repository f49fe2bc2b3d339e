"""Callbacks: one trick or one picture per file."""

from callbacks.attention_maps import AttentionMaps as AttentionMaps
from callbacks.averaged_weights import AveragedWeights as AveragedWeights
from callbacks.code_map import CodeMap as CodeMap
from callbacks.codelength_passes import CodelengthPasses as CodelengthPasses
from callbacks.community_map import CommunityMap as CommunityMap
from callbacks.completed_images import CompletedImages as CompletedImages
from callbacks.distance_histogram import DistanceHistogram as DistanceHistogram
from callbacks.gradient_accumulation import GradientAccumulation as GradientAccumulation
from callbacks.largest_modules import LargestModules as LargestModules
from callbacks.layer_adaptation import LayerAdaptation as LayerAdaptation
from callbacks.lazy_updates import LazyUpdates as LazyUpdates
from callbacks.length_scaled_lr import LengthScaledLR as LengthScaledLR
from callbacks.lookahead import Lookahead as Lookahead
from callbacks.metric_curves import MetricCurves as MetricCurves
from callbacks.module_hierarchy import ModuleHierarchy as ModuleHierarchy
from callbacks.nearest_neighbors import NearestNeighbors as NearestNeighbors
from callbacks.non_monotonic_average import NonMonotonicAverage as NonMonotonicAverage
from callbacks.parameterwise_lr import ParameterwiseLR as ParameterwiseLR
from callbacks.parse_trees import ParseTrees as ParseTrees
from callbacks.partition_files import PartitionFiles as PartitionFiles
from callbacks.piecewise_linear_lr import PiecewiseLinearLR as PiecewiseLinearLR
from callbacks.precision_recall import PrecisionRecallCurve as PrecisionRecallCurve
from callbacks.predicate_f1 import PredicateF1 as PredicateF1
from callbacks.triple_sentences import TripleSentences as TripleSentences
from callbacks.two_stage_training import TwoStageTraining as TwoStageTraining
from callbacks.weight_decay import WeightDecay as WeightDecay
