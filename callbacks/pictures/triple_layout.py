"""Where the parts of a drawn sentence go, in points: lines of text, labelled arrows in lanes, brackets in rows."""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from .base import RIGHT
from .fonts import advance

# Sizes in points.
TEXT_SIZE, LABEL_SIZE = 10.5, 8.0
LINE_WIDTH = 560.0
MARGIN = 26.0
LANE, BRACKET, TEXT_HEIGHT = 14.0, 4.5, 15.0
RAISED = 0.55  # lanes that a label stands over an arrow that is too short for it
LINE_GAP = 8.0

Span = tuple[int, int]


class Arrow(NamedTuple):
    """From a subject to an object; spans are [start, end) in characters."""

    subject: Span
    object: Span
    label: str
    colour: str
    dashes: str  # a matplotlib line style


class DrawnSentence(NamedTuple):
    """A sentence, the arrows above it and those below it, and a line under it where there is more to say."""

    text: str
    above: list[Arrow]
    below: list[Arrow]
    note: str = ""


class Line(NamedTuple):
    """Characters [start, end) of a text, and where each begins, in points; one place more than characters."""

    start: int
    end: int
    places: list[float]


class Piece(NamedTuple):
    """The part of an arrow that lies over one line: between ``low`` and ``high``, in points, its label about ``label``.

    An end that lies on another line is None. ``raised``: the label has no room between the legs and stands over them.
    """

    arrow: Arrow
    start: float | None
    tip: float | None
    low: float
    high: float
    label: float
    half_label: float
    raised: bool


class Bracket(NamedTuple):
    """Marks what of an entity lies on a line: its row, counted from 1, away from the text; ends in points."""

    span: Span
    row: int
    low: float
    high: float
    colour: str


class Layout(NamedTuple):
    """A sentence laid out.

    Attributes:
        lines: of the text, from the top.
        pieces: for each line the arrows above and below it, each with its lane, counted from 1 away from the text.
        brackets: for each line those above and below it.
        height: of all, in points.
    """

    lines: list[Line]
    pieces: list[tuple[list[tuple[float, Piece]], list[tuple[float, Piece]]]]
    brackets: list[tuple[list[Bracket], list[Bracket]]]
    height: float


def wrap(text: str, advances: Sequence[float], width: float) -> list[Line]:
    """The text in lines of at most ``width`` points, words of letters and digits whole where a line holds them."""
    lines, start = [], 0
    while start < len(text):
        end, reached = start, 0.0
        while end < len(text) and (end == start or reached + advances[end] <= width):
            reached += advances[end]
            end += 1
        if end < len(text):
            whole = end
            while whole > start and _in_word(text[whole - 1]) and _in_word(text[whole]):
                whole -= 1
            end = whole if whole > start else end
        places = [0.0]
        for step in advances[start:end]:
            places.append(places[-1] + step)
        lines.append(Line(start, end, places))
        start = end
    return lines


def _in_word(character: str) -> bool:
    return character.isalnum() and unicodedata.east_asian_width(character) not in "WF"


def _visible(character: str) -> str:
    return character if character.isprintable() else " "


def _width(text: str, size: float, families: list[str]) -> float:
    return sum(advance(_visible(character), families, size) for character in text)


def lay_out(sentence: DrawnSentence, families: list[str]) -> Layout:
    """Wrap a sentence and find a place for its arrows and brackets; ``families``: the fonts that it is drawn with."""
    advances = [advance(_visible(character), families, TEXT_SIZE) for character in sentence.text]
    lines = wrap(sentence.text, advances, LINE_WIDTH)
    sides = [_anchored(arrows, lines) for arrows in (sentence.above, sentence.below)]
    pieces, brackets = [], []
    height = 0.0
    for number, line in enumerate(lines):
        parts = [[_piece(*arrow_and_ends, number, line, families) for arrow_and_ends in side] for side in sides]
        pieces.append(tuple(_in_lanes([piece for piece in side if piece is not None]) for side in parts))
        brackets.append(tuple(_in_rows(arrows, line) for arrows in (sentence.above, sentence.below)))
        height += LANE * sum(map(num_lanes, pieces[-1])) + BRACKET * sum(map(num_rows, brackets[-1]))
        height += TEXT_HEIGHT + LINE_GAP
    return Layout(lines, pieces, brackets, height + (LABEL_SIZE * 1.5 if sentence.note else 0))


