import os
import pickle
import re

import datasets
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from readers.errors import DataError
from readers.images import DataSetLayout
from readers.images.sources import ParquetImages, PickledImages, open_source

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 32, 32, 3), np.uint8)


def save(path, index=0, size=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(IMAGES[index])
    (image.resize(size) if size else image).save(path)
    return path


def write_parquet(folder, rows, labels, image="img", label="label", names=("cat", "dog")):
    folder.mkdir(parents=True, exist_ok=True)
    for split, (start, stop) in rows.items():
        columns = {image: [Image.fromarray(array) for array in IMAGES[start:stop]]}
        features = {image: datasets.Image()}
        if label:
            columns[label] = labels[start:stop]
            features[label] = datasets.ClassLabel(names=list(names)) if names else datasets.Value("int64")
        part = datasets.Dataset.from_dict(columns, datasets.Features(features))
        part.to_parquet(folder / f"{split}-00000-of-00001.parquet")


def write_pickles(folder, protocol=2, binary_keys=True, per_batch=2):
    folder.mkdir(exist_ok=True)
    for number, name in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]):
        rows = slice(number * per_batch, (number + 1) * per_batch)
        batch = {
            "data": np.ascontiguousarray(IMAGES[rows].transpose(0, 3, 1, 2).reshape(per_batch, -1)),
            "labels": [number % 2, 1],
        }
        if binary_keys:
            batch = {key.encode(): value for key, value in batch.items()}
        (folder / name).write_bytes(pickle.dumps(batch, protocol))
    names = {b"label_names": [b"cat", b"dog"]}
    (folder / "batches.meta").write_bytes(pickle.dumps(names, protocol))


def test_parquet(tmp_path):
    labels = [0, 1] * 6
    write_parquet(tmp_path / "data", {"train": (0, 9), "test": (9, 12)}, labels)
    source = open_source(str(tmp_path / "data"))
    assert isinstance(source, ParquetImages)
    arrays = source.read(32)
    assert np.array_equal(arrays.images, IMAGES)
    assert arrays.labels.tolist() == labels
    assert (arrays.num_train, arrays.class_names) == (9, ("cat", "dog"))
    assert source.read(8).images.shape == (12, 8, 8, 3)


def test_parquet_with_other_columns(tmp_path):
    write_parquet(tmp_path / "a", {"train": (0, 4)}, [0, 2, 1, 2], image="picture", label="label", names=None)
    arrays = open_source(str(tmp_path / "a")).read(32)
    assert (arrays.num_train, arrays.class_names) == (4, ("0", "1", "2"))
    write_parquet(tmp_path / "b", {"train": (0, 4)}, None, label=None)
    arrays = open_source(str(tmp_path / "b")).read(32)
    assert (arrays.labels.tolist(), arrays.class_names) == ([-1] * 4, ())


def write_cifar100(folder):
    """The layout of ``uoft-cs/cifar100``."""
    folder.mkdir()
    features = {"img": datasets.Image()}
    features |= {name: datasets.ClassLabel(names=names) for name, names in CIFAR100.items()}
    for split, (start, stop) in {"train": (0, 9), "test": (9, 12)}.items():
        columns = {"img": [Image.fromarray(array) for array in IMAGES[start:stop]]}
        columns |= {name: FINE[start:stop] if name == "fine_label" else COARSE[start:stop] for name in CIFAR100}
        part = datasets.Dataset.from_dict(columns, datasets.Features(features))
        part.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


CIFAR100 = {"fine_label": ["apple", "aquarium_fish", "baby", "bear"], "coarse_label": ["animals", "fruit"]}
FINE = [number % 4 for number in range(12)]
COARSE = [int(number == 0) for number in FINE]


def read_cifar100(folder, **layout):
    return open_source(str(folder), layout=DataSetLayout(**layout)).read(32)


