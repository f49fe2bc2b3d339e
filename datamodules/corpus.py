"""Text for language models, from a folder or the hub, as token numbers over one vocabulary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from readers.errors import DataError
from readers.files import read_lines, stamps, user_path
from readers.hub import load_from_hub, parquet_folder
from readers.text.data_sets import lines_by_split
from readers.text.files import SPLITS, find_texts

if TYPE_CHECKING:
    from datasets import DatasetDict

EOS, UNKNOWN = "<eos>", "<unk>"
Level = Literal["word", "character"]


@dataclass(frozen=True)
class Corpus:
    """Three texts over one vocabulary.

    The vocabulary has the tokens of all three texts in order of first appearance, as is usual for PTB (10,000 words
    including ``<eos>``), and always ``<unk>``, which unknown words of other texts map to.

    Args:
        vocabulary: the tokens; a token's number is its index.
        texts: (N,) int32 token numbers of ``train``, ``valid`` and ``test``; ``<eos>`` ends each line.
        lines: number of lines of each.
        names: what messages call each.
    """

    vocabulary: list[str]
    texts: dict[str, Tensor]
    lines: dict[str, int]
    names: dict[str, str]


def build_corpus(splits: Mapping[str, Sequence[str]], level: Level, names: dict[str, str], skip: int = 0) -> Corpus:
    """Token numbers of the lines of ``train``, ``valid`` and ``test``.

    Args:
        splits: the lines of each; surrounding white space and blank lines are ignored.
        level: ``word`` (separated by white space) or ``character``, with ``<eos>`` for the end of a line.
        names: what messages call each.
        skip: number of lines to drop at the beginning of ``train`` (their tokens stay in the vocabulary).

    Raises:
        DataError: a text is empty, or nothing is left of it.
    """
    encode = _encode_words if level == "word" else _encode_characters
    kept = {split: [line for line in map(str.strip, lines) if line] for split, lines in splits.items()}
    for split, lines in kept.items():
        if not lines:
            raise DataError(f"{names[split]} is empty: give it one sentence per line")
    if skip >= len(kept["train"]):
        raise DataError(f"{names['train']} has {len(kept['train'])} lines: lower data.drop_first_train_lines ({skip})")
    vocabulary, texts = encode(kept)
    if skip:
        dropped = (texts["train"] == vocabulary.index(EOS)).nonzero()[skip - 1].item() + 1
        texts["train"] = texts["train"][dropped:]
    counts = {split: len(lines) - (skip if split == "train" else 0) for split, lines in kept.items()}
    return Corpus(vocabulary, texts, counts, names)


def _encode_words(splits: dict[str, list[str]]) -> tuple[list[str], dict[str, Tensor]]:
    words = {split: f" {EOS} ".join([*lines, ""]).split() for split, lines in splits.items()}
    numbers = {word: number for number, word in enumerate(dict.fromkeys(chain(*words.values(), [UNKNOWN])))}
    texts = {
        split: torch.from_numpy(np.fromiter(map(numbers.__getitem__, text), np.int32, len(text)))
        for split, text in words.items()
    }
    return list(numbers), texts


def _encode_characters(splits: dict[str, list[str]]) -> tuple[list[str], dict[str, Tensor]]:
    whole = {split: "\n".join([*lines, ""]) for split, lines in splits.items()}
    characters = list(dict.fromkeys(chain.from_iterable(whole.values())))
    # A table over all of Unicode: looking up five million characters takes a few hundredths of a second.
    table = np.zeros(0x110000, np.int32)
    table[[ord(character) for character in characters]] = np.arange(len(characters))
    texts = {
        split: torch.from_numpy(table[np.frombuffer(text.encode("utf-32-le"), np.uint32)])
        for split, text in whole.items()
    }
    return [EOS if character == "\n" else character for character in characters] + [UNKNOWN], texts


class DataSet(NamedTuple):
    """A Hugging Face data set: its name on the hub, configuration and column of text; None: the default."""

    hub_id: str
    config: str | None = None
    text_column: str | None = None


def read_corpus(source: str, level: Level, data_set: DataSet, skip: int = 0) -> Corpus:
    """The corpus of ``hub`` or of a folder; read once per process.

    Raises:
        DataError: it is not available or can't be read.
    """
    if source == "hub":
        return _read_hub(data_set, level, skip)
    root = user_path(source)
    parquet = sorted(root.rglob("*.parquet")) if root.is_dir() else []
    if parquet:
        return _read_parquet(root, tuple(stamps(root, parquet)), data_set, level, skip)
    files = find_texts(root)
    seen = tuple((split, file, file.stat().st_mtime_ns, file.stat().st_size) for split, file in files.items())
    return _read_files(seen, level, skip)


@lru_cache(maxsize=4)
def _read_hub(data_set: DataSet, level: Level, skip: int) -> Corpus:
    splits = load_from_hub(data_set.hub_id, data_set.config)
    return _corpus_of(splits, data_set, data_set.hub_id, level, skip)


@lru_cache(maxsize=4)
def _read_parquet(root: Path, seen: tuple[Any, ...], data_set: DataSet, level: Level, skip: int) -> Corpus:
    with parquet_folder(root, data_set.config) as splits:
        return _corpus_of(splits, data_set, str(root), level, skip)


def _corpus_of(splits: "DatasetDict", data_set: DataSet, where: str, level: Level, skip: int) -> Corpus:
    lines = lines_by_split(splits, data_set.text_column, where)
    return build_corpus(lines, level, {split: f"the {split} split of {where}" for split in SPLITS}, skip)


@lru_cache(maxsize=4)
def _read_files(seen: tuple[tuple[str, Path, int, int], ...], level: Level, skip: int) -> Corpus:
    lines = {split: read_lines(file) for split, file, *_ in seen}
    return build_corpus(lines, level, {split: str(file) for split, file, *_ in seen}, skip)
