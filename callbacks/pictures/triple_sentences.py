"""A picture of sentences with the triples found in them and the gold ones."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn

from .base import INK, RIGHT, WRONG, PictureOfTest, Reservoir, log_figure, new_figure, wants_pictures
from .fonts import font_families, quiet_fonts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MISSED = "#6b6b6b"
MOST_PREDICTED = 8  # predicted triples listed for one sentence
WIDTH, MARGIN, LINE, GAP, INDENT = 560.0, 18.0, 17.0, 10.0, 20.0  # points
# The distance from the left in points, the text and its colour.
LEGEND = ((0, "✓ right (confidence)", RIGHT), (150, "✗ wrong (confidence)", WRONG), (300, "– missed", MISSED))


class _Sentence(NamedTuple):
    """A sentence of the test, as ``test_step`` returned it."""

    text: str
    predicted: list[Any]
    gold: tuple[tuple[str, str, str], ...]


class TripleSentences(PictureOfTest):
    """Draws some test sentences, each with a list of its triples, one ``subject —predicate→ object`` per line.

    Right triples have a tick and are green, wrong ones a cross and orange, both with their confidence; missed gold
    ones have a dash and are grey.

    During the test, ``test_step`` returns ``{"texts": …, "gold": …, "predicted": …}``: for each sentence its text, the
    gold (subject, predicate, object), and the triples found, which have the fields of
    ``metrics.triples.ExtractedTriple``; other outputs are ignored. The picture ``triples`` shows a random sample of
    sentences of moderate length whose gold entities all occur in the text. Of a sentence's predicted triples the
    eight most confident and all right ones are listed, and a line counts the rest. With several processes the picture
    shows rank zero's share.

    Args:
        num_sentences: sentences to draw.
        max_characters: length of the longest sentence that may be drawn.
        max_triples: the most gold triples of a sentence that may be drawn; it has at least one.
        seed: of the choice of sentences.

    Raises:
        ValueError: a number is below 1.

    Example:
        trainer:
          callbacks+:
            - class_path: TripleSentences
              init_args: {num_sentences: 8, max_characters: 120}
    """

    needs = ("texts", "gold", "predicted")

    def __init__(self, num_sentences: int = 4, max_characters: int = 90, max_triples: int = 4, seed: int = 0) -> None:
        if min(num_sentences, max_characters, max_triples) < 1:
            raise ValueError(
                "num_sentences, max_characters and max_triples must be at least 1, got "
                f"{num_sentences}, {max_characters}, {max_triples}"
            )
        self.num_sentences, self.max_characters, self.max_triples = num_sentences, max_characters, max_triples
        self.seed = seed
        self.forget()

    def forget(self) -> None:
        self._sentences: Reservoir[_Sentence] = Reservoir(self.num_sentences, self.seed)
        self._had_triples = False

    def collect(self, trainer: pl.Trainer, outputs: Mapping[str, Any], batch: Any, dataloader_idx: int) -> None:
        if not wants_pictures(trainer):
            return
        self._had_triples = True
        for sentence in map(_Sentence, outputs["texts"], outputs["predicted"], outputs["gold"]):
            if self._is_drawable(sentence):
                self._sentences.offer(sentence)

    def _is_drawable(self, sentence: _Sentence) -> bool:
        return (
            len(sentence.text) <= self.max_characters
            and 1 <= len(set(sentence.gold)) <= self.max_triples
            and all(
                entity and entity in sentence.text for entity, _, other in sentence.gold for entity in (entity, other)
            )
        )

    def finish(self, trainer: pl.Trainer) -> None:
        if self._sentences:
            self._sentences.sort(key=lambda sentence: len(sentence.text))
            with quiet_fonts():
                log_figure(trainer, "triples", draw_sentences(self._sentences))
        elif self._had_triples:
            rank_zero_warn(
                f"TripleSentences: no picture, the test has no sentence of at most {self.max_characters} characters "
                f"with 1 to {self.max_triples} triples whose entities occur in it"
            )


def draw_sentences(sentences: Sequence[_Sentence]) -> "Figure":
    """A figure of sentences above their triples, all lines wrapped to one width."""
    blocks = [_lines(sentence) for sentence in sentences]
    families = font_families("".join(text for lines in blocks for text, _ in lines))
    full_width = WIDTH + 2 * MARGIN
    figure = new_figure(full_width / 72, 1)
    figure.set_layout_engine("none")
    style: dict[str, Any] = {"fontsize": 10, "family": families, "parse_math": False}
    probe = figure.text(0, 0, "", **style)

    def width(text: str) -> float:
        probe.set_text(text)
        return probe.get_window_extent().width / figure.dpi * 72

    top = MARGIN + LINE / 2
    artists = [
        (top, figure.text((MARGIN + left) / full_width, 0, text, color=colour, **style))
        for left, text, colour in LEGEND
    ]
    for lines in blocks:
        top += GAP
        for text, colour in lines:
            left = MARGIN + (INDENT if colour != INK else 0)
            for part in wrap(text, width, WIDTH + MARGIN - left):
                top += LINE
                artists.append((top, figure.text(left / full_width, 0, part, color=colour, **style)))
    probe.remove()
    # As wide as the longest line.
    lefts = [artist.get_position()[0] * full_width for _, artist in artists]
    extents = [artist.get_window_extent().width / figure.dpi * 72 for _, artist in artists]
    width_used = max(map(sum, zip(lefts, extents, strict=True))) + MARGIN
    height = top + MARGIN
    figure.set_size_inches(width_used / 72, height / 72)
    for left, (top, artist) in zip(lefts, artists, strict=True):
        artist.set_position((left / width_used, 1 - top / height))
    return figure


def _lines(sentence: _Sentence) -> list[tuple[str, str]]:
    """The sentence and its triples, each with its colour."""
    gold = set(sentence.gold)
    confidences: dict[tuple[str, ...], float] = {}  # several mentions of a triple count once, by the most confident
    for triple in sorted(sentence.predicted, key=lambda triple: -triple.confidence):
        confidences.setdefault(tuple(triple[:3]), triple.confidence)
    listed = [triple for place, triple in enumerate(confidences) if place < MOST_PREDICTED or triple in gold]
    lines = [(sentence.text, INK)]
    for triple in listed:
        mark, colour = ("✓", RIGHT) if triple in gold else ("✗", WRONG)
        lines.append((f"{mark} {_arrow(*triple)} ({confidences[triple]:.2f})", colour))
    if hidden := len(confidences) - len(listed):
        lines.append((f"… and {hidden} more predicted with less confidence", MISSED))
    return lines + [(f"– {_arrow(*triple)}", MISSED) for triple in sorted(gold - confidences.keys())]


def _arrow(subject: str, predicate: str, object_: str) -> str:
    return f"{subject} —{predicate}→ {object_}"


def wrap(text: str, width: Callable[[str], float], most: float) -> list[str]:
    """Lines of a text no wider than ``most``: broken at a blank in a line's second half, else at any character."""
    rest, lines = " ".join(text.split()), []
    while rest:
        end = max(1, bisect_right(range(1, len(rest) + 1), most, key=lambda length: width(rest[:length])))
        if end < len(rest):
            blank = rest.rfind(" ", end // 2, end + 1)
            end = blank if blank > 0 else end
        lines.append(rest[:end])
        rest = rest[end:].lstrip()
    return lines
