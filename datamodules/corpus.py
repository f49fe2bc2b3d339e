"""Text for language models, from a folder or the hub, as token numbers over one vocabulary."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from readers.files import stamps, user_path
from readers.hub import load_from_hub, parquet_folder
from readers.text.data_sets import lines_by_split
from readers.text.files import SPLITS, find_texts, is_wikitext, lines_of, parts_of
from readers.text.tokens import Level, bytes_as_characters

from .cache import ArrayCache, Stored
from .token_ids import EncodedText, TextSettings, encode_texts, fingerprint

if TYPE_CHECKING:
    from datasets import DatasetDict

CACHE_VERSION = 3
Lines = Mapping[str, Iterable[str]]


@dataclass(frozen=True)
class Corpus:
    """Three texts over one vocabulary; or the test text alone, where one is only measured.

    Args:
        vocabulary: the tokens; a token's number is its index.
        texts: (N,) token numbers of ``train``, ``valid`` and ``test``, uint16 or int32, perhaps mapped from a file;
            ``<eos>`` ends each line.
        lines: number of lines of each.
        names: what messages call each.
        unknown: the share of ``<unk>`` in each, line ends aside.
        fingerprint: of all this.
    """

    vocabulary: list[str]
    texts: dict[str, Tensor]
    lines: dict[str, int]
    names: dict[str, str]
    unknown: dict[str, float]
    fingerprint: str


class DataSet(NamedTuple):
    """A Hugging Face data set: its name on the hub, configuration and column of text; None: the default."""

    hub_id: str
    config: str | None = None
    text_column: str | None = None


def build_corpus(splits: Lines, settings: TextSettings, names: dict[str, str]) -> Corpus:
    """The corpus of lines in memory.

    Raises:
        DataError: a text is empty, or nothing is left of it.
    """
    vocabulary, texts = encode_texts(splits, settings, names)
    return _corpus(vocabulary, texts, names, fingerprint(vocabulary, texts))


def read_corpus(
    source: str,
    settings: TextSettings,
    data_set: DataSet,
    encoding: str = "utf-8",
    wikitext: bool = True,
    whole: bool = False,
) -> Corpus:
    """The corpus of ``hub``, a folder or a file: encoded once into a cache, from which it is mapped into memory.

    Args:
        source: ``hub``, a folder or a file.
        settings: what tokens are.
        data_set: of the hub, or of parquet files.
        encoding: of text files.
        wikitext: where the names are those of WikiText, blank lines are ``<eos>``.
        whole: a text is only to be measured, see ``find_texts``.

    Raises:
        DataError: it is not available or can't be read.
    """
    if source == "hub":
        return _read_hub(data_set, _as_wikitext(settings, wikitext and is_wikitext(data_set.hub_id)))
    root = user_path(source)
    parquet = sorted(root.rglob("*.parquet")) if root.is_dir() else []
    if parquet:
        seen = tuple(stamps(root, parquet))
        named = is_wikitext(root.resolve().name) or is_wikitext(data_set.config or "")
        return _read_parquet(root, seen, data_set, _as_wikitext(settings, wikitext and named))
    files = find_texts(root, whole)
    texts = tuple((split, file, file.stat().st_mtime_ns, file.stat().st_size) for split, file in files.items())
    named = all(is_wikitext(file.name) for file in files.values())
    return _read_files(texts, _as_wikitext(settings, wikitext and named), encoding)


def _as_wikitext(settings: TextSettings, is_it: bool) -> TextSettings:
    return replace(settings, eos_on_blank_lines=True) if is_it else settings


@lru_cache(maxsize=4)
def _read_hub(data_set: DataSet, settings: TextSettings) -> Corpus:
    splits = load_from_hub(data_set.hub_id, data_set.config)
    key = {"hub": data_set, "fingerprints": {name: part._fingerprint for name, part in splits.items()}}
    return _cached(
        key, settings, _names(data_set.hub_id), lambda: _rows(splits, data_set, data_set.hub_id, settings.level)
    )


@lru_cache(maxsize=4)
def _read_parquet(root: Path, seen: tuple[Any, ...], data_set: DataSet, settings: TextSettings) -> Corpus:
    @contextlib.contextmanager
    def rows() -> Iterator[Lines]:
        with (
            parquet_folder(root, data_set.config) as splits,
            _rows(splits, data_set, str(root), settings.level) as lines,
        ):
            yield lines

    key = {"parquet": str(root.resolve()), "files": seen, "data_set": data_set[1:]}
    return _cached(key, settings, _names(str(root)), rows)


@lru_cache(maxsize=4)
def _read_files(seen: tuple[tuple[str, Path, int, int], ...], settings: TextSettings, encoding: str) -> Corpus:
    files = {split: file for split, file, *_ in seen}
    key = {"files": [(str(file.resolve()), *stamp) for _, file, *stamp in seen], "encoding": encoding}
    is_one = len(files) > 1 and len(set(files.values())) == 1
    names = {split: f"the {split} part of {file}" if is_one else str(file) for split, file in files.items()}
    # The bytes of a file are its characters in latin-1.
    encoding = "latin-1" if settings.level == "byte" else encoding

    def lines() -> AbstractContextManager[Lines]:
        if is_one:
            keeps_blank = settings.keep_layout or settings.eos_on_blank_lines
            return contextlib.nullcontext(parts_of(files["train"], encoding, keeps_blank))
        return contextlib.nullcontext({split: lines_of(file, encoding) for split, file in files.items()})

    return _cached(key, settings, names, lines)


def _names(where: str) -> dict[str, str]:
    return {split: f"the {split} split of {where}" for split in SPLITS}


def _rows(splits: "DatasetDict", data_set: DataSet, where: str, level: Level) -> AbstractContextManager[Lines]:
    lines: Lines = lines_by_split(splits, data_set.text_column, where)
    if level == "byte":
        lines = {split: map(bytes_as_characters, rows) for split, rows in lines.items()}
    return contextlib.nullcontext(lines)


def _cached(
    key: dict[str, Any],
    settings: TextSettings,
    names: dict[str, str],
    read: Callable[[], AbstractContextManager[Lines]],
) -> Corpus:
    cache = ArrayCache("texts", CACHE_VERSION, {**key, "settings": settings.key()})

    def build() -> Stored:
        with read() as splits:
            vocabulary, texts = encode_texts(splits, settings, names, cache.workspace())
        counts = {split: (text.lines, text.unknown) for split, text in texts.items()}
        about = {"vocabulary": vocabulary, "counts": counts, "fingerprint": fingerprint(vocabulary, texts)}
        return {split: text.tokens for split, text in texts.items()}, about

    arrays, about = cache.load_or_build(build)
    texts = {split: EncodedText(arrays[split], *about["counts"][split]) for split in names}
    return _corpus(about["vocabulary"], texts, names, about["fingerprint"])


def _corpus(vocabulary: list[str], texts: dict[str, EncodedText], names: dict[str, str], fingerprint: str) -> Corpus:
    return Corpus(
        vocabulary,
        {split: torch.from_numpy(text.tokens) for split, text in texts.items()},
        {split: text.lines for split, text in texts.items()},
        names,
        {split: text.unknown / max(len(text.tokens) - text.lines, 1) for split, text in texts.items()},
        fingerprint,
    )
