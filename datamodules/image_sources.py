"""Where images come from: the hub, a folder in the hub's layout, CIFAR-10's own pickles, a folder of image files."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from datamodules.array_pickles import load_arrays
from datamodules.errors import DataError, one_line
from datamodules.file_contents import user_path
from datamodules.hub import load_from_hub
from datamodules.images import EncodedImage, ImageArrays, decode_images, resize_images

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

HUB_ID = "uoft-cs/cifar10"
IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
TEST_SPLITS = ("test", "validation", "valid", "val")  # the first that is there is used


class ImageSource(Protocol):
    """Something that images can be read from."""

    def key(self) -> dict[str, Any]:
        """Plain values that change when the images may have changed."""

    def read(self, image_size: int) -> ImageArrays:
        """All images, decoded and resized."""


def open_source(source: str) -> ImageSource:
    """The reader for ``"hub"`` or a path.

    Raises:
        DataError: the path does not exist, or holds nothing that can be read.
    """
    if source == "hub":
        return HubImages()
    root = user_path(source)
    if not root.is_dir():
        problem = "is a file, not a folder" if root.exists() else "does not exist"
        raise DataError(f"data.source: {source} {problem}; give a folder of images, or hub, or sample")
    for folder in (root, root / "cifar-10-batches-py"):
        if (folder / "data_batch_1").is_file():
            return PickledImages(folder)
    if any(root.rglob("*.parquet")):
        return ParquetImages(root)
    return ImageFiles(root)


class ParquetImages:
    """A folder that ``datasets`` reads: parquet files with an image column and, where there are classes, a label."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def key(self) -> dict[str, Any]:
        return {"parquet": _stamps(self.root, sorted(self.root.rglob("*.parquet")))}

    def read(self, image_size: int) -> ImageArrays:
        import datasets

        # `datasets` would keep a second copy of the files for good.
        with tempfile.TemporaryDirectory() as cache, _no_progress_bars():
            try:
                splits = datasets.load_dataset(str(self.root), cache_dir=cache)
                return _read_splits(splits, str(self.root), image_size)
            except DataError:
                raise
            except Exception as error:  # of what is in the files, `datasets` checks little
                raise DataError(f"datasets cannot read {self.root}: {one_line(error)}") from error


class HubImages:
    """CIFAR-10 from the Hugging Face hub."""

    def key(self) -> dict[str, Any]:
        return {"hub": HUB_ID}

    def read(self, image_size: int) -> ImageArrays:
        return _read_splits(load_from_hub(HUB_ID), HUB_ID, image_size)


def _read_splits(splits: "DatasetDict", where: str, image_size: int) -> ImageArrays:
    import datasets

    if "train" not in splits:
        raise DataError(f"{where} has no split named train, only {', '.join(splits)}; rename it")
    test = next((splits[name] for name in TEST_SPLITS if name in splits), None)
    parts = [splits["train"]] if test is None else [splits["train"], test]
    features = splits["train"].features
    image_column = _column(features, datasets.Image, ("img", "image"))
    if image_column is None:
        raise DataError(f"{where} has no image column (img or image), only {', '.join(features)}")
    label_column = _column(features, datasets.ClassLabel, ("label", "labels"))
    count = sum(len(part) for part in parts)
    images = decode_images(_encoded(parts, image_column, where), count, image_size)
    if label_column is None:
        return ImageArrays(images, np.full(count, -1, np.int64), len(parts[0]), ())
    labels = np.concatenate([np.asarray(part.with_format("numpy")[label_column][:]) for part in parts])
    if labels.dtype.kind not in "iu" or (labels < 0).any():
        raise DataError(f"{where}: the column {label_column} must have an integer from 0 on in every row")
    labels = labels.astype(np.int64)
    feature = features[label_column]
    names = getattr(feature, "names", None) or [str(label) for label in range(int(labels.max()) + 1)]
    return ImageArrays(images, labels, len(parts[0]), tuple(names))


def _column(features: dict[str, Any], kind: type, names: tuple[str, ...]) -> str | None:
    by_name = [name for name in names if name in features]
    by_kind = [name for name, feature in features.items() if isinstance(feature, kind)]
    return next(iter(by_name + by_kind), None)


def _encoded(parts: "list[Dataset]", column: str, where: str) -> Iterator[EncodedImage]:
    import datasets

    for part in parts:
        rows = part.select_columns([column]).cast_column(column, datasets.Image(decode=False))
        for index, row in enumerate(rows):
            value = row[column]
            name = f"{index} of split {part.split} of {where}"
            if value is None or (value["bytes"] is None and not value["path"]):
                raise DataError(f"the image {name} is missing; remove its row")
            yield name, value["bytes"] if value["bytes"] is not None else Path(value["path"])


