"""Texts and treebanks."""

from ..errors import DataError
from .files import find_texts
from .treebank import ParsedSentence, read_treebank

__all__ = ["DataError", "ParsedSentence", "find_texts", "read_treebank"]
