"""Lines of text to tokens: words, characters or bytes."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Literal

from ..segmenters import Segmenter as Segmenter
from ..segmenters import jieba_cut

EOS, UNKNOWN = "<eos>", "<unk>"
Level = Literal["word", "character", "byte"]
BLANKS = " \t\r\n\v\f"  # of bytes; other bytes that are white space by themselves are parts of characters
# A byte is a token of its own; that of the line's end is <eos>, as for characters.
BYTES = [EOS if byte == ord("\n") else chr(byte) for byte in range(256)] + [UNKNOWN]


class Tokenizer:
    """What the tokens of a line are.

    Args:
        level: ``word``, ``character`` or ``byte``. The bytes of a line are the characters of the same numbers, as
            latin-1 has them.
        segmenter: where words end: ``none``: at white space; ``jieba``: also where jieba says, for Chinese.
        keep_layout: blank lines, indentation and blanks at the end are text. The indentation of a line is one word.

    Raises:
        DataError: jieba is asked for and not installed.
    """

    def __init__(self, level: Level = "word", segmenter: Segmenter = "none", keep_layout: bool = False) -> None:
        self.level, self.keep_layout = level, keep_layout
        self._cut = jieba_cut() if level == "word" and segmenter == "jieba" else None
        self._splits_at_blanks = level == "word" and self._cut is None and not keep_layout

    def stripped(self, line: str) -> str:
        """A line without what is not text in it."""
        if self.keep_layout:
            return line.removesuffix("\r") if self.level == "word" else line
        return line.strip(BLANKS) if self.level == "byte" else line.strip()

    def __call__(self, line: str) -> Sequence[str]:
        """The tokens of a stripped line."""
        return line if self.level != "word" else list(self._words(line))

    def _words(self, line: str) -> Iterator[str]:
        if self.keep_layout and (indentation := line[: len(line) - len(line.lstrip())]):
            yield indentation
        for part in line.split():
            yield from self._cut(part) if self._cut else (part,)

    def words_of_lines(self, lines: Iterable[str]) -> list[str]:
        """The words of stripped lines, ``<eos>`` after each."""
        if self._splits_at_blanks:
            return f" {EOS} ".join([*lines, ""]).split()
        return list(chain.from_iterable((*self._words(line), EOS) for line in lines))


def bytes_as_characters(text: str) -> str:
    """Each byte of a text in UTF-8 as the character of the same number, as latin-1 has them."""
    return text.encode().decode("latin-1")


class TextCodec:
    """Texts to the token numbers of a vocabulary, and back.

    Args:
        vocabulary: the tokens by number, ``<eos>`` and ``<unk>`` among them.
        level: see ``Tokenizer``.
        segmenter: see ``Tokenizer``.
        keep_layout: see ``Tokenizer``.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        level: Level = "word",
        segmenter: Segmenter = "none",
        keep_layout: bool = False,
    ) -> None:
        self.vocabulary, self.level = vocabulary, level
        self.tokenizer = Tokenizer(level, segmenter, keep_layout)
        self.index = {token: number for number, token in enumerate(vocabulary)}
        # Words of Chinese are written without blanks.
        self.separator = " " if level == "word" and segmenter == "none" else ""

    def encode_line(self, line: str) -> list[int]:
        """The tokens of a line as it is written, without its end."""
        line = bytes_as_characters(line) if self.level == "byte" else line
        return [self.index.get(token, self.index[UNKNOWN]) for token in self.tokenizer(line)]

    def encode(self, text: str) -> list[int]:
        """The tokens of lines as in a training text, ``<eos>`` after each; an empty text has none."""
        lines = map(self.tokenizer.stripped, text.removesuffix("\n").split("\n") if text else ())
        kept = [line for line in lines if line or self.tokenizer.keep_layout]
        return [token for line in kept for token in (*self.encode_line(line), self.index[EOS])]

    def decode(self, tokens: Sequence[int], line_end: str = EOS) -> str:
        """The text of tokens.

        Args:
            tokens: their numbers.
            line_end: what stands for ``<eos>``.
        """
        names = [self.vocabulary[token] for token in tokens]
        if line_end != EOS:  # a line of its own, without separators around its end
            lines: list[list[str]] = [[]]
            for name in names:
                lines[-1].append(name) if name != EOS else lines.append([])
            text = line_end.join(self.separator.join(line) for line in lines)
        else:
            text = self.separator.join(names)
        return text.encode("latin-1", "replace").decode(errors="replace") if self.level == "byte" else text
