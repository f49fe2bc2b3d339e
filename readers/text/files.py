"""The training, validation and test text of a language model, in a folder."""

from pathlib import Path

from ..errors import DataError

SPLITS = {"train": ("train",), "valid": ("valid", "val", "dev"), "test": ("test",)}
ENDINGS = (".txt", ".tokens", ".raw")  # the latter two are WikiText's; each may be gzipped


def find_texts(folder: Path) -> dict[str, Path]:
    """The files ``ptb.{train,valid,test}.txt`` of a folder, else its texts named after the three splits.

    Raises:
        DataError: there is no such folder, or a split doesn't have exactly one file.
    """
    if not folder.is_dir():
        problem = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DataError(
            f"data.source: {folder} {problem}; give a folder with a train, a valid and a test .txt, or hub, or sample"
        )
    texts = sorted(path for path in folder.iterdir() if _stem(path) is not None and path.is_file())
    found = {}
    for split, parts in SPLITS.items():
        exact = folder / f"ptb.{split}.txt"
        fit = [exact] if exact in texts else [path for path in texts if any(part in str(_stem(path)) for part in parts)]
        if not fit:
            endings = ", ".join(ENDINGS)
            raise DataError(
                f"{folder} has no file *{split}*.txt; it needs a train, a valid and a test file ({endings}; or .gz)"
            )
        if len(fit) > 1:
            raise DataError(f"{folder} has {fit[0].name} and {fit[1].name} for {split}; leave only one of them there")
        found[split] = fit[0]
    return found


def is_wikitext(name: str) -> bool:
    """Whether a file or data set is WikiText by its name, where blank lines are tokens."""
    return name.startswith("wiki.") or "wikitext" in name.lower()


def _stem(path: Path) -> str | None:
    """The name of a text without its ending; None: it is no text."""
    name = path.name.removesuffix(".gz")
    return next((name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)), None)
