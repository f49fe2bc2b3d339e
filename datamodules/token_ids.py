"""Texts as token numbers, in one pass and in bounded memory."""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from readers.errors import DataError
from readers.text.tokens import BYTES, EOS, UNKNOWN, Level, Segmenter, Tokenizer

LINES = 4096  # read at once
ENTRIES = 1 << 20  # tokens copied at once
NO_NUMBER = -1
Ids = NDArray[Any]


@dataclass(frozen=True)
class TextSettings:
    """What the tokens of texts are, and which of them have a number of their own.

    Args:
        level: ``word``, ``character`` or ``byte``.
        segmenter: see ``Tokenizer``.
        keep_layout: see ``Tokenizer``.
        eos_on_blank_lines: blank lines are ``<eos>`` alone; otherwise they are left out, unless the layout is kept.
        min_count: how often a token must occur in the training text.
        max_words: the most entries of the vocabulary, of the most frequent tokens; None: any number.
        skip: number of lines to drop at the beginning of the training text (their tokens stay in the vocabulary).
        vocabulary: that of a checkpoint; None: that of the training text.
    """

    level: Level = "word"
    segmenter: Segmenter = "none"
    keep_layout: bool = False
    eos_on_blank_lines: bool = False
    min_count: int = 1
    max_words: int | None = None
    skip: int = 0
    vocabulary: tuple[str, ...] | None = None

    def key(self) -> dict[str, Any]:
        """Plain values that tell settings apart."""
        digest = hashlib.sha256("\0".join(self.vocabulary).encode()).hexdigest() if self.vocabulary else None
        return {**vars(self), "vocabulary": digest}


class EncodedText(NamedTuple):
    """One text: (N,) uint16 or int32 token numbers, how many lines it has, and how many tokens are ``<unk>``."""

    tokens: Ids
    lines: int
    unknown: int


def encode_texts(
    splits: Mapping[str, Iterable[str]], settings: TextSettings, names: Mapping[str, str], folder: Path | None = None
) -> tuple[list[str], dict[str, EncodedText]]:
    """The vocabulary, and the three texts as its numbers.

    The vocabulary has the tokens of the training text in the order of their first appearance, and always ``<eos>``,
    which ends each line, and ``<unk>``, which every other token is.

    Args:
        splits: the lines of ``train``, ``valid`` and ``test``, each of them read once; with a vocabulary some may lack.
        settings: what tokens are.
        names: what messages call each text.
        folder: where temporary files may be mapped into memory; None: all is kept in memory.

    Raises:
        DataError: a text is empty, or nothing is left of it.
    """
    tokenizer = Tokenizer(settings.level, settings.segmenter, settings.keep_layout)
    vocabulary = list(BYTES if settings.level == "byte" else settings.vocabulary or ())
    texts = {}
    for split in (name for name in ("train", "valid", "test") if name in splits):
        blocks = _blocks(splits[split], tokenizer, settings)
        numbers = _numbers(tokenizer, vocabulary or None)
        dtype = _dtype(vocabulary) if vocabulary else np.dtype(np.int32)
        tokens, lines, counts = _encode(blocks, numbers, dtype, folder, settings.skip if split == "train" else 0)
        if not counts.any():
            raise DataError(f"{names[split]} is empty: give it one sentence per line")
        if not len(tokens):
            rest = f"lower data.drop_first_train_lines ({settings.skip})"
            raise DataError(f"{names[split]} has {lines} lines: {rest}")
        if not vocabulary:  # those of the first text
            vocabulary = _choose(numbers.tokens, counts, settings.min_count, settings.max_words)
            tokens = _renumber(tokens, numbers.tokens, vocabulary, folder)
        unknown = vocabulary.index(UNKNOWN)
        count = sum(int((part == unknown).sum()) for part in _parts(tokens))
        texts[split] = EncodedText(tokens, lines - (settings.skip if split == "train" else 0), count)
    return vocabulary, texts


def fingerprint(vocabulary: Sequence[str], texts: Mapping[str, EncodedText]) -> str:
    """Tells vocabularies and texts from others."""
    digest = hashlib.sha256("\n".join(vocabulary).encode())
    for text in texts.values():
        for part in _parts(text.tokens):
            digest.update(part.astype(np.int32).data)
    return digest.hexdigest()[:16]


def _blocks(lines: Iterable[str], tokenizer: Tokenizer, settings: TextSettings) -> Iterator[list[str]]:
    """The stripped lines that count, some thousand at a time."""
    keeps_blank = settings.keep_layout or settings.eos_on_blank_lines
    kept = (line for line in map(tokenizer.stripped, lines) if line or keeps_blank)
    while block := list(islice(kept, LINES)):
        yield block


