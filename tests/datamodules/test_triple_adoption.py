"""Sentences of other sources for a trained model: its characters, schema, slots and known triples."""

import json

import numpy as np
import pytest

from datamodules import DataError
from datamodules.batches import TripleBatch
from datamodules.triple_data import splits
from lightning_modules import TripleExtractor
from tests.datamodules.triple_tools import SENTENCES, module, write
from tests.tools import quiet_trainer

OTHER = [("李四写了《红楼梦》喵", [("红楼梦", "作者", "李四")]), ("王五出生于北京", [("王五", "出生地", "北京")])]
UNKNOWN = [("甲爱乙", [("甲", "爱", "乙")]), ("甲恨丙", [("甲", "恨", "丙"), ("甲", "爱", "丙")])]


@pytest.fixture
def trained(tmp_path):
    """The data of a model, and what its checkpoint holds of it."""
    (tmp_path / "own").mkdir()
    write(tmp_path / "own" / "train_data.json")
    data = module(tmp_path / "own", schema="from_data", val_file="train_data.json")
    return data, {name: json.loads(json.dumps(getattr(data, name))) for name in TripleExtractor.data_links}


def other(tmp_path, name, sentences=OTHER, **options):
    folder = tmp_path / "other"
    folder.mkdir(exist_ok=True)
    write(folder / f"{name}_data.json", sentences)
    return module(folder, **options)


@pytest.mark.parametrize("name", ["test", "dev", "train"])
def test_the_models_vocabulary_reads_other_sentences(trained, tmp_path, name):
    own, hyperparameters = trained
    data = other(tmp_path, name, schema="from_data", val_file="train_data.json" if name == "train" else None)
    data.adopt(hyperparameters)
    assert {link: getattr(data, link) for link in TripleExtractor.data_links} == hyperparameters
    data.setup("test")
    batches = list(data.test_dataloader())
    texts, triples = zip(*OTHER, strict=True)
    (batch,) = batches
    order = [texts.index(text) for text in batch.texts]
    gold = [tuple(triples[place]) for place in order]
    assert list(batch.triples) == gold
    expected = TripleBatch.from_arrays(*own.encoder.batch_arrays(batch.texts, gold))
    for part in ("characters", "subjects", "objects", "candidates"):
        assert np.array_equal(getattr(batch, part), getattr(expected, part)), part
    assert len(batch.candidates) == 0  # (红楼梦, 作者, 曹雪芹) is known, but not stated
    known = [own.characters[number] for number in batch.characters[order.index(0)].tolist()]
    assert "".join(known).replace("<pad>", "") == "李四写了《红楼梦》<unk>"


@pytest.mark.parametrize("is_file", [False, True])
def test_nothing_is_held_out_of_sentences_that_are_only_measured(trained, tmp_path, is_file):
    data = other(tmp_path, "train")
    source = module(tmp_path / "other" / "train_data.json") if is_file else data
    source.measure_whole()  # without a trained model there is something to train
    source.adopt(trained[1])
    assert len(source.split("test").sentences) == 1
    source.measure_whole()
    source.setup("test")
    assert sorted(source.split("test").sentences)[0].text == OTHER[0][0]
    assert len(source.split("test").sentences) == 2


def test_only_the_test_is_read_to_measure_a_model(trained, tmp_path, monkeypatch):
    data = other(tmp_path, "test")
    (tmp_path / "other" / "train_data.json").write_text("no JSON")
    data.adopt(trained[1])
    monkeypatch.setattr(splits.SplitEncoding, "training", None)  # would fail
    model = TripleExtractor(**{link: getattr(data, link) for link in TripleExtractor.data_links})
    (found,) = quiet_trainer().test(model, data, verbose=False)
    assert 0 <= found["test/f1"] <= 1


