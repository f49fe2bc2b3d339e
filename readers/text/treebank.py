"""Parsed sentences from Penn Treebank ``.mrg`` files, reduced to words and labelled spans."""

import re
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ..encodings import decode_text
from ..errors import DataError, one_line
from ..files import check_unpacked_size, user_path

WORD_TAGS = re.compile(
    r"CC|CD|DT|EX|FW|IN|JJ|JJR|JJS|LS|MD|NN|NNS|NNP|NNPS|PDT|POS|PRP|PRP\$|RB|RBR|RBS|RP|SYM|TO|UH|"
    r"VB|VBD|VBG|VBN|VBP|VBZ|WDT|WP|WP\$|WRB"
)
DIGITS = re.compile("[0-9]+")
TOKENS = re.compile(r"[()]|[^\s()]+")

Span = tuple[int, int, str]


class ParsedSentence(NamedTuple):
    """A sentence and its constituents.

    Args:
        words: the n words.
        spans: (start, end, label) of the constituents of two or more words, [start, end) in words, including the whole
            sentence, outer ones first. Constituents of the same words are one span, their labels joined from the top:
            ``S+VP``.
    """

    words: tuple[str, ...]
    spans: tuple[Span, ...]


class SpanBuilder:
    """Builds a ``ParsedSentence`` from brackets and words in order, for trees of any depth."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._spans: list[Span] = []
        self._open: list[tuple[str, int]] = []

    def open(self, label: str) -> None:
        """Begins a constituent."""
        self._open.append((label, len(self.words)))

    def word(self, word: str) -> None:
        """Adds a word to the open constituents."""
        self.words.append(word)

    def close(self) -> None:
        """Ends the innermost open constituent."""
        label, start = self._open.pop()
        end = len(self.words)
        if end - start < 2:
            return
        if self._spans and self._spans[-1][:2] == (start, end):  # the only child that has words
            label = "+".join(filter(None, (label, self._spans.pop()[2])))
        self._spans.append((start, end, label or "TOP"))

    def sentence(self) -> ParsedSentence:
        """The sentence, once all constituents are closed."""
        return ParsedSentence(tuple(self.words), tuple(sorted(self._spans, key=lambda span: (span[0], -span[1]))))


def read_treebank(path: Path) -> tuple[ParsedSentence, ...]:
    """The sentences of a ``.mrg`` file, of all such files in a folder, or of those in a ``.zip``; read once.

    Only words under one of the 36 word tags are kept, in lower case, with each run of digits replaced by ``N``.
    Punctuation, symbols and traces are dropped, as are brackets left empty and sentences without words. Labels lose
    their function tags (``NP-SBJ`` becomes ``NP``).

    Source: the filter of Shen et al. (arXiv 1810.09536), the standard for comparing unsupervised parsers.

    Raises:
        DataError: there are no such files, or brackets don't match (the message names file and line).
    """
    path = user_path(path)
    if not path.exists():
        raise DataError(f"data.treebank: {path} does not exist; give a .mrg file, a folder of them or a .zip")
    return _read_treebank(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _read_treebank(path: Path, changed: int) -> tuple[ParsedSentence, ...]:
    texts = ((name, decode_text(data, name).removeprefix("\ufeff")) for name, data in _files(path))
    sentences = tuple(sentence for name, text in texts for sentence in read_mrg(text, name))
    if not sentences:
        raise DataError(f"data.treebank: {path} has no parsed sentence; give a .mrg file, a folder of them or a .zip")
    return sentences


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.suffix == ".zip" and path.is_file():
        yield from _unzip(path)
        return
    for file in sorted(path.rglob("*.mrg")) if path.is_dir() else [path]:
        try:
            yield str(file), file.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {file}: {error.strerror}") from error


def _unzip(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".mrg")]
            check_unpacked_size(sum(member.file_size for member in members), path.stat().st_size, str(path))
            for member in sorted(members, key=lambda member: member.filename):
                yield f"{path}/{member.filename}", archive.read(member)
    except DataError:
        raise
    except Exception as error:  # zipfile and what it unpacks with raise nearly everything on broken archives
        raise DataError(f"cannot read {path}: {one_line(error)}; get the archive again") from error


def read_mrg(text: str, name: str) -> Iterator[ParsedSentence]:
    """Yields the sentences of bracketed text, ``( (S (NP (NNP Pierre)) …))``, filtered as in ``read_treebank``.

    Args:
        text: the content of a file.
        name: what messages call it.

    Raises:
        DataError: brackets don't match, or a word is out of place; the message names the line.
    """
    builder, depth, first_line, before, label, words_of_tag = SpanBuilder(), 0, 0, "", "", 0
    for number, line in enumerate(text.split("\n"), 1):
        for token in TOKENS.findall(line):
            if token == "(":
                first_line = first_line if depth else number
                if before == "(":
                    builder.open("")  # a bracket without a label, like the outermost ones
                depth += 1
            elif token == ")":
                if not depth:
                    raise DataError(f"{name}, line {number}: a ) without its (; repair the brackets")
                if before == "(":
                    builder.open("")
                builder.close()
                depth -= 1
                if not depth:
                    if builder.words:
                        yield builder.sentence()
                    builder = SpanBuilder()
            elif before == "(":
                label, words_of_tag = token, 0
                builder.open(re.split("[-=]", label)[0])
            else:
                words_of_tag += 1
                if not depth or before in "()" or words_of_tag > 1:
                    raise DataError(f"{name}, line {number}: {token} is not a word in brackets with its tag")
                if WORD_TAGS.fullmatch(label):
                    builder.word(DIGITS.sub("N", token.lower()))
            before = token if token in "()" else "word"
    if depth:
        raise DataError(f"{name}, line {first_line}: the bracket that begins here is never closed; repair the brackets")
