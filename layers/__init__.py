"""torch.nn modules and functions: no Lightning, no files, no logging."""

from .activation_regularization import ActivationRegularization
from .attention import (
    AtrousAttention,
    AttentionState,
    FixedAttention,
    FullAttention,
    LocalAttention,
    MultiheadSelfAttention,
    SparseAttention,
    atrous_attention,
    fixed_attention,
    full_attention,
    local_attention,
    sparse_attention,
)
from .attention_encoder import AttentionEncoder
from .classifiers import Classifier, LinearClassifier, MLPClassifier
from .cross_entropy import linear_cross_entropy
from .decoders import ConvolutionalDecoder, Decoder, DenseDecoder
from .dropout import LockedDropout, WordDropout
from .encoders import BlogEncoder, DenseEncoder, DIMEncoder, Encoder, EncoderOutput, untrained_copy
from .gated_convolution import GatedConvolution, SequenceConvolution
from .graph_networks import GCN, GIN, GraphLinear, GraphMLP, GraphNetwork, GraphSAGE
from .log_probability import binary_cross_entropy_of_log_probability
from .losses import AddsLosses, Losses, collect_losses
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
from .variational import VariationalCode
from .weight_normalization import normalize_weights, remove_weight_normalization

__all__ = [
    "DGCNN",
    "GCN",
    "GIN",
    "JSD",
    "LSTM",
    "ONLSTM",
    "ActivationRegularization",
    "AddsLosses",
    "AdversarialPrior",
    "AllPairs",
    "AtrousAttention",
    "AttentionEncoder",
    "AttentionState",
    "BiLSTM",
    "BlogEncoder",
    "Classifier",
    "ConcatScore",
    "ConvolutionalDecoder",
    "DIMEncoder",
    "Decoder",
    "DenseDecoder",
    "DenseEncoder",
    "Derangement",
    "DonskerVaradhan",
    "DotScore",
    "Encoder",
    "EncoderOutput",
    "Estimator",
    "FixedAttention",
    "FullAttention",
    "GatedConvolution",
    "GaussianPrior",
    "GlobalDetectors",
    "GraphLinear",
    "GraphMLP",
    "GraphNetwork",
    "GraphSAGE",
    "HuggingFaceEncoder",
    "InfoNCE",
    "LinearClassifier",
    "LocalAttention",
    "LockedDropout",
    "Losses",
    "MLPClassifier",
    "MapEquationLoss",
    "MultiheadSelfAttention",
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
    "SparseAttention",
    "SparseMatrix",
    "SubjectHead",
    "TiedLinear",
    "VariationalCode",
    "WordDropout",
    "atrous_attention",
    "binary_cross_entropy_of_log_probability",
    "collect_losses",
    "fixed_attention",
    "full_attention",
    "linear_cross_entropy",
    "local_attention",
    "log_sigmoid",
    "map_equation_loss",
    "mark_ends",
    "normalize_weights",
    "pair_spans",
    "remove_weight_normalization",
    "sparse_attention",
    "untrained_copy",
]
