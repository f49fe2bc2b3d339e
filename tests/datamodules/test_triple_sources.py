"""Files as users have them: spans, words, width and case, gzip, encodings, schemas from the data, DuIE 2.0."""

import gzip
import json
import random
import unicodedata

import pytest

from datamodules import DataError
from datamodules.triple_data.augmentation import replace_entities
from readers.triples import normalize_text, read_schema, read_sentences
from readers.triples.json_lines import Sentence
from tests.datamodules.triple_tools import SENTENCES, SKE, module, needs_ske, rows_of, write
from tests.tools import quiet_trainer

SCHEMA = '{"subject_type": "person", "predicate": "met", "object_type": "person"}\n'


def record(text, *triples, **keys):
    return json.dumps({"text": text, "spo_list": list(triples), **keys}, ensure_ascii=False) + "\n"


def triple(subject, predicate, obj, **keys):
    return {"subject": subject, "predicate": predicate, "object": obj, **keys}


@pytest.fixture
def english(tmp_path):
    folder = tmp_path / "english"
    folder.mkdir()
    (folder / "all_50_schemas").write_text(SCHEMA)
    return folder


def spans(data, text):
    """The labelled (subject, object) spans of a training sentence, in its characters."""
    found = set()
    for batch in data.train_dataloader():
        for row, _, span, _, objects, _ in rows_of(batch):
            if row == text:
                found |= {((span[0], span[1] + 1), (start, end + 1)) for start, end, _ in objects}
    return found


# Spans and words.


def test_entities_are_words_where_there_are_words(english):
    text = "Alice Haitian met Al: Al, Haiti1 and Haiti"
    write(english / "train_data.json", [(text, [("Al", "met", "Haiti")])])
    data = module(english, batch_size=1, val_file="train_data.json")
    assert spans(data, text) == {((18, 20), (37, 42))}
    everywhere = module(english, batch_size=1, val_file="train_data.json", occurrences="all")
    (batch,) = everywhere.val_dataloader()
    assert batch.subjects.tolist() == [[0, 18, 19], [0, 22, 23]]
    # Distant supervision, too; and an entity that is no word anywhere is labelled where it stands.
    inside = "The Alps, Haitian"
    write(english / "dev_data.json", [(inside, [("Al", "met", "Haiti")])])
    (batch,) = module(english).val_dataloader()
    assert batch.subjects.tolist() == [[0, 4, 5]]
    (batch,) = data.val_dataloader()
    assert batch.candidates.tolist() == [[0, 18, 19, 37, 41, 0]]


def test_chinese_has_no_words_and_scripts_may_mix(english):
    text = "第二乐队Second乐队，Seconds"
    write(english / "train_data.json", [(text, [("Second", "met", "乐队")])])
    assert spans(module(english, batch_size=1, val_file="train_data.json"), text) == {((4, 10), (2, 4))}


def test_spans_of_the_file_are_the_labels(english):
    text = "Al met Bob. Al met Bob."
    given = triple("Al", "met", "Bob", subject_span=[12, 14], object_span=[19, 22])
    (english / "train_data.json").write_text(record(text, given, id=7))
    data = module(english, batch_size=1, val_file="train_data.json")
    assert spans(data, text) == {((12, 14), (19, 22))}
    assert module(english, val_file="train_data.json").splits["train"].sentences == data.splits["train"].sentences
    # One of the two; several mentions; blanks outside; a null is none.
    (english / "train_data.json").write_text(
        record(text, triple(" Al", "met", "Bob ", subject_span=[11, 14], object_span=None), given)
    )
    assert spans(module(english, batch_size=1, val_file="train_data.json"), text) == {
        ((12, 14), (7, 10)),
        ((12, 14), (19, 22)),
    }


@pytest.mark.parametrize("span", [[12, 15], [-2, 2], [0, 99], [2, 2], [14, 12], [12], "12", [12.0, 14], [True, 2], 3])
def test_spans_that_are_none_are_refused(english, span):
    (english / "train_data.json").write_text(record("Al met Bob. Al.", triple("Al", "met", "Bob", subject_span=span)))
    with pytest.raises(DataError, match=r"train_data.json, line 1: subject_span .*\[start, end\)"):
        module(english).setup()


