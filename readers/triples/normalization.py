"""Texts in one form of width and case, with the way back to the characters of the original."""

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Literal, NamedTuple

Normalize = Literal["none", "width", "case", "both"]
Span = tuple[int, int]  # [start, end) in characters


class NormalizedText(NamedTuple):
    """A text without outer blanks, and where in the original each of its characters begins and ends."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]

    def original(self, span: Span) -> Span:
        """A span of this text, not empty, in the original."""
        return self.starts[span[0]], self.ends[span[1] - 1]

    def inside(self, span: Span) -> Span:
        """A span of the original in this text, without outer blanks; empty if nothing else is in it."""
        start, end = bisect_right(self.ends, span[0]), bisect_left(self.starts, span[1])
        part = self.text[start:end]
        return start + len(part) - len(part.lstrip()), max(start, end - len(part) + len(part.rstrip()))


def normalize_text(text: str, how: Normalize) -> NormalizedText:
    """A text without outer blanks, in one form.

    Args:
        text: any text.
        how: ``width``: Unicode's NFKC (full-width and half-width characters, ligatures, composed accents); ``case``:
            lower case; ``both``; ``none``: only outer blanks are left out.

    Example:
        normal = normalize_text(" ＡＢＣ公司", "both")
        assert normal.text == "abc公司" and normal.original((0, 3)) == (1, 4)
    """
    first = len(text) - len(text.lstrip())
    inner = text.strip()
    width, case = how in ("width", "both"), how in ("case", "both")
    if not (width and not unicodedata.is_normalized("NFKC", inner)) and not (case and inner.lower() != inner):
        places = range(first, first + len(inner) + 1)
        return NormalizedText(inner, places[:-1], places[1:])
    parts, starts, ends = [], [], []
    for start, end in _clusters(inner) if width else ((place, place + 1) for place in range(len(inner))):
        part = inner[start:end]
        part = unicodedata.normalize("NFKC", part) if width else part
        part = part.lower() if case else part
        parts.append(part)
        starts += [first + start] * len(part)
        ends += [first + end] * len(part)
    return NormalizedText("".join(parts), starts, ends)


def _clusters(text: str) -> list[Span]:
    """The smallest parts of a text that NFKC changes one by one: a character and what combines with it."""
    bounds, normal = [0], ""  # where the parts begin, and the present one after NFKC
    for place, sign in enumerate(text):
        alone = sign if sign < "\u0300" else unicodedata.normalize("NFKC", sign)
        together = normal + alone
        if place and sign >= "\u0300":
            together = unicodedata.normalize("NFKC", text[bounds[-1] : place + 1])
        # Marks may be reordered, and some signs without a combining class compose (Hangul).
        if together != normal + alone or (place and unicodedata.combining(alone[0])):
            normal = together
        else:
            bounds += [place] if place else []
            normal = alone
    return list(zip(bounds, [*bounds[1:], len(text)], strict=True)) if text else []
