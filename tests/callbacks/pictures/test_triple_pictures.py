"""Pictures of triples: which sentences, what is right or wrong in them, and counts summed over batches."""

import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from callbacks import PrecisionRecallCurve, PredicateF1, TripleSentences
from callbacks.pictures import triple_layout, triple_sentences
from callbacks.pictures.base import RIGHT, WRONG
from callbacks.pictures.triple_drawing import MISSED, draw_sentences
from callbacks.pictures.triple_layout import wrap
from metrics import ExtractedTriple
from tests.tools import Album, Batches, quiet_trainer

# A process's first optimizer sets environment variables; in a test they'd pass for leaks.
torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])


class Extractor(pl.LightningModule):
    """Returns the batch as it is, and logs the metrics it is given."""

    def __init__(self, metrics: dict[str, float] | None = None) -> None:
        super().__init__()
        self.metrics = metrics or {}

    def test_step(self, batch: Any, batch_idx: int) -> Any:
        return batch

    def on_test_epoch_end(self) -> None:
        self.log_dict(self.metrics)


def run_test(callbacks: list[pl.Callback], batches: list[Any], metrics: dict[str, float] | None = None) -> Album:
    album = Album()
    trainer = quiet_trainer(*callbacks, logger=album)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers|.*treespec|.*East Asian")
        warnings.filterwarnings("error", message="Glyph|There are no gridspecs|constrained_layout")
        trainer.test(Extractor(metrics), Batches(batches), verbose=False)
    return album


def found(text: str, subject: str, predicate: str, object_: str, confidence: float = 0.8) -> ExtractedTriple:
    spans = [(text.rindex(entity), text.rindex(entity) + len(entity)) for entity in (subject, object_)]
    return ExtractedTriple(subject, predicate, object_, *spans, confidence)


def output(*sentences: tuple[str, list, list]) -> dict[str, Any]:
    texts, predicted, gold = zip(*sentences, strict=True)
    return {"texts": texts, "predicted": list(predicted), "gold": tuple(map(tuple, gold))}


TEXT = "Ada 1815 Byron Ada"
GOLD = [("Ada", "父亲", "Byron"), ("Ada", "出生日期", "1815")]


def count_pixels(picture: np.ndarray, colour: str) -> int:
    wanted = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])
    return int((np.abs(picture.reshape(-1, 3).astype(int) - wanted).max(1) < 3).sum())


def test_right_wrong_and_missed(monkeypatch):
    sentences = []
    draw = triple_sentences.draw_sentences
    monkeypatch.setattr(
        triple_sentences, "draw_sentences", lambda some, legend: (sentences.extend(some), draw(some, legend))[1]
    )
    predicted = [
        found(TEXT, "Ada", "父亲", "Byron", 0.4),
        found(TEXT, "Ada", "父亲", "Byron", 0.9)._replace(subject_span=(0, 3)),
        found(TEXT, "Byron", "父亲", "Ada", 0.55),
    ]
    state = torch.get_rng_state()
    album = run_test([TripleSentences()], [None, {"loss": torch.zeros(())}, output((TEXT, predicted, GOLD))])
    assert torch.equal(torch.get_rng_state(), state)
    assert list(album.pictures) == ["triples"]
    (sentence,) = sentences
    # Two mentions of a triple are one arrow, of the surer; a missed triple is where its entities are first.
    above = [(arrow.subject, arrow.object, arrow.label, arrow.colour) for arrow in sentence.above]
    assert above == [((0, 3), (9, 14), "✓ 父亲 0.90", RIGHT), ((9, 14), (15, 18), "✗ 父亲 0.55", WRONG)]
    below = {(arrow.subject, arrow.object, arrow.label, arrow.colour) for arrow in sentence.below}
    assert below == {((0, 3), (9, 14), "✓ 父亲", RIGHT), ((0, 3), (4, 8), "出生日期", MISSED)}
    assert len({str(arrow.dashes) for arrow in (*sentence.above, *sentence.below)}) == 3
    (picture,) = album.pictures["triples"]
    assert all(count_pixels(picture, colour) > 200 for colour in (RIGHT, WRONG, MISSED))


