"""torch.nn modules and functions: no Lightning, no files, no logging. One subpackage per technique."""

from .attention import *
from .classifiers import *
from .cross_entropy import *
from .dropout import *
from .graphs import *
from .images import *
from .infomax import *
from .losses import *
from .on_lstm import *
from .reuse import TiedLinear as TiedLinear
from .transformers import *
from .triples import *
from .weights import *
