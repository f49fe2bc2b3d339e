import numpy as np
import pytest

from readers.errors import DataError
from readers.word_vectors import read_word_vectors
from tests.conftest import SHARED

REAL = SHARED / "word_vectors"
WORDS = ["北京", "上海", "京", "a"]
VECTORS = np.arange(8, dtype=np.float32).reshape(4, 2) + 0.5


@pytest.fixture
def npz(tmp_path):
    np.savez(tmp_path / "v.npz", words=np.array(WORDS), vectors=VECTORS.astype(np.float16))
    return tmp_path / "v.npz"


def text_file(path, header):
    lines = [f"{word} {' '.join(map(str, row))}" for word, row in zip(WORDS, VECTORS.tolist(), strict=True)]
    path.write_text("\n".join([*([f"{len(WORDS)} 2"] if header else []), *lines]) + "\n", encoding="utf-8")
    return path


def test_all_formats_agree(npz, tmp_path):
    for file in (npz, text_file(tmp_path / "w2v.txt", True), text_file(tmp_path / "glove.txt", False)):
        words, vectors = read_word_vectors(file)
        assert words == WORDS
        assert vectors.dtype == np.float32
        assert np.array_equal(vectors, VECTORS)
        words, vectors = read_word_vectors(file, 2)
        assert (words, vectors.shape) == (WORDS[:2], (2, 2))


def test_blanks_in_words_and_repeated_words(tmp_path):
    file = tmp_path / "v.txt"
    file.write_text("a 1 2\n. . 3 4\na 5 6\n\n")
    words, vectors = read_word_vectors(file)
    assert words == ["a", ". ."]
    assert vectors.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a 1 2\nb 1\n", r"line 2: expected a word and 2 numbers"),
        (b"a 1 2\nb 1 x\n", r"line 2: expected a word and 2 numbers"),
        (b"\xff 1 2\n", r"line 1: not UTF-8"),
        (b"a\n", r"line 1: expected a word and 1 numbers"),
        (b"a 1 nan\n", r"the vector of a \(number 1\) is not finite"),
        (b"", r"has no word vectors"),
        (None, r"cannot read"),
    ],
    ids=str,
)
def test_bad_text(tmp_path, content, message):
    file = tmp_path / "v.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_word_vectors(file)
    assert "\n" not in str(caught.value)


def test_bad_npz(tmp_path):
    file = tmp_path / "v.npz"
    for arrays, message in (
        ({"words": np.array(WORDS)}, "needs the arrays words and vectors: vectors is missing"),
        ({"words": np.array(WORDS, object), "vectors": VECTORS}, "numbers and strings, not objects"),
        ({"words": np.array(WORDS), "vectors": VECTORS[:2]}, "must be strings"),
    ):
        np.savez(file, **arrays)
        with pytest.raises(DataError, match=message):
            read_word_vectors(file)
    file.write_bytes(b"nothing")
    with pytest.raises(DataError, match="not an npz"):
        read_word_vectors(file)
    with pytest.raises(DataError, match="cannot read"):
        read_word_vectors(tmp_path / "none.npz")


def test_a_folder_is_not_a_file(tmp_path):
    (tmp_path / "vectors.npz").mkdir()
    with pytest.raises(DataError, match=r"cannot read .*vectors.npz: Is a directory"):
        read_word_vectors(tmp_path / "vectors.npz")


@pytest.mark.skipif(not REAL.is_dir(), reason="no word vectors at hand")
def test_real_vectors():
    words, vectors = read_word_vectors(next(REAL.glob("*zh*.npz")), 1000)
    assert len(words) == len(vectors) > 990
    assert vectors.shape[1] == 100
