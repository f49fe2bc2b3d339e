"""Folders of image files: which are splits, which are classes, and what can't be read."""

import os

import numpy as np
import pytest
from PIL import Image

from readers.errors import DataError
from readers.images import describe_left_out, read_image_files
from readers.images.sources import ImageFiles, open_source
from tests.readers.test_image_sources import IMAGES, save


def test_folders_are_classes(tmp_path):
    save(tmp_path / "dog" / "a.png", 0)
    save(tmp_path / "cat" / "deep" / "b.PNG", 1)
    save(tmp_path / "cat" / "c.png", 2)
    save(tmp_path / "cat" / ".hidden.png", 3)
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / ".DS_Store").write_text("")
    (tmp_path / "empty").mkdir()
    source = open_source(str(tmp_path))
    assert isinstance(source, ImageFiles)
    arrays = source.read(32)
    assert np.array_equal(arrays.images, IMAGES[[2, 1, 0]])
    assert arrays.labels.tolist() == [0, 0, 1]
    assert (arrays.num_train, arrays.class_names) == (3, ("cat", "dog"))


def test_images_without_classes(tmp_path):
    save(tmp_path / "flat" / "b.png", 1, (64, 48))
    save(tmp_path / "flat" / "a.jpg", 0)
    arrays = open_source(str(tmp_path / "flat")).read(32)
    assert (arrays.labels.tolist(), arrays.class_names, len(arrays.images)) == ([-1, -1], (), 2)
    one_folder = open_source(str(tmp_path)).read(32)  # a single class tells nothing
    assert (one_folder.labels.tolist(), one_folder.class_names) == ([-1, -1], ())


def test_names_that_are_not_utf8_are_escaped(tmp_path):
    for number, name in enumerate((b"caf\xe9", "中".encode("gbk"))):
        save(tmp_path / os.fsdecode(name) / "a.png", number)
    arrays = open_source(str(tmp_path)).read(32)
    assert (arrays.labels.tolist(), arrays.class_names) == ([0, 1], (r"caf\xe9", r"\xd6\xd0"))


def test_unlabeled_images_among_the_classes_of_a_split_are_refused(tmp_path):
    for name in ("train/cat", "train/Unlabeled", "test/cat"):
        save(tmp_path / name / "a.png", 0)
    with pytest.raises(DataError, match="train has the folder Unlabeled: move it beside train, for its images"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("test", ["test", "val"])
def test_split_folders(tmp_path, test):
    for index, name in enumerate(["train/cat/a", "train/dog/b", f"{test}/dog/c"]):
        save(tmp_path / f"{name}.png", index)
    arrays = open_source(str(tmp_path)).read(32)
    assert np.array_equal(arrays.images, IMAGES[:3])
    assert arrays.labels.tolist() == [0, 1, 1]
    assert (arrays.num_train, arrays.class_names) == (2, ("cat", "dog"))


def test_all_split_folders(tmp_path):
    """Images of ``unlabeled`` and ``extra`` have no class, whatever their folders; ``val`` is not the test split."""
    names = ["Train/cat/a", "Train/dog/b", "extra/c", "unlabeled/cow/d", "val/dog/e", "test/cat/f", "test/dog/g"]
    for index, name in enumerate(names):
        save(tmp_path / f"{name}.png", index)
    (tmp_path / "labels").mkdir()  # without images it is no split
    (tmp_path / "labels" / "all.csv").write_text("")
    source = open_source(str(tmp_path))
    arrays = source.read(32)
    assert np.array_equal(arrays.images, IMAGES[:7])
    assert arrays.labels.tolist() == [0, 1, -1, -1, 1, 0, 1]
    assert (arrays.num_train, arrays.num_val, arrays.class_names) == (4, 1, ("cat", "dog"))
    assert source.left_out == {".csv": (1, "labels/all.csv")}
    os.rename(tmp_path / "test", tmp_path / "train-2")
    with pytest.raises(DataError, match="has the folder train-2 beside Train, which makes it a split"):
        open_source(str(tmp_path))
    os.rename(tmp_path / "train-2", tmp_path / "extra" / "train-2")
    arrays = open_source(str(tmp_path)).read(32)  # the only judged split is the test split
    assert (arrays.num_train, arrays.num_val, arrays.labels.tolist()) == (6, 0, [0, 1, -1, -1, -1, -1, 1])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/cat/a", "train/dog/a", "ship/a"], "the folder ship beside train, .*rename train if that is one"),
        (["train/cat/a", "train/dog/a", "a"], "holds images beside the folder train; move them into it"),
        (["train/a", "val/a", "dev/a"], "has the folders val and dev, which are the same split"),
        (["test/cat/a", "val/cat/a"], "has the splits test, val, but no folder train"),
        (["cat/a", "dog/a", "unlabeled/a"], "has the folder unlabeled, but no folder train: move the classes"),
        (["cat/a", "dog/a", "test/cat/a"], "has the folder test with a folder cat in it, and cat beside it"),
        (["cat/train/a", "cat/test/b", "dog/train/c"], "cat with the splits test, train in it: move the classes"),
        (["data/train/cat/a", "data/val/cat/b"], "data with the splits train, val in it: set data.source=.*/data"),
        (["training_set/a", "train-2012/a"], "has the folders train-2012 and training_set, which are the same split"),
        (["train/cat/a", "train/dog/a", "test/a"], "test has images without a class, .*or rename test to unlabeled"),
    ],
)
def test_what_cannot_be_a_split(tmp_path, names, message):
    for name in names:
        save(tmp_path / f"{name}.png")
    with pytest.raises(DataError, match=message):
        open_source(str(tmp_path))


