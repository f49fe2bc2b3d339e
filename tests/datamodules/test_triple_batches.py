"""Batches of triples: their order, the draws for them, and SKE's real data against loops."""

import os
import pickle
import sys

import numpy as np
import pytest
import torch

from datamodules import DataError, TripleDataModule, loader
from datamodules.batches import TripleBatch
from tests.datamodules.triple_tools import SKE, assert_equal, module, needs_ske, rows_of, write


def sample(**options):
    return TripleDataModule("sample", sample_train_size=700, sample_test_size=50, batch_size=8, **options)


@pytest.mark.parametrize("augment", [0.0, 0.5])
def test_an_epoch_is_a_function_of_seed_and_number(augment):
    data, twin, other = sample(augment=augment), sample(augment=augment), sample(augment=augment, seed=1)
    loader_ = data.train_dataloader()
    loader_.set_epoch(3)
    third = list(loader_)
    twin_loader = twin.train_dataloader()
    list(twin_loader)  # earlier reading doesn't matter
    twin_loader.set_epoch(3)
    for a, b in zip(third, twin_loader, strict=True):
        assert_equal(a, b)
    loader_.set_epoch(4)
    assert [batch.texts for batch in loader_] != [batch.texts for batch in third]
    assert other.describe()["fingerprint"] != data.describe()["fingerprint"]


def test_resuming_within_an_epoch():
    data = sample(augment=0.3)
    whole = data.train_dataloader()
    whole.set_epoch(2)
    batches = list(whole)
    started = data.train_dataloader()
    started.set_epoch(2)
    batch_iterator = iter(started)
    for _ in range(7):
        next(batch_iterator)
    resumed = sample(augment=0.3).train_dataloader()
    resumed.load_state_dict(started.state_dict())
    resumed.set_epoch(2)
    rest = list(resumed)
    assert len(rest) == len(batches) - 7
    for a, b in zip(rest, batches[7:], strict=True):
        assert_equal(a, b)


def test_without_shuffling_each_epoch_has_the_same_sentences():
    loader_ = sample().train_dataloader()
    loader_.shuffle = False  # as ``overfit_batches`` does
    first = [batch.texts for batch in loader_]
    loader_.set_epoch(1)
    assert [batch.texts for batch in loader_] == first


@pytest.mark.parametrize(
    ("rows", "options", "size"), [(700, {}, 64), (700, {"min_batches": 35}, 20), (30, {}, 30), (3, {}, 3)]
)
def test_little_data_has_smaller_batches(rows, options, size):
    data = TripleDataModule("sample", sample_train_size=rows, sample_test_size=10, **options)
    assert data.train_dataloader().batch_size == size
    data.min_batches = 10**6
    assert data.train_dataloader().batch_size == min(8, rows)


