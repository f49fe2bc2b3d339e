"""The techniques: one LightningModule per file."""

from .autoencoder import AutoEncoder as AutoEncoder
from .deep_infomax import DeepInfoMax as DeepInfoMax
from .feature_probe import FeatureProbe as FeatureProbe
from .infomap_clustering import InfomapClustering as InfomapClustering
from .neuromap import Neuromap as Neuromap
from .neuromap import PreparedGraph as PreparedGraph
from .on_lstm import ONLSTMLanguageModel as ONLSTMLanguageModel
from .prediction.sparse_transformer import PromptCodec as PromptCodec
from .sentence_pair_classifier import SentencePairClassifier as SentencePairClassifier
from .sparse_transformer import SparseTransformer as SparseTransformer
from .triple_decoding import Encoded as Encoded
from .triple_decoding import Thresholds as Thresholds
from .triple_extractor import TripleExtractor as TripleExtractor
