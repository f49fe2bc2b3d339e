"""Pictures of triples: the choice of sentences, right, wrong and missed triples, and counts summed over batches."""

import csv
import warnings
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from callbacks import PrecisionRecallCurve, PredicateF1, TripleSentences
from callbacks.pictures.base import INK, RIGHT, WRONG
from callbacks.pictures.fonts import quiet_fonts
from callbacks.pictures.predicate_f1 import predicate_scores
from callbacks.pictures.triple_sentences import MARGIN, MISSED, WIDTH, _Sentence, draw_sentences, wrap
from metrics import ExtractedTriple
from tests.tools import Album, Batches, quiet_trainer

# A process's first optimizer sets environment variables, which would look like leaks in a test.
torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])


class Extractor(pl.LightningModule):
    """Returns the batch unchanged and logs given metrics."""

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
        warnings.filterwarnings("ignore", message=".*does not have many workers|.*treespec|.*fonts-noto-cjk")
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


def drawn(*sentences: tuple[str, list, list]) -> Any:
    with quiet_fonts():
        warnings.filterwarnings("ignore", message=".*fonts-noto-cjk")
        return draw_sentences([_Sentence(text, predicted, tuple(gold)) for text, predicted, gold in sentences])


def lines_of(figure: Any) -> list[tuple[str, str]]:
    """The lines below the legend, each with its colour."""
    return [(text.get_text(), text.get_color()) for text in figure.texts[3:]]


def test_right_wrong_and_missed():
    predicted = [
        found(TEXT, "Ada", "父亲", "Byron", 0.4),
        found(TEXT, "Ada", "父亲", "Byron", 0.9)._replace(subject_span=(0, 3)),
        found(TEXT, "Byron", "父亲", "Ada", 0.55),
    ]
    # Two mentions of a triple are one line, with the higher confidence.
    assert lines_of(drawn((TEXT, predicted, GOLD))) == [
        (TEXT, INK),
        ("✓ Ada —父亲→ Byron (0.90)", RIGHT),
        ("✗ Byron —父亲→ Ada (0.55)", WRONG),
        ("– Ada —出生日期→ 1815", MISSED),
    ]
    state = torch.get_rng_state()
    album = run_test([TripleSentences()], [None, {"loss": torch.zeros(())}, output((TEXT, predicted, GOLD))])
    assert torch.equal(torch.get_rng_state(), state)
    assert list(album.pictures) == ["triples"]
    (picture,) = album.pictures["triples"]
    assert all(count_pixels(picture, colour) > 100 for colour in (RIGHT, WRONG, MISSED))


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


def test_one_warning_where_no_sentence_may_be_drawn():
    with pytest.warns(UserWarning, match="no picture, the test has no sentence of at most 5 characters") as caught:
        assert not run_test([TripleSentences(max_characters=5)], [output((TEXT, [], GOLD))]).pictures
    assert "\n" not in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="TripleSentences")
        assert not run_test([TripleSentences()], [{"texts": ("a",)}]).pictures


def test_of_many_predicted_triples_the_surest_and_the_right_ones_are_listed():
    predicted = [found(TEXT, "Ada", f"p{number}", "Byron", number / 20) for number in range(11)]
    texts = [text for text, _ in lines_of(drawn((TEXT, predicted, [("Ada", "p0", "Byron")])))]
    assert texts[1:] == [
        *(f"✗ Ada —p{number}→ Byron ({number / 20:.2f})" for number in range(10, 2, -1)),
        "✓ Ada —p0→ Byron (0.00)",
        "… and 2 more predicted with less confidence",
    ]


def test_long_lines_wrap_and_nothing_overlaps():
    words = " ".join(f"entity{number}" for number in range(40)) + "\n$x_1$ " + "W" * 150
    chinese = "人民的中国出版" * 20
    figure = drawn(
        (words, [found(words, "entity1", "p" * 200, "W" * 150)], GOLD), (chinese, [], [(chinese, "x", "人")])
    )
    texts = [text for text, _ in lines_of(figure)]
    lines = "".join(texts).replace(" ", "")
    assert words.replace(" ", "").replace("\n", "") in lines
    assert f"entity1—{'p' * 200}→{'W' * 150}(0.80)" in lines
    assert lines.endswith(f"{chinese}–{chinese}—x→人")
    assert all(word in lines for word in ("出生日期", "父亲"))
    assert texts[0].split()[-1] in words.split()
    with quiet_fonts():
        boxes = [text.get_window_extent() for text in figure.texts]
    width, height = figure.get_size_inches() * figure.dpi
    assert all(0 <= box.x0 < box.x1 <= width and 0 <= box.y0 < box.y1 <= height for box in boxes)
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])