def _anchored(arrows: Sequence[Arrow], lines: list[Line]) -> list[tuple[Arrow, tuple, tuple]]:
    """Each arrow with (line, x) of both its ends, the ends at one entity spread so that legs don't cover each other."""
    ends = []
    for number, arrow in enumerate(arrows):
        for end, own, other in ((0, arrow.subject, arrow.object), (1, arrow.object, arrow.subject)):
            ends.append((own, (other[0] + other[1]) - (own[0] + own[1]), number, end))
    places: dict[tuple[int, int], tuple[int, float]] = {}
    for span in {end[0] for end in ends}:
        line_number, low, high = _longest_part(span, lines)
        # Short arrows lie under long ones: from left to right those to the left grow, those to the right shrink.
        left = sorted((end for end in ends if end[0] == span and end[1] < 0), key=lambda end: (-end[1], -end[2]))
        right = sorted((end for end in ends if end[0] == span and end[1] >= 0), key=lambda end: (-end[1], end[2]))
        here = left + right
        step = max(7.0, min(14.0, (high - low) / len(here)))
        for place, (_, _, number, end) in enumerate(here):
            places[number, end] = (line_number, (low + high) / 2 + step * (place - (len(here) - 1) / 2))
    return [(arrow, places[number, 0], places[number, 1]) for number, arrow in enumerate(arrows)]


def _longest_part(span: Span, lines: list[Line]) -> tuple[int, float, float]:
    """On which line most of a span lies, and from where to where."""
    parts = []
    for number, line in enumerate(lines):
        start, end = max(span[0], line.start), min(span[1], line.end)
        if start < end:
            parts.append((end - start, -number, line.places[start - line.start], line.places[end - line.start]))
    _, number, low, high = max(parts)
    return -number, low, high


def _piece(
    arrow: Arrow, subject: tuple[int, float], object_: tuple[int, float], number: int, line: Line, families: list[str]
) -> Piece | None:
    """What of an arrow lies over line ``number``: all, the part to the text's edge, or nothing."""
    start = subject[1] if subject[0] == number else None
    tip = object_[1] if object_[0] == number else None
    if start is None and tip is None:
        return None
    # The half that leaves a line goes to its right edge if the other end comes later, else to its left one.
    here, there = (subject, object_) if start is not None else (object_, subject)
    edge = LINE_WIDTH + MARGIN * 0.6 if there[0] > number else -MARGIN * 0.6
    low, high = sorted((here[1], there[1] if there[0] == number else edge))
    half = _width(arrow.label, LABEL_SIZE, families) / 2 + 3
    centre = min(max((low + high) / 2, half - MARGIN + 3), LINE_WIDTH + MARGIN - half - 3)
    return Piece(arrow, start, tip, low, high, centre, half, high - low < 2 * half + 6)


def _in_lanes(pieces: list[Piece]) -> list[tuple[float, Piece]]:
    """Each piece with its lane, from 1: short ones near the text, each above all that it meets, labels included."""
    placed: list[tuple[float, Piece]] = []
    for piece in sorted(pieces, key=lambda piece: piece.high - piece.low):
        low, high = extent(piece)
        met = [_top(*other) for other in placed if extent(other[1])[0] - 4 < high and low < extent(other[1])[1] + 4]
        placed.append((1 + max(met, default=0), piece))
    return placed


def extent(piece: Piece) -> tuple[float, float]:
    """From where to where an arrow and its label reach over a line."""
    return min(piece.low, piece.label - piece.half_label), max(piece.high, piece.label + piece.half_label)


def _top(lane: float, piece: Piece) -> float:
    return lane + RAISED * piece.raised


def _in_rows(arrows: Sequence[Arrow], line: Line) -> list[Bracket]:
    """The brackets of the entities on a line, inner ones near the text."""
    colours: dict[Span, str] = {}
    for arrow in arrows:
        for span in (arrow.subject, arrow.object):
            # One right triple is enough for an entity to be right.
            colours[span] = RIGHT if RIGHT in (colours.get(span), arrow.colour) else arrow.colour
    placed: list[tuple[int, int, int, Span]] = []
    for span in sorted(colours, key=lambda span: (span[1] - span[0], span)):
        start, end = max(span[0], line.start), min(span[1], line.end)
        if start < end:
            met = [row for row, low, high, _ in placed if low < end and start < high]
            placed.append((1 + max(met, default=0), start, end, span))
    return [
        Bracket(span, row, line.places[start - line.start] + 0.7, line.places[end - line.start] - 0.7, colours[span])
        for row, start, end, span in placed
    ]


def num_lanes(pieces: list[tuple[float, Piece]]) -> float:
    """Lanes that the arrows on one side of a line take."""
    # Half a lane stays free over the highest, for its label.
    return max((_top(*placed) + 0.5 for placed in pieces), default=0)


def num_rows(brackets: list[Bracket]) -> int:
    """Rows that the brackets on one side of a line take."""
    return max((bracket.row for bracket in brackets), default=0)
