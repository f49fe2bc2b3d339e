"""Classifiers of feature vectors: what is put on top of features to judge or to use them."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

__all__ = ["Classifier", "LinearClassifier", "MLPClassifier"]


class Classifier(nn.Module, ABC):
    """Base class of the slot ``Callable[[int, int], Classifier]``: number of features, number of classes."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Features (B, F) to logits (B, classes)."""


class LinearClassifier(Classifier):
    """Standardised features, then a linear layer: y = W (x - m) / s + b.

    m and s are mean and standard deviation of each feature, of the batch in training and running ones else, so that
    one learning rate fits layers of any scale; y is linear in x.

    Args:
        num_features: F.
        num_classes: number of logits.
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.standardize = nn.BatchNorm1d(num_features, affine=False)
        self.linear = nn.Linear(num_features, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(self.standardize(features))


class MLPClassifier(Classifier):
    """The classifier of the Deep InfoMax paper: y = W2 relu(dropout(BatchNorm(W1 x + b1))) + b2.

    Source: Hjelm et al., arXiv 1808.06670; rdevon/DIM. Not a linear probe: don't compare with those.

    Args:
        num_features: length of x.
        num_classes: number of logits.
        units: hidden units.
        dropout: of the hidden units, before the ReLU.
    """

    def __init__(self, num_features: int, num_classes: int, units: int = 200, dropout: float = 0.1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(num_features, units),
            nn.BatchNorm1d(units),
            nn.Dropout(dropout),
            nn.ReLU(),
            nn.Linear(units, num_classes),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)
