"""Texts that nobody here chose: vocabularies, layouts, encodings, names, and sizes."""

import gzip
import warnings
from collections import Counter
from pathlib import Path

import pytest
import torch

from datamodules import DataError, TextDataModule, corpus, token_ids
from datamodules.unknown_words import compare_shares
from readers.text.tokens import TextCodec

CHINESE = "我爱北京天安门。\n他喝清河大曲酒。\n" * 5
CODE = "def f(x):\n    if x:\n\n        return 'é'  \n\n\n"
WORDS = "the cat saw the dog\n\nthe dog saw <unk> a cat\nthe end\n"


def folder_of(tmp_path, text, ending=".txt", names=("train", "valid", "test"), pack=False):
    for name in names:
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / f"{name}{ending}").write_bytes(gzip.compress(data) if pack else data)
    return tmp_path


def small(source, **options):
    return TextDataModule(str(source), **({"batch_size": 2, "eval_batch_size": 1, "bptt": 5} | options))


def said(data, split="train"):
    return [data.vocabulary[number] for number in data.corpus.texts[split].tolist()]


# ---------------------------------------------------------------------------------------------------- vocabularies


@pytest.mark.parametrize("level", ["word", "character"])
@pytest.mark.parametrize(("min_count", "max_words"), [(1, None), (2, None), (1, 5), (2, 4), (3, 100)])
def test_frequent_words_in_the_order_of_the_text(tmp_path, monkeypatch, level, min_count, max_words):
    monkeypatch.setattr(token_ids, "LINES", 2)
    monkeypatch.setattr(token_ids, "ENTRIES", 3)
    folder = folder_of(tmp_path, WORDS)
    data = small(folder, level=level, min_count=min_count, max_words=max_words)
    lines = [line for line in WORDS.split("\n") if line]
    tokens = [token for line in lines for token in (*(line.split() if level == "word" else line), "<eos>")]
    counts = Counter(token for token in tokens if token not in ("<eos>", "<unk>"))
    room = len(counts) if max_words is None else max_words - 2
    kept = {token for token, count in counts.most_common()[:room] if count >= min_count} | {"<eos>", "<unk>"}
    expected = [token for token in dict.fromkeys([*tokens, "<unk>"]) if token in kept]
    assert data.vocabulary == expected
    assert said(data) == [token if token in kept else "<unk>" for token in tokens]
    share = said(data).count("<unk>") / (len(tokens) - 3)
    assert data.describe()["train_unknown_share"] == pytest.approx(share)
    assert f"<unk>: {share:.2%} of the {level}s of train" in data.remarks()[0]


def test_a_trained_models_vocabulary_stays(tmp_path):
    data = small(folder_of(tmp_path, "a dog saw a unicorn\n" * 2))
    data.adopt({"vocabulary": ["saw", "<unk>", "a", "<eos>"], "level": "word"})
    assert data.vocabulary == ["saw", "<unk>", "a", "<eos>"]
    assert said(data, "test") == ["a", "<unk>", "saw", "a", "<unk>", "<eos>"] * 2
    assert data.corpus.unknown["test"] == 0.4
    data.adopt({"vocabulary": ["(", "a"]})  # no language model's
    assert data.vocab_size == 4
    with pytest.raises(ValueError, match=r"data\.level is word, the trained model's character"):
        data.adopt({"vocabulary": ["a", "<eos>", "<unk>"], "level": "character"})


