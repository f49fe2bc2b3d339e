"""Files in SKE's format: what is read, labelled, left out, rejected and cached."""

import itertools
import json
import os

import pytest

from datamodules import DataError, TripleDataModule
from datamodules.batches import TripleBatch
from readers.triples.json_lines import parse_sentences
from tests.datamodules.triple_tools import SENTENCES, assert_equal, line, module, rows_of, write


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "ske"
    folder.mkdir()
    write(folder / "train_data.json")
    write(folder / "dev_data.json", SENTENCES[3:])
    return folder


def test_a_folder(folder):
    data = module(folder)
    assert data.predicates[:3] == ["祖籍", "父亲", "总部地点"]
    assert (len(data.schema), len(data.predicates)) == (50, 49)
    assert data.characters[:2] == ["<pad>", "<unk>"]
    assert {"a", "b"} <= set(data.characters)
    assert "A" not in data.characters
    assert data.known_triples[0] == ["红楼梦", "作者", "曹雪芹"]
    assert data.word_vectors.shape == (1, 0)
    with pytest.warns(UserWarning, match="training:") as said:
        about = module(folder).describe()
    lines = [str(warning.message) for warning in said]
    assert all("\n" not in line for line in lines)
    assert any("1 of 6 triples are not in the text" in line and "(ab, 导演, 王五)" in line for line in lines)
    assert any("1 sentences have an empty spo_list and are left out" in line for line in lines)
    assert (about["train_sentences"], about["train_without_triples"], about["train_not_found"]) == (6, 1, 1)
    assert (about["train_rows"], about["val_sentences"], about["test_is_validation"]) == (4, 3, True)
    # Sentences without a triple, and triples that aren't in the text, count in validation.
    gold = [triples for batch in data.val_dataloader() for triples in batch.triples]
    assert sorted(gold) == sorted([(("张三", "妻子", "李四"),), (), (("ab", "导演", "王五"),)])


def test_the_labels_by_hand(folder):
    data = module(folder, eval_batch_size=10)
    batch = TripleBatch.from_arrays(*data.encoder.batch_arrays([SENTENCES[2][0]], [SENTENCES[2][1]]))
    number = {predicate: place for place, predicate in enumerate(data.predicates)}
    assert batch.subjects.tolist() == [[0, 0, 1]]
    assert batch.spans.tolist() == [[0, 1]]
    assert batch.objects.tolist() == [[0, 5, 6, number["出生地"]], [0, 11, 12, number["妻子"]]]
    assert sorted(batch.candidates.tolist()) == sorted(
        [[0, 0, 1, 5, 6, number["出生地"]], [0, 0, 1, 11, 12, number["妻子"]]]
    )
    assert "".join(data.characters[i] for i in batch.characters[0]) == SENTENCES[2][0]
    assert TripleBatch.from_arrays(*data.encoder.batch_arrays([SENTENCES[2][0]])).subjects.shape == (0, 3)


def test_training_sees_only_what_another_sentence_states(folder):
    data = module(folder, batch_size=4)
    (batch,) = data.train_dataloader()
    found = {text: candidates for text, *_, candidates in rows_of(batch)}
    number = {predicate: place for place, predicate in enumerate(data.predicates)}
    assert found[SENTENCES[0][0]] == [(1, 3, 9, 11, number["作者"])]
    assert found[SENTENCES[2][0]] == [(0, 1, 11, 12, number["妻子"])]  # not the birthplace, which it alone has
    assert found[SENTENCES[3][0]] == [(3, 4, 0, 1, number["妻子"])]
    (batch,) = module(folder, batch_size=4, prior=False).train_dataloader()
    assert batch.candidates.shape == (0, 6)


def test_the_same_sentence_twice_does_not_tell_itself(folder):
    write(folder / "train_data.json", [SENTENCES[0], SENTENCES[0], SENTENCES[2]])
    for batch in module(folder, batch_size=1).train_dataloader():
        assert len(batch.candidates) == 0


def test_the_vocabulary_is_that_of_the_training_text(folder, tmp_path):
    data = module(folder)
    other = module(folder, test_file=str(write(tmp_path / "test.json", [("罕见字词", [])])))
    assert data.characters == other.characters
    (batch,) = other.test_dataloader()
    assert batch.characters.tolist() == [[data.characters.index("<unk>")] * 4]
    counts = {}
    for text, _ in SENTENCES:
        for character in text.lower():
            counts[character] = counts.get(character, 0) + 1
    assert data.characters[2:] == sorted(counts, key=lambda character: (-counts[character], character))
    few = module(folder, min_count=2).characters
    assert few[2:] == [character for character in data.characters[2:] if counts[character] >= 2]


