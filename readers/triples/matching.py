"""Where an entity occurs in a text: at word boundaries, where the script has words."""

from collections.abc import Iterable, Iterator
from functools import lru_cache

# First and last code points of scripts that are written without blanks between words.
_WITHOUT_BLANKS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0xA4CF),  # Han, kana, Yi
    (0xF900, 0xFAFF),  # Han
    (0xFF66, 0xFF9F),  # half-width kana
    (0x1B000, 0x1B16F),  # kana
    (0x20000, 0x3FFFF),  # Han
)


@lru_cache(maxsize=1 << 16)
def _is_of_word(sign: str) -> bool:
    """Whether a character is part of a word, as letters and digits are where blanks separate words."""
    return sign.isalnum() and not any(first <= ord(sign) <= last for first, last in _WITHOUT_BLANKS)


def boundaries(text: str, start: int, end: int) -> int:
    """How many ends of the span [start, end) are not inside a word: 0, 1 or 2."""
    return sum(
        place in (0, len(text)) or not (_is_of_word(text[place - 1]) and _is_of_word(text[place]))
        for place in (start, end)
    )


def find_all(text: str, entity: str) -> Iterator[int]:
    """Where an entity begins, overlapping occurrences included."""
    place = text.find(entity)
    while place >= 0:
        yield place
        place = text.find(entity, place + 1)


def prefer_words(text: str, starts: Iterable[int], length: int) -> list[int]:
    """Of the places where an entity begins those with the most ends at word boundaries, in order.

    Source: kg-2019 takes the first occurrence, as Chinese has no such boundaries.
    """
    places = list(starts)
    if len(places) < 2:
        return places
    ranks = [boundaries(text, place, place + length) for place in places]
    return [place for place, rank in zip(places, ranks, strict=True) if rank == max(ranks)]
