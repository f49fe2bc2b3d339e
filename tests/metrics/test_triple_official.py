"""The competitions' score on hand-made pairs."""

import pytest

from metrics.triple_official import OfficialTripleF1


def score(predicted, gold, aliases=None):
    metric = OfficialTripleF1(aliases)
    for found, true in zip(predicted, gold, strict=True):  # sentence by sentence: counts add up
        metric.update([found], [true])
    return tuple(float(metric.compute()[name]) for name in ("precision", "recall", "f1"))


@pytest.mark.parametrize(
    ("predicted", "gold", "aliases", "expected"),
    [
        ([("a", "p", "b")], [("a", "p", "b")], None, (1, 1, 1)),
        ([("《A》", "p", "B")], [("a", "p", "《b》")], None, (1, 1, 1)),
        ([("《A", "p", "b")], [("a", "p", "b")], None, (0, 0, 0)),
        ([("a", "p", "b"), ("A", "p", "《b》")], [("a", "p", "b"), ("a", "p", "c")], None, (1, 1 / 2, 2 / 3)),
        ([("a", "q", "b")], [("a", "p", "b")], None, (0, 0, 0)),
        ([("Ali", "p", "b")], [("a", "p", "b")], {"a": ["《ali》"]}, (1, 1, 1)),
        ([("a", "p", "b")], [("ali", "p", "b")], {"a": ["Ali"]}, (1, 1, 1)),
        ([("al", "p", "b")], [("ali", "p", "b")], {"a": ["ali", "al"]}, (0, 0, 0)),
        # Two names of one thing count once.
        ([("a", "p", "b"), ("ali", "p", "b")], [("a", "p", "b")], {"a": ["ali"]}, (1, 1, 1)),
        ([], [("a", "p", "b")], None, (0, 0, 0)),
        ([("a", "p", "b")], [], None, (0, 1, 0)),
        ([("a", "p", {"@value": "b", "in": "C"})], [("a", "p", {"in": "c", "@value": "b"})], None, (1, 1, 1)),
        ([("a", "p", {"@value": "b"})], [("a", "p", {"in": "c", "@value": "b"})], None, (0, 0, 0)),
        ([("a", "p", "b")], [("a", "p", {"@value": "b"})], None, (1, 1, 1)),
    ],
)
def test_by_hand(predicted, gold, aliases, expected):
    assert score([predicted], [gold], aliases) == pytest.approx(expected, abs=1e-8)


def test_sentences_are_scored_by_themselves_and_summed():
    predicted = [[("a", "p", "b")], [("c", "p", "d"), ("e", "p", "f")]]
    gold = [[("c", "p", "d")], [("C", "p", "d"), ("g", "p", "h"), ("i", "p", "k")]]
    assert score(predicted, gold) == pytest.approx((1 / 3, 1 / 4, 2 / 7), abs=1e-8)
