"""The training, validation and test text of a language model: three files of a folder, or parts of one file."""

import re
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ..errors import DataError
from ..lines import TextFile

SPLITS = {"train": ("train",), "valid": ("valid", "val", "dev"), "test": ("test",)}
ENDINGS = (".txt", ".tokens", ".raw")  # the latter two are WikiText's; each may be gzipped
FEW = 10_000  # lines: a twentieth of more is taken to have some with text
HELD_OUT = 0.05  # of the lines of a single file, for each of validation and test


def find_texts(folder: Path, whole: bool = False) -> dict[str, Path]:
    """The files ``ptb.{train,valid,test}.txt`` of a folder, else its texts named after the three splits; a single file
    is all three.

    Args:
        folder: a folder or a file.
        whole: a text is only to be measured: of a folder that lacks one of the three, the test text alone, or else the
            validation text, or the only one; a single file is the test text.

    Raises:
        DataError: there is no such folder, or a split doesn't have exactly one file.
    """
    if folder.is_file():
        if folder.suffix.lower() == ".parquet":
            raise DataError(
                f"data.source: {folder} is one parquet file; give a folder with those of train, valid and test"
            )
        if whole:
            return {"test": folder}
        return dict.fromkeys(SPLITS, folder)
    if not folder.is_dir():
        problem = "is a pipe or a device" if folder.exists() else "does not exist"  # it is read several times
        raise DataError(
            f"data.source: {folder} {problem}; give a folder with a train, a valid and a test .txt, one text file "
            "(whose end is held out), hub, or sample"
        )
    texts = sorted(path for path in folder.iterdir() if _stem(path) is not None and path.is_file())
    found = {}
    for split, parts in SPLITS.items():
        exact = folder / f"ptb.{split}.txt"
        fit = [exact] if exact in texts else _named(texts, "|".join(parts))
        if not fit and whole:
            continue
        if not fit:
            endings = ", ".join(ENDINGS)
            raise DataError(
                f"{folder} has no file *{split}*.txt; it needs a train, a valid and a test file ({endings}; or .gz); "
                "of a single file given as data.source the end is held out"
            )
        if len(fit) > 1:
            raise DataError(f"{folder} has {fit[0].name} and {fit[1].name} for {split}; leave only one of them there")
        found[split] = fit[0]
    if whole and len(found) < len(SPLITS):
        only = next((found[split] for split in ("test", "valid") if split in found), None)
        if only is None and len(texts) != 1:
            raise DataError(
                f"{folder} has no text to measure: it needs a file *test*.txt ({', '.join(ENDINGS)}; or .gz)"
            )
        return {"test": only or texts[0]}
    return found


def lines_of(file: Path, encoding: str = "utf-8") -> Iterator[str]:
    """The lines of a text, as it is read.

    Raises:
        DataError: it can't be read or decoded; the message names the line.
    """
    with TextFile(file, encoding) as lines:
        for _, line in lines:
            if isinstance(line, DataError):
                raise line
            yield line


def parts_of(file: Path, encoding: str = "utf-8", blank_lines: bool = True) -> dict[str, Iterator[str]]:
    """The lines of a single text for the three splits, to be read in this order: its last twentieth is the test text,
    the one before it the validation text.

    Args:
        file: the text.
        encoding: of the file.
        blank_lines: they are text; else, in a short text, the parts begin where each has other lines.

    Raises:
        DataError: as ``lines_of``, or it has too few lines.
    """
    count, written = 0, deque[int](maxlen=FEW)  # numbers of the lines with text, all of them in a short file
    for line in lines_of(file, encoding):
        if blank_lines or line.strip():
            written.append(count)
        count += 1
    if len(written) < 3:
        raise DataError(
            f"{file} has {len(written)} line{'s' * (len(written) != 1)}{' of text' * (len(written) < count)}, too few "
            "to hold out some: give a folder with a train, a valid and a test text"
        )
    held_out = max(1, round(HELD_OUT * count))
    valid, test = count - 2 * held_out, count - held_out  # their first lines
    if len(written) < FEW:
        test = min(max(test, written[1] + 1), written[-1])
        valid = min(max(valid, written[0] + 1), written[bisect_left(written, test) - 1])
    lines = lines_of(file, encoding)
    return {"train": islice(lines, valid), "valid": islice(lines, test - valid), "test": lines}


def is_wikitext(name: str) -> bool:
    """Whether a file or data set is WikiText by its name, where blank lines are tokens."""
    return name.startswith("wiki.") or "wikitext" in name.lower()


def _named(texts: list[Path], parts: str) -> list[Path]:
    """The texts in whose names one of the parts is; of several, those where it is a word (not the test of contest)."""
    names = {path: str(_stem(path)).lower() for path in texts}
    fit = [path for path in texts if re.search(parts, names[path])]
    words = [path for path in fit if re.search(rf"(?<![a-z])({parts})(?![a-z])", names[path])]
    return words if len(fit) > 1 and words else fit


def _stem(path: Path) -> str | None:
    """The name of a text without its ending; None: it is no text, or hidden."""
    if path.name.startswith("."):
        return None
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    return next((name[: -len(ending)] for ending in ENDINGS if name.lower().endswith(ending)), None)
