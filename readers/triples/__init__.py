"""Sentences with (subject, predicate, object) triples: JSON lines, and the numbers that a model reads."""

from ..errors import DataError
from .distant_supervision import KnownTriples
from .encoding import TripleEncoder
from .json_lines import Sentence, SentenceFile, read_schema, read_sentences, read_texts
from .tables import TripleTable

__all__ = [
    "DataError",
    "KnownTriples",
    "Sentence",
    "SentenceFile",
    "TripleEncoder",
    "TripleTable",
    "read_schema",
    "read_sentences",
    "read_texts",
]
