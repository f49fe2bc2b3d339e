"""The rules of a schema, by hand."""

import pytest

from metrics import SKE_RULES, ExcludeSubjects, ExtractedTriple, Symmetric, apply_rules

MARRIED = Symmetric(first="丈夫", second="妻子")
ALBUMS = ExcludeSubjects(predicates=("歌手", "作词", "作曲"), objects_of="所属专辑")


def triple(subject, predicate, object_, confidence=0.8):
    return ExtractedTriple(subject, predicate, object_, (0, len(subject)), (9, 9 + len(object_)), confidence)


@pytest.mark.parametrize(("predicate", "converse"), [("丈夫", "妻子"), ("妻子", "丈夫")])
def test_the_other_direction_is_added(predicate, converse):
    given = [triple("甲", predicate, "乙乙"), triple("甲", "父亲", "丙")]
    result = MARRIED.apply(given)
    assert result == [*given, ExtractedTriple("乙乙", converse, "甲", (9, 11), (0, 1), 0.8)]
    assert len(given) == 2
    assert MARRIED.apply(result) == result


def test_a_stated_direction_keeps_its_own_confidence():
    given = [triple("甲", "丈夫", "乙", 0.9), triple("乙", "妻子", "甲", 0.6)]
    assert MARRIED.apply(given) == given


def test_two_mentions_give_one_triple_of_the_more_confident():
    given = [triple("甲", "丈夫", "乙", 0.5), triple("甲", "丈夫", "乙", 0.7)._replace(subject_span=(30, 31))]
    (added,) = MARRIED.apply(given)[2:]
    assert added == ExtractedTriple("乙", "妻子", "甲", (9, 10), (30, 31), 0.7)


def test_a_predicate_that_is_its_own_converse():
    rule = Symmetric("sibling", "sibling")
    assert [some[:3] for some in rule.apply([triple("a", "sibling", "b")])] == [
        ("a", "sibling", "b"),
        ("b", "sibling", "a"),
    ]
    assert len(rule.apply([triple("a", "sibling", "a")])) == 1


def test_an_album_has_no_singer():
    song = [triple("歌", "所属专辑", "碟"), triple("歌", "歌手", "甲")]
    assert ALBUMS.apply([*song, triple("碟", "歌手", "甲"), triple("碟", "作曲", "乙")]) == song
    other = [*song, triple("碟", "作者", "甲"), triple("别", "歌手", "甲")]
    assert ALBUMS.apply(other) == other
    # A song with the album's name may have a singer.
    same_name = [triple("碟", "所属专辑", "碟"), triple("碟", "歌手", "甲")]
    assert ALBUMS.apply(same_name) == same_name
    assert ALBUMS.apply([]) == []


def test_the_rules_of_ske():
    assert SKE_RULES == (MARRIED, ALBUMS)
    given = [triple("甲", "妻子", "乙"), triple("歌", "所属专辑", "碟"), triple("碟", "作词", "甲")]
    assert [some[:3] for some in apply_rules(given, SKE_RULES)] == [
        ("甲", "妻子", "乙"),
        ("歌", "所属专辑", "碟"),
        ("乙", "丈夫", "甲"),
    ]
    assert apply_rules(given, ()) == given
