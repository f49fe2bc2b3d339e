"""The techniques: one LightningModule a file."""

from .autoencoder import AutoEncoder
from .deep_infomax import DeepInfoMax
from .feature_probe import FeatureProbe
from .infomap_clustering import InfomapClustering
from .neuromap import Neuromap
from .on_lstm import ONLSTMLanguageModel
from .sentence_pair_classifier import SentencePairClassifier
from .sparse_transformer import SparseTransformer
from .triple_extractor import TripleExtractor

__all__ = [
    "AutoEncoder",
    "DeepInfoMax",
    "FeatureProbe",
    "InfomapClustering",
    "Neuromap",
    "ONLSTMLanguageModel",
    "SentencePairClassifier",
    "SparseTransformer",
    "TripleExtractor",
]