def test_which_sentences_may_be_drawn():
    callback = TripleSentences(num_sentences=9, max_characters=20, max_triples=2)
    kept = []
    callback.on_test_end = lambda trainer, module: kept.extend(sentence.text for sentence in callback._sentences)
    three = [*GOLD, ("Ada", "x", "Byron")]
    run_test(
        [callback],
        [
            output((TEXT, [], GOLD), (TEXT + " and more", [], GOLD), ("nothing", [], [])),
            output(("Ada", [], GOLD), (TEXT + "3", [], three), (TEXT + "2", [], [GOLD[0]])),
        ],
    )
    assert kept == [TEXT, TEXT + "2"]


def test_every_sentence_may_be_chosen():
    texts = [TEXT + mark for mark in "abcd"]
    chosen = set()
    for seed in range(30):
        callback = TripleSentences(num_sentences=1, seed=seed)
        callback.on_test_end = lambda trainer, module, callback=callback: chosen.add(callback._sentences[0].text)
        run_test(
            [callback],
            [
                output(*((text, [], GOLD) for text in texts[:2])),
                output((texts[2], [], GOLD)),
                output((texts[3], [], GOLD)),
            ],
        )
    assert chosen == set(texts)


def test_one_line_where_no_sentence_is_moderate():
    with pytest.warns(UserWarning, match="no picture, the test has no sentence of at most 5 characters") as caught:
        assert not run_test([TripleSentences(max_characters=5)], [output((TEXT, [], GOLD))]).pictures
    assert "\n" not in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="TripleSentences")
        assert not run_test([TripleSentences()], [{"texts": ("a",)}]).pictures


def test_many_predicted_triples_are_counted_not_hidden():
    predicted = [found(TEXT, "Ada", f"p{number}", "Byron", number / 20) for number in range(11)]
    sentence = triple_sentences._drawn(triple_sentences._Sentence(TEXT, predicted, tuple(GOLD)))
    assert [arrow.label for arrow in sentence.above] == [
        f"✗ p{number} {number / 20:.2f}" for number in range(10, 2, -1)
    ]
    assert sentence.note == "and 3 less sure predicted triples"


def test_arrows_over_several_lines_keep_apart():
    """No two arrows or labels share a place on a lane, all stay in the picture, and both ends are drawn."""
    text = " ".join(f"entity{number}" for number in range(40)) + "\n" + "W" * 150
    spans = [(text.index(f"entity{number}"), text.index(f"entity{number}") + 7) for number in (1, 3, 12, 25, 38)]
    arrows = [
        triple_layout.Arrow(one, other, "a long predicate", RIGHT, "-")
        for one in spans
        for other in (*spans, (0, 30))
        if one != other
    ]
    sentence = triple_layout.DrawnSentence(text, arrows, arrows[:3])
    lines, pieces, brackets, _ = triple_layout.lay_out(sentence, ["sans-serif"])
    assert len(lines) > 2
    assert "".join(text[line.start : line.end] for line in lines) == text
    starts = sum(piece.start is not None for above, _ in pieces for _, piece in above)
    tips = sum(piece.tip is not None for above, _ in pieces for _, piece in above)
    assert starts == tips == len(arrows)
    for (above, _), (over, _) in zip(pieces, brackets, strict=True):
        for place, (lane, piece) in enumerate(above):
            low, high = triple_layout.extent(piece)
            assert -triple_layout.MARGIN <= low < high <= triple_layout.LINE_WIDTH + triple_layout.MARGIN
            for other_lane, other in above[:place]:
                other_low, other_high = triple_layout.extent(other)
                assert other_lane != lane or high < other_low or other_high < low
        for place, bracket in enumerate(over):
            for other in over[:place]:
                assert bracket.row != other.row or bracket.high < other.low or other.high < bracket.low
    figure = draw_sentences([sentence, sentence], triple_sentences.LEGEND)
    assert figure.get_size_inches()[0] < 10


def test_arrows_of_one_pair_lie_in_each_other():
    arrows = [triple_layout.Arrow((0, 3), (30, 33), str(number), RIGHT, "-") for number in range(3)]
    arrows.append(triple_layout.Arrow((30, 33), (0, 3), "back", WRONG, "-"))
    lines = [triple_layout.Line(0, 40, [6.0 * place for place in range(41)])]
    ends = [sorted((subject[1], object_[1])) for _, subject, object_ in triple_layout._anchored(arrows, lines)]
    ends.sort()
    assert all(outer[0] < inner[0] < inner[1] < outer[1] for outer, inner in pairwise(ends))


