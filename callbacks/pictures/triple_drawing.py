"""Drawing sentences with labelled arrows: above the text what was predicted, below it what is true."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from .base import FAINT, INK, new_figure
from .fonts import font_families
from .triple_layout import (
    BRACKET,
    LABEL_SIZE,
    LANE,
    LINE_GAP,
    LINE_WIDTH,
    MARGIN,
    RAISED,
    TEXT_HEIGHT,
    TEXT_SIZE,
    Arrow,
    Bracket,
    DrawnSentence,
    Line,
    Piece,
    lay_out,
    num_lanes,
    num_rows,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MISSED = "#7f7f7f"
SENTENCE_GAP, LEGEND_HEIGHT = 24.0, 34.0  # points


def draw_sentences(sentences: Sequence[DrawnSentence], legend: Sequence[Arrow]) -> "Figure":
    """A figure of the sentences, one below the other, each wrapped; ``legend``: an arrow of each kind, spans unused."""
    labels = [arrow.label for sentence in sentences for arrow in (*sentence.above, *sentence.below)]
    families = font_families("".join([*(sentence.text + sentence.note for sentence in sentences), *labels]))
    layouts = [lay_out(sentence, families) for sentence in sentences]
    height = LEGEND_HEIGHT + sum(layout.height for layout in layouts) + SENTENCE_GAP * len(layouts)
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
    for number, (sentence, layout) in enumerate(zip(sentences, layouts, strict=True)):
        if number:
            ends = [-MARGIN / 2, LINE_WIDTH + MARGIN / 2]
            axes.plot(ends, [top + SENTENCE_GAP / 2] * 2, color=FAINT, linewidth=0.5, alpha=0.6)
        y = top
        for line, (above, below), (over, under) in zip(layout.lines, layout.pieces, layout.brackets, strict=True):
            y -= LANE * num_lanes(above) + BRACKET * num_rows(over)
            _draw_characters(axes, sentence.text, line, y, families)
            _draw_side(axes, above, over, y, 1, families)
            y -= TEXT_HEIGHT
            _draw_side(axes, below, under, y, -1, families)
            y -= LANE * num_lanes(below) + BRACKET * num_rows(under) + LINE_GAP
        if sentence.note:
            axes.text(0, y, sentence.note, fontsize=LABEL_SIZE, color=MISSED, va="top", family=families)
        top -= layout.height + SENTENCE_GAP
    return figure


def _draw_characters(axes: "Axes", text: str, line: Line, top: float, families: list[str]) -> None:
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
    pieces: list[tuple[float, Piece]],
    brackets: list[Bracket],
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
    base = y + up * (BRACKET * num_rows(brackets))
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


def _edge(piece: Piece) -> float:
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
