"""torch.nn modules and functions: no Lightning, no files, no logging."""

from .cross_entropy import linear_cross_entropy
from .dropout import LockedDropout, WordDropout
from .encoders import BlogEncoder, DIMEncoder, Encoder, EncoderOutput, untrained_copy
from .gated_convolution import GatedConvolution, SequenceConvolution
from .graph_networks import GCN, GIN, GraphLinear, GraphMLP, GraphNetwork, GraphSAGE
from .log_probability import binary_cross_entropy_of_log_probability
from .map_equation_loss import MapEquationLoss, map_equation_loss
from .mutual_information import (
    JSD,
    AllPairs,
    ConcatScore,
    Derangement,
    DonskerVaradhan,
    DotScore,
    Estimator,
    InfoNCE,
    Negatives,
    Score,
    Shuffle,
)
from .priors import AdversarialPrior, GaussianPrior, Prior
from .recurrent import LSTM, ONLSTM, RecurrentLayer
from .reuse import TiedLinear
from .sequence_encoders import DGCNN, BiLSTM, HuggingFaceEncoder, SequenceEncoder
from .sparse_matrix import SparseMatrix
from .triple_heads import GlobalDetectors, ObjectHead, SelfAttention, SpanVector, SubjectHead, log_sigmoid
from .triple_spans import mark_ends, pair_spans

__all__ = [
    "DGCNN",
    "GCN",
    "GIN",
    "JSD",
    "LSTM",
    "ONLSTM",
    "AdversarialPrior",
    "AllPairs",
    "BiLSTM",
    "BlogEncoder",
    "ConcatScore",
    "DIMEncoder",
    "Derangement",
    "DonskerVaradhan",
    "DotScore",
    "Encoder",
    "EncoderOutput",
    "Estimator",
    "GatedConvolution",
    "GaussianPrior",
    "GlobalDetectors",
    "GraphLinear",
    "GraphMLP",
    "GraphNetwork",
    "GraphSAGE",
    "HuggingFaceEncoder",
    "InfoNCE",
    "LockedDropout",
    "MapEquationLoss",
    "Negatives",
    "ObjectHead",
    "Prior",
    "RecurrentLayer",
    "Score",
    "SelfAttention",
    "SequenceConvolution",
    "SequenceEncoder",
    "Shuffle",
    "SpanVector",
    "SparseMatrix",
    "SubjectHead",
    "TiedLinear",
    "WordDropout",
    "binary_cross_entropy_of_log_probability",
    "linear_cross_entropy",
    "log_sigmoid",
    "map_equation_loss",
    "mark_ends",
    "pair_spans",
    "untrained_copy",
]
