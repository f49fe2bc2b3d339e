import os
import warnings
from pathlib import Path

import pytest
import torch

from datamodules import DataError, TextDataModule
from datamodules import corpus as corpus_module
from datamodules.samples.grammar import make_sentences, plural, third_person
from tests.conftest import SHARED

needs_ptb = pytest.mark.skipif(not (SHARED / "ptb").is_dir(), reason="no copy of PTB at hand")

LINES = {
    "train": " the cat sat <unk> N times \n\nthe dog sat \n",
    "valid": "a cat ran\n",
    "test": "the dog\nran a lot\n",
}
VOCABULARY = ["the", "cat", "sat", "<unk>", "N", "times", "<eos>", "dog"]  # of the training text


@pytest.fixture
def folder(tmp_path):
    for split, text in LINES.items():
        (tmp_path / f"ptb.{split}.txt").write_text(text)
    return tmp_path


def small(source, **options):
    options = {"batch_size": 2, "eval_batch_size": 1, "bptt": 5} | options
    return TextDataModule(str(source), **options)


def said(data, split):
    return [data.vocabulary[number] for number in data.corpus.texts[split].tolist()]


def test_words_of_a_folder(folder):
    data = small(folder)
    assert data.vocabulary == VOCABULARY
    assert data.vocab_size == 8
    assert said(data, "train") == "the cat sat <unk> N times <eos> the dog sat <eos>".split()  # noqa: SIM905
    assert said(data, "test") == "the dog <eos> <unk> <unk> <unk> <eos>".split()  # noqa: SIM905
    batch = next(iter(data.train_dataloader()))
    assert batch.inputs.shape == batch.targets.shape == (2, 4)
    assert [type(loader).__name__ for loader in data.test_dataloader()] == ["ContiguousLoader"]
    about = data.describe()
    assert (about["train_lines"], about["train_tokens"], about["gold_trees"]) == (2, 11, 0)


def test_characters_of_a_folder(folder):
    data = small(folder, level="character")
    assert "".join(said(data, "valid")) == "a cat <unk>an<eos>"
    assert "".join(said(data, "train")) == "the cat sat <unk> N times<eos>the dog sat<eos>"
    assert data.vocabulary[-1] == "<unk>"
    assert len(set(data.vocabulary)) == data.vocab_size


def test_unk_is_always_known(folder):
    (folder / "ptb.train.txt").write_text("no such word\nin here")
    assert small(folder).vocabulary[-1] == "<unk>"


@pytest.mark.parametrize("names", [("my-train", "my-dev", "my-test"), ("train", "val.x", "x_test")])
def test_files_by_the_names_of_their_splits(folder, names):
    for split, name in zip(LINES, names, strict=True):
        (folder / f"ptb.{split}.txt").rename(folder / f"{name}.txt")
    (folder / "notes.txt").write_text("nothing of interest")
    assert small(folder).vocabulary == VOCABULARY


def test_a_changed_file_is_read_again(folder):
    assert small(folder).vocab_size == 8
    file = folder / "ptb.train.txt"
    file.write_text("new words, read anew\n")
    os.utime(file, (1, 1))
    assert "new" in small(folder).vocabulary