def test_wrapping_keeps_words_whole():
    text = "ab cd efghijkl 中国人民"
    lines = wrap(text, [1.0] * len(text), 6)
    assert [text[line.start : line.end] for line in lines] == ["ab cd ", "efghij", "kl 中国人", "民"]
    assert lines[0].places == [0, 1, 2, 3, 4, 5, 6]
    assert wrap("", [], 6) == []


def test_bars_from_the_best_to_the_worst(monkeypatch):
    figures = []
    monkeypatch.setattr(
        "callbacks.pictures.predicate_f1.log_figure", lambda trainer, name, figure: figures.append((name, figure))
    )
    metrics = {"test/f1/predicate/父亲": 0.5, "test/f1/predicate/b": 0.0, "test/f1/predicate/c": 1.0, "test/f1": 0.6}
    run_test([PredicateF1()], [None], metrics)
    ((name, figure),) = figures
    assert name == "predicate_f1"
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "父亲", "c"]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([0, 0.5, 1])
    monkeypatch.undo()
    assert run_test([PredicateF1()], [None], metrics).pictures["predicate_f1"][0].std() > 5
    assert not run_test([PredicateF1()], [None], {"test/f1": 0.6}).pictures


def curve(*rows: tuple[int, int, int]) -> dict[str, torch.Tensor]:
    return {"thresholds": torch.tensor([0.7, 0.2, 0.9]), "threshold_counts": torch.tensor(rows)}


def test_precision_and_recall_of_all_batches(monkeypatch):
    figures = []
    monkeypatch.setattr(
        "callbacks.pictures.precision_recall.log_figure", lambda trainer, name, figure: figures.append((name, figure))
    )
    batches = [
        curve((1, 1, 4), (2, 6, 4), (0, 0, 4)),
        {"loss": torch.zeros(())},
        curve((2, 3, 4), (4, 6, 4), (0, 0, 4)),
    ]
    run_test([PrecisionRecallCurve()], batches)
    ((name, figure),) = figures
    assert name == "precision_recall"
    left, right = figure.axes
    # By threshold: at 0.2 6 of 12 and of 8, at 0.7 3 of 4 and of 8; nothing is predicted at 0.9.
    recall, precision = left.lines[-2].get_data()
    assert recall.tolist() == [6 / 8, 3 / 8]
    assert precision.tolist() == [6 / 12, 3 / 4]
    f1 = next(line for line in right.lines if line.get_label() == "F1")
    assert f1.get_xdata().tolist() == pytest.approx([0.2, 0.7])
    assert f1.get_ydata().tolist() == pytest.approx([12 / 20, 6 / 12])
    assert left.lines[-1].get_label() == "best F1 0.600 at threshold 0.20"
    monkeypatch.undo()
    assert run_test([PrecisionRecallCurve()], batches).pictures["precision_recall"][0].std() > 5


def test_counts_of_all_processes_are_summed(monkeypatch):
    drawn = []
    callback = PrecisionRecallCurve()
    monkeypatch.setattr(PrecisionRecallCurve, "_draw", lambda self, trainer, *given: drawn.append(given))
    monkeypatch.setattr(pl.Trainer, "world_size", property(lambda trainer: 3))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)

    def gather(shares, own):
        # The second process had no batch.
        shares[:] = [own, (None, None), (own[0], own[1] * 10)]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    album, module = Album(), Extractor()
    trainer = quiet_trainer(logger=album)
    callback.on_test_start(trainer, module)
    callback.on_test_batch_end(trainer, module, curve((1, 1, 4), (2, 6, 4), (0, 0, 4)), None, 0)
    callback.on_test_end(trainer, module)
    ((thresholds, counts),) = drawn
    assert thresholds.tolist() == pytest.approx([0.7, 0.2, 0.9])
    assert counts.tolist() == [[11, 11, 44], [22, 66, 44], [0, 0, 44]]


def test_no_curve_without_predictions_or_outputs():
    assert not run_test([PrecisionRecallCurve()], [None]).pictures
    assert not run_test([PrecisionRecallCurve()], [curve((0, 0, 4), (0, 0, 4), (0, 0, 4))]).pictures


def test_numbers_out_of_range():
    for options in ({"num_sentences": 0}, {"max_characters": 0}, {"max_triples": 0}):
        with pytest.raises(ValueError, match="num_sentences, max_characters and max_triples"):
            TripleSentences(**options)
