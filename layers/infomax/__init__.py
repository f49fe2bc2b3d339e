"""Bounds on mutual information: scores of pairs, negatives, estimators."""

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

__all__ = [
    "JSD",
    "AllPairs",
    "ConcatScore",
    "Derangement",
    "DonskerVaradhan",
    "DotScore",
    "Estimator",
    "InfoNCE",
    "Negatives",
    "Score",
    "Shuffle",
]