def test_spans_of_windows(english):
    text = "x " * 20 + "Al met Bob " + "y " * 20
    given = triple("Al", "met", "Bob", subject_span=[40, 42], object_span=[47, 50])
    (english / "train_data.json").write_text(record(text, given))
    batches = list(module(english, batch_size=1, val_file="train_data.json", max_length=24).val_dataloader())
    rows = [row for batch in batches for row in rows_of(batch) if row[3]]
    assert rows
    for _, offset, _, subjects, _, _ in rows:
        assert subjects == [(40 - offset, 41 - offset)]


def test_augmentation_keeps_words_and_spans():
    sentence = Sentence(
        "Al met Alice, Al met Bob",
        (("Al", "met", "Bob"), ("Alice", "met", "Bob")),
        ((((14, 16), (21, 24)),), (((7, 12), None),)),
    )
    changed = replace_entities(sentence, ("Al", "met", "Bob"), ("Charles", "met", "Di"))
    assert changed.text == "Charles met Alice, Charles met Di"
    assert changed.triples == (("Charles", "met", "Di"), ("Alice", "met", "Di"))
    assert changed.mentions == ((((19, 26), (31, 33)),), (((12, 17), None),))
    # Inside another word, or where a span would be cut, it is left alone.
    inside = Sentence("Alice met Bob", (("Al", "met", "Bob"),))
    assert replace_entities(inside, inside.triples[0], ("Charles", "met", "Di")) is None
    cut = Sentence("北京市政府", (("北京市", "在", "市政府"),), ((((0, 3), (2, 5)),),))
    assert replace_entities(cut, cut.triples[0], ("上海", "在", "局")) is None


# Width and case.


def test_normalized_texts_are_nfkc_and_lower_case_with_the_way_back():
    signs = "aÅe\u0301\u0327ｶﾞﾊﾟ各ﬁ①가\u1100\u1161\u11a8㍿ＡＢ２　 İßΣ\u09c7\u09be😀"
    draw = random.Random(0)
    for _ in range(3000):
        text = "".join(draw.choice(signs) for _ in range(draw.randint(0, 9)))
        wide = unicodedata.normalize("NFKC", text.strip())
        for how, expected in (
            ("none", text.strip()),
            ("width", wide),
            ("case", "".join(sign.lower() for sign in text.strip())),
            ("both", "".join(sign.lower() for sign in wide)),
        ):
            found = normalize_text(text, how)
            assert found.text == expected
            assert len(found.starts) == len(found.ends) == len(expected)
            for start in range(len(expected)):
                for end in range(start + 1, len(expected) + 1):
                    first, last = found.original((start, end))
                    # What the original has there becomes the part, or more where one character became several.
                    part = normalize_text(text[first:last], how).text
                    assert expected[start:end].strip() in part
                    again = found.inside((first, last))
                    if not expected[start].isspace() and not expected[end - 1].isspace():
                        assert again[0] <= start < end <= again[1]


@pytest.mark.parametrize(
    ("normalize", "found"), [("none", ["blank"]), ("case", ["blank", "case"]), ("width", ["blank", "width"]),
                             ("both", ["blank", "case", "width", "all"])]
)  # fmt: skip
def test_width_case_and_blanks(english, normalize, found):
    texts = {
        "blank": ("　王五 met 南京市 ", (" 王五 ", "南京市　")),
        "case": ("Thorlabs met BOB", ("thorlabs", "Bob")),
        "width": ("ＡＢＣ met ２０１５年", ("ABC", "2015年")),
        "all": ("ＡＢＣ met ﬁne", (" abc", "FINE")),
    }
    write(english / "train_data.json", [(text, [(one, "met", other)]) for text, (one, other) in texts.values()])
    data = module(english, batch_size=1, val_file="train_data.json", normalize=normalize)
    labelled = {row[0] for batch in data.train_dataloader() for row in rows_of(batch) if row[3]}
    assert labelled == {normalize_text(texts[name][0], normalize).text for name in found}


def test_spans_count_characters_of_the_file(english):
    given = triple("ＡＢ", "met", "㍿", subject_span=[3, 5], object_span=[8, 9])
    (english / "train_data.json").write_text(record("　AＢＡＢ met㍿", given))
    with pytest.raises(DataError, match=r"object_span \[8, 9\] is 't' in the text, not '株式会社'"):
        module(english, val_file="train_data.json", normalize="both").setup()
    given["object_span"] = [9, 10]
    (english / "train_data.json").write_text(record("　AＢＡＢ met㍿", given))
    data = module(english, batch_size=1, val_file="train_data.json", normalize="both")
    assert spans(data, "abab met株式会社") == {((2, 4), (8, 12))}


