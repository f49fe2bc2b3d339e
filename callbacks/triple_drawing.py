"""Drawing sentences with labelled arrows: above the text what was predicted, below it what is true."""

import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from callbacks.fonts import advance, font_families
from callbacks.pictures import FAINT, INK, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RIGHT, WRONG, MISSED = "#009e73", "#d55e00", "#7f7f7f"
# Sizes in points.
TEXT_SIZE, LABEL_SIZE = 10.5, 8.0
LINE_WIDTH = 560.0
MARGIN = 26.0
LANE, BRACKET, TEXT_HEIGHT = 14.0, 4.5, 15.0
RAISED = 0.55  # lanes that a label stands over an arrow that is too short for it
LINE_GAP, SENTENCE_GAP = 8.0, 24.0
LEGEND_HEIGHT = 34.0

Span = tuple[int, int]


class Arrow(NamedTuple):
    """From a subject to an object; spans are [start, end) in characters."""

    subject: Span
    object: Span
    label: str
    colour: str
    dashes: str  # a matplotlib line style


class DrawnSentence(NamedTuple):
    text: str
    above: list[Arrow]
    below: list[Arrow]
    note: str = ""


class _Line(NamedTuple):
    """Characters [start, end) of a text, and where each begins, in points; one place more than characters."""

    start: int
    end: int
    places: list[float]


class _Piece(NamedTuple):
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


class _Bracket(NamedTuple):
    """Marks what of an entity lies on a line: its row, counted from 1, away from the text; ends in points."""

    span: Span
    row: int
    low: float
    high: float
    colour: str


def draw_sentences(sentences: Sequence[DrawnSentence], legend: Sequence[Arrow]) -> "Figure":
    """A figure of the sentences, one below the other, each wrapped; ``legend``: an arrow of each kind, spans unused."""
    labels = [arrow.label for sentence in sentences for arrow in (*sentence.above, *sentence.below)]
    families = font_families("".join([*(sentence.text + sentence.note for sentence in sentences), *labels]))
    blocks = [_lay_out(sentence, families) for sentence in sentences]
    height = LEGEND_HEIGHT + sum(block[-1] for block in blocks) + SENTENCE_GAP * len(blocks)
    width = LINE_WIDTH + 2 * MARGIN
    figure = new_figure(width / 72, height / 72)
    # The axes cover the figure, so that the unit of both directions is the point; nothing is left to lay out.
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-MARGIN, LINE_WIDTH + MARGIN)
    axes.set_ylim(-height, 0)
    axes.axis("off")
    _draw_legend(axes, legend)
    top = -LEGEND_HEIGHT
    for number, (sentence, (lines, pieces, brackets, block_height)) in enumerate(zip(sentences, blocks, strict=True)):
        if number:
            ends = [-MARGIN / 2, LINE_WIDTH + MARGIN / 2]
            axes.plot(ends, [top + SENTENCE_GAP / 2] * 2, color=FAINT, linewidth=0.5, alpha=0.6)
        y = top
        for place, line in enumerate(lines):
            above, below = pieces[place]
            over, under = brackets[place]
            y -= LANE * _num_lanes(above) + BRACKET * _num_rows(over)
            _draw_characters(axes, sentence.text, line, y, families)
            _draw_side(axes, above, over, y, 1, families)
            y -= TEXT_HEIGHT
            _draw_side(axes, below, under, y, -1, families)
            y -= LANE * _num_lanes(below) + BRACKET * _num_rows(under) + LINE_GAP
        if sentence.note:
            axes.text(0, y, sentence.note, fontsize=LABEL_SIZE, color=MISSED, va="top", family=families)
        top -= block_height + SENTENCE_GAP
    return figure


def wrap(text: str, advances: Sequence[float], width: float) -> list[_Line]:
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
        lines.append(_Line(start, end, places))
        start = end
    return lines


def _in_word(character: str) -> bool:
    return character.isalnum() and unicodedata.east_asian_width(character) not in "WF"


def _visible(character: str) -> str:
    return character if character.isprintable() else " "


def _width(text: str, size: float, families: list[str]) -> float:
    return sum(advance(_visible(character), families, size) for character in text)


def _lay_out(sentence: DrawnSentence, families: list[str]) -> tuple:
    """Lines of a sentence; arrows in lanes and brackets in rows, above and below of each line; height in points."""
    advances = [advance(_visible(character), families, TEXT_SIZE) for character in sentence.text]
    lines = wrap(sentence.text, advances, LINE_WIDTH)
    pieces, brackets = [], []
    sides = [_anchored(arrows, lines) for arrows in (sentence.above, sentence.below)]
    for number, line in enumerate(lines):
        pieces.append(
            tuple(
                _in_lanes(
                    [
                        piece
                        for arrow, *ends in side
                        if (piece := _piece(arrow, *ends, number, line, families)) is not None
                    ]
                )
                for side in sides
            )
        )
        brackets.append(tuple(_in_rows(arrows, line) for arrows in (sentence.above, sentence.below)))
    height = 0.0
    for sides_of_pieces, sides_of_brackets in zip(pieces, brackets, strict=True):
        height += LANE * sum(map(_num_lanes, sides_of_pieces)) + BRACKET * sum(map(_num_rows, sides_of_brackets))
        height += TEXT_HEIGHT + LINE_GAP
    return lines, pieces, brackets, height + (LABEL_SIZE * 1.5 if sentence.note else 0)


