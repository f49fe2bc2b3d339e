"""Readers of texts: corpora, treebanks, formulas, prompts; each against a small independent parser."""

import re
import zipfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from datamodules.corpus import DataSet, read_corpus
from datamodules.token_ids import TextSettings
from readers.errors import DataError
from readers.lines import iterate_lines
from readers.logic import RELATIONS, VOCABULARY, WrittenPair, read_pairs, read_written_pair, word_numbers
from readers.text.treebank import WORD_TAGS, read_treebank
from tests.fuzz.fuzzing import broken, fuzz, outcome

WORDS = st.sampled_from(["the", "cat", "sat", "<unk>", "N", "it's", "中文", "naïve", "-"])
SENTENCES = st.lists(WORDS, min_size=1, max_size=6).map(" ".join)
TEXTS = st.lists(SENTENCES, min_size=1, max_size=4).map(lambda lines: "".join(f" {line} \n" for line in lines).encode())


def decoded(data: bytes) -> str | None:
    """The text, its lines ended by line feeds, or None if it isn't UTF-8, or seems to be UTF-16."""
    if b"\r" in data[:-1] and b"\n" not in data:  # as the old Macintosh ended lines
        data = data.replace(b"\r", b"\n")
    if any(line and 3 * line.count(0) >= len(line) for line in data.split(b"\n")):
        return None
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError:
        return None


# --------------------------------------------------------------------------------------------------------- corpora


@fuzz(60)
@given(data=broken(TEXTS), level=st.sampled_from(["word", "character"]))
def test_corpus(tmp_path_factory: pytest.TempPathFactory, data: bytes, level: str):
    folder = tmp_path_factory.mktemp("corpus")
    for split in ("train", "valid"):
        (folder / f"{split}.txt").write_text("a cat\n")
    (folder / "test.txt").write_bytes(data)
    corpus = outcome(lambda: read_corpus(str(folder), TextSettings(level), DataSet("a/b")), folder / "test.txt")
    text = decoded(data)
    lines = [line.strip() for line in text.split("\n") if line.strip()] if text is not None else []
    assert (corpus is None) == (not lines)
    if corpus is not None:
        known = set(corpus.vocabulary)
        tokens = [token for line in lines for token in (*(line.split() if level == "word" else line), "<eos>")]
        expected = [token if token in known else "<unk>" for token in tokens]
        assert [corpus.vocabulary[number] for number in corpus.texts["test"].tolist()] == expected
        assert corpus.lines["test"] == len(lines)


@fuzz(40)
@given(data=broken(TEXTS))
def test_lines(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_bytes(data)
    lines = outcome(lambda: [line for _, line in iterate_lines(path)], path)
    text = decoded(data)
    assert (lines is None) == (text is None)
    if text is not None:
        *whole, rest = text.split("\n")
        assert lines == [line.removesuffix("\r") for line in whole + [rest] * (rest != "")]


# -------------------------------------------------------------------------------------------------------- treebanks

LEAVES = st.tuples(
    st.sampled_from(["NN", "VB", "PRP$", ",", "-NONE-", "CD"]), st.sampled_from(["cat", "9,000", "*-1", "Ü"])
).map(lambda pair: "({} {})".format(*pair))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.tuples(st.sampled_from(["S", "NP-SBJ=2", "", "VP"]), st.lists(inner, min_size=1, max_size=3)).map(
        lambda pair: f"({pair[0]} {' '.join(pair[1])})"
    ),
    max_leaves=6,
)
TREEBANKS = st.lists(TREES, min_size=1, max_size=3).map(lambda trees: "\n".join(trees).encode())


def parse_trees(text: str) -> list[tuple] | None:
    """(words, spans) of each tree that has words; None for any other text. Recursive, unlike ours."""
    tokens = re.findall(r"[()]|[^\s()]+", text)
    found, place = [], 0

    def node(place: int, words: list[str], spans: dict) -> int:
        label = ""
        start = len(words)
        if tokens[place] not in "()":
            label, place = tokens[place], place + 1
            if tokens[place] not in "()":
                if WORD_TAGS.fullmatch(label):
                    words.append(re.sub("[0-9]+", "N", tokens[place].lower()))
                place += 1
        label = re.split("[-=]", label)[0]
        inner: dict = {}
        while tokens[place] == "(":
            place = node(place + 1, words, inner)
        if tokens[place] != ")":
            raise ValueError(place)
        here = (start, len(words))
        if here[1] - here[0] > 1:
            below = inner.pop(here, "")
            spans[here] = "+".join(filter(None, (label, below))) or "TOP"
        spans.update(inner)
        return place + 1

    try:
        while place < len(tokens):
            if tokens[place] != "(":
                return None
            words, spans = [], {}
            place = node(place + 1, words, spans)
            if words:
                ordered = sorted(spans, key=lambda span: (span[0], -span[1]))
                found.append((tuple(words), tuple((*span, spans[span]) for span in ordered)))
    except (IndexError, ValueError):
        return None
    return found or None