@needs_ske
def test_the_ten_triples_of_ske_are_found():
    assert module(SKE).splits["train"].unlabelled.not_found == 10
    with pytest.warns(UserWarning, match=r"data\.normalize finds 10 of them"):
        module(SKE).setup()
    assert module(SKE, normalize="case").splits["train"].unlabelled.not_found == 0


# Files.


def test_gzip_and_other_encodings(english, tmp_path):
    write(tmp_path / "plain.json", SENTENCES)
    text = (tmp_path / "plain.json").read_text()
    (english / "train_data.json.gz").write_bytes(gzip.compress(text.encode()))
    (english / "dev_data.json.gz").write_bytes(gzip.compress(text.encode()))
    (english / "all_50_schemas").unlink()
    packed = module(english)
    assert packed.describe()["train_sentences"] == packed.describe()["val_sentences"] == len(SENTENCES)
    (english / "dev_data.json.gz").unlink()
    (english / "train_data.json.gz").unlink()
    for encoding in ("gbk", "utf-16"):
        (english / "train_data.json").write_bytes(text.encode(encoding))
        (english / "dev_data.json").write_bytes(text.encode(encoding))
        assert module(english, encoding=encoding).splits["train"].sentences == packed.splits["train"].sentences
        with pytest.raises(DataError, match=f"--data.encoding={encoding}"):
            module(english).setup()
    with pytest.raises(DataError, match="no such encoding"):
        module(english, encoding="klingon")


def test_all_unknown_predicates_are_named_at_once(english):
    names = ["mett", "born in", "died\nin", "p" * 200]
    write(english / "train_data.json", [("a b", [("a", name, "b")]) for name in [*names, "met", "mett"]])
    with pytest.raises(DataError) as caught:
        module(english).setup()
    message = str(caught.value)
    assert "\n" not in message
    for part in ("line 1 is the first", "4 predicates", "mett (did you mean met?)", "born in", r"died\nin", "pppp…"):
        assert part in message
    assert "data.schema=from_data" in message
    many = [f"predicate number {number}" for number in range(100)]
    write(english / "train_data.json", [("a b", [("a", name, "b")]) for name in many])
    with pytest.raises(DataError) as caught:
        module(english).setup()
    assert all(f"{name}," in str(caught.value) for name in many[:-1])


def test_a_schema_from_the_data(english, cache_home):
    rows = [
        record("a b", {**triple("a", "met", "b"), "subject_type": "X", "object_type": "Y"}),
        record("a b c", {**triple("a", "saw", "c"), "subject_type": "X"}, triple("b", "saw", "c")),
        record("a b", {**triple("a", "met", "b"), "subject_type": "X", "object_type": "Y"}),
    ]
    (english / "train_data.json").write_text("".join(rows))
    (english / "dev_data.json").write_text(record("c d", triple("c", "heard", "d")))
    data = module(english, schema="from_data")
    expected = [["X", "met", "Y"], ["X", "saw", ""], ["", "saw", ""], ["", "heard", ""]]
    assert data.schema == expected
    assert data.predicates == ["met", "saw", "heard"]
    assert module(english, schema="from_data").schema == expected  # of the cache
    # It is written into the run folder, and read from there.
    trainer = quiet_trainer(logger=True)
    data.trainer = trainer

    class Folder:
        def log_file(self, name, write):
            write(english / name)

    trainer.loggers = [Folder()]
    data.setup("fit")
    again = module(english, schema_file="schema.json")
    assert again.schema == expected
    assert read_schema(english / "schema.json").object_slots is False
    with pytest.raises(ValueError, match="schema=from_data reads no schema_file"):
        module(english, schema="from_data", schema_file="schema.json")