@pytest.mark.parametrize(
    "names", [("train2017", "test2017", "Unlabeled2017"), ("training_set", "Test-Set", "extra images")]
)
def test_names_of_splits_with_something_behind(tmp_path, names):
    for index, name in enumerate(names):
        save(tmp_path / name / "deep" / f"{index}.png", index)
    arrays = open_source(str(tmp_path)).read(32)
    assert np.array_equal(arrays.images, IMAGES[[0, 2, 1]])
    assert arrays.num_train == 2


def test_classes_that_are_not_used_are_said(tmp_path):
    for name in ("train/only/cat/a", "train/only/dog/b", "test/only/c", "test/other/d"):
        save(tmp_path / f"{name}.png")
    source = open_source(str(tmp_path))
    assert source.read(32).labels.tolist() == [-1] * 4
    one, other = source.remarks
    assert "train has one folder, only, so its images have no classes" in one
    assert "The classes of" in other
    assert "test are not used" in other


def test_links_to_folders(tmp_path):
    save(tmp_path / "elsewhere" / "a.png", 0)
    save(tmp_path / "set" / "dog" / "b.png", 1)
    os.symlink(tmp_path / "elsewhere", tmp_path / "set" / "cat")
    os.symlink(tmp_path / "set", tmp_path / "set" / "dog" / "loop")
    arrays = open_source(str(tmp_path / "set")).read(32)
    assert np.array_equal(arrays.images, IMAGES[:2])
    assert arrays.class_names == ("cat", "dog")


def test_other_files_are_counted(tmp_path):
    save(tmp_path / "cat" / "a.png", 0)
    Image.fromarray(IMAGES[1]).save(tmp_path / "cat" / "b.jp2", irreversible=False)
    Image.fromarray(IMAGES[2]).save(tmp_path / "dog.jpg")
    os.renames(tmp_path / "dog.jpg", tmp_path / "dog" / "c.JFIF")
    for name in ("cat/x.heic", "cat/y.HEIC", "README"):
        (tmp_path / name).write_text("")
    source = open_source(str(tmp_path))
    assert source.left_out == {"": (1, "README"), ".heic": (2, "cat/x.heic")}
    assert describe_left_out(source.left_out) == "1 without an ending (README), 2 .heic (cat/x.heic …)"
    arrays = source.read(32)
    assert np.array_equal(arrays.images[:2], IMAGES[:2])
    assert arrays.labels.tolist() == [0, 0, 1]
    (tmp_path / "phone").mkdir()
    os.rename(tmp_path / "cat" / "x.heic", tmp_path / "phone" / "x.heic")
    with pytest.raises(DataError, match=r"holds no images .*, only 1 .heic \(x.heic\): convert"):
        open_source(str(tmp_path / "phone"))


