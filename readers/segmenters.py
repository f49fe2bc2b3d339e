"""Words of text that is written without blanks."""

import logging
from collections.abc import Callable, Iterable
from typing import Literal

from .errors import DataError

Segmenter = Literal["none", "jieba"]


def jieba_cut() -> Callable[[str], Iterable[str]]:
    """jieba's function from a text to its words; its dictionary is read at the first call.

    Raises:
        DataError: jieba is not installed.
    """
    try:
        import jieba
    except ImportError as error:
        raise DataError(
            'data.segmenter jieba needs the package jieba: pip install "scientific-spaces-lightning[chinese]", or give '
            "data.segmenter none"
        ) from error
    jieba.setLogLevel(logging.WARNING)
    return jieba.cut
