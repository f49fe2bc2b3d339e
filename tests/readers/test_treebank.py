import zipfile

import pytest

from readers.errors import DataError
from readers.text.treebank import read_mrg, read_treebank
from tests.conftest import SHARED

TREEBANK = SHARED / "treebank" / "treebank.zip"

TEXT = """
( (S
    (NP-SBJ-1 (NNP Mr.) (NNP Fox) )
    (, ,)
    (VP (VBD earned)
      (NP ($ $) (CD 1.5) (-NONE- *U*) )
      (S (NP-SBJ (-NONE- *-1) )
        (VP (TO to) (VP (VB buy) (NP=2 (DT a) (NN 747-400) )))))
    (. .) ))
( (. .) )
( (FRAG (UH Yes) (. !) ))
"""


def test_filter_and_spans_by_hand():
    first, last = read_mrg(TEXT, "text")
    assert first.words == ("mr.", "fox", "earned", "N.N", "to", "buy", "a", "N-N")
    assert first.spans == (
        (0, 8, "S"),
        (0, 2, "NP"),
        (2, 8, "VP"),
        (4, 8, "S+VP"),
        (5, 8, "VP"),
        (6, 8, "NP"),
    )
    assert last == (("yes",), ())


def test_folder_zip_and_file_are_the_same(tmp_path):
    folder = tmp_path / "combined"
    (folder / "deep").mkdir(parents=True)
    for name in ("wsj_0001.mrg", "deep/wsj_0002.mrg"):
        (folder / name).write_text(TEXT)
    (folder / "README").write_text("((( not a tree")
    with zipfile.ZipFile(tmp_path / "trees.zip", "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, f"treebank/{file.relative_to(tmp_path)}")
    assert read_treebank(folder) == read_treebank(tmp_path / "trees.zip") == 2 * read_treebank(folder / "wsj_0001.mrg")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("((S (NN a)))\n\n((S (NN b))\n", r"wsj.mrg, line 3: the bracket that begins here is never closed"),
        ("((S (NN a)))\n)\n", r"wsj.mrg, line 2: a \) without its \("),
        ("((S (NN a)))\n((S (NN b c)))", r"wsj.mrg, line 2: c is not a word in brackets with its tag"),
        ("((S (NN a) b))", r"wsj.mrg, line 1: b is not a word"),
        ("a sentence", r"wsj.mrg, line 1: a is not a word"),
        ("", "no parsed sentence"),
    ],
)
def test_bad_trees_get_one_line(tmp_path, text, message):
    (tmp_path / "wsj.mrg").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_treebank(tmp_path)
    assert "\n" not in str(caught.value)


def test_unreadable_treebanks_get_one_line(tmp_path):
    with pytest.raises(DataError, match=r"data.treebank: .*nowhere does not exist"):
        read_treebank(tmp_path / "nowhere")
    with pytest.raises(DataError, match="has no parsed sentence"):
        read_treebank(tmp_path)
    (tmp_path / "a.zip").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"cannot read .*a.zip"):
        read_treebank(tmp_path / "a.zip")
    (tmp_path / "b.mrg").write_bytes(b"((S (NN a)))\n((S (NN \xe9)))")
    with pytest.raises(DataError, match=r"b.mrg, line 2: the byte 0xe9 is not UTF-8"):
        read_treebank(tmp_path / "b.mrg")


def test_trees_of_any_depth():
    text = "(X (NN a) " * 4000 + "(NN b)" + ")" * 4000
    (sentence,) = read_mrg(text, "text")
    assert len(sentence.words) == 4001
    assert len(sentence.spans) == 4000


@pytest.mark.skipif(not TREEBANK.is_file(), reason="no copy of the treebank sample at hand")
def test_the_sample_has_the_known_sizes():
    sentences = read_treebank(TREEBANK)
    lengths = [len(sentence.words) for sentence in sentences]
    assert len(lengths) == 3914
    assert (sum(lengths), max(lengths), sum(length <= 10 for length in lengths)) == (82_369, 171, 555)


@pytest.mark.skipif(not TREEBANK.is_file(), reason="no copy of the treebank sample at hand")
def test_against_nltk():
    """Words and spans as NLTK's own reader gives them, filtered here in another way."""
    nltk = pytest.importorskip("nltk")
    with zipfile.ZipFile(TREEBANK) as archive:
        text = archive.read("treebank/combined/wsj_0003.mrg").decode()
    trees = [tree[0] for tree in nltk.Tree.fromstring(f"(ALL {text})")]
    ours = list(read_mrg(text, "wsj_0003.mrg"))
    assert len(ours) == len(trees)
    dropped = {",", ".", "-NONE-", "``", "''", "$", ":", "-LRB-", "-RRB-", "#"}
    for tree, sentence in zip(trees, ours, strict=True):
        kept = [place for place, (_, tag) in enumerate(tree.pos()) if tag not in dropped]
        expected = set()
        for position in tree.treepositions():
            if isinstance(tree[position], nltk.Tree) and tree[position].height() > 2:
                inside = [
                    kept.index(place) for place in kept if tree.leaf_treeposition(place)[: len(position)] == position
                ]
                if len(inside) > 1:
                    expected.add((inside[0], inside[-1] + 1))
        assert {span[:2] for span in sentence.spans} == expected
