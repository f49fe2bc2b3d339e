"""Word vectors from files: ``npz``, or the text formats of word2vec and GloVe."""

import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .files import BYTE_ORDER_MARK, user_path
from .npz import read_arrays

MAX_DIGITS = 18  # of a number in word2vec's first line


def read_word_vectors(path: Path, max_words: int | None = None) -> tuple[list[str], NDArray[np.float32]]:
    """The words of a file and their vectors.

    Args:
        path: ``.npz`` with the arrays ``words`` (N,) of strings and ``vectors`` (N, D); or UTF-8 text with one word and
            its D numbers per line, separated by blanks: word2vec's, whose first line is N and D, or GloVe's, without
            such a line. Only the first occurrence of a word is kept.
        max_words: how many words to read (files are commonly ordered by frequency); None: all.

    Returns:
        the words and (N, D) float32 vectors.

    Raises:
        DataError: the file can't be read or has another layout; the message names the line.
    """
    path = user_path(path)
    words, vectors = _read_npz(path, max_words) if path.suffix == ".npz" else _read_text(path, max_words)
    if not words:
        raise DataError(f"{path} has no word vectors")
    if not np.isfinite(vectors).all():
        place = int(np.flatnonzero(~np.isfinite(vectors).all(1))[0])
        raise DataError(f"{path}: the vector of {words[place]} (number {place + 1}) is not finite")
    first = {word: place for place, word in reversed(list(enumerate(words)))}
    if len(first) == len(words):
        return words, vectors
    kept = sorted(first.values())
    return [words[place] for place in kept], vectors[kept]


def _read_npz(path: Path, max_words: int | None) -> tuple[list[str], NDArray[np.float32]]:
    names = ("words", "vectors")
    arrays = read_arrays(path, str(path), names)
    missing = [name for name in names if name not in arrays]
    if missing:
        raise DataError(f"{path} needs the arrays words and vectors: {missing[0]} is missing")
    words, vectors = arrays["words"], arrays["vectors"]
    are_strings = words.ndim == 1 and words.dtype.kind == "U"
    are_numbers = vectors.ndim == 2 and vectors.shape[1:] > (0,) and vectors.dtype.kind in "iuf"
    if not are_strings or not are_numbers or len(words) != len(vectors):
        raise DataError(
            f"{path}: words {words.dtype} {words.shape} and vectors {vectors.dtype} {vectors.shape} must be strings "
            "(N,) and numbers (N, D)"
        )
    with np.errstate(over="ignore"):  # values out of float32's range are rejected later
        return words[:max_words].tolist(), vectors[:max_words].astype(np.float32)


def _read_text(path: Path, max_words: int | None) -> tuple[list[str], NDArray[np.float32]]:
    words: list[str] = []
    rows: list[NDArray[np.float32]] = []
    try:
        with open(path, "rb") as file:
            first = file.readline().removeprefix(BYTE_ORDER_MARK)
            header = first.split()
            # word2vec's first line: number of words and dimension.
            is_header = len(header) == 2 and all(part.isdigit() and len(part) <= MAX_DIGITS for part in header)
            width = int(header[1]) if is_header else None
            start, lines = (2, file) if width else (1, itertools.chain([first], file))
            for number, line in enumerate(lines, start):
                if max_words is not None and len(words) == max_words:
                    break
                if not line.strip():
                    continue
                width = width or len(line.split()) - 1
                word, row = _parse_line(line, width, f"{path}, line {number}")
                words.append(word)
                rows.append(row)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    return words, np.stack(rows) if rows else np.zeros((0, 0), np.float32)


def _parse_line(line: bytes, width: int, where: str) -> tuple[str, NDArray[np.float32]]:
    """The word of a line, which may contain blanks, and the ``width`` numbers after it."""
    parts = line.strip().rsplit(maxsplit=width) if width > 0 else []
    try:
        word = parts[0].decode()
        with np.errstate(over="ignore"):  # values out of float32's range are rejected later
            row = np.array([float(part) for part in parts[1:]], np.float32)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8; give a text file (not word2vec's binary one) saved as UTF-8") from error
    except (ValueError, IndexError) as error:
        raise DataError(f"{where}: expected a word and {max(width, 1)} numbers") from error
    if len(row) != width:
        raise DataError(f"{where}: expected a word and {width} numbers, found {len(row)} numbers")
    return word, row
