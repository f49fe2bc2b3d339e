"""Which sub-folders of a folder of images are splits, and which are classes."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..errors import DataError

# Names of split folders, in small letters. Of the test splits of a data set on the hub the first one found is used.
TRAIN_SPLITS = ("train", "training")
TEST_SPLITS = ("test", "validation", "valid", "val")
VAL_FOLDERS = ("validation", "valid", "val", "dev")
TEST_FOLDERS = ("test", "testing", "eval", "evaluation")
NO_CLASSES = ("unlabeled", "unlabelled", "unsupervised")
UNLABELED_FOLDERS = (*NO_CLASSES, "extra")
ALL_FOLDERS = (*TRAIN_SPLITS, *TEST_FOLDERS, *VAL_FOLDERS, *UNLABELED_FOLDERS)
# What may follow: train2017, training_set, test-images.
NAME = re.compile(r"(.+?)([ _-]?(sets?|images?|imgs?|data|split|(19|20)\d\d))*")
KNOWN = f"train; {', '.join(TEST_FOLDERS)}; {', '.join(VAL_FOLDERS)}; {', '.join(UNLABELED_FOLDERS)}"


class SplitFolders(NamedTuple):
    """Names of the sub-folders of each split.

    Args:
        train: with the training images; None: the folder itself has them.
        test: with the test images.
        val: with the validation images.
        unlabeled: with training images that are not judged.
    """

    train: str | None = None
    test: str | None = None
    val: str | None = None
    unlabeled: tuple[str, ...] = ()


def find_splits(where: str, folders: dict[str, set[str]], loose_images: bool) -> SplitFolders:
    """The splits of a folder of images. ``train`` beside any other folder is a split.

    A validation split is the test split where there is no other.

    Args:
        where: what messages call the folder.
        folders: its sub-folders with images, each with the names of its own such sub-folders.
        loose_images: whether images lie beside them.

    Raises:
        DataError: a sub-folder is neither clearly a split nor clearly a class.
    """
    train = _one(where, folders, TRAIN_SPLITS)
    if train is None:
        _refuse_splits_without_train(where, folders)
        _refuse_splits_further_down(where, folders)
        return SplitFolders()
    if loose_images:
        raise DataError(f"{where} holds images beside the folder {train}; move them into it")
    unknown = sorted(name for name in folders if split_of(name) not in ALL_FOLDERS)
    if unknown:
        raise DataError(
            f"{where} has the folder {unknown[0]} beside {train}, which makes it a split, but no split is called so "
            f"({KNOWN}): rename it; or move it into {train} if it is a class; or rename {train} if that is one"
        )
    test, val = _one(where, folders, TEST_FOLDERS), _one(where, folders, VAL_FOLDERS)
    if test is None:
        test, val = val, None
    unlabeled = tuple(sorted(name for name in folders if split_of(name) in UNLABELED_FOLDERS))
    return SplitFolders(train, test, val, unlabeled)


def split_of(folder: str) -> str:
    """The name of a folder, in small letters and without what may follow a split's: ``Train2017`` -> ``train``."""
    match = NAME.fullmatch(folder.lower())
    return match[1] if match else folder.lower()


def _one(where: str, folders: Iterable[str], names: Sequence[str]) -> str | None:
    found = sorted(
        (folder for folder in folders if split_of(folder) in names), key=lambda name: names.index(split_of(name))
    )
    if len(found) > 1:
        raise DataError(f"{where} has the folders {' and '.join(found)}, which are the same split; keep one of them")
    return found[0] if found else None


def _refuse_splits_without_train(where: str, folders: dict[str, set[str]]) -> None:
    splits = sorted(name for name in folders if split_of(name) in ALL_FOLDERS)
    if len(splits) > 1 and len(splits) == len(folders):
        raise DataError(f"{where} has the splits {', '.join(splits)}, but no folder train; add it")
    for name in splits:
        if split_of(name) in NO_CLASSES and len(folders) > 1:
            raise DataError(f"{where} has the folder {name}, but no folder train: move the classes into one beside it")
        same = sorted(folders[name] & (folders.keys() - {name}))
        if same:
            raise DataError(
                f"{where} has the folder {name} with a folder {same[0]} in it, and {same[0]} beside it: is it a split "
                "or a class? Move the classes for training into a folder train beside it, or rename it"
            )


def _refuse_splits_further_down(where: str, folders: dict[str, set[str]]) -> None:
    for name, inner in sorted(folders.items()):
        splits = sorted(each for each in inner if split_of(each) in ALL_FOLDERS)
        if len(splits) < 2 or not any(split_of(each) in TRAIN_SPLITS for each in splits):
            continue
        way_out = f"set data.source={where}/{name}" if len(folders) == 1 else "move the classes into the splits"
        raise DataError(f"{where} has the folder {name} with the splits {', '.join(splits)} in it: {way_out}")