def test_the_picture_is_as_wide_as_its_text():
    width = {}
    for text in ("Ada Byron", "Ada Byron " + "and so on " * 9, "Ada Byron " + "and so on " * 50):
        figure = draw_sentences([_Sentence(text, [], (("Ada", "knows", "Byron"),))])
        right = max(artist.get_window_extent().x1 for artist in figure.texts) / figure.dpi * 72
        width[len(text)] = figure.get_figwidth() * 72
        assert right == pytest.approx(width[len(text)] - MARGIN, abs=1)
    short, middle, long = width.values()
    assert short < middle < long <= WIDTH + 2 * MARGIN + 1


def test_wrapping_keeps_words_whole():
    assert wrap("ab cd efghijkl 中国人民", len, 6) == ["ab cd", "efghij", "kl 中国人", "民"]
    assert wrap("abc\tdef", len, 3) == ["abc", "def"]
    assert wrap("ab", len, 0) == ["a", "b"]
    assert wrap(" \n", len, 6) == []


def predicate_output(*counts: list[tuple[int, int, int]]) -> dict[str, Any]:
    """Counts of four predicates, at the thresholds of the test and at three others."""
    return {
        "predicates": ["b", "父亲", "c", "unseen"],
        "thresholds": torch.tensor([0.25, 0.5, 0.75]),
        "predicate_counts": torch.tensor(counts),
    }


NOTHING = [(0, 0, 0)] * 4
REPORT = [
    predicate_output(
        [(0, 1, 1), (1, 1, 3), (1, 1, 1), (0, 0, 0)],
        [(1, 1, 1), (3, 9, 3), (1, 1, 1), (0, 0, 0)],
        NOTHING,
        [(0, 0, 1), (2, 2, 3), (1, 1, 1), (0, 0, 0)],
    ),
    {"loss": torch.zeros(())},
    predicate_output([(0, 0, 2), (1, 1, 1), (1, 1, 1), (0, 0, 0)], NOTHING, NOTHING, NOTHING),
]


def test_the_report_of_predicates(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(
        "callbacks.pictures.predicate_f1.log_figure", lambda trainer, name, figure: figures.append((name, figure))
    )
    monkeypatch.setattr(Album, "log_file", lambda self, name, write: write(tmp_path / name), raising=False)
    run_test([PredicateF1()], REPORT)
    with open(tmp_path / "predicates.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    # c: 2 of 2, found at all thresholds but one. 父亲: 2 of 4, 2 predicted. b: nothing right of 1 predicted.
    assert [row["predicate"] for row in rows] == ["c", "父亲", "b"]
    numbers = [[float(value) for name, value in row.items() if name != "predicate"] for row in rows]
    assert numbers[0] == [1, 1, 1, 2, 2, 0.75, 1]
    assert numbers[1] == pytest.approx([1, 0.5, 2 / 3, 4, 2, 0.75, 0.8], abs=1e-4)
    assert numbers[2] == [0, 0, 0, 3, 1, 0.25, 1]
    ((name, figure),) = figures
    assert name == "predicate_f1"
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "父亲", "c"]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([0, 2 / 3, 1])
    precision, recall = (line.get_xdata() for line in axes.lines[:2])
    assert list(precision) == pytest.approx([0, 1, 1])
    assert list(recall) == pytest.approx([0, 0.5, 1])
    monkeypatch.undo()
    assert run_test([PredicateF1()], REPORT).pictures["predicate_f1"][0].std() > 5
    assert not run_test([PredicateF1()], [{"loss": torch.zeros(())}]).pictures


def test_a_report_without_a_curve():
    (row,) = predicate_scores(["a"], [], torch.tensor([[[1, 2, 4]]]))
    assert row == ("a", 0.5, 0.25, pytest.approx(1 / 3), 4, 2, None, None)


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
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)

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