def test_parquet_with_two_columns_of_labels(tmp_path):
    folder = write_cifar100(tmp_path / "cifar100")
    arrays = read_cifar100(folder)
    assert np.array_equal(arrays.images, IMAGES)
    assert (arrays.labels.tolist(), list(arrays.class_names)) == (FINE, CIFAR100["fine_label"])
    arrays = read_cifar100(folder, label_column="coarse_label")
    assert (arrays.labels.tolist(), list(arrays.class_names)) == (COARSE, CIFAR100["coarse_label"])
    arrays = read_cifar100(folder, train_split="test", test_split="train")
    assert (arrays.num_train, arrays.labels.tolist()) == (3, FINE[9:] + FINE[:9])


FOUR_SPLITS = {"train": (0, 5), "validation": (5, 7), "test": (7, 9), "unlabeled": (9, 12)}


@pytest.mark.parametrize(
    ("splits", "layout", "order", "num_train", "num_val"),
    [
        (FOUR_SPLITS, {}, [*range(5), *range(9, 12), *range(5, 9)], 8, 2),
        ({"train": (0, 9), "validation": (9, 12)}, {}, [*range(12)], 9, 0),  # the test split where there is no other
        (FOUR_SPLITS, {"test_split": "validation"}, [*range(5), *range(9, 12), 5, 6], 8, 0),
        (FOUR_SPLITS, {"val_split": "test", "test_split": "validation"}, [*range(5), *range(9, 12), 7, 8, 5, 6], 8, 2),
        (FOUR_SPLITS, {"train_split": "unlabeled"}, [*range(9, 12), *range(5, 9)], 3, 2),
        (FOUR_SPLITS, {"train_split": "test"}, [7, 8, *range(9, 12), 5, 6], 5, 0),
    ],
)
def test_splits_of_a_data_set(tmp_path, splits, layout, order, num_train, num_val):
    write_parquet(tmp_path / "set" / "data", splits, [0, 1] * 6)  # only there `datasets` finds splits of other names
    arrays = open_source(str(tmp_path / "set"), layout=DataSetLayout(**layout)).read(32)
    assert np.array_equal(arrays.images, IMAGES[order])
    assert (arrays.num_train, arrays.num_val) == (num_train, num_val)
    trains_on_labels = layout.get("train_split") != "unlabeled"
    unlabeled = splits["unlabeled"] if "unlabeled" in splits and trains_on_labels else (0, 0)
    assert arrays.labels.tolist() == [-1 if row in range(*unlabeled) else row % 2 for row in order]


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"image_column": "image"}, "has no column image, only img, fine_label, coarse_label: set data.image_column"),
        ({"image_column": "fine_label"}, "fine_label is not a column of images: set data.image_column"),
        ({"label_column": "label"}, "has no column label, only img, fine_label, coarse_label: set data.label_column"),
        ({"label_column": "img"}, "img must have a text or an integer from 0 on in every row"),
        ({"train_split": "training"}, "has no split training, only train, test: set data.train_split"),
        ({"test_split": "validation"}, "has no split validation, only train, test: set data.test_split"),
        ({"val_split": "dev"}, "has no split dev, only train, test: set data.val_split"),
        ({"test_split": "train"}, "data.train_split and data.test_split are the same split of"),
        ({"val_split": "test", "test_split": "test"}, "data.val_split and data.test_split are the same split of"),
        ({"config": "large"}, "choose a configuration with --data.hub_config"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_names_of_columns_and_splits(tmp_path, layout, message):
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        read_cifar100(write_cifar100(tmp_path / "cifar100"), **layout)
    assert "\n" not in str(caught.value)


def test_parquet_errors(tmp_path):
    write_parquet(tmp_path / "a", {"test": (0, 4)}, [0, 1] * 2)
    with pytest.raises(DataError, match=r"has no split train, only test: set data\.train_split"):
        open_source(str(tmp_path / "a")).read(32)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "train.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"datasets cannot read .*b: ") as caught:
        open_source(str(tmp_path / "b")).read(32)
    assert "\n" not in str(caught.value)
    (tmp_path / "c").mkdir()
    part = datasets.Dataset.from_dict({"img": [{"bytes": b"broken", "path": None}]})
    part.cast_column("img", datasets.Image()).to_parquet(tmp_path / "c" / "train.parquet")
    with pytest.raises(DataError, match=r"cannot read the image 0 of split train of .*c: "):
        open_source(str(tmp_path / "c")).read(32)


def test_hub(tmp_path, monkeypatch):
    folder = write_cifar100(tmp_path / "cifar100")
    splits = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    asked = []
    monkeypatch.setattr("readers.images.data_sets.load_from_hub", lambda *names: asked.append(names) or splits)
    source = open_source("hub", "uoft-cs/cifar100", DataSetLayout("plain", label_column="coarse_label"))
    arrays = source.read(32)
    assert asked == [("uoft-cs/cifar100", "plain")]
    assert np.array_equal(arrays.images, IMAGES)
    assert (arrays.num_train, arrays.labels.tolist()) == (9, COARSE)
    with pytest.raises(DataError, match=r"fine_label is not a column of images: set data\.image_column"):
        open_source("hub", "uoft-cs/cifar100", DataSetLayout(image_column="fine_label")).read(32)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("binary_keys", [True, False])
def test_pickles(tmp_path, protocol, binary_keys):
    write_pickles(tmp_path / "cifar-10-batches-py", protocol, binary_keys)
    for folder in (tmp_path, tmp_path / "cifar-10-batches-py"):
        source = open_source(str(folder))
        assert isinstance(source, PickledImages)
        arrays = source.read(32)
        assert np.array_equal(arrays.images, IMAGES)
        assert arrays.labels.tolist() == [0, 1, 1, 1] * 3
        assert (arrays.num_train, arrays.class_names) == (10, ("cat", "dog"))
    assert source.read(16).images.shape == (12, 16, 16, 3)


def test_pickles_written_by_python_2(tmp_path):
    """The published files use the old name of NumPy's core, and store the bytes of an array as a string of Python 2."""
    write_pickles(tmp_path)
    array = IMAGES[:2].transpose(0, 3, 1, 2).reshape(2, -1)
    raw = array.tobytes()
    old = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85q\x05"
        b"U\x01bq\x06\x87Rq\x07(K\x01K\x02M\x00\x0c\x86cnumpy\ndtype\nq\x08U\x02u1q\tK\x00K\x01\x87Rq\n(K\x03U\x01|"
        b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + len(raw).to_bytes(4, "little") + raw + b"tb"
        b"U\x06labelsq\x0b]q\x0c(K\x00K\x01eu."
    )
    (tmp_path / "data_batch_1").write_bytes(old)
    arrays = open_source(str(tmp_path)).read(32)
    assert np.array_equal(arrays.images, IMAGES)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("/tmp/this-must-never-be-run",)