def test_all_unreadable_images_are_named(tmp_path):
    for index in range(4):
        save(tmp_path / f"{index}.png", index)
    for index in (1, 2):
        (tmp_path / f"{index}.png").write_bytes(b"broken")
    source = open_source(str(tmp_path))
    with pytest.raises(DataError, match=r"cannot read 2 images; .*data\.on_error=skip: .*1\.png: .*2\.png: "):
        source.read(32)
    arrays = source.read(32, on_error="skip")
    assert [row for row, _ in arrays.unreadable] == [1, 2]
    assert np.array_equal(arrays.images[[0, 3]], IMAGES[[0, 3]])
    assert not arrays.images[1:3].any()


def test_key_follows_the_files(tmp_path):
    path = save(tmp_path / "a.png")
    save(tmp_path / "b.png", 1)
    key = open_source(str(tmp_path)).key()
    assert open_source(str(tmp_path)).key() == key
    os.utime(path, (1, 1))
    assert open_source(str(tmp_path)).key() != key


def test_errors_of_folders(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist; give a folder of images, or hub, or sample"):
        open_source(str(tmp_path / "nowhere"))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file is a file, not a folder"):
        open_source(str(tmp_path / "file"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no images"):
        open_source(str(tmp_path / "empty"))
    save(tmp_path / "mixed" / "a.png")
    save(tmp_path / "mixed" / "cat" / "a.png")
    with pytest.raises(DataError, match="mixed holds images beside the folder cat"):
        open_source(str(tmp_path / "mixed"))
    for name in ("train/cat", "train/dog", "test/cow"):
        save(tmp_path / "split" / name / "a.png")
    with pytest.raises(DataError, match=r"test has the class cow, which .*train does not have"):
        open_source(str(tmp_path / "split"))
    broken = tmp_path / "broken"
    save(broken / "a.png")
    (broken / "b.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=f"cannot read the image {broken}/b.png"):
        open_source(str(broken)).read(32)


def test_files_to_predict_from(tmp_path):
    """All files that can't be read are named, and nothing is left out in silence."""
    for index in range(5):
        save(tmp_path / f"{index}.png", index)
    (tmp_path / "x.heic").write_text("")
    with pytest.warns(UserWarning, match=r"left out of .*: 1 \.heic \(x\.heic\)"):
        batches = list(read_image_files(tmp_path, 32, 2))
    assert [name for names, _ in batches for name in names] == [f"{index}.png" for index in range(5)]
    assert np.array_equal(np.concatenate([pixels for _, pixels in batches]), IMAGES[:5])
    os.remove(tmp_path / "x.heic")
    for index in (1, 4):
        (tmp_path / f"{index}.png").write_bytes(b"")
    found = read_image_files(tmp_path, 32, 1)
    assert next(found)[0] == ["0.png"]
    message = r"cannot read 2 images; repair or remove them, or set --on_error=skip: .*1\.png: .*4\.png: "
    with pytest.raises(DataError, match=message):
        next(found)
    with pytest.warns(UserWarning, match=r"2 can't be decoded: .*1\.png: it is empty; .*4\.png: it is empty$"):
        batches = list(read_image_files(tmp_path, 32, 2, on_error="skip"))
    assert [name for names, _ in batches for name in names] == ["0.png", "2.png", "3.png"]
    assert np.array_equal(np.concatenate([pixels for _, pixels in batches]), IMAGES[[0, 2, 3]])
    for index in (0, 2, 3):
        os.remove(tmp_path / f"{index}.png")
    with pytest.raises(DataError, match="cannot read 2 images"):
        list(read_image_files(tmp_path, 32, 2, on_error="skip"))