def test_lines_at_the_beginning_can_be_dropped(folder):
    data = small(folder, drop_first_train_lines=1)
    assert said(data, "train") == ["the", "dog", "sat", "<eos>"]
    assert data.vocabulary == VOCABULARY  # the same model fits both
    assert data.describe()["train_lines"] == 1
    with pytest.raises(DataError, match=r"ptb.train.txt has 2 lines: lower data.drop_first_train_lines \(2\)"):
        small(folder, drop_first_train_lines=2).setup()


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["ptb.train.txt", "is empty"]),
        (b" \n\n", ["ptb.train.txt", "is empty"]),
        (b"hi\n", ["ptb.train.txt", "2 tokens", "too few for 2 rows", "lower data.batch_size"]),
        (b"good\nbad \xff word\n", ["ptb.train.txt, line 2", "0xff", "not UTF-8"]),
        (None, ["no file *train*.txt"]),
    ],
    ids=["empty", "blank", "short", "not UTF-8", "missing"],
)
def test_bad_text_gets_one_line(folder, content, parts):
    if content is None:
        (folder / "ptb.train.txt").unlink()
    else:
        (folder / "ptb.train.txt").write_bytes(content)
    with pytest.raises(DataError) as caught:
        small(folder).train_dataloader()
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_batch_size_above_the_number_of_tokens(folder):
    with pytest.raises(DataError, match=r"ptb.train.txt has 11 tokens .*too few for 50 rows"):
        small(folder, batch_size=50).train_dataloader()


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_text_too_short_for_judging_is_refused_before_training(folder, split):
    sizes = {"valid": "eval_batch_size", "test": "test_batch_size"}
    data = small(folder, **{sizes[split]: 8})
    with pytest.raises(DataError, match=rf"ptb.{split}.txt has \d tokens .*too few for 8 rows"):
        data.setup("fit")


TREE = "((S (NP (DT the) (NN dog)) (VP (VBD sat) (RB quietly) (RB today))))\n"


def test_a_treebank_takes_the_place_of_the_samples_trees(tmp_path):
    (tmp_path / "one.mrg").write_text(TREE)
    sizes = {"sample_train_size": 60, "sample_test_size": 20}
    assert len(TextDataModule("sample", **sizes).trees) == 20
    data = TextDataModule("sample", **sizes, treebank=tmp_path / "one.mrg")
    (batch,) = data.test_dataloader()[1]
    assert batch.words == (("the", "dog", "sat", "quietly", "today"),)