def test_pickles_run_no_code(tmp_path):
    write_pickles(tmp_path)
    (tmp_path / "data_batch_3").write_bytes(pickle.dumps({b"data": Harmful()}))
    with pytest.raises(DataError, match=r"cannot read .*data_batch_3: it asks for posix.mkdir"):
        open_source(str(tmp_path)).read(32)
    assert not os.path.exists("/tmp/this-must-never-be-run")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "data_batch_2 is missing"),
        (b"", "cannot read .*data_batch_2"),
        (pickle.dumps({b"labels": [1]}), "data_batch_2 is not a batch of CIFAR-10"),
        (pickle.dumps([1]), "data_batch_2 is not a batch of CIFAR-10: it holds a list"),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}), "2 images and 1 labels"),
        (
            pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, -1]}),
            "has the label -1, but batches.meta names 2 classes",
        ),
    ],
)
def test_broken_pickles(tmp_path, content, message):
    write_pickles(tmp_path)
    (tmp_path / "data_batch_2").unlink()
    if content is not None:
        (tmp_path / "data_batch_2").write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_source(str(tmp_path)).read(32)


@pytest.mark.parametrize("column", ["label", "class"])
def test_labels_that_are_texts(tmp_path, column):
    images = [Image.fromarray(array) for array in IMAGES[:3]]
    features = datasets.Features({"jpg": datasets.Image(), column: datasets.Value("string")})
    part = datasets.Dataset.from_dict({"jpg": images, column: ["dog", "cat", "dog"]}, features)
    (tmp_path / "data").mkdir()
    part.to_parquet(tmp_path / "data" / "train.parquet")
    arrays = open_source(str(tmp_path / "data")).read(32)
    assert (arrays.labels.tolist(), arrays.class_names) == ([1, 0, 1], ("cat", "dog"))


