"""A picture of sentences with the triples found in them, and the true ones."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn

from .base import RIGHT, WRONG, PictureOfTest, Reservoir, log_figure, wants_pictures
from .fonts import quiet_fonts
from .triple_drawing import MISSED, draw_sentences
from .triple_layout import Arrow, DrawnSentence

MOST_PREDICTED = 8  # arrows over one sentence
SOLID, DOTTED, DASHED = "-", (0, (4, 1.2, 1, 1.2)), (0, (3, 2))


class _Sentence(NamedTuple):
    """A sentence of the test, as ``test_step`` returned it."""

    text: str
    predicted: list[Any]
    gold: tuple[tuple[str, str, str], ...]


class TripleSentences(PictureOfTest):
    """Draws some sentences of the test with their triples, predicted above the text and gold below it.

    An arrow from subject to object carries the predicate, over it the entities are marked. Right triples are green and
    solid, with a tick; wrong ones orange and dash-dotted, with a cross and, as all predicted ones, their confidence;
    missed ones grey and dashed.

    During the test, ``test_step`` returns ``{"texts": …, "gold": …, "predicted": …}``: for each sentence its text, the
    true (subject, predicate, object), and the triples found, which have the fields of
    ``metrics.triples.ExtractedTriple``; outputs without these are left alone. A random sample of sentences of
    moderate length whose gold entities all occur in the text makes the picture ``triples``. Of a sentence with many
    predicted triples the surest eight are drawn, and a line says how many are not. With several processes the picture
    shows rank zero's share.

    Args:
        num_sentences: sentences to draw.
        max_characters: of a sentence to be drawn.
        max_triples: gold triples of a sentence to be drawn; it has at least one.
        seed: of the choice of sentences.

    Raises:
        ValueError: a number is below 1.
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
                log_figure(trainer, "triples", draw_sentences([*map(_drawn, self._sentences)], LEGEND))
        elif self._had_triples:
            rank_zero_warn(
                f"TripleSentences: no picture, the test has no sentence of at most {self.max_characters} characters "
                f"with 1 to {self.max_triples} triples whose entities occur in it"
            )


LEGEND = (
    Arrow((0, 0), (0, 0), "✓ right", RIGHT, SOLID),
    Arrow((0, 0), (0, 0), "✗ wrong, with confidence", WRONG, DOTTED),
    Arrow((0, 0), (0, 0), "missed", MISSED, DASHED),
)


def _drawn(sentence: _Sentence) -> DrawnSentence:
    gold = set(sentence.gold)
    surest = sorted(sentence.predicted, key=lambda triple: -triple.confidence)
    # The mentions of a triple count once.
    different: dict[tuple[str, ...], Any] = {}
    for triple in surest:
        different.setdefault(tuple(triple[:3]), triple)
    predicted = list(different.values())
    above = []
    for triple in predicted[:MOST_PREDICTED]:
        right = tuple(triple[:3]) in gold
        label = f"{'✓' if right else '✗'} {triple.predicate} {triple.confidence:.2f}"
        style = (RIGHT, SOLID) if right else (WRONG, DOTTED)
        above.append(Arrow(tuple(triple.subject_span), tuple(triple.object_span), label, *style))
    spans = {tuple(triple[:3]): (triple.subject_span, triple.object_span) for triple in predicted}
    below = []
    for triple in sorted(gold):
        subject, predicate, object_ = triple
        if triple in spans:
            below.append(Arrow(*map(tuple, spans[triple]), f"✓ {predicate}", RIGHT, SOLID))
        else:
            places = _first_place(sentence.text, subject), _first_place(sentence.text, object_)
            below.append(Arrow(*places, predicate, MISSED, DASHED))
    hidden = len(predicted) - len(above)
    return DrawnSentence(sentence.text, above, below, f"and {hidden} less sure predicted triples" if hidden else "")


def _first_place(text: str, entity: str) -> tuple[int, int]:
    start = text.index(entity)
    return start, start + len(entity)