def test_sentences_without_triples_may_be_kept(english):
    write(english / "train_data.json", [("a met b", [("a", "met", "b")]), ("nothing", []), ("c", [("c", "met", "d")])])
    without = module(english, batch_size=1, val_file="train_data.json")
    with pytest.warns(UserWarning, match=r"1 sentences have an empty spo_list and are left out; data\.keep_empty=true"):
        assert len(without.splits["train"].table) == 1
    kept = module(english, batch_size=1, val_file="train_data.json", keep_empty=True, augment=1.0)
    assert kept.describe()["train_rows"] == 2  # a triple that can't be labelled is no negative
    rows = [row for batch in kept.train_dataloader() for row in rows_of(batch)]
    (empty,) = (row for row in rows if row[0] == "nothing")
    assert empty[2:] == ((-1, -1), [], [], [])
    write(english / "train_data.json", [("nothing", [])])
    with pytest.raises(DataError, match="no training sentence has a triple"):
        module(english, keep_empty=True, val_file="train_data.json").setup()


# DuIE 2.0.

FILM = record(
    "《长街》2015年上映，在中国的票房是3亿元",
    {
        **triple("长街", "票房", {"@value": "3亿元", "inArea": "中国", "onDate": "", "inWork": None}),
        "subject_type": "影视作品",
        "object_type": {"@value": "Number", "inArea": "地点"},
    },
)
PRIZE = record("张三凭借《长街》获得金鸡奖", triple("张三", "获奖", {"@value": "金鸡奖", "inWork": "长街"}))
DUIE_SCHEMA = [
    {"subject_type": "影视作品", "predicate": "票房", "object_type": {"inArea": "地点", "@value": "Number"}},
    {"subject_type": "娱乐人物", "predicate": "获奖", "object_type": {"onDate": "Date", "@value": "奖项"}},
]


def test_slots_of_duie_2_are_predicates_of_their_own(english):
    (english / "all_50_schemas").write_text("\n".join(map(json.dumps, DUIE_SCHEMA)))
    (english / "train_data.json").write_text(FILM + PRIZE)
    data = module(english, batch_size=1, val_file="train_data.json")
    rows = [["影视作品", "票房", "Number"], ["影视作品", "票房@inArea", "地点"], ["娱乐人物", "获奖", "奖项"],
            ["娱乐人物", "获奖@onDate", "Date"]]  # fmt: skip
    # The data has a slot that the schema lacks.
    assert data.schema == [*rows, ["", "获奖@inWork", ""]]
    assert data.object_slots
    assert data.splits["train"].sentences[0].triples == (("长街", "票房", "3亿元"), ("长街", "票房@inArea", "中国"))
    (batch,) = [batch for batch in data.train_dataloader() if batch.texts[0].startswith("《")]
    number = {name: place for place, name in enumerate(data.predicates)}
    assert sorted(batch.objects[:, 1:].tolist()) == sorted([[19, 21, number["票房"]], [13, 14, number["票房@inArea"]]])
    # Without such a schema: from the data, whose rows have no schema of their own.
    (english / "all_50_schemas").unlink()
    with pytest.raises(DataError, match=r"2 predicates that are not in the schema: 票房.*, 获奖"):
        module(english, val_file="train_data.json").setup()
    free = module(english, val_file="train_data.json", schema="from_data")
    assert free.object_slots
    assert [row[1] for row in free.schema] == ["票房", "票房@inArea", "获奖", "获奖@inWork"]


def test_values_alone_of_duie_2_are_like_strings(english):
    (english / "all_50_schemas").write_text(SCHEMA)
    (english / "train_data.json").write_text(record("a met b", triple("a", "met", {"@value": "b"})))
    data = module(english, val_file="train_data.json")
    assert data.splits["train"].sentences == [Sentence("a met b", (("a", "met", "b"),))]
    assert data.object_slots
    (english / "train_data.json").write_text(record("a met b", triple("a", "met", {"inWork": "b"})))
    with pytest.raises(DataError, match="line 1: object of a triple is missing"):
        module(english, val_file="train_data.json").setup()
    (english / "train_data.json").write_text(record("a met b", triple("a", "met", {"@value": "b", "inWork": 3})))
    with pytest.raises(DataError, match="line 1: inWork of an object of a triple is not a string"):
        module(english, val_file="train_data.json").setup()


def test_slot_spans(english):
    given = triple("a", "met", {"@value": "b", "in": "b"}, object_span=[6, 7], slot_spans={"in": [8, 9]})
    (english / "train_data.json").write_text(record("a met b b", given))
    sentences = read_sentences(english / "train_data.json", ["met", "met@in"])
    assert sentences[0].mentions == (((None, (6, 7)),), ((None, (8, 9)),))
