"""Folders of image files, whose sub-folders may be classes and splits."""

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import stamps, user_path
from .arrays import ImageArrays, ImageSource, LeftOut
from .decoding import decode_all
from .one_image import check_readable, describe_skipped
from .split_folders import NO_CLASSES, find_splits, split_of

SUFFIXES = {
    *(".apng", ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg"),
    *(".jpx", ".pbm", ".pfm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
}


class ImageFiles(ImageSource):
    """The user's folder of image files.

    Its sub-folders are the classes (with images at any depth); images directly in the folder have no class. Beside a
    sub-folder ``train/`` all others are splits (``find_splits``): ``test/`` and ``val/`` are laid out like ``train/``;
    images of ``unlabeled/`` or ``extra/`` are training images without a class, whatever its sub-folders.

    Attributes:
        left_out: the other files.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        tree = _Tree(root)
        self.left_out = tree.left_out
        if not tree.files:
            raise DataError(
                f"{root} holds no images ({', '.join(sorted(SUFFIXES))}) and no parquet files{tree.only_others()}"
            )
        folders: dict[str, set[str]] = {}
        for parts in tree.files:
            if len(parts) > 1:
                folders.setdefault(parts[0], set()).update(parts[1:2] if len(parts) > 2 else ())
        self.splits = find_splits(str(root), folders, any(len(parts) == 1 for parts in tree.files))
        train = _by_class(tree.files, self.splits.train)
        where = root / self.splits.train if self.splits.train else root
        self.class_names = tuple(sorted(train.keys() - {""}))
        if "" in train and self.class_names:
            raise DataError(
                f"{where} holds images beside the folder {self.class_names[0]}; put every image into the "
                "folder of its class (those without one into a folder unlabeled beside train), or all of them directly "
                "into the folder"
            )
        unlabeled_class = next((name for name in self.class_names if split_of(name) in NO_CLASSES), None)
        if unlabeled_class and self.splits.train:
            raise DataError(
                f"{where} has the folder {unlabeled_class}: move it beside {self.splits.train}, for its images to be "
                "without a class, or rename it if it is one"
            )
        if len(self.class_names) == 1:  # a single class carries no information: treat the images as unlabelled
            self.remarks += (
                f"{where} has one folder, {self.class_names[0]}, so its images have no classes; if its sub-folders are "
                "the classes, move them up",
            )
            self.class_names = ()
        unlabeled = [parts for name in self.splits.unlabeled for parts in tree.files if parts[0] == name]
        val, test = (self._judged(tree, name, where) for name in (self.splits.val, self.splits.test))
        self.files = [*self._labelled(train), *((parts, -1) for parts in unlabeled), *val, *test]
        # Names that are not UTF-8 can't be drawn.
        self.class_names = tuple(
            name.encode(errors="surrogateescape").decode(errors="backslashreplace") for name in self.class_names
        )
        self.num_val = len(val)
        self.num_train = len(self.files) - len(val) - len(test)

    def _labelled(self, classes: dict[str, list[tuple[str, ...]]]) -> list[tuple[tuple[str, ...], int]]:
        """The files of all classes with their labels."""
        return [
            (parts, self.class_names.index(name) if self.class_names else -1)
            for name, files in sorted(classes.items())
            for parts in files
        ]

    def _judged(self, tree: "_Tree", split: str | None, train: Path) -> list[tuple[tuple[str, ...], int]]:
        """The files of a split to be judged, with their labels."""
        classes = _by_class(tree.files, split) if split else {}
        if not self.class_names and len(classes) > 1:
            self.remarks += (f"The classes of {self.root / str(split)} are not used, as {train} has none",)
        unknown = sorted(classes.keys() - set(self.class_names)) if self.class_names else []
        if unknown:
            what = f"the class {unknown[0]}" if unknown[0] else "images without a class"
            way_out = "use the same sub-folders in both" + ("" if unknown[0] else f", or rename {split} to unlabeled")
            raise DataError(f"{self.root / str(split)} has {what}, which {train} does not have; {way_out}")
        return self._labelled(classes)

    def key(self) -> dict[str, Any]:
        paths = (self.root.joinpath(*parts) for parts, _ in self.files)
        # The counts tell the same files in other splits apart.
        # A link to nothing is an image that can't be decoded, as others are.
        return {"files": stamps(self.root, paths, may_fail=True), "train": self.num_train, "val": self.num_val}

    def _read(self, image_size: int, channels: int, folder: Path | None) -> ImageArrays:
        names = (str(self.root.joinpath(*parts)) for parts, _ in self.files)
        encoded = ((name, name) for name in names)
        images, unreadable, scaled = decode_all(encoded, len(self.files), image_size, channels, folder)
        labels = np.array([label for _, label in self.files], np.int64)
        return ImageArrays(
            *(images, labels, self.num_train, self.class_names),
            num_val=self.num_val,
            unreadable=unreadable,
            scaled=scaled,
        )


def has_images(root: Path) -> bool:
    """Whether there are image files in a folder and its sub-folders."""
    return bool(_Tree(root).files)


def find_images(path: Path) -> tuple[list[Path], LeftOut]:
    """The image files in a folder and its sub-folders, sorted, and the others; for a file, the file itself.

    Raises:
        DataError: there are none.
    """
    if not path.exists():
        raise DataError(f"no such file or folder: {path}")
    if path.is_file():
        return [path], {}
    tree = _Tree(path)
    if not tree.files:
        raise DataError(f"{path} holds no images ({', '.join(sorted(SUFFIXES))}){tree.only_others()}")
    return [path.joinpath(*parts) for parts in tree.files], tree.left_out


def read_image_files(
    path: Path | str,
    image_size: int,
    batch_size: int,
    channels: int = 3,
    on_error: Literal["stop", "skip"] = "stop",
) -> Iterator[tuple[list[str], NDArray[np.uint8]]]:
    """Yields the images of a folder and its sub-folders (or one image file) in batches.

    Args:
        path: folder or file.
        image_size: height and width in pixels that images are resized to.
        batch_size: images per batch.
        channels: see ``decode_image``.
        on_error: with ``skip`` images that can't be decoded are left out, and named at the end.

    Yields:
        the names, relative to the folder, and (B, S, S, channels) uint8.

    Raises:
        DataError: there are no images (with ``skip``: no readable ones); or, at the end, images can't be decoded:
            all of them are named. Nothing is yielded after the first.
    """
    path = user_path(path)
    files, left_out = find_images(path)
    if left_out:
        warnings.warn(f"left out of {path}, not read as images: {describe_left_out(left_out)}", stacklevel=2)
    root = path if path.is_dir() else path.parent
    reasons: list[str] = []
    for start in range(0, len(files), batch_size):
        chunk = files[start : start + batch_size]
        decoded = decode_all([(str(file), file) for file in chunk], len(chunk), image_size, channels)
        reasons += [reason for _, reason in decoded.unreadable]
        if reasons and on_error == "stop":
            continue
        unreadable = {row for row, _ in decoded.unreadable}
        readable = [row for row in range(len(chunk)) if row not in unreadable]
        if readable:
            yield [chunk[row].relative_to(root).as_posix() for row in readable], decoded.images[readable]
    if on_error == "stop" or len(reasons) == len(files):
        check_readable(reasons, ", or set --on_error=skip" if on_error == "stop" else "")
    elif reasons:
        warnings.warn(f"skipped images of {path}: {describe_skipped(reasons)}", stacklevel=2)


class _Tree:
    """The files in a folder and its sub-folders that are not hidden.

    Attributes:
        files: the image files, each as the parts of its path below the folder, sorted: of a million files, objects of
            ``Path`` would take much memory.
        left_out: the other files.
    """

    def __init__(self, root: Path) -> None:
        self.files: list[tuple[str, ...]] = []
        others: list[tuple[str, ...]] = []
        for folder, folders, names in os.walk(root, followlinks=True):
            parts = Path(folder).relative_to(root).parts
            folders[:] = [name for name in folders if not name.startswith(".") and not _is_loop(folder, name)]
            for name in names:
                if not name.startswith("."):
                    (self.files if _suffix(name) in SUFFIXES else others).append((*parts, name))
        self.files.sort()
        endings = Counter(_suffix(parts[-1]) for parts in others)
        firsts = {_suffix(parts[-1]): "/".join(parts) for parts in sorted(others, reverse=True)}
        self.left_out: LeftOut = {ending: (count, firsts[ending]) for ending, count in sorted(endings.items())}

    def only_others(self) -> str:
        """What there is instead of images, for a message."""
        found = describe_left_out(self.left_out)
        return f", only {found}: convert images of other kinds to one of these, unpack archives" if found else ""


def describe_left_out(left_out: LeftOut) -> str:
    """In words: ``2 .heic (a/p.heic …), 1 .txt (notes.txt)``."""
    return ", ".join(
        f"{count} {ending or 'without an ending'} ({first}{' …' if count > 1 else ''})"
        for ending, (count, first) in left_out.items()
    )


def _by_class(files: list[tuple[str, ...]], split: str | None) -> dict[str, list[tuple[str, ...]]]:
    """The files of a split by the sub-folder of their class; those directly in it under ``""``."""
    depth = 0 if split is None else 1
    found: dict[str, list[tuple[str, ...]]] = {}
    for parts in files:
        if split is None or parts[0] == split:
            found.setdefault(parts[depth] if len(parts) > depth + 1 else "", []).append(parts)
    return found


def _is_loop(folder: str, name: str) -> bool:
    """Whether a sub-folder is a link to the folder itself or to one that contains it."""
    path = os.path.join(folder, name)
    if not os.path.islink(path):
        return False
    target = os.path.realpath(path)
    return os.path.commonpath([target, os.path.realpath(folder)]) == target


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