def test_files_by_argument(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "more.json", [("甲的首都是乙", [("甲", "首都", "乙")])])
    data = module(folder, train_file=["train_data.json", "more.json"], val_file="more.json")
    assert data.describe()["train_sentences"] == 7
    assert data.describe()["val_sentences"] == 1
    single = module(tmp_path / "more.json", val_fraction=0.5)
    with pytest.raises(DataError, match="1 sentences are too few to hold out 1"):
        single.setup()
    whole = module(folder / "train_data.json", val_fraction=0.34)
    assert (whole.describe()["train_sentences"], whole.describe()["val_sentences"]) == (4, 2)
    with pytest.raises(DataError, match=r"data.test_file: there is no file no.json, nor in .*ske"):
        module(folder, test_file="no.json").setup()


def test_a_test_file_without_triples_is_no_test(folder):
    (folder / "test_data.json").write_text('{"text": "甲乙"}\n')
    assert module(folder).describe()["test_is_validation"]
    write(folder / "test_data.json", SENTENCES[:1])
    assert module(folder).describe()["test_sentences"] == 1
    (folder / "test_data.json").write_text('{"text": "甲乙"}\n')
    with pytest.raises(DataError, match=r"test_data.json, line 1: has no spo_list"):
        module(folder, test_file="test_data.json").setup()


def test_blank_texts_without_triples_are_left_out(folder):
    expected = module(folder, keep_empty=True).splits["train"]
    lines = (folder / "train_data.json").read_text().splitlines()
    (folder / "train_data.json").write_text('{"text": "", "spo_list": []}\n'.join(f"{line}\n" for line in lines))
    found = module(folder, keep_empty=True).splits["train"]
    assert (found.sentences, found.counts) == (expected.sentences, expected.counts)


def test_a_data_set_without_records():
    with pytest.raises(DataError, match="there are no sentences"):
        parse_sentences([], frozenset())


GOOD = line(*SENTENCES[0])


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (GOOD + '\n{"text": ', [", line 2", "broken JSON", "remove"]),
        ("[1]", [", line 1", "not a JSON object, but an array", "jq -c '.[]' OLD"]),
        (" [\n" + GOOD + ",\n" + GOOD + "\n]", [", line 1", "not a JSON object, but an array"]),
        ('{\n "text": "a"\n}', [", line 1", "not a JSON object, but the first line of one", "jq -c . OLD"]),
        ('{"spo_list": []}', [", line 1", "has no text, only spo_list"]),
        ('{"text": 3, "spo_list": []}', ["text is not a string"]),
        ('{"text": null, "spo_list": []}', ["text is not a string"]),
        (line(" ", SENTENCES[0][1]), [", line 1", "text is empty, but spo_list has triples"]),
        ('{"text": "", "spo_list": []}\n{"text": " ", "spo_list": []}', [", line 2", "all texts are empty"]),
        ('{"text": "\\ud800", "spo_list": []}', ["half of a surrogate pair"]),
        ('{"text": "a", "relations": [], "id": 1}', ["has no spo_list, only text, relations, id;"]),
        (
            '{"text": "a 3", "spo_list": [{"subject": "a", "predicate": "作者", "object": 3.5}]}',
            ["object of a triple is not a string but 3.5", 'in quotes: "3.5"'],
        ),
        ('{"text": "a", "spo_list": "b"}', ["spo_list is not a list"]),
        ('{"text": "a", "spo_list": null}', ["spo_list is not a list"]),
        ('{"text": "a", "spo_list": ["b"]}', ["spo_list must hold objects"]),
        ('{"text": "a", "spo_list": [{"subject": "a", "predicate": "作者"}]}', ["object of a triple is missing"]),
        (
            '{"text": "a", "spo_list": [{"subject": 1, "predicate": "作者", "object": "b"}]}',
            ["subject", "not a string"],
        ),
        (
            line("a", [("a", "出生地点", "b")]),
            ["出生地点 is not in the schema", "did you mean 出生地?", "data.schema_file"],
        ),
        (b"\n\xff", [", line 2", "0xff", "not UTF-8"]),
        ("", ["is empty"]),
        ("\n \n", ["is empty"]),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else None,
)
@pytest.mark.parametrize("name", ["train_data.json", "dev_data.json"])
def test_bad_input_gets_one_line(folder, name, content, parts):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        module(folder).setup()
    for part in [name, *parts]:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_sources_and_schemas(folder, tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist; give a folder"):
        module(tmp_path / "nowhere").setup()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe is a pipe or a device; give a file or a folder"):
        module(tmp_path / "pipe").setup()
    with pytest.raises(DataError, match=r"has no train_data.json"):
        module(tmp_path).setup()
    (folder / "all_50_schemas").write_text('{"predicate": "x"}')
    with pytest.raises(DataError, match="all_50_schemas, line 1: a schema line"):
        module(folder).setup()
    write(folder / "train_data.json", [("a", [])])
    (folder / "all_50_schemas").unlink()
    with pytest.raises(DataError, match="no training sentence has a triple"):
        module(folder).setup()
    write(folder / "train_data.json", [("a", [("b", "作者", "c")])])
    with pytest.raises(DataError, match="no training text has subject and object"):
        module(folder).setup()


@pytest.mark.parametrize(
    "options",
    [{"max_length": 1}, {"augment": 1.5}, {"occurrences": "some"}, {"negatives": "x"}, {"val_fraction": 1.0},
     {"segmenter": "jieba"}, {"seed": -1}, {"train_file": "x"}, {"min_count": 0}],
    ids=str,
)  # fmt: skip
def test_arguments_out_of_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        TripleDataModule("sample", **options)


def test_hub(monkeypatch):
    import datasets

    from datamodules.triple_data import sources

    def rows(sentences):
        return datasets.Dataset.from_list([json.loads(line(*sentence)) for sentence in sentences])

    loaded = datasets.DatasetDict(train=rows(SENTENCES[:3]), validation=rows(SENTENCES[3:]), test=rows([("a", [])]))
    asked = []
    monkeypatch.setattr(sources, "load_from_hub", lambda *names: asked.append(names) or loaded)
    about = module("hub").describe()
    assert (about["train_sentences"], about["val_sentences"], about["test_is_validation"]) == (3, 3, True)
    loaded["test"] = rows(SENTENCES[:2])
    assert module("hub", hub_id="a/b", hub_config="c").describe()["test_sentences"] == 2
    assert asked == [("xusenlin/duie", None), ("a/b", "c")]
    loaded["train"] = rows([("a", [("a", "作", "b")])])
    with pytest.raises(DataError, match=r"xusenlin/duie, train, row 0: the predicate 作 is not in the schema"):
        module("hub").setup()
    del loaded["validation"]
    loaded["train"] = rows(SENTENCES)
    assert module("hub").describe()["val_sentences"] == 1
    del loaded["train"]
    with pytest.raises(DataError, match=r"xusenlin/duie has no split train, only test: set data\.hub_id"):
        module("hub").setup()


# Cache.


def test_cached_is_uncached(folder, cache_home, monkeypatch):
    options = {"test_file": str(folder / "train_data.json"), "max_length": 8}
    first = module(folder, **options)
    batches = [list(first.train_dataloader()), list(first.val_dataloader()), list(first.test_dataloader())]
    monkeypatch.setattr("datamodules.triple_data.sources.parse_sentences", None)  # not called again
    second = module(folder, **options)
    again = [list(second.train_dataloader()), list(second.val_dataloader()), list(second.test_dataloader())]
    for left, right in zip(batches, again, strict=True):
        for a, b in zip(left, right, strict=True):
            assert_equal(a, b)
    assert first.describe() == second.describe()
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))
    for file in cache_home.rglob("*.npy"):
        file.write_bytes(file.read_bytes()[:-1])
    assert module(folder, **options).describe() == first.describe()


