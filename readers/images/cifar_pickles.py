"""CIFAR-10 as its authors publish it: pickled batches."""

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, one_line
from ..files import stamps
from .array_pickles import load_arrays
from .arrays import ImageArrays, ImageSource
from .one_image import refit_images


class PickledImages(ImageSource):
    """The folder ``cifar-10-batches-py`` as its authors publish it."""

    TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def key(self) -> dict[str, Any]:
        paths = [self.folder / name for name in (*self.TRAIN, "test_batch", "batches.meta")]
        return {"pickles": stamps(self.folder, [path for path in paths if path.is_file()])}

    def _read(self, image_size: int, channels: int, folder: Path | None) -> ImageArrays:
        parts = [self._read_batch(name) for name in (*self.TRAIN, "test_batch")]
        names = self._class_names()
        images = refit_images(np.concatenate([images for images, _ in parts]), image_size, channels)
        labels = np.concatenate([labels for _, labels in parts])
        wrong = labels[(labels < 0) | (labels >= len(names))]
        if len(wrong):
            raise DataError(f"{self.folder} has the label {wrong[0]}, but batches.meta names {len(names)} classes")
        num_train = sum(len(labels) for _, labels in parts[:-1])
        return ImageArrays(images, labels, num_train, names)

    def _class_names(self) -> tuple[str, ...]:
        try:
            names = self._unpickle("batches.meta")[b"label_names"]
            return tuple(name if isinstance(name, str) else name.decode() for name in names)
        except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
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
        # Pickles written by Python 3 have strings as keys.
        return {key.encode() if isinstance(key, str) else key: value for key, value in content.items()}
