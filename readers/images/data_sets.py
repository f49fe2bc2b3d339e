"""Hugging Face data sets with a column of images."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import stamps
from ..hub import load_from_hub, parquet_folder
from .arrays import ImageArrays, ImageSource
from .decoding import decode_all
from .one_image import EncodedImage
from .split_folders import NO_CLASSES, TEST_SPLITS, VAL_FOLDERS

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

IMAGE_COLUMNS, LABEL_COLUMNS = ("img", "image"), ("label", "labels", "class", "category", "target", "cls")


class DataSetLayout(NamedTuple):
    """Which configuration, columns and splits of a data set to read: arguments of ``ImageDataModule``."""

    config: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    train_split: str = "train"
    test_split: str | None = None
    val_split: str | None = None


class Splits(NamedTuple):
    """The parts of a data set that are read, in the order of ``ImageArrays``; unlabelled images are for training."""

    train: "Dataset"
    unlabeled: "Dataset | None"
    val: "Dataset | None"
    test: "Dataset | None"

    def parts(self) -> list["Dataset"]:
        """Those that there are."""
        return [part for part in self if part is not None]


class ParquetImages(ImageSource):
    """A folder of parquet files in the hub's layout."""

    def __init__(self, root: Path, layout: DataSetLayout) -> None:
        self.root, self.layout = root, layout

    def key(self) -> dict[str, Any]:
        return {"parquet": stamps(self.root, sorted(self.root.rglob("*.parquet"))), "layout": list(self.layout)}

    def _read(self, image_size: int, channels: int, folder: Path | None) -> ImageArrays:
        with parquet_folder(self.root, self.layout.config) as splits:
            parts, images, labels = _columns(splits, self.layout, str(self.root))
            return _read(parts, images, labels, str(self.root), (image_size, channels, folder))


class HubImages(ImageSource):
    """A data set on the Hugging Face hub."""

    def __init__(self, hub_id: str, layout: DataSetLayout) -> None:
        self.hub_id, self.layout = hub_id, layout

    def key(self) -> dict[str, Any]:
        return {"hub": self.hub_id, "layout": list(self.layout)}

    def _read(self, image_size: int, channels: int, folder: Path | None) -> ImageArrays:
        splits = load_from_hub(self.hub_id, self.layout.config)
        parts, images, labels = _columns(splits, self.layout, self.hub_id)
        return _read(parts, images, labels, self.hub_id, (image_size, channels, folder))


def _columns(splits: "DatasetDict", layout: DataSetLayout, where: str) -> tuple[Splits, str, str | None]:
    """The splits to read; the column of images; that of labels, if any."""
    import datasets

    given = (layout.train_split, layout.val_split, layout.test_split)
    test = layout.test_split or _first(TEST_SPLITS, splits, given)
    val = layout.val_split or _first(VAL_FOLDERS, splits, (*given, test))
    unlabeled = _first(NO_CLASSES, splits, given)
    named = {"train_split": layout.train_split, "val_split": val, "test_split": test}
    for argument, name in named.items():
        if name is not None and name not in splits:
            raise DataError(f"{where} has no split {name}, only {', '.join(splits)}: set data.{argument}")
    for (argument, name), (other, same) in combinations(named.items(), 2):
        if name is not None and name == same:
            raise DataError(f"data.{argument} and data.{other} are the same split of {where}, {name}: set one of them")
    found = Splits(splits[layout.train_split], *(splits[name] if name else None for name in (unlabeled, val, test)))
    features = found.train.features
    image = _column(features, datasets.Image, IMAGE_COLUMNS, layout.image_column, where, "image_column")
    if image is None:
        image = _column_of_bytes(features, where)
    label = _column(features, datasets.ClassLabel, LABEL_COLUMNS, layout.label_column, where, "label_column")
    return found, image, label


def _first(names: Iterable[str], splits: "DatasetDict", used: Sequence[str | None]) -> str | None:
    return next((name for name in names if name in splits and name not in used), None)


def _read(
    splits: Splits,
    image_column: str,
    label_column: str | None,
    where: str,
    into: tuple[int, int, Path | None],
) -> ImageArrays:
    """The images of all splits, decoded ``into`` a size, a number of channels and a folder."""
    parts = splits.parts()
    count = sum(map(len, parts))
    # Before the images: a wrong column should be found out at once.
    no_labels: tuple[NDArray[np.int64], tuple[str, ...]] = np.full(count, -1, np.int64), ()
    labels, names = _labels(splits, label_column, where) if label_column is not None else no_labels
    images, unreadable, scaled = decode_all(_encoded(parts, image_column, where), count, *into)
    num_train, num_val = (sum(len(part) for part in some if part is not None) for some in (splits[:2], splits[2:3]))
    return ImageArrays(images, labels, num_train, names, num_val=num_val, unreadable=unreadable, scaled=scaled)


def _labels(splits: Splits, column: str, where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The labels of all images, -1 for none, and the names of the classes; texts are names."""
    feature = splits.train.features[column]
    kind = getattr(feature, "dtype", "")
    values: list[Any] = []
    for name, part in zip(splits._fields, splits, strict=True):
        if part is not None:
            values += part[column][:] if name != "unlabeled" else [None] * len(part)
    if kind in ("string", "large_string"):
        names = sorted(set(values) - {None})
        rows = {name: row for row, name in enumerate(names)}
        return np.array([rows.get(value, -1) for value in values], np.int64), tuple(names)
    whole = kind == "bool" or kind.startswith(("int", "uint"))
    labels = np.array([-1 if value is None else value for value in values] if whole else [-2], np.int64)
    if (labels < -1).any():
        raise DataError(
            f"{where}: {column} must have a text or an integer from 0 on in every row, or nothing or -1 for no "
            "class: set data.label_column"
        )
    names = getattr(feature, "names", None) or [str(label) for label in range(int(labels.max(initial=-1)) + 1)]
    return labels, tuple(names)


def _column(
    features: dict[str, Any], kind: type, names: tuple[str, ...], given: str | None, where: str, argument: str
) -> str | None:
    """The given column, else the first with one of the names, else the first of the kind, else None."""
    if given is not None and given not in features:
        raise DataError(f"{where} has no column {given}, only {', '.join(features)}: set data.{argument}")
    by_name = [name for name in names if name in features]
    by_kind = [name for name, feature in features.items() if isinstance(feature, kind)]
    return given or next(iter(by_name + by_kind), None)


def _column_of_bytes(features: dict[str, Any], where: str) -> str:
    """The only column of bytes, which are those of image files where no column says that it is of images."""
    found = [name for name, feature in features.items() if getattr(feature, "dtype", "") in ("binary", "large_binary")]
    if len(found) == 1:
        return found[0]
    columns = f"but several of bytes ({', '.join(found)})" if found else f"only {', '.join(features)}"
    raise DataError(f"{where} has no column of images, {columns}: set data.image_column")


def _encoded(parts: "list[Dataset]", column: str, where: str) -> Iterator[EncodedImage]:
    import datasets

    for part in parts:
        try:
            rows = part.select_columns([column]).cast_column(column, datasets.Image(decode=False))
        except Exception as error:  # pyarrow has many
            raise DataError(f"{where}: {column} is not a column of images: set data.image_column") from error
        for index, row in enumerate(rows):
            value = row[column] or {"bytes": None, "path": None}
            data = value["bytes"]
            if data is None and value["path"]:
                data = Path(value["path"])
            yield f"{index} of split {part.split} of {where}", data