def _anchored(arrows: Sequence[Arrow], lines: list[_Line]) -> list[tuple[Arrow, tuple, tuple]]:
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


def _longest_part(span: Span, lines: list[_Line]) -> tuple[int, float, float]:
    """On which line most of a span lies, and from where to where."""
    parts = []
    for number, line in enumerate(lines):
        start, end = max(span[0], line.start), min(span[1], line.end)
        if start < end:
            parts.append((end - start, -number, line.places[start - line.start], line.places[end - line.start]))
    _, number, low, high = max(parts)
    return -number, low, high


def _piece(
    arrow: Arrow, subject: tuple[int, float], object_: tuple[int, float], number: int, line: _Line, families: list[str]
) -> _Piece | None:
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
    return _Piece(arrow, start, tip, low, high, centre, half, high - low < 2 * half + 6)


def _in_lanes(pieces: list[_Piece]) -> list[tuple[float, _Piece]]:
    """Each piece with its lane, from 1: short ones near the text, each above all that it meets, labels included."""
    placed: list[tuple[float, _Piece]] = []
    for piece in sorted(pieces, key=lambda piece: piece.high - piece.low):
        low, high = _extent(piece)
        met = [_top(*other) for other in placed if _extent(other[1])[0] - 4 < high and low < _extent(other[1])[1] + 4]
        placed.append((1 + max(met, default=0), piece))
    return placed


def _extent(piece: _Piece) -> tuple[float, float]:
    return min(piece.low, piece.label - piece.half_label), max(piece.high, piece.label + piece.half_label)


def _top(lane: float, piece: _Piece) -> float:
    return lane + RAISED * piece.raised


def _in_rows(arrows: Sequence[Arrow], line: _Line) -> list[_Bracket]:
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
        _Bracket(span, row, line.places[start - line.start] + 0.7, line.places[end - line.start] - 0.7, colours[span])
        for row, start, end, span in placed
    ]


def _num_lanes(pieces: list[tuple[float, _Piece]]) -> float:
    # Half a lane stays free over the highest, for its label.
    return max((_top(*placed) + 0.5 for placed in pieces), default=0)


def _num_rows(brackets: list[_Bracket]) -> int:
    return max((bracket.row for bracket in brackets), default=0)


def _draw_characters(axes: "Axes", text: str, line: _Line, top: float, families: list[str]) -> None:
    # One by one: only so is it certain what lies under a bracket, whatever the font's kerning.
    for character, (low, high) in zip(text[line.start : line.end], pairwise(line.places), strict=True):
        if not character.isspace() and character.isprintable():
            axes.text(
                (low + high) / 2,
                top - TEXT_HEIGHT * 0.76,
                character,
                ha="center",
                va="baseline",
                fontsize=TEXT_SIZE,
                color=INK,
                family=families,
            )


def _draw_side(
    axes: "Axes",
    pieces: list[tuple[float, _Piece]],
    brackets: list[_Bracket],
    y: float,
    up: int,
    families: list[str],
) -> None:
    """Brackets and arrows on one side of a line whose text ends at ``y``; ``up`` is 1 above the text, -1 below."""
    feet = {}  # where the arrows of an entity stand
    for span, row, low, high, colour in brackets:
        height = y + up * BRACKET * (row - 0.5)
        axes.plot([low, high], [height] * 2, color=colour, linewidth=1.8, solid_capstyle="butt", zorder=1.5)
        feet[span] = height + up * 2.2
    base = y + up * (BRACKET * _num_rows(brackets))
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    for lane, piece in sorted(pieces, key=lambda placed: -placed[0]):
        height = base + up * LANE * lane
        arrow = piece.arrow
        xs, ys = [], []
        if piece.start is not None:
            xs, ys = [piece.start, piece.start], [feet[arrow.subject], height]
            axes.plot([piece.start], [feet[arrow.subject] + up], "o", color=arrow.colour, markersize=3, zorder=3)
        elif piece.tip is not None:
            xs, ys = [_edge(piece)], [height]
        if piece.tip is not None:
            xs, ys = [*xs, piece.tip, piece.tip], [*ys, height, feet[arrow.object] + up * 2]
            tip = "v" if up > 0 else "^"
            axes.plot([piece.tip], [feet[arrow.object] + up * 1.6], tip, color=arrow.colour, markersize=4.5, zorder=3)
        else:
            xs, ys = [*xs, _edge(piece)], [*ys, height]
        axes.plot(xs, ys, color=arrow.colour, linewidth=1.1, linestyle=arrow.dashes, zorder=2)
        axes.text(
            piece.label,
            height + up * LANE * RAISED * piece.raised,
            arrow.label,
            ha="center",
            va="center",
            fontsize=LABEL_SIZE,
            color=arrow.colour,
            family=families,
            parse_math=False,
            bbox=box,
            zorder=4,
        )


def _edge(piece: _Piece) -> float:
    """The end of a piece that goes on over another line."""
    return piece.high if piece.high > LINE_WIDTH + MARGIN * 0.5 else piece.low


def _draw_legend(axes: "Axes", legend: Sequence[Arrow]) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=arrow.colour, linewidth=1.4, linestyle=arrow.dashes, label=arrow.label) for arrow in legend
    ]
    axes.legend(
        handles=lines,
        title="predicted above the text, gold below it; from subject to object",
        ncols=len(lines),
        loc="upper center",
        frameon=False,
        fontsize=LABEL_SIZE,
        title_fontsize=8.5,
        handlelength=3.2,
        borderpad=0.1,
    )