@fuzz(100)
@given(data=broken(TREEBANKS))
@example(data=b"(" * 50_000)
@example(data=b"(S " * 50_000 + b"(NN a) (NN b)" + b")" * 50_000)
def test_treebank(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    path = tmp_path_factory.mktemp("trees") / "trees.mrg"
    path.write_bytes(data)
    sentences = outcome(lambda: read_treebank(path), path)
    if data.count(b"(") > 300:  # too deep for this recursive parser
        return
    text = decoded(data)
    expected = parse_trees(text) if text is not None else None
    assert (sentences is None) == (expected is None)
    if sentences is not None:
        assert [tuple(sentence) for sentence in sentences] == expected


@fuzz(40)
@given(
    broke=st.data(),
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]),
)
def test_treebank_in_a_zip(tmp_path_factory: pytest.TempPathFactory, broke: st.DataObject, method: int):
    path = tmp_path_factory.mktemp("trees") / "trees.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a/b.mrg", "(S (NN cat) (VB sat))")
    path.write_bytes(broke.draw(broken(st.just(path.read_bytes()))))
    outcome(lambda: read_treebank(path), path)


def test_treebank_that_unpacks_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("readers.files.LARGEST_UNPACKED", 1 << 20)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.mrg", b" " * (1 << 22))
    assert outcome(lambda: read_treebank(path), path) is None


# --------------------------------------------------------------------------------------------------------- formulas

FORMULAS = st.recursive(
    st.sampled_from("abcdef"),
    lambda inner: st.one_of(
        inner.map(lambda part: f"( not {part} )"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda parts: f"( {' '.join(parts)} )"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda parts: "({} ({} {}))".format(*parts)),
    ),
    max_leaves=5,
)
PAIRS = st.lists(st.tuples(st.sampled_from(RELATIONS), FORMULAS, FORMULAS).map("\t".join), min_size=1, max_size=3).map(
    lambda lines: "\n".join(lines).encode()
)
KNOWN = ["(", ")", "not", "and", "or", *"abcdef"]


def parse_pairs(text: str) -> list[tuple] | None:
    pairs = []
    for line in text.split("\n"):
        if not line.strip():
            continue
        parts = [part.strip() for part in line.split("\t")]
        if len(parts) != 3 or parts[0] not in RELATIONS:
            return None
        formulas = [re.findall(r"[()]|[^\s()]+", part) for part in parts[1:]]
        for formula in formulas:
            depths = [formula[: i + 1].count("(") - formula[: i + 1].count(")") for i in range(len(formula))]
            if not set(formula) <= set(KNOWN) or not formula or min(depths) < 0 or depths[-1]:
                return None
        operations = max(sum(word in ("not", "and", "or") for word in formula) for formula in formulas)
        encoded = [bytes(KNOWN.index(word) + 1 for word in formula) for formula in formulas]
        pairs.append((*encoded, RELATIONS.index(parts[0]), operations))
    return pairs


def written_pairs(path: Path) -> list[WrittenPair]:
    numbers = word_numbers(VOCABULARY)
    lines = ((line, f"{path}, line {number}") for number, line in iterate_lines(path))
    return [read_written_pair(line, numbers, where) for line, where in lines if line.strip()]


@fuzz(100)
@given(data=broken(PAIRS))
def test_formulas(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    path = tmp_path_factory.mktemp("pairs") / "train0"
    path.write_bytes(data)
    text = decoded(data)
    pairs = outcome(lambda: read_pairs(path), path, line=True)
    expected = parse_pairs(text) if text is not None and len(text) < 2000 else None
    if text is None or len(text) < 2000:
        assert (None if pairs is None else [tuple(pair) for pair in pairs]) == expected
    if pairs is not None:
        asked = written_pairs(path)
        assert [(bytes(pair.premise), bytes(pair.hypothesis)) for pair in asked] == [pair[:2] for pair in pairs]


@fuzz(40)
@given(data=broken(PAIRS.map(lambda lines: re.sub(rb"(?m)^.\t", b"", lines))))
def test_formulas_whose_relation_is_asked_for(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    path = tmp_path_factory.mktemp("pairs") / "asked.txt"
    path.write_bytes(data)
    pairs = outcome(lambda: written_pairs(path), path, line=True)
    for pair in pairs or []:
        for formula, words in zip(pair.formulas, pair[1:], strict=True):
            assert [VOCABULARY[word] for word in words] == re.findall(r"[()]|[^\s()]+", formula)


# -------------------------------------------------------------------------------------------------------- no files


@pytest.mark.parametrize("make", ["folder", "loop", "nothing", "dangling"])
@pytest.mark.parametrize("reader", [read_pairs, lambda path: list(iterate_lines(path)), read_treebank])
def test_what_is_no_file(tmp_path: Path, make: str, reader):
    path = tmp_path / "it.mrg"
    make_no_file(path, make)
    with pytest.raises(DataError, match=r"it\.mrg"):
        reader(path)


def make_no_file(path: Path, what: str) -> None:
    if what == "folder":
        path.mkdir()
    elif what == "loop":
        path.symlink_to(path)
    elif what == "dangling":
        path.symlink_to(path.with_name("nowhere"))
