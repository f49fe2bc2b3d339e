"""The triple extractor's layers: character encoders, heads that tag spans, and products of probabilities."""

from .attention_encoder import AttentionEncoder
from .encoders import DGCNN, BiLSTM, SequenceEncoder
from .gated_convolution import GatedConvolution, SequenceConvolution
from .heads import CharacterAttention, GlobalDetectors, ObjectHead, SpanVector, SubjectHead, log_sigmoid
from .hugging_face_encoder import HuggingFaceEncoder
from .log_probability import binary_cross_entropy_of_log_probability
from .spans import Pairing, mark_ends, pair_spans

__all__ = [
    "DGCNN",
    "AttentionEncoder",
    "BiLSTM",
    "CharacterAttention",
    "GatedConvolution",
    "GlobalDetectors",
    "HuggingFaceEncoder",
    "ObjectHead",
    "Pairing",
    "SequenceConvolution",
    "SequenceEncoder",
    "SpanVector",
    "SubjectHead",
    "binary_cross_entropy_of_log_probability",
    "log_sigmoid",
    "mark_ends",
    "pair_spans",
]
