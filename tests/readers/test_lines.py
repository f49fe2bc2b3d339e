"""Lines of text files in any encoding, and the encoding that a message proposes."""

import bz2
import gzip
import lzma

import pytest

from readers import lines
from readers.encodings import check_encoding, decode_text, propose
from readers.errors import DataError
from readers.lines import iterate_lines

CHINESE = "我爱北京天安门。\n他喝清河大曲酒。\n"
LINES = ["one\ttwo ", "", "  中文 é", "a\u2028b\x85c"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "UTF_32", "gb18030"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "end"])
@pytest.mark.parametrize("pack", [False, True])
def test_lines(tmp_path, encoding, end, last, pack):
    data = (end.join(LINES) + end + last).encode(encoding)
    (tmp_path / "f").write_bytes(gzip.compress(data) if pack else data)
    expected = LINES + [last] * bool(last)
    assert list(iterate_lines(tmp_path / "f", encoding)) == list(enumerate(expected, 1))


@pytest.mark.parametrize("pack", [False, True])
def test_lines_that_end_in_carriage_returns(tmp_path, monkeypatch, pack):
    monkeypatch.setattr(lines, "CHUNK", 5)
    data = "\r".join([*LINES, "end"]).encode()
    (tmp_path / "f").write_bytes(gzip.compress(data) if pack else data)
    assert list(iterate_lines(tmp_path / "f")) == list(enumerate([*LINES, "end"], 1))


def test_utf8_is_proposed(tmp_path):
    (tmp_path / "f").write_text(CHINESE, encoding="utf-8")
    with pytest.raises(DataError, match=r"is not gbk; .* or give --data\.encoding=utf-8, which it seems to be"):
        list(iterate_lines(tmp_path / "f", "gbk"))


@pytest.mark.parametrize(
    ("text", "encoding", "proposed"),
    [
        (CHINESE, "gbk", "gbk"),
        (CHINESE, "gb18030", "gbk"),
        (CHINESE, "utf-16", "utf-16"),
        ("the cat\n", "utf-16-le", "utf-16-le"),
        ("the cat\n", "utf-16-be", "utf-16-be"),
        ("écrit à la crème brûlée, déjà préparée\n", "latin-1", "cp1252"),
        ("“quoted” – naïve\n", "cp1252", "cp1252"),
    ],
)
def test_the_encoding_that_a_text_has_is_proposed(text, encoding, proposed):
    assert propose(text.encode(encoding)) == proposed
    with pytest.raises(DataError, match=rf"^f, line 1: the byte 0x\w\w is not UTF-8; .* --data\.encoding={proposed}, "):
        decode_text(text.encode(encoding), "f", option="--data.encoding")
    assert text in decode_text(text.encode(encoding), "f", proposed).removeprefix("\ufeff")


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (bz2.compress(b"one\n"), "packed with bzip2"),
        (lzma.compress(b"one\n"), "packed with xz"),
        (b"PK\x03\x04\x14\0", "a zip archive"),
        (b"%PDF-1.7\n", "a PDF"),
    ],
)
def test_what_holds_texts_is_named(tmp_path, content, name):
    (tmp_path / "f").write_bytes(content)
    for encoding in ("utf-8", "gbk"):
        with pytest.raises(DataError, match=f"f is {name}: give the text in it, plain or gzipped"):
            list(iterate_lines(tmp_path / "f", encoding))
    assert list(iterate_lines(tmp_path / "f", "latin-1"))  # of bytes anything is a text


def test_what_is_no_text_is_refused(tmp_path):
    (tmp_path / "f").write_bytes(b"one\n\x00\xff\x00\x81 and much more text that has no zero bytes")
    with pytest.raises(DataError, match=r"f, line 2: the byte 0xff is not UTF-8; save the file as UTF-8$"):
        list(iterate_lines(tmp_path / "f"))
    (tmp_path / "f").write_bytes(b"a\0\n\0" + b"\0\xd8" * 2)  # halves of a pair
    with pytest.raises(DataError, match=r"f, after line \d+: not utf-16-le; name another encoding by --data\.encoding"):
        list(iterate_lines(tmp_path / "f", "utf-16-le"))
    for wrong in ("gbkk", "rot13", ""):
        with pytest.raises(DataError, match=f"--data.encoding={wrong}: no such encoding"):
            check_encoding(wrong)