def test_ranks_share_the_data(monkeypatch):
    data = sample()
    seen, counts, held_out = [], [], []
    for rank in range(3):
        monkeypatch.setattr(loader, "rank_and_world_size", lambda rank=rank: (rank, 3))
        train = data.train_dataloader()
        batches = list(train)
        counts.append((len(train), len(batches)))
        seen += [text for batch in batches for text in batch.texts]
        held_out += [text for batch in data.val_dataloader() for text in batch.texts]
    assert set(counts) == {(700 // 24, 700 // 24)}
    assert len(set(seen)) == len(seen) == 700 // 24 * 24
    assert sorted(held_out) == sorted(sentence.text for sentence in data.splits["val"].sentences)


def test_negatives_are_made_and_have_no_objects():
    data = sample(augment=0.2)
    negatives = gold = 0
    train = data.train_dataloader()
    for epoch in range(3):
        train.set_epoch(epoch)
        for batch in train:
            for _, _, (start, end), subjects, objects, _ in rows_of(batch):
                if not subjects:
                    assert (start, end, objects) == (-1, -1, [])
                    continue
                assert 0 <= start <= end
                assert start in {span[0] for span in subjects}
                assert end in {span[1] for span in subjects}
                assert bool(objects) == ((start, end) in subjects)
                negatives += not objects
                gold += bool(objects)
    assert negatives > 20
    assert gold > negatives
    for batch in sample(negatives="gold_spans").train_dataloader():
        for _, _, span, subjects, objects, _ in rows_of(batch):
            assert span in subjects
            assert objects


def test_spans_are_drawn_uniformly(tmp_path):
    text = "甲乙丙"
    triples = [("甲", "作者", "丙"), ("乙", "作者", "丙")]
    for name in ("train_data.json", "dev_data.json"):
        write(tmp_path / name, [(text, triples)])
    train = module(tmp_path, batch_size=1).train_dataloader()
    counts = {}
    for epoch in range(2000):
        train.set_epoch(epoch)
        (batch,) = train
        span = tuple(batch.spans[0].tolist())
        counts[span] = counts.get(span, 0) + 1
    assert set(counts) == {(0, 0), (0, 1), (1, 1)}  # the second start has one end that is not before it
    assert abs(counts[1, 1] - 1000) < 100
    assert abs(counts[0, 0] - 500) < 100


# Word vectors.


@pytest.fixture
def vectors_file(tmp_path):
    vectors = np.arange(8, dtype=np.float32).reshape(4, 2) + 0.5
    np.savez(tmp_path / "v.npz", words=np.array(["北京", "上海", "京", "a"]), vectors=vectors)
    return str(tmp_path / "v.npz")


def test_words_of_sentences(vectors_file):
    options = {"sample_train_size": 100, "sample_test_size": 10, "vectors_file": vectors_file}
    data = TripleDataModule("sample", **options)
    assert (data.words, data.word_vector_size) == (["北京", "上海", "京", "a"], 2)
    assert data.word_vectors.tolist() == [[0, 0], [0.5, 1.5], [2.5, 3.5], [4.5, 5.5], [6.5, 7.5]]
    text = "我在北京和A"
    assert TripleBatch.from_arrays(*data.encoder.batch_arrays([text])).words.tolist() == [[0, 0, 0, 3, 0, 4]]
    pytest.importorskip("jieba")
    data = TripleDataModule("sample", segmenter="jieba", **options)
    both = TripleBatch.from_arrays(*data.encoder.batch_arrays([text, "北京"]))
    assert both.words.tolist() == [[0, 0, 1, 1, 0, 4], [1, 1, 0, 0, 0, 0]]
    batch = next(iter(data.train_dataloader()))
    assert batch.words.shape == batch.characters.shape
    assert batch.words.dtype == torch.int64


def test_missing_jieba_is_reported_in_one_line(vectors_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "jieba", None)
    data = TripleDataModule("sample", segmenter="jieba", vectors_file=vectors_file)
    with pytest.raises(DataError, match=r"pip install .*chinese"):
        data.setup()


# Real data.


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    data = TripleDataModule(str(SKE), train_file=["train_data.json", "train_extra_duie2.json"])
    data.setup()
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before
    return data


@needs_ske
def test_real_padding(real):
    for data in (real, TripleDataModule(str(SKE))):
        train = data.train_dataloader()
        for epoch in range(2):
            train.set_epoch(epoch)
            batches = list(train)
            padded = sum(int((batch.characters == 0).sum()) for batch in batches)
            assert padded / sum(batch.characters.numel() for batch in batches) < 0.1


@needs_ske
def test_real_candidates_by_a_double_loop(real):
    sentences = real.splits["train"].sentences
    items = {}
    for sentence in sentences:
        for triple in sentence.triples:
            items.setdefault(triple, set()).add(sentence.text)
    number = {predicate: place for place, predicate in enumerate(real.predicates)}
    table = real.splits["train"].table
    checked = stated = 0
    for row in range(0, len(table), 67):
        text = sentences[table.sentences[row]].text
        expected = set()
        for (s, p, o), texts in items.items():
            if s in text and o in text and texts != {text}:
                expected.add(
                    (text.find(s), text.find(s) + len(s) - 1, text.find(o), text.find(o) + len(o) - 1, number[p])
                )
        own = slice(table.candidate_starts[row], table.candidate_starts[row + 1])
        assert set(map(tuple, table.candidates[own].tolist())) == expected
        checked, stated = checked + 1, stated + len(expected)
    assert checked > 100
    assert stated > 50


@needs_ske
def test_real_sentences_never_see_triples_of_their_own(real):
    sentences, table = real.splits["train"].sentences, real.splits["train"].table
    items = {}
    for sentence in sentences:
        for triple in sentence.triples:
            items.setdefault(triple, set()).add(sentence.text)
    for row in range(len(table)):
        text = sentences[table.sentences[row]].text
        for a, b, c, d, p in table.candidates[table.candidate_starts[row] : table.candidate_starts[row + 1]].tolist():
            assert items[text[a : b + 1], real.predicates[p], text[c : d + 1]] - {text}


@needs_ske
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_spans_decode_to_the_gold(real, split):
    encoded = real.splits[split]
    table, compared = encoded.table, 0
    for row, number in enumerate(table.sentences.tolist()):
        text, triples, _ = encoded.sentences[number]
        spans = table.objects[table.object_starts[row] : table.object_starts[row + 1]].tolist()
        decoded = {(text[a : b + 1], real.predicates[p], text[c : d + 1]) for a, b, c, d, p in spans}
        assert decoded == {triple for triple in triples if triple[0] in text and triple[2] in text}
        starts = table.subjects[table.subject_starts[row] : table.subject_starts[row + 1]].tolist()
        assert {text[a : b + 1] for a, b in starts} == {subject for subject, _, _ in decoded}
        compared += len(decoded)
    assert compared > 1000
    assert np.isin(table.candidates[:, 4], range(49)).all()


@needs_ske
def test_a_batch_is_its_sentences_one_by_one(real):
    sentences = real.splits["val"].sentences[:40]
    encoder = pickle.loads(pickle.dumps(real.encoder))  # as sent to other processes
    whole = TripleBatch.from_arrays(*encoder.batch_arrays([s.text for s in sentences], [s.triples for s in sentences]))
    parts = rows_of(whole)
    for row, (text, triples, _) in enumerate(sentences):
        single = TripleBatch.from_arrays(*encoder.batch_arrays([text], [triples]))
        length = len(text)
        assert torch.equal(whole.characters[row, :length], single.characters[0])
        assert not whole.characters[row, length:].any()
        assert rows_of(single)[0] == parts[row]
    for batch in real.val_dataloader():
        for row, text in enumerate(batch.texts):
            again = TripleBatch.from_arrays(*encoder.batch_arrays([text])).characters[0]
            assert torch.equal(batch.characters[row, : len(text)], again)


@needs_ske
def test_all_occurrences(real):
    data = TripleDataModule(str(SKE), occurrences="all")
    table, sentences = data.splits["val"].table, data.splits["val"].sentences
    several = 0
    for row, number in enumerate(table.sentences.tolist()):
        text, triples, _ = sentences[number]
        expected = {
            (a, a + len(s) - 1, b, b + len(o) - 1, data.predicates.index(p))
            for s, p, o in triples
            for a in range(len(text))
            if text.startswith(s, a)
            for b in range(len(text))
            if text.startswith(o, b)
        }
        own = table.objects[table.object_starts[row] : table.object_starts[row + 1]].tolist()
        assert set(map(tuple, own)) == expected
        several += len(expected) > len(triples)
    assert several > 10
