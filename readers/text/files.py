"""The training, validation and test text of a language model, in a folder."""

from pathlib import Path

from ..errors import DataError

SPLITS = {"train": ("train",), "valid": ("valid", "val", "dev"), "test": ("test",)}


def find_texts(folder: Path) -> dict[str, Path]:
    """The files ``ptb.{train,valid,test}.txt`` of a folder, else its ``.txt`` files named after the three splits.

    Raises:
        DataError: there is no such folder, or a split doesn't have exactly one file.
    """
    if not folder.is_dir():
        problem = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DataError(
            f"data.source: {folder} {problem}; give a folder with a train, a valid and a test .txt, or hub, or sample"
        )
    texts = sorted(path for path in folder.glob("*.txt") if path.is_file())
    found = {}
    for split, parts in SPLITS.items():
        exact = folder / f"ptb.{split}.txt"
        fit = [exact] if exact in texts else [path for path in texts if any(part in path.stem for part in parts)]
        if not fit:
            raise DataError(f"{folder} has no file *{split}*.txt; it needs a train, a valid and a test file")
        if len(fit) > 1:
            raise DataError(f"{folder} has {fit[0].name} and {fit[1].name} for {split}; leave only one of them there")
        found[split] = fit[0]
    return found
