"""Texts and treebanks, from files."""

from ..errors import DataError
from .files import find_texts
from .treebank import ParsedSentence, SpanBuilder, read_treebank

__all__ = ["DataError", "ParsedSentence", "SpanBuilder", "find_texts", "read_treebank"]
