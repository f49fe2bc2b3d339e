import collections

import pytest
import torch

from datamodules import TripleDataModule
from datamodules.samples.triples import make_triple_sentences
from datamodules.triple_data.augmentation import replace_entities
from readers.triples.json_lines import Sentence


@pytest.fixture(scope="module")
def train():
    return make_triple_sentences(2000, 0, "train")


def test_all_predicates_and_kinds_of_overlap(train):
    predicates, kinds = collections.Counter(), collections.Counter()
    for text, triples, _ in train:
        predicates.update(predicate for _, predicate, _ in triples)
        assert all(text.count(subject) == text.count(obj) == 1 for subject, _, obj in triples)
        assert len(set(triples)) == len(triples)
        pairs = collections.Counter((subject, obj) for subject, _, obj in triples)
        subjects = {subject: {o for s, _, o in triples if s == subject} for subject, _, _ in triples}
        objects = {obj: {s for s, _, o in triples if o == obj} for _, _, obj in triples}
        kinds["same pair"] += max(pairs.values()) > 1
        kinds["shared subject"] += max(map(len, subjects.values())) > 1
        kinds["shared object"] += max(map(len, objects.values())) > 1
        kinds["single"] += len(triples) == 1
        kinds["five"] += len(triples) >= 5
    assert len(predicates) == 49
    assert min(predicates.values()) >= 20
    assert all(kinds[kind] > 30 for kind in ("same pair", "shared subject", "shared object", "single", "five")), kinds


def test_deterministic_by_seed_and_new_in_the_test(train):
    assert make_triple_sentences(100, 0, "val") == make_triple_sentences(100, 0, "val")
    assert make_triple_sentences(100, 1, "val") != make_triple_sentences(100, 0, "val")
    test = make_triple_sentences(300, 0, "test", train)
    known = {triple for sentence in train for triple in sentence.triples}
    assert all(set(sentence.triples) - known for sentence in test)
    triples = [triple for sentence in test for triple in sentence.triples]
    assert (
        0.02 < sum(triple in known for triple in triples) / len(triples) < 0.4
    )  # the prior has something to contribute


def test_the_schema_is_that_of_ske():
    data = TripleDataModule("sample", sample_train_size=100, sample_test_size=10)
    assert len(data.schema) == len(set(map(tuple, data.schema))) == 50
    assert len(data.predicates) == 49
    assert data.predicates.index("成立日期") == 35
    train = data.train_dataloader()
    assert next(iter(train)).characters.shape[0] == 64


def test_replaced_entities():
    sentence = Sentence("张三的妻子是李四，张三丰不是", (("张三", "妻子", "李四"), ("张三丰", "朝代", "李四")))
    changed = replace_entities(sentence, ("张三", "妻子", "李四"), ("李四", "妻子", "王五"))
    assert changed.text == "李四的妻子是王五，李四丰不是"
    assert changed.triples == (("李四", "妻子", "王五"), ("李四丰", "朝代", "王五"))


def test_augmentation_replaces_and_leaves_both_out():
    data = TripleDataModule("sample", sample_train_size=600, sample_test_size=10, batch_size=20, augment=1.0)
    texts = {sentence.text for sentence in data.splits["train"].sentences}
    items = collections.defaultdict(set)
    for text, triples, _ in data.splits["train"].sentences:
        for triple in triples:
            items[triple].add(text)
    new = told = 0
    for batch in data.train_dataloader():
        assert len(batch.texts) == 20
        new += sum(text not in texts for text in batch.texts)
        for row, a, b, c, d, p in batch.candidates.tolist():
            text = batch.texts[row]
            triple = (text[a : b + 1], data.predicates[p], text[c : d + 1])
            told += 1
            assert items[triple]
            if triple in batch.triples[row]:  # stated by a third sentence, not only the original and the donor
                assert len(items[triple]) > 1
        for row, start, end in batch.subjects.tolist():
            assert batch.texts[row][start : end + 1] in {subject for subject, _, _ in batch.triples[row]}
    assert new > 500
    assert told > 0


def test_without_augmentation_the_texts_are_the_data():
    data = TripleDataModule("sample", sample_train_size=300, sample_test_size=10, batch_size=20)
    texts = {sentence.text for sentence in data.splits["train"].sentences}
    assert all(text in texts for batch in data.train_dataloader() for text in batch.texts)
    assert all(batch.characters.dtype == torch.int64 for batch in data.train_dataloader())