def _encode(
    blocks: Iterable[list[str]],
    numbers: "_WordNumbers | _CharacterNumbers",
    dtype: np.dtype,
    folder: Path | None,
    skip: int,
) -> tuple[Ids, int, NDArray[np.int64]]:
    """The token numbers after ``skip`` lines, the number of all lines, and how often each token occurs in all."""
    store, lines, counts = _Store(dtype, folder), 0, np.zeros(0, np.int64)
    for block in blocks:
        dropped = min(max(skip - lines, 0), len(block))
        for part, is_kept in ((block[:dropped], False), (block[dropped:], True)):
            ids = numbers(part)
            more = np.bincount(ids, minlength=len(counts))
            more[: len(counts)] += counts
            counts = more
            if is_kept:
                store.append(ids)
        lines += len(block)
    return store.array(), lines, counts


def _choose(tokens: Sequence[str], counts: NDArray[np.int64], min_count: int, max_words: int | None) -> list[str]:
    """The vocabulary: ``<eos>``, ``<unk>`` and the tokens that are frequent enough, in the order of the text."""
    ordinary = [i for i, token in enumerate(tokens) if token not in (EOS, UNKNOWN) and counts[i] >= min_count]
    if max_words is not None:
        ordinary = sorted(ordinary, key=lambda i: -counts[i])[: max_words - 2]  # stable: the first of equals
    special = [i for i, token in enumerate(tokens) if token in (EOS, UNKNOWN)]
    chosen = [tokens[i] for i in sorted(ordinary + special)]
    return chosen if UNKNOWN in chosen else [*chosen, UNKNOWN]


def _renumber(ids: Ids, tokens: Sequence[str], vocabulary: list[str], folder: Path | None) -> Ids:
    """Numbers of ``tokens`` as numbers of the vocabulary."""
    numbers = {token: number for number, token in enumerate(vocabulary)}
    table = np.array([numbers.get(token, numbers[UNKNOWN]) for token in tokens])
    store = _Store(_dtype(vocabulary), folder)
    for part in _parts(ids):
        store.append(table[part])
    return store.array()


def _dtype(vocabulary: Sequence[str]) -> np.dtype:
    return np.dtype(np.uint16 if len(vocabulary) <= 1 << 16 else np.int32)


def _parts(ids: Ids) -> Iterator[Ids]:
    return (ids[start : start + ENTRIES] for start in range(0, len(ids), ENTRIES))


class _Store:
    """An array that grows: in memory, or in a temporary file that is mapped into it."""

    def __init__(self, dtype: np.dtype, folder: Path | None) -> None:
        self.dtype = dtype
        self.file = tempfile.TemporaryFile(dir=folder) if folder else None  # noqa: SIM115
        self.pieces: list[Ids] = []

    def append(self, ids: Ids) -> None:
        ids = ids.astype(self.dtype)
        if self.file is None:
            self.pieces.append(ids)
        else:
            self.file.write(ids.data)

    def array(self) -> Ids:
        if self.file is None:
            return np.concatenate([*self.pieces, np.zeros(0, self.dtype)])
        with self.file:
            self.file.flush()
            return np.memmap(self.file, self.dtype, "r") if self.file.tell() else np.zeros(0, self.dtype)


# ------------------------------------------------------------------------------------------------------ token numbers


class _Growing(dict[str, int]):
    """Gives each new key the next number."""

    def __missing__(self, key: str) -> int:
        number = self[key] = len(self)
        return number


class _Known(dict[str, int]):
    """Gives unknown keys the number of ``<unk>``."""

    def __missing__(self, key: str) -> int:
        return self[UNKNOWN]


class _WordNumbers:
    """Numbers of the words of lines: those of a vocabulary, or in the order of their first appearance."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: Sequence[str] | None) -> None:
        self.tokenizer = tokenizer
        self.numbers = (
            _Growing() if vocabulary is None else _Known(zip(vocabulary, range(len(vocabulary)), strict=True))
        )

    def __call__(self, lines: Sequence[str]) -> Ids:
        words = self.tokenizer.words_of_lines(lines)
        return np.fromiter(map(self.numbers.__getitem__, words), np.int32, len(words))

    @property
    def tokens(self) -> list[str]:
        return list(self.numbers)


class _CharacterNumbers:
    """The same of the characters of lines, by a table over all of Unicode."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: Sequence[str] | None) -> None:
        self.characters: list[str] = []
        unknown = NO_NUMBER if vocabulary is None else vocabulary.index(UNKNOWN)
        self.table = np.full(0x110000, unknown, np.int32)
        for number, token in enumerate(vocabulary or ()):
            if token != UNKNOWN:
                self.table[ord("\n" if token == EOS else token)] = number

    def __call__(self, lines: Sequence[str]) -> Ids:
        codes = np.frombuffer("\n".join([*lines, ""]).encode("utf-32-le"), np.uint32)
        new, places = np.unique(codes[self.table[codes] == NO_NUMBER], return_index=True)
        for code in new[places.argsort()]:
            self.table[code] = len(self.characters)
            self.characters.append(chr(code))
        return self.table[codes]

    @property
    def tokens(self) -> list[str]:
        return [EOS if character == "\n" else character for character in self.characters]


_Numbers = _WordNumbers | _CharacterNumbers


def _numbers(tokenizer: Tokenizer, vocabulary: Sequence[str] | None) -> _Numbers:
    return (_WordNumbers if tokenizer.level == "word" else _CharacterNumbers)(tokenizer, vocabulary)