@pytest.mark.parametrize(
    ("feature", "labels", "expected", "names"),
    [
        (datasets.ClassLabel(names=["cat", "dog"]), [1, -1, 0], [1, -1, 0], ("cat", "dog")),
        (datasets.Value("int64"), [1, None, -1], [1, -1, -1], ("0", "1")),
        (datasets.Value("string"), ["b", None, "a"], [1, -1, 0], ("a", "b")),
        (datasets.Value("int8"), [None, -1, None], [-1, -1, -1], ()),
    ],
)
def test_images_without_a_label_in_a_data_set(tmp_path, feature, labels, expected, names):
    images = [Image.fromarray(array) for array in IMAGES[:3]]
    features = datasets.Features({"image": datasets.Image(), "label": feature})
    datasets.Dataset.from_dict({"image": images, "label": labels}, features).to_parquet(tmp_path / "train.parquet")
    arrays = open_source(str(tmp_path)).read(32)
    assert (arrays.labels.tolist(), arrays.class_names) == (expected, names)


def test_a_table_beside_images_is_no_data_set(tmp_path):
    for index, name in enumerate(("cat/a", "dog/b")):
        save(tmp_path / f"{name}.png", index)
    datasets.Dataset.from_dict({"name": ["cat/a.png"], "features": [[1.0]]}).to_parquet(tmp_path / "codes.parquet")
    source = open_source(str(tmp_path))
    assert source.read(32).class_names == ("cat", "dog")
    assert source.left_out == {".parquet": (1, "codes.parquet")}
    write_parquet(tmp_path / "data", {"train": (2, 4)}, [], label=None)
    save(tmp_path / "data" / "logo.png", 5)
    assert np.array_equal(open_source(str(tmp_path / "data")).read(32).images, IMAGES[2:4])


def test_a_full_disk_is_not_blamed_on_the_data_set(tmp_path, monkeypatch):
    write_parquet(tmp_path, {"train": (0, 4)}, [0, 1] * 2)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("readers.images.data_sets.decode_all", full)
    with pytest.raises(OSError, match="No space left"):
        open_source(str(tmp_path)).read(32)


def test_bytes_in_a_plain_column_are_images(tmp_path):
    files = [save(tmp_path / "png" / f"{index}.png", index).read_bytes() for index in range(3)]
    for column, names in (("jpg", ["jpg"]), (None, ["jpg", "mask"])):
        folder = tmp_path / f"{len(names)}"
        table = pa.table({"key": ["a", "b", "c"], **dict.fromkeys(names, pa.array(files)), "cls": [1, 0, 1]})
        folder.mkdir()
        parquet.write_table(table, folder / "train.parquet")
        if column:
            arrays = open_source(str(folder)).read(32)
            assert np.array_equal(arrays.images, IMAGES[:3])
            assert arrays.labels.tolist() == [1, 0, 1]
        else:
            with pytest.raises(DataError, match=r"but several of bytes \(jpg, mask\): set data\.image_column"):
                open_source(str(folder)).read(32)


def test_an_image_that_is_missing_is_not_called_empty(tmp_path):
    parquet.write_table(pa.table({"image": [None, b"", IMAGES[0].tobytes()]}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"cannot read 3 images; .*: 0 of .*: it is missing; 1 of .*: it is empty; "):
        open_source(str(tmp_path)).read(32)
