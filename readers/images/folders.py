"""Folders of image files, whose sub-folders may be classes and splits."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import stamps, user_path
from .decoding import ImageArrays, decode_images

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
TEST_SPLITS = ("test", "validation", "valid", "val")  # the first one found is used


class ImageFiles:
    """The user's folder of image files.

    Its sub-folders are the classes (with images at any depth); images directly in the folder have no class. The
    sub-folders ``train/`` and ``test/`` (or ``validation/``, ``valid/``, ``val/``) are splits, each laid out like that.
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
        if len(self.class_names) < 2:  # a single class carries no information: treat the images as unlabelled
            self.class_names = ()
        for split, classes in zip(self.splits[1:], found[1:], strict=True):
            unknown = sorted(classes.keys() - set(self.class_names)) if self.class_names else []
            if unknown:
                what = f"the class {unknown[0]}" if unknown[0] else "images without a class"
                raise DataError(
                    f"{split} has {what}, which {self.splits[0]} does not have; use the same sub-folders in both"
                )
        self.files = [
            (path, self.class_names.index(name) if self.class_names else -1)
            for classes in found
            for name, paths in sorted(classes.items())
            for path in paths
        ]
        self.num_train = sum(map(len, found[0].values()))

    def key(self) -> dict[str, Any]:
        return {"files": stamps(self.root, [path for path, _ in self.files]), "splits": len(self.splits)}

    def read(self, image_size: int) -> ImageArrays:
        encoded = ((str(path), path) for path, _ in self.files)
        images = decode_images(encoded, len(self.files), image_size)
        labels = np.array([label for _, label in self.files], np.int64)
        return ImageArrays(images, labels, self.num_train, self.class_names)


def find_images(path: Path) -> list[Path]:
    """The image files in a folder and its sub-folders, sorted; for a file, the file itself.

    Raises:
        DataError: there are none.
    """
    if not path.exists():
        raise DataError(f"no such file or folder: {path}")
    if path.is_file():
        return [path]
    found = sorted(Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    images = [file for file in found if _is_image(file)]
    if not images:
        raise DataError(f"{path} holds no images ({', '.join(sorted(SUFFIXES))})")
    return images


def read_image_files(
    path: Path | str, image_size: int, batch_size: int
) -> Iterator[tuple[list[str], NDArray[np.uint8]]]:
    """Yields the images of a folder and its sub-folders (or one image file) in batches.

    Args:
        path: folder or file.
        image_size: height and width in pixels that images are resized to.
        batch_size: images per batch.

    Yields:
        the names, relative to the folder, and (B, S, S, 3) uint8.

    Raises:
        DataError: there are no images, or one can't be decoded.
    """
    path = user_path(path)
    files = find_images(path)
    root = path if path.is_dir() else path.parent
    for start in range(0, len(files), batch_size):
        chunk = files[start : start + batch_size]
        pixels = decode_images([(str(file), file) for file in chunk], len(chunk), image_size)
        yield [file.relative_to(root).as_posix() for file in chunk], pixels


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _images_by_class(split: Path) -> dict[str, list[Path]]:
    """The image files of each sub-folder of ``split``, and those directly in it under ``""``."""
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
        raise DataError(f"{split} holds no images ({', '.join(sorted(SUFFIXES))}) and no parquet files")
    return found


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