def test_training_goes_on_with_the_models_vocabulary(trained, tmp_path):
    data = other(tmp_path, "train", SENTENCES[:3] + OTHER, val_file="train_data.json")
    data.adopt(trained[1])
    data.batch_size = 5
    (rows,) = [batch.characters for batch in data.train_dataloader()]
    assert data.characters == trained[1]["characters"]
    assert rows.max() < len(data.characters)
    assert (rows == 1).sum() == 1
    # The same file again is the same training, from another cache or none.
    again = module(tmp_path / "own", schema="from_data", val_file="train_data.json")
    again.adopt(trained[1])
    for name in ("train", "val"):
        for mine, theirs in zip(
            again.split(name).table.arrays().values(), trained[0].split(name).table.arrays().values(), strict=True
        ):
            assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("own_schema", [False, True])
def test_predicates_that_the_model_lacks_are_all_named(trained, tmp_path, own_schema):
    data = other(tmp_path, "test", OTHER + UNKNOWN)
    if own_schema:
        rows = [{"subject_type": "", "predicate": name, "object_type": ""} for name in "爱恨"]
        (tmp_path / "other" / "all_50_schemas").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data.adopt(trained[1])
    with pytest.raises(DataError) as error:
        data.setup("test")
    (said,) = str(error.value).splitlines()
    assert "test_data.json, line 3 is the first with one of 2 predicates that are not in the schema: 爱, 恨" in said
    assert "that is the trained model's: leave these triples out, or train a model that knows them" in said
    made = module("sample", sample_train_size=60, sample_test_size=300)
    made.adopt(trained[1])
    with pytest.raises(DataError, match=r"the sample is the first with one of \d+ predicates"):
        made.setup("test")


def test_a_slot_that_the_model_lacks_is_named(trained, tmp_path):
    data = other(tmp_path, "test")
    value = {"@value": "张三", "inWork": "红楼梦"}
    row = {"subject": "李四", "predicate": "妻子", "object": value}
    text = json.dumps({"text": "李四张三红楼梦", "spo_list": [row]}) + "\n"
    (tmp_path / "other" / "test_data.json").write_text(text)
    data.adopt(trained[1])
    with pytest.raises(DataError, match="the predicate 妻子@inWork is not in the schema"):
        data.setup("test")


def test_what_can_not_be_adopted(trained, tmp_path):
    data = other(tmp_path, "test", normalize="both")
    with pytest.raises(ValueError, match=r"data\.normalize is both, the trained model's none: set it to that"):
        data.adopt(trained[1])
    with pytest.raises(ValueError, match="the trained model has no word vectors"):
        other(tmp_path, "test", vectors_file="v.txt").adopt(trained[1])
    data = other(tmp_path, "train")
    before = data.schema
    data.adopt({"vocabulary": ["a"]})  # no extractor's
    assert data.schema == before


def test_the_models_words_need_no_file_of_vectors(trained, tmp_path):
    (tmp_path / "own" / "v.txt").write_text("北京 1 2\n张三 3 4\n")
    own = module(tmp_path / "own", schema="from_data", val_file="train_data.json", vectors_file="v.txt")
    data = other(tmp_path, "train", vectors_file="v.txt", val_file="train_data.json")
    data.adopt({name: getattr(own, name) for name in TripleExtractor.data_links})
    assert (data.words, data.word_vector_size) == (["北京", "张三"], 2)
    data.setup("test")
    with pytest.raises(DataError, match=r"data\.vectors_file: there is no file"):
        data.word_vectors  # noqa: B018
    (tmp_path / "other" / "v.txt").write_text("张三 3 4\n")
    data = module(tmp_path / "other", vectors_file="v.txt")
    data.adopt({name: getattr(own, name) for name in TripleExtractor.data_links})
    with pytest.raises(DataError, match="has other words than the trained model"):
        data.word_vectors  # noqa: B018


def test_without_anything_to_measure(trained, tmp_path):
    data = other(tmp_path, "test")
    (tmp_path / "other" / "test_data.json").write_text(json.dumps({"text": "无"}) + "\n")
    data.adopt(trained[1])
    with pytest.raises(DataError, match=r"measured on test_data\.json with triples, or dev_data\.json"):
        data.setup("test")