def test_one_parquet_file_is_refused_by_name(tmp_path):
    (tmp_path / "one.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"one\.parquet is one parquet file; give a folder"):
        small(tmp_path / "one.parquet").prepare_data()


@pytest.mark.parametrize(("pack", "encoding"), [(False, "utf-8"), (True, "utf-8"), (False, "utf-16")])
def test_the_end_of_a_single_file_is_held_out(tmp_path, pack, encoding):
    lines = [f"line {number}" for number in range(100)]
    text = ("\n".join(lines) + "\n").encode(encoding)
    book = tmp_path / "book"
    book.write_bytes(gzip.compress(text) if pack else text)
    data = small(book, encoding=encoding)
    for split, first, last in (("train", 0, 90), ("valid", 90, 95), ("test", 95, 100)):
        told = [word if word in data.vocabulary else "<unk>" for line in lines[first:last] for word in line.split()]
        assert [word for word in said(data, split) if word != "<eos>"] == told
        assert data.corpus.lines[split] == last - first
    assert "8" in data.vocabulary
    assert "95" not in data.vocabulary
    assert "book is one file, whose last lines are held out: 90 of train, 5 of valid, 5 of test" in data.remarks()[0]
    assert data._unk_rate == 0.01


def test_a_single_file_needs_lines_to_hold_out(tmp_path):
    (tmp_path / "two.txt").write_text("one\ntwo\n")
    with pytest.raises(DataError, match=r"two\.txt has 2 lines, too few to hold out some: give a folder"):
        small(tmp_path / "two.txt").setup()
    blank = tmp_path / "blank.txt"
    blank.write_text("one\ntwo\n\n")
    with pytest.raises(DataError, match=r"blank\.txt has 2 lines of text, too few to hold out some: give a folder"):
        small(blank).setup()
    # Neither part is of blank lines alone.
    blank.write_text("one\ntwo three\n\nfour five\n\n")
    data = small(blank, eval_batch_size=1)
    assert data.corpus.lines == {"train": 1, "valid": 1, "test": 1}
    assert data.vocabulary == ["one", "<eos>", "<unk>"]
    blank.write_text("\n" * 12 + "one\ntwo three\nfour five\n")
    assert small(blank).corpus.lines == {"train": 1, "valid": 1, "test": 1}
    blank.write_text("one\ntwo three\n\nfour five\n\n")
    assert small(blank, keep_layout=True).corpus.lines == {"train": 3, "valid": 1, "test": 1}


def test_other_shares_are_warned_of():
    shares = {"train": 0.05, "valid": 0.05, "test": 0.05}
    assert compare_shares(shares, shares, True, "word") is None
    assert "12.00% of the words" in compare_shares({**shares, "test": 0.12}, shares, True, "word")
    assert "blanks): separate them as there" in compare_shares({**shares, "test": 0.99}, shares, True, "word")
    assert "or script: train on this text" in compare_shares({**shares, "test": 0.99}, shares, True, "character")
    assert "never met in its training" in compare_shares(shares, shares, False, "word")
    none = dict.fromkeys(shares, 0.0)
    assert compare_shares(none, none, False, "word") is None


@pytest.mark.parametrize("order", ["contiguous", "random"])
def test_a_share_of_the_words_is_read_as_unknown(tmp_path, order):
    folder = folder_of(tmp_path, "a b c d\n" * 2000)

    def batches(**options):
        loader = small(folder, order=order, **options).train_dataloader()
        return loader.text, list(loader)

    (text, plain), (_, altered), (_, again) = batches(unk_rate=0), batches(unk_rate=0.2), batches(unk_rate=0.2)
    unknown = small(folder).vocabulary.index("<unk>")
    end = small(folder).vocabulary.index("<eos>")
    assert not (text == unknown).any(), "the text itself stays"
    count = changed = 0
    for before, after, same in zip(plain, altered, again, strict=True):
        assert torch.equal(after.inputs, same.inputs)
        assert torch.equal(after.inputs[:, 1:], after.targets[:, :-1]), "what is predicted is what is read next"
        differs = before.targets != after.targets
        assert (after.targets[differs] == unknown).all()
        assert not (before.targets[differs] == end).any()
        count, changed = count + int((before.targets != end).sum()), changed + int(differs.sum())
    assert changed / count == pytest.approx(0.2, abs=0.02)


def test_unknown_words_are_trained_where_a_folder_has_none(tmp_path):
    assert small(folder_of(tmp_path, "a b\n" * 9))._unk_rate == 0.01
    assert small(tmp_path, level="character")._unk_rate == 0
    assert TextDataModule("sample", sample_train_size=9, sample_test_size=3)._unk_rate == 0
    assert small(folder_of(tmp_path, "a b <unk> \n" * 9))._unk_rate == 0


# --------------------------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("level", ["character", "byte"])
def test_with_its_layout_a_text_comes_back(tmp_path, level):
    data = small(folder_of(tmp_path, CODE), level=level, keep_layout=True)
    codec = TextCodec(data.vocabulary, level, keep_layout=True)
    assert codec.decode(data.corpus.texts["train"].tolist(), "\n") == CODE
    assert codec.encode(CODE) == data.corpus.texts["train"].tolist()
    assert len(data.corpus.texts["train"]) == len(CODE.encode() if level == "byte" else CODE)


def test_any_bytes_are_a_text(tmp_path):
    contents = bytes(range(256)) * 2 + b"\r\n"
    data = small(folder_of(tmp_path, contents), level="byte", keep_layout=True)
    assert data.vocab_size == 257  # and <unk>
    assert data.corpus.texts["train"].tolist() == list(contents)
    assert data.corpus.unknown["train"] == 0


def test_blank_lines_and_indentation(tmp_path):
    folder = folder_of(tmp_path, "a  b\n\n  c\n")
    assert said(small(folder)) == ["a", "b", "<eos>", "c", "<eos>"]
    assert said(small(folder, eos_on_blank_lines=True)) == ["a", "b", "<eos>", "<eos>", "c", "<eos>"]
    assert said(small(folder, keep_layout=True)) == ["a", "b", "<eos>", "<eos>", "  ", "c", "<eos>"]
    assert "".join(said(small(folder, level="character"))) == "a  b<eos>c<eos>"


@pytest.mark.parametrize(("ending", "pack"), [(".tokens", False), (".raw", False), (".tokens.gz", True)])
def test_wikitexts_own_files(tmp_path, ending, pack):
    text = " \n = A title = \n \n A <unk> sentence . \n"
    data = small(folder_of(tmp_path, text, ending, ("wiki.train", "wiki.valid", "wiki.test"), pack))
    assert len(data.corpus.texts["train"]) == sum(len(line.split()) + 1 for line in text.splitlines())
    assert said(data)[:2] == ["<eos>", "="]
    assert said(small(tmp_path, eos_on_blank_lines=False))[:2] == ["=", "A"]


# --------------------------------------------------------------------------------------------- segmenters, encodings


def test_chinese_without_blanks(tmp_path):
    jieba = pytest.importorskip("jieba")
    folder = folder_of(tmp_path, CHINESE)
    with pytest.warns(UserWarning, match=r"8 characters in the mean.* data\.segmenter=jieba or data\.level=character"):
        small(folder).setup("fit")
    data = small(folder, segmenter="jieba")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.setup("fit")
        small(folder, level="character").setup("fit")
    assert said(data) == [word for line in CHINESE.splitlines() for word in (*jieba.cut(line), "<eos>")]
    codec = TextCodec(data.vocabulary, "word", "jieba")
    assert codec.decode(codec.encode(CHINESE)) == CHINESE.replace("\n", "<eos>")


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("encoding", ["gbk", "utf-16"])
def test_other_encodings(tmp_path, encoding, pack):
    folder = folder_of(tmp_path, CHINESE.encode(encoding), ".txt.gz" if pack else ".txt", pack=pack)
    with pytest.raises(DataError, match=rf"train\.txt.*, line 1: .* give --data\.encoding={encoding}"):
        small(folder, level="character").vocabulary  # noqa: B018
    data = small(folder, level="character", encoding=encoding)
    assert "".join(said(data)) == CHINESE.replace("\n", "<eos>")
    with pytest.raises(DataError, match=r"--data\.encoding=gbbk: no such encoding"):
        small(folder, encoding="gbbk")


@pytest.mark.parametrize(
    "options",
    [{"min_count": 0}, {"max_words": 2}, {"unk_rate": 1.0}, {"segmenter": "no"}, {"level": "byte", "max_words": 9}],
)
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match=list(options)[-1]):
        TextDataModule("sample", **options)
    with pytest.raises(ValueError, match=r"segmenter \(jieba\) finds words"):
        TextDataModule("sample", level="character", segmenter="jieba")


# -------------------------------------------------------------------------------------------------------- the cache


def test_a_text_is_encoded_once_and_mapped(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "text").mkdir()
    folder = folder_of(tmp_path / "text", WORDS)
    first = small(folder).describe()
    corpus._read_files.cache_clear()
    monkeypatch.setattr(corpus, "encode_texts", None)  # would fail
    data = small(folder)
    assert data.describe() == first
    assert data.corpus.texts["train"].dtype == torch.uint16
    assert str(tmp_path / "cache") in Path("/proc/self/maps").read_text()
    corpus._read_files.cache_clear()


def test_many_words_need_larger_numbers(tmp_path):
    text = "\n".join(f"w{i}" for i in range(70_000))
    data = small(folder_of(tmp_path, text), level="word")
    assert data.corpus.texts["train"].dtype == torch.int32
    assert said(data)[-2:] == ["w69999", "<eos>"]
