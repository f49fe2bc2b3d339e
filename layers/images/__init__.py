"""Image encoders and decoders, and priors on their codes."""

from .decoders import ConvolutionalDecoder, Decoder, DenseDecoder
from .encoders import BlogEncoder, DenseEncoder, DIMEncoder, Encoder, EncoderOutput, untrained_copy
from .hugging_face_vision_encoder import HuggingFaceVisionEncoder
from .priors import AdversarialPrior, GaussianPrior, Prior
from .variational import VariationalCode

__all__ = [
    "AdversarialPrior",
    "BlogEncoder",
    "ConvolutionalDecoder",
    "DIMEncoder",
    "Decoder",
    "DenseDecoder",
    "DenseEncoder",
    "Encoder",
    "EncoderOutput",
    "GaussianPrior",
    "HuggingFaceVisionEncoder",
    "Prior",
    "VariationalCode",
    "untrained_copy",
]
