"""Sentences with (subject, predicate, object) triples: JSON lines, and their encoding as arrays."""

from ..errors import DataError
from .distant_supervision import KnownTriples, OtherItems
from .encoding import TripleEncoder, Unlabelled
from .json_lines import Sentence, SentenceFile, read_schema, read_sentences, read_texts
from .tables import TripleTable

__all__ = [
    "DataError",
    "KnownTriples",
    "OtherItems",
    "Sentence",
    "SentenceFile",
    "TripleEncoder",
    "TripleTable",
    "Unlabelled",
    "read_schema",
    "read_sentences",
    "read_texts",
]
