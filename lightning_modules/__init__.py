"""The techniques: one LightningModule a file."""

from .deep_infomax import DeepInfoMax
from .on_lstm import ONLSTMLanguageModel
from .sentence_pair_classifier import SentencePairClassifier

__all__ = ["DeepInfoMax", "ONLSTMLanguageModel", "SentencePairClassifier"]
