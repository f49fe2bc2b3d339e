"""Triple F1 by hand, against plain counting, and for any division of the sentences among processes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics import ExtractedTriple, TripleF1, overlap_types
from metrics.threshold_counts import ThresholdCounts, count_items

PREDICATES = ("父亲", "作者", "出生地", "面积")


def score(predicted, gold):
    metric = TripleF1(PREDICATES)
    metric.update(predicted, gold)
    return {name: value.item() for name, value in metric.compute().items()}


def test_by_hand():
    gold = [
        [("甲", "父亲", "乙"), ("甲", "出生地", "丙")],
        [("书", "作者", "甲")],
        [("a", "父亲", "b"), ("a", "作者", "b"), ("c", "作者", "d")],
        [],
    ]
    predicted = [
        [
            ExtractedTriple("甲", "父亲", "乙", (0, 1), (2, 3), 0.9),
            ExtractedTriple("甲", "父亲", "丙", (0, 1), (4, 5), 0.6),
        ],
        [("书", "作者", "甲"), ("书", "作者", "甲")],
        [("a", "父亲", "b"), ("b", "父亲", "a")],
        [("x", "父亲", "y")],
    ]
    # 3 of 6 predicted and of 6 gold triples match; a triple predicted twice counts once.
    assert score(predicted, gold) == pytest.approx(
        {
            "precision": 3 / 6,
            "recall": 3 / 6,
            "f1": 3 / 6,
            "f1/predicate/父亲": 2 * 2 / (5 + 2),
            "f1/predicate/作者": 2 * 1 / (1 + 3),
            "f1/predicate/出生地": 0,
            "f1/triples_1": 1,
            "f1/triples_2": 1 / 2,
            "f1/triples_3": 2 * 1 / (2 + 3),
            "f1/normal": 1,
            "f1/single_entity_overlap": 1 / 2,
            "f1/entity_pair_overlap": 2 * 1 / (2 + 3),
        },
        abs=1e-9,
    )


def test_predicting_nothing_is_right_if_there_is_nothing():
    assert score([[], []], [[], []]) == {"precision": 1, "recall": 1, "f1": 1}
    missed = score([[]], [[("a", "父亲", "b")]])
    assert missed["precision"] == 0
    assert missed["recall"] == pytest.approx(0, abs=1e-9)
    assert missed["f1"] == pytest.approx(0, abs=1e-9)
    invented = score([[("a", "父亲", "b")]], [[]])
    assert invented["recall"] == 1
    assert invented["precision"] == pytest.approx(0, abs=1e-9)
    assert invented["f1"] == pytest.approx(0, abs=1e-9)
    assert set(invented) == {"precision", "recall", "f1", "f1/predicate/父亲"}


def test_strings_match_exactly():
    assert score([[("A", "父亲", "b")]], [[("a", "父亲", "b")]])["f1"] == pytest.approx(0, abs=1e-9)
    assert score([[("a ", "父亲", "b")]], [[("a", "父亲", "b")]])["f1"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("triples", "types"),
    [
        ([], set()),
        ([("a", "p", "b")], {"normal"}),
        ([("a", "p", "b"), ("a", "p", "b")], {"normal"}),
        ([("a", "p", "a")], {"normal"}),
        ([("a", "p", "b"), ("c", "p", "d")], {"normal"}),
        ([("a", "p", "b"), ("a", "q", "c")], {"single_entity_overlap"}),
        ([("a", "p", "b"), ("b", "q", "c")], {"single_entity_overlap"}),
        ([("a", "p", "b"), ("b", "q", "a")], {"single_entity_overlap"}),
        ([("a", "p", "b"), ("a", "q", "b")], {"entity_pair_overlap"}),
        ([("a", "p", "b"), ("a", "q", "b"), ("c", "p", "d")], {"entity_pair_overlap"}),
        ([("a", "p", "b"), ("a", "q", "b"), ("a", "p", "d")], {"entity_pair_overlap", "single_entity_overlap"}),
    ],
)
def test_overlap_types(triples, types):
    assert overlap_types(triples) == types


entities = st.sampled_from("abcde")
sentences = st.lists(
    st.tuples(*[st.lists(st.tuples(entities, st.sampled_from(PREDICATES), entities), max_size=7)] * 2), max_size=8
)


def plain_scores(pairs):
    """Each score counted separately, sentence by sentence and pair by pair."""

    def f1(keep_sentence=lambda gold: True, keep_triple=lambda triple: True):
        right = predicted = expected = 1e-10
        for found, gold in pairs:
            if keep_sentence(set(gold)):
                found, gold = ({triple for triple in some if keep_triple(triple)} for some in (found, gold))
                right += sum(triple in gold for triple in found)
                predicted += len(found)
                expected += len(gold)
        precision = 0 if predicted < 1 <= expected else right / predicted
        return precision, right / expected, 2 * right / (predicted + expected)

    def shared_pair(gold):
        return any(one != two and (one[0], one[2]) == (two[0], two[2]) for one in gold for two in gold)

    def shared_entity(gold):
        return any(
            (one[0], one[2]) != (two[0], two[2]) and {one[0], one[2]} & {two[0], two[2]} for one in gold for two in gold
        )

    kinds = {f"triples_{n}": lambda gold, n=n: len(gold) == n for n in range(1, 5)}
    kinds["triples_5_and_more"] = lambda gold: len(gold) >= 5
    kinds["entity_pair_overlap"] = shared_pair
    kinds["single_entity_overlap"] = shared_entity
    kinds["normal"] = lambda gold: gold and not shared_pair(gold) and not shared_entity(gold)
    scores = dict(zip(("precision", "recall", "f1"), f1(), strict=True))
    for kind, keep in kinds.items():
        if any(keep(set(gold)) for _, gold in pairs):
            scores[f"f1/{kind}"] = f1(keep)[2]
    for predicate in {triple[1] for pair in pairs for triples in pair for triple in triples}:
        scores[f"f1/predicate/{predicate}"] = f1(keep_triple=lambda triple, name=predicate: triple[1] == name)[2]
    return scores


@settings(max_examples=150, deadline=None)
@given(sentences)
def test_against_plain_counting(pairs):
    found, gold = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    assert score(found, gold) == pytest.approx(plain_scores(pairs), rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(sentences, st.integers(0, 8))
def test_two_processes(pairs, cut):
    whole = TripleF1(PREDICATES)
    whole.update([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    parts = []
    for share in (pairs[:cut], pairs[cut:]):
        part = TripleF1(PREDICATES)
        for found, gold in share:
            part.update([found], [gold])
        parts.append(part)
    assert all(reduce is not None and reduce.__name__ == "dim_zero_sum" for reduce in whole._reductions.values())
    gathered = TripleF1(PREDICATES)
    gathered.update([], [])
    gathered.counts = torch.stack([part.counts for part in parts]).sum(0)
    assert gathered.counts.dtype == torch.int64
    assert gathered.compute() == whole.compute()


def test_counts_at_several_settings_by_hand():
    one, two, wrong = ("甲", "父亲", "乙"), ("甲", "出生地", "丙"), ("甲", "父亲", "丙")
    mention = ExtractedTriple(*one, (0, 1), (2, 3), 0.9)
    settings = [[[mention, mention._replace(confidence=0.4)], [wrong]], [[one, two], []], [[], []]]
    gold = [[one, two, one], []]
    counts = count_items(settings, gold)
    assert counts.tolist() == [[1, 2, 2], [2, 2, 2], [0, 0, 2]]
    metric = ThresholdCounts(3)
    metric.update(counts)
    metric.update(counts)
    for name, values in metric.compute().items():
        expected = [score([texts * 2 for texts in found], gold)[name] for found in settings]
        assert values.tolist() == pytest.approx(expected, abs=1e-6)


def test_reset_forgets():
    metric = TripleF1(PREDICATES)
    metric.update([[("a", "父亲", "b")]], [[]])
    metric.reset()
    metric.update([[]], [[]])
    assert metric.compute()["f1"] == 1


def test_bad_input():
    with pytest.raises(ValueError, match="'母亲' is not one of the 4 predicates"):
        score([[("a", "母亲", "b")]], [[]])
    with pytest.raises(ValueError, match="got 1 and 2"):
        score([[]], [[], []])
    with pytest.raises(ValueError, match="predicates must be distinct"):
        TripleF1(["父亲", "父亲"])