def test_another_file_or_option_is_encoded_again(folder):
    before = module(folder).describe()
    write(folder / "train_data.json", SENTENCES[:3])
    os.utime(folder / "train_data.json", (1, 1))
    assert module(folder).describe()["train_sentences"] == 3 != before["train_sentences"]
    assert len(module(folder, min_count=2).characters) < len(module(folder).characters)
    assert module(folder, prior=False).known_triples == []


# Windows.


def test_long_texts_become_windows(folder):
    text = "张三出生于北京" + "。" * 20 + "李四出生于上海" + "。" * 20 + "王五出生于天津"
    triples = [
        ("张三", "出生地", "北京"),
        ("李四", "出生地", "上海"),
        ("王五", "出生地", "天津"),
        ("张三", "祖籍", "天津"),
    ]
    write(folder / "dev_data.json", [(text, triples), *SENTENCES[:2]])
    data = module(folder, max_length=20)
    with pytest.warns(UserWarning, match=r"1 texts are longer than data.max_length \(20\).*1 triples fit in none"):
        about = data.describe()
    assert (about["val_long_texts"], about["val_in_no_window"], about["val_not_found"]) == (1, 1, 0)
    (batch,) = data.val_dataloader()
    windows = (batch.sentences == batch.texts.index(text)).nonzero().flatten()
    offsets = batch.offsets[windows].tolist()
    assert offsets[0] == 0
    assert offsets[-1] == len(text) - 20
    assert all(0 < b - a <= 10 for a, b in itertools.pairwise(offsets))
    found = set()
    for row, offset, part in ((int(r), int(batch.offsets[r]), batch.texts[int(batch.sentences[r])]) for r in windows):
        for _, start, end in batch.subjects[batch.subjects[:, 0] == row].tolist():
            found.add(part[offset + start : offset + end + 1])
        line = part[offset : offset + 20]
        assert [data.characters[i] for i in batch.characters[row]] == [
            c if c in data.characters else "<unk>" for c in line
        ]
    assert found == {"张三", "李四", "王五"}
    assert batch.triples[batch.texts.index(text)] == tuple(triples)
