"""Classifiers on top of feature vectors, to probe or to use them."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

__all__ = ["Classifier", "LinearClassifier", "MLPClassifier"]


class Classifier(nn.Module, ABC):
    """Base class of the slot ``Callable[[int, int], Classifier]``: (num_features, num_classes) -> classifier."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Features (B, F) to logits (B, classes)."""


class LinearClassifier(Classifier):
    """Standardised features, then a linear layer: y = W (x - m) / s + b.

    m and s are the mean and standard deviation of each feature (batch statistics in training, running ones in
    evaluation), so that one learning rate suits features of any scale; y is linear in x.

    Args:
        num_features: F, length of x.
        num_classes: number of logits.

    Example:
        import torch

        from layers import LinearClassifier

        probe = LinearClassifier(num_features=64, num_classes=10)
        logits = probe(torch.randn(32, 64))  # (32, 10)
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.standardize = nn.BatchNorm1d(num_features, affine=False)
        self.linear = nn.Linear(num_features, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(self.standardize(features))


class MLPClassifier(Classifier):
    """The classifier of the Deep InfoMax paper: y = W2 relu(dropout(BatchNorm(W1 x + b1))) + b2.

    Source: Hjelm et al., arXiv 1808.06670; rdevon/DIM. Not a linear probe: their accuracies don't compare.

    Args:
        num_features: length of x.
        num_classes: number of logits.
        units: hidden units.
        dropout: dropout rate of the hidden units, before the ReLU.

    Example:
        model:
          class_path: FeatureProbe
          init_args: {checkpoint: runs/infomax_sample/TIME, cut: encoder.mean, top: MLPClassifier}
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
