"""Sentences with (subject, predicate, object) triples: JSON lines, and their encoding as arrays."""

from ..errors import DataError
from .distant_supervision import KnownTriples, OtherItems
from .encoding import TripleEncoder, Unlabelled
from .json_lines import Sentence, holds_records, is_record, parse_json, parse_text, read_sentences
from .normalization import Normalize, NormalizedText, normalize_text
from .schemas import Schema, read_schema, write_schema
from .tables import TripleTable

__all__ = [
    "DataError",
    "KnownTriples",
    "Normalize",
    "NormalizedText",
    "OtherItems",
    "Schema",
    "Sentence",
    "TripleEncoder",
    "TripleTable",
    "Unlabelled",
    "holds_records",
    "is_record",
    "normalize_text",
    "parse_json",
    "parse_text",
    "read_schema",
    "read_sentences",
    "write_schema",
]