def test_a_treebank_of_other_words_is_warned_of(folder):
    (folder / "one.mrg").write_text(TREE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small(folder, treebank=folder / "one.mrg").setup("test")  # three of five words are known
    (folder / "one.mrg").write_text(TREE.replace("dog", "shark"))
    with pytest.warns(UserWarning, match=r"3 of 5 words of .*one.mrg are not in the vocabulary"):
        small(folder, treebank=folder / "one.mrg").setup("test")


def test_the_name_of_a_split_may_be_part_of_other_words(folder):
    for split in ("train", "valid", "test"):
        (folder / f"ptb.{split}.txt").rename(folder / f"contest-strained.{split}.txt")
    corpus = small(folder).corpus
    assert [Path(corpus.names[split]).name.split(".")[1] for split in corpus.texts] == ["train", "valid", "test"]


def test_bad_folders_get_one_line(folder):
    with pytest.raises(DataError, match="nowhere does not exist; give a folder"):
        small(folder / "nowhere").setup()
    os.mkfifo(folder / "pipe")
    with pytest.raises(DataError, match="pipe is a pipe or a device; give a folder"):
        small(folder / "pipe").setup()
    (folder / "._ptb.train.txt").write_bytes(b"\0\5\x16")  # as the Macintosh leaves them
    (folder / "ptb.train.txt").rename(folder / "train1.txt")
    (folder / "train2.txt").write_text("x")
    with pytest.raises(DataError, match=r"has train1.txt and train2.txt for train; leave only one"):
        small(folder).setup()


@pytest.mark.parametrize(
    "options",
    [{"bptt": 0}, {"level": "syllable"}, {"order": "any"}, {"seed": -1}, {"level": "character", "treebank": Path("x")}],
    ids=str,
)
def test_arguments_out_of_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        TextDataModule("sample", **options)


def data_set_of(column):
    import datasets

    names = {"train": "train", "validation": "valid", "test": "test"}
    parts = {name: datasets.Dataset.from_dict({column: LINES[split].split("\n")}) for name, split in names.items()}
    return datasets.DatasetDict(parts)


def test_hub(monkeypatch):
    asked = []

    def load(hub_id, config):
        asked.append((hub_id, config))
        return data_set_of("sentence")

    monkeypatch.setattr(corpus_module, "load_from_hub", load)
    corpus_module._read_hub.cache_clear()
    assert small("hub").vocabulary == VOCABULARY
    assert small("hub", hub_id="Salesforce/wikitext", hub_config="wikitext-2-v1").vocabulary == VOCABULARY
    assert asked == [("ptb-text-only/ptb_text_only", None), ("Salesforce/wikitext", "wikitext-2-v1")]
    corpus_module._read_hub.cache_clear()


def test_bytes_of_data_sets_are_those_of_files(tmp_path):
    import datasets

    lines = {"train": ["é中a", "b"], "valid": ["中"], "test": ["a"]}
    for name, texts in lines.items():
        for folder in ("files", "parquet"):
            (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / "files" / f"{name}.txt").write_text("".join(f"{text}\n" for text in texts))
        split = {"valid": "validation"}.get(name, name)
        datasets.Dataset.from_dict({"text": texts}).to_parquet(tmp_path / "parquet" / f"{split}.parquet")
    ours, theirs = (TextDataModule(str(tmp_path / folder), "byte").corpus for folder in ("parquet", "files"))
    for name, texts in lines.items():
        assert torch.equal(ours.texts[name], theirs.texts[name])
        numbers = [byte for text in texts for byte in text.encode()]
        tokens = [ours.vocabulary[token] for token in ours.texts[name].tolist()]
        assert [token for token in tokens if token != "<eos>"] == [*map(chr, numbers)]


def test_parquet_folder_in_wikitext_layout(tmp_path):
    for config in ("wikitext-2-v1", "wikitext-103-v1"):
        (tmp_path / config).mkdir()
        for name, part in data_set_of("text").items():
            part.to_parquet(tmp_path / config / f"{name}-00000-of-00001.parquet")
    data = small(str(tmp_path), hub_config="wikitext-2-v1")
    assert data.vocabulary == VOCABULARY
    whole = small(str(tmp_path / "wikitext-103-v1"))
    assert whole.vocabulary == VOCABULARY
    with pytest.raises(DataError, match=r"has the columns text: set data\.text_column"):
        small(str(tmp_path / "wikitext-2-v1"), text_column="sentence").vocabulary  # noqa: B018
    (tmp_path / "wikitext-2-v1" / "train-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match="has no split train, only validation, test; it needs train, valid, test"):
        small(str(tmp_path), hub_config="wikitext-2-v1").vocabulary  # noqa: B018


def test_the_column_of_text(tmp_path):
    import datasets

    for name in ("train", "valid", "test"):
        columns = {"id": [1, 2], "body": [f"{name} a", "b"]}
        datasets.Dataset.from_dict(columns).to_parquet(tmp_path / f"{name}.parquet")
    assert said(small(tmp_path, text_column="body"), "test") == ["<unk>", "a", "<eos>", "b", "<eos>"]
    with pytest.raises(DataError, match=r"has the columns id, body: set data\.text_column to the one with text"):
        small(tmp_path).corpus  # noqa: B018
    with pytest.raises(DataError, match=r"the column id of train is not text: set data\.text_column"):
        small(tmp_path, text_column="id").corpus  # noqa: B018


# --------------------------------------------------------------------------------------------------------------- sample


def test_sample_depends_on_its_seed_alone():
    first = TextDataModule("sample", sample_train_size=200, sample_test_size=50)
    again = TextDataModule("sample", sample_train_size=200, sample_test_size=50)
    other = TextDataModule("sample", sample_train_size=200, sample_test_size=50, seed=1)
    assert first.describe() == again.describe()
    assert first.describe()["fingerprint"] != other.describe()["fingerprint"]
    assert first.corpus.lines == {"train": 200, "valid": 50, "test": 50}


def test_sample_is_a_language():
    sentences = make_sentences(3000, 0, "train")
    lengths = [len(sentence.words) for sentence in sentences]
    assert 300 < len({word for sentence in sentences for word in sentence.words}) < 500
    assert 9 < sum(lengths) / len(lengths) < 16
    labels = {label for sentence in sentences for *_, label in sentence.spans}
    assert {"S", "NP", "VP", "PP", "SBAR", "ADJP"} <= labels
    test = make_sentences(300, 0, "test", sentences)
    assert not {sentence.words for sentence in test} & {sentence.words for sentence in sentences}


def test_sample_agrees_in_number():
    """A noun phrase "the NOUN" before a verb: both singular or both plural."""
    from datamodules.samples.grammar import NOUNS, TRANSITIVE

    nouns = {plural(noun): True for kind in NOUNS.values() for noun in kind}
    nouns |= {noun: False for kind in NOUNS.values() for noun in kind}
    verbs = {verb: True for *_, part in TRANSITIVE for verb in part}
    verbs |= {third_person(verb): False for verb in list(verbs)}
    assert plural("valley") == "valleys"
    assert [third_person(verb) for verb in ("carry", "buy", "watch")] == ["carries", "buys", "watches"]
    checked = 0
    for sentence in make_sentences(1500, 3, "train"):
        words = sentence.words
        if len(words) > 2 and words[0] in ("the", "some", "every") and words[1] in nouns and words[2] in verbs:
            assert nouns[words[1]] == verbs[words[2]], words
            checked += 1
    assert checked > 30


def test_sample_trees_are_nested_and_whole():
    for sentence in make_sentences(300, 1, "train"):
        spans = [span[:2] for span in sentence.spans]
        assert spans[0] == (0, len(sentence.words))
        assert len(set(spans)) == len(spans)
        for start, end in spans:
            assert 0 <= start < end - 1 < len(sentence.words)
            assert not any(start < other_start < end < other_end for other_start, other_end in spans)


def test_parse_batches_of_the_sample():
    data = TextDataModule("sample", sample_train_size=200, sample_test_size=30)
    tokens, parses = data.test_dataloader()
    assert next(iter(tokens)).inputs.shape == (1, 70)
    seen = 0
    for batch in parses:
        seen += len(batch.words)
        assert batch.inputs.dtype == batch.lengths.dtype == torch.int64
        assert batch.inputs.shape == (len(batch.words), int(batch.lengths.max()) + 2)
        for row, length, words, spans in zip(*batch, strict=True):
            assert length == len(words)
            known = [word if word in data.vocabulary else "<unk>" for word in words]
            filled = ["<eos>"] * (len(row) - len(words) - 1)
            assert [data.vocabulary[number] for number in row.tolist()] == ["<eos>", *known, *filled]
            assert (0, len(words)) == spans[0][:2]
    assert seen == 30
    assert len(TextDataModule("sample", level="character", sample_train_size=99).test_dataloader()) == 1


# ------------------------------------------------------------------------------------------------------------ real data


@needs_ptb
def test_penn_treebank_has_the_known_sizes():
    data = TextDataModule(str(SHARED / "ptb"), drop_first_train_lines=0)
    about = data.describe()
    assert data.vocab_size == 10_000
    assert [about[f"{split}_tokens"] for split in ("train", "valid", "test")] == [929_589, 73_760, 82_430]
    assert [about[f"{split}_lines"] for split in ("train", "valid", "test")] == [42_068, 3_370, 3_761]
    assert sum(batch.targets.numel() for batch in data.test_dataloader()[0]) == 82_429
    held_out = TextDataModule(str(SHARED / "ptb"), drop_first_train_lines=3914)
    first = (SHARED / "ptb" / "ptb.train.txt").read_text().splitlines()[3914].split()
    assert said(held_out, "train")[: len(first) + 1] == [*first, "<eos>"]
    assert held_out.describe()["train_lines"] == 42_068 - 3914


@needs_ptb
def test_penn_treebank_by_characters():
    data = TextDataModule(str(SHARED / "ptb"), level="character", order="random", bptt=150)
    assert data.vocab_size == 51  # 49 characters, <eos> and <unk>
    assert [len(text) for text in data.corpus.texts.values()] == [5_017_482, 393_042, 442_423]
    assert next(iter(data.train_dataloader())).inputs.shape == (20, 150)
