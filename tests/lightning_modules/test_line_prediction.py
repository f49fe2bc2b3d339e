"""Prediction of files line by line: aligned, in pieces, interrupted and continued."""

import gzip
import os

import pytest

from lightning_modules.prediction.lines import BATCHES_PER_BLOCK, LineCounts, predict_lines
from readers.errors import DataError

BLOCK = BATCHES_PER_BLOCK * 2  # lines, with two items a batch


class Reverser:
    """Writes a line backwards, after the number of items before its batch; ``bad`` is a bad line."""

    def __init__(self, broken_at: int | None = None) -> None:
        self.batches, self.broken_at = [], broken_at

    def read(self, line: str, where: str) -> str | list[str]:
        if line == "bad":
            raise DataError(f"{where}: bad")
        return [line] if line else ""

    def predict(self, items: list[list[str]], first: int) -> list[str]:
        if self.broken_at == len(self.batches):
            raise KeyboardInterrupt
        self.batches.append([line for (line,) in items])
        return [f"{first} {line[::-1]}" for (line,) in items]

    def __call__(self, source, output, **options) -> LineCounts:
        size = {"size": lambda item: len(item[0]), "batch_size": 2}
        return predict_lines(source, output, self.read, self.predict, **size, **options)


def texts(count: int) -> list[str]:
    return ["" if i % 7 == 3 else "ab" * (i % 5) + str(i) for i in range(count)]


def write(path, lines, pack=False):
    data = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if pack else data)
    return path


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    source, model = write(tmp_path / "in", ["ab"]), Reverser()
    (tmp_path / "far").mkdir()
    link, target = tmp_path / "out.gz", tmp_path / "far" / "target"
    link.symlink_to(target)
    for _ in range(2):  # the first makes the target
        model(source, link)
        assert link.is_symlink()
        assert gzip.decompress(target.read_bytes()) == b"0 ba\n"
        target.write_text("old")
    model.broken_at = 2
    with pytest.raises(KeyboardInterrupt):
        model(source, link)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["far", "in", "out.gz", "target", "target.part"]


def test_a_pipe_is_no_output(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe is not a file"):
        Reverser()(write(tmp_path / "in", ["ab"]), tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("pack", [False, True])
def test_lines_stay_aligned_and_batches_hold_similar_sizes(tmp_path, pack):
    lines = texts(3 * BLOCK + 5)
    source, output = write(tmp_path / "in", lines, pack), tmp_path / ("out.gz" if pack else "out.txt")
    model = Reverser()
    counts = model(source, output)
    written = (gzip.decompress(output.read_bytes()) if pack else output.read_bytes()).decode().split("\n")
    assert written.pop() == ""
    assert [line.partition(" ")[2] for line in written] == [line[::-1] for line in lines]
    assert [line for line, text in zip(written, lines, strict=True) if not text] == [""] * lines.count("")
    assert counts == LineCounts(len(lines), 0, 0)
    assert max(map(len, model.batches)) == 2
    sizes = [len(line) for batch in model.batches[:10] for line in batch]
    assert sizes == sorted(sizes)
    assert [path.name for path in tmp_path.glob("*.part")] == []


@pytest.mark.parametrize("ending", ["txt", "txt.gz"])
def test_an_interrupted_prediction_goes_on_and_gives_the_same_file(tmp_path, ending):
    source, output = write(tmp_path / "in", texts(4 * BLOCK)), tmp_path / f"out.{ending}"
    Reverser()(source, output)
    expected, part = output.read_bytes(), tmp_path / f"out.{ending}.part"
    output.write_bytes(b"earlier")
    with pytest.raises(KeyboardInterrupt):
        Reverser(broken_at=35)(source, output)
    assert output.read_bytes() == b"earlier"
    whole = part.read_bytes()
    assert expected.startswith(whole)
    for torn in (whole + expected[len(whole) : len(whole) + 9], whole):  # killed while it wrote a block
        part.write_bytes(torn)
        again = Reverser()
        counts = again(source, output, resume=True)
        assert output.read_bytes() == expected
        assert 0 < counts.before < counts.lines == 4 * BLOCK
        assert counts.before % BLOCK == 0
        assert f"the first {counts.before} lines were there already" in counts.remarks
        assert not part.exists()
    assert Reverser()(source, output, resume=True).before == 0


def test_a_bad_line_stops_with_what_is_before_it_or_is_named_and_skipped(tmp_path, capsys):
    lines = [*texts(BLOCK + 3), "bad", "last"]
    source, output, part = write(tmp_path / "in", lines), tmp_path / "out.txt", tmp_path / "out.txt.part"
    with pytest.raises(DataError, match=rf"in, line {BLOCK + 4}: bad; the {BLOCK + 3} lines before .*--continue"):
        Reverser()(source, output)
    assert len(part.read_text().splitlines()) == BLOCK + 3
    assert not output.exists()
    counts = Reverser()(source, output, on_error="skip", resume=True)
    assert counts == LineCounts(len(lines), 1, BLOCK)
    assert counts.remarks.startswith(", 1 bad line skipped")
    assert output.read_text().splitlines()[-2:] == ["", f"{BLOCK} tsal"]
    assert f"skipped: {source}, line {BLOCK + 4}: bad" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"line 1: bad$"):
        Reverser()(write(source, ["bad"]), tmp_path / "other.txt")
    assert not (tmp_path / "other.txt.part").exists()


def test_a_line_in_another_encoding_is_a_bad_line(tmp_path, capsys):
    source, output = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"one\n" + "中文文本".encode("gbk") + b"\ntwo\n")
    with pytest.raises(DataError, match=r"in, line 2: the byte 0xd6 is not UTF-8.* --encoding=gbk"):
        Reverser()(source, output)
    Reverser()(source, output, on_error="skip")
    assert output.read_text() == "0 eno\n\n0 owt\n"
    assert "line 2" in capsys.readouterr().err
    Reverser()(source, output, encoding="gbk")
    assert output.read_text().splitlines()[1].endswith("本文文中")


def test_a_part_of_another_file_is_refused(tmp_path):
    source, output = write(tmp_path / "in", ["a"]), tmp_path / "out"
    write(tmp_path / "out.part", texts(BLOCK))
    with pytest.raises(DataError, match=r"out\.part has more lines than .*leave out --continue"):
        Reverser()(source, output, resume=True)
    assert len((tmp_path / "out.part").read_text().splitlines()) == BLOCK


def test_broken_gzip_keeps_what_is_done(tmp_path):
    whole = write(tmp_path / "in.gz", texts(20 * BLOCK), pack=True)
    whole.write_bytes(whole.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"in\.gz is broken: gzip cannot unpack it.*lines before it are in"):
        Reverser()(whole, tmp_path / "out")
    with pytest.raises(DataError, match=r"go on with --continue$"):
        Reverser()(whole, tmp_path / "out", on_error="skip")