class PickledImages:
    """The folder ``cifar-10-batches-py`` as its authors publish it."""

    TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def key(self) -> dict[str, Any]:
        paths = [self.folder / name for name in (*self.TRAIN, "test_batch", "batches.meta")]
        return {"pickles": _stamps(self.folder, [path for path in paths if path.is_file()])}

    def read(self, image_size: int) -> ImageArrays:
        parts = [self._read_batch(name) for name in (*self.TRAIN, "test_batch")]
        names = self._class_names()
        images = np.concatenate([images for images, _ in parts])
        if image_size != images.shape[1]:
            images = resize_images(images, image_size)
        labels = np.concatenate([labels for _, labels in parts])
        wrong = labels[(labels < 0) | (labels >= len(names))]
        if len(wrong):
            raise DataError(f"{self.folder} has the label {wrong[0]}, but batches.meta names {len(names)} classes")
        num_train = sum(len(labels) for _, labels in parts[:-1])
        return ImageArrays(images, labels, num_train, names)

    def _class_names(self) -> tuple[str, ...]:
        names = self._unpickle("batches.meta").get(b"label_names")
        try:
            return tuple(name if isinstance(name, str) else name.decode() for name in names)
        except (TypeError, AttributeError, UnicodeDecodeError) as error:
            raise DataError(f"{self.folder / 'batches.meta'} has no label_names: {one_line(error)}") from error

    def _read_batch(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        batch = self._unpickle(name)
        try:
            images = np.asarray(batch[b"data"], np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            labels = np.asarray(batch[b"labels"], np.int64)
            if labels.shape != (len(images),) or not len(images):
                raise ValueError(f"{len(images)} images and {labels.size} labels")
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            raise DataError(f"{self.folder / name} is not a batch of CIFAR-10: {one_line(error)}") from error
        return images, labels

    def _unpickle(self, name: str) -> dict[bytes, Any]:
        path = self.folder / name
        try:
            with path.open("rb") as file:
                content = load_arrays(file)
        except FileNotFoundError as error:
            raise DataError(f"{path} is missing; unpack cifar-10-python.tar.gz again") from error
        except Exception as error:  # a damaged pickle may raise anything
            raise DataError(f"cannot read {path}: {one_line(error)}; unpack cifar-10-python.tar.gz again") from error
        if not isinstance(content, dict):
            raise DataError(f"{path} is not a batch of CIFAR-10: it holds a {type(content).__name__}")
        # Written by Python 3 the keys are text.
        return {key.encode() if isinstance(key, str) else key: value for key, value in content.items()}


class ImageFiles:
    """The user's folder of image files.

    Its sub-folders are the classes (images lie anywhere below them); images directly in the folder have no class.
    ``train/`` and ``test/`` (or ``val/``) inside it are the splits, each laid out like that.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        names = {path.name for path in _visible(root) if path.is_dir()}
        if "train" in names and names <= {"train", *TEST_SPLITS}:
            test = next((name for name in TEST_SPLITS if name in names), None)
            self.splits = [root / "train", *([root / test] if test else [])]
        else:
            self.splits = [root]
        found = [_images_by_class(split) for split in self.splits]
        self.class_names = tuple(sorted(found[0].keys() - {""}))
        if "" in found[0] and self.class_names:
            raise DataError(
                f"{self.splits[0]} holds images beside the folder {self.class_names[0]}; put every image into the "
                "folder of its class, or all of them directly into the folder"
            )
        if len(self.class_names) < 2:  # a single class tells nothing: the images count as without labels
            self.class_names = ()
        for split, classes in zip(self.splits[1:], found[1:], strict=True):
            unknown = sorted(classes.keys() - set(self.class_names)) if self.class_names else []
            if unknown:
                what = f"the class {unknown[0]}" if unknown[0] else "images without a class"
                raise DataError(f"{split} has {what}, which {self.splits[0]} has not; use the same sub-folders in both")
        self.files = [
            (path, self.class_names.index(name) if self.class_names else -1)
            for classes in found
            for name, paths in sorted(classes.items())
            for path in paths
        ]
        self.num_train = sum(map(len, found[0].values()))

    def key(self) -> dict[str, Any]:
        return {"files": _stamps(self.root, [path for path, _ in self.files]), "splits": len(self.splits)}

    def read(self, image_size: int) -> ImageArrays:
        encoded = ((str(path), path) for path, _ in self.files)
        images = decode_images(encoded, len(self.files), image_size)
        labels = np.array([label for _, label in self.files], np.int64)
        return ImageArrays(images, labels, self.num_train, self.class_names)


def find_images(path: Path) -> list[Path]:
    """The image files below a folder, sorted; of a file, the file itself.

    Raises:
        DataError: there is none.
    """
    if not path.exists():
        raise DataError(f"no such file or folder: {path}")
    if path.is_file():
        return [path]
    found = sorted(Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    images = [file for file in found if _is_image(file)]
    if not images:
        raise DataError(f"{path} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return images


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _images_by_class(split: Path) -> dict[str, list[Path]]:
    """Image files below each sub-folder of ``split``, those directly in it under ``""``."""
    found: dict[str, list[Path]] = {}
    for path in _visible(split):
        if path.is_dir():
            inside = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
            images = sorted(file for file in inside if _is_image(file))
            if images:
                found[path.name] = images
        elif _is_image(path):
            found.setdefault("", []).append(path)
    if not found:
        raise DataError(f"{split} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}) and no parquet files")
    return found


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _stamps(root: Path, paths: list[Path]) -> list[tuple[str, int, int]]:
    """Relative path, size in bytes and time of the last change of each file."""
    stamps = []
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}; repair or remove it") from error
        stamps.append((path.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns))
    return stamps


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    import datasets

    enabled = datasets.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if enabled:
            datasets.enable_progress_bars()
