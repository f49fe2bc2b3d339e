"""torch.nn modules and functions: no Lightning, no files, no logging."""

from .cross_entropy import linear_cross_entropy
from .dropout import LockedDropout, WordDropout
from .encoders import BlogEncoder, DIMEncoder, Encoder, EncoderOutput, untrained_copy
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

__all__ = [
    "JSD",
    "LSTM",
    "ONLSTM",
    "AdversarialPrior",
    "AllPairs",
    "BlogEncoder",
    "ConcatScore",
    "DIMEncoder",
    "Derangement",
    "DonskerVaradhan",
    "DotScore",
    "Encoder",
    "EncoderOutput",
    "Estimator",
    "GaussianPrior",
    "InfoNCE",
    "LockedDropout",
    "Negatives",
    "Prior",
    "RecurrentLayer",
    "Score",
    "Shuffle",
    "TiedLinear",
    "WordDropout",
    "linear_cross_entropy",
    "untrained_copy",
]
