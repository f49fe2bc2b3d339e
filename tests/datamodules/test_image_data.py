import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint

from datamodules import DataError, ImageDataModule, MirrorShift
from datamodules import loader as loader_module
from datamodules.batches import ImageBatch
from datamodules.image_cache import ImageCache
from readers.images import ImageArrays, decoding
from tests.conftest import SHARED
from tests.tools import quiet_trainer

REAL_DATA = SHARED / "cifar10"


def make(**options):
    options = {"source": "sample", "batch_size": 16, "sample_train_size": 200, "sample_test_size": 40, **options}
    data = ImageDataModule(**options)
    data.prepare_data()
    data.setup()
    return data


def images_of(loader):
    return torch.cat([images for images, _ in loader]).numpy()


def rows(images):
    return {image.tobytes() for image in images}


def write_images(folder, count=30):
    folder.mkdir(parents=True)
    for index in range(count):
        array = np.random.default_rng(index).integers(0, 256, (20, 20, 3), np.uint8)
        Image.fromarray(array).save(folder / f"{index}.png")
    return folder


@pytest.mark.parametrize("own_test_split", [True, False])
def test_splits_are_disjoint_and_complete(tmp_path, own_test_split):
    source = "sample" if own_test_split else str(write_images(tmp_path / "photos"))
    data = make(source=source, memory_size=8)
    description = data.describe()
    train = rows(data._images[data._train].numpy())
    validation, memory = (images_of(loader) for loader in data.val_dataloader())
    test, all_but_test = (images_of(loader) for loader in data.test_dataloader())
    everything = rows(data._images.numpy())
    assert len(everything) == (240 if own_test_split else 30)
    assert not train & rows(validation)
    assert not train & rows(test)
    assert not rows(validation) & rows(test)
    assert train | rows(validation) | rows(test) == everything
    assert len(memory) == 8
    assert rows(memory) <= train
    assert rows(all_but_test) == train | rows(validation)
    sizes = [description[f"{split}_images"] for split in ("train", "val", "test")]
    assert sizes == [len(train), len(validation), len(test)] == ([180, 20, 40] if own_test_split else [24, 3, 3])
    if own_test_split:
        assert np.array_equal(test, data._images[200:].numpy())


def test_the_seed_decides_the_split():
    first, again, other = make(), make(batch_size=8), make(seed=1)
    assert torch.equal(first._val, again._val)
    assert not torch.equal(first._val, other._val)
    assert first.describe()["fingerprint"] == again.describe()["fingerprint"] != other.describe()["fingerprint"]


def test_batches():
    data = make(pixel_range=(-1, 1))
    batch = next(iter(data.train_dataloader()))
    images, labels = batch
    assert (images.shape, images.dtype) == ((16, 32, 32, 3), torch.uint8)
    result = data.on_after_batch_transfer(batch, 0)
    assert isinstance(result, ImageBatch)
    assert result.images.is_contiguous(memory_format=torch.channels_last)
    assert (result.labels.shape, result.labels.dtype) == ((16,), torch.int64)
    assert result.labels is labels
    assert len(data.train_dataloader()) == 180 // 16


@pytest.mark.parametrize("pixel_range", [(-0.5, 0.5), (-1.0, 1.0), (0.0, 1.0), (0.0, 255.0)])
def test_scaling_is_exact(pixel_range):
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3)
    scaled = ImageBatch.from_pixels(values, pixel_range).images
    low, high = pixel_range
    expected = (values.double() / 255 * (high - low) + low).permute(0, 3, 1, 2)
    assert scaled.dtype == torch.float32
    assert (scaled - expected).abs().max() <= (high - low) * 1e-7
    assert (scaled.min(), scaled.max()) == pixel_range
    if pixel_range == (-0.5, 0.5):
        assert torch.equal(scaled, values.permute(0, 3, 1, 2) / 255 - 0.5)


def test_augmentation_mirrors_and_shifts():
    torch.manual_seed(0)
    images = torch.randint(1, 256, (64, 16, 16, 3), dtype=torch.uint8)
    torch.manual_seed(0)
    augmented = MirrorShift()(images)
    torch.manual_seed(0)
    assert torch.equal(MirrorShift()(images), augmented)
    found = set()
    for image, result in zip(images.numpy(), augmented.numpy(), strict=True):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
        crops = {
            (y, x, mirror): np.flip(padded[y : y + 16, x : x + 16], 1) if mirror else padded[y : y + 16, x : x + 16]
            for y in range(5)
            for x in range(5)
            for mirror in (False, True)
        }
        matches = [key for key, crop in crops.items() if np.array_equal(crop, result)]
        assert len(matches) == 1
        found.update(matches)
    assert {y for y, _, _ in found} == {x for _, x, _ in found} == set(range(5))
    assert len(found) > 30


class Recorder(pl.LightningModule):
    """Keeps the batches that it receives; raises before a given step."""

    def __init__(self, crash_at=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.crash_at = crash_at
        self.train_batches, self.other_batches = [], []

    def training_step(self, batch, batch_idx):
        if self.global_step == self.crash_at:
            raise KeyboardInterrupt
        self.train_batches.append(batch)
        return self.weight * batch.images.mean()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.other_batches.append(batch)

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore")
def test_only_training_images_are_augmented(tmp_path):
    recorders = {}
    for augment in (False, True):
        recorders[augment] = Recorder()
        quiet_trainer(ModelCheckpoint(tmp_path), max_epochs=2).fit(recorders[augment], datamodule=make(augment=augment))
        quiet_trainer().test(recorders[augment], datamodule=make(augment=augment), verbose=False)
    plain, augmented = recorders[False], recorders[True]
    assert len(plain.train_batches) == 22
    pairs = zip(plain.train_batches, augmented.train_batches, strict=True)
    assert all(torch.equal(a.labels, b.labels) and not torch.equal(a.images, b.images) for a, b in pairs)
    assert all(batch.images.is_contiguous(memory_format=torch.channels_last) for batch in augmented.train_batches)
    pairs = zip(plain.other_batches, augmented.other_batches, strict=True)
    assert all(torch.equal(a.images, b.images) for a, b in pairs)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("step", [3, 11, 14])
def test_a_resumed_run_is_bit_identical(tmp_path, step):
    def fit(folder, crash_at=None, **options):
        recorder = Recorder(crash_at)
        save = ModelCheckpoint(tmp_path / folder, save_top_k=-1, every_n_train_steps=1, filename="{step}")
        try:
            quiet_trainer(save, max_epochs=2).fit(recorder, datamodule=make(), weights_only=True, **options)
        except (KeyboardInterrupt, SystemExit):
            assert crash_at is not None
        return recorder.train_batches

    whole, before = fit("whole"), fit("cut", step)
    torch.manual_seed(step)
    after = fit("rest", ckpt_path=tmp_path / "cut" / f"step={step}.ckpt")
    assert len(before) == step
    for left, right in zip(whole, before + after, strict=True):
        assert torch.equal(left.images, right.images)
        assert torch.equal(left.labels, right.labels)


def test_two_ranks_share_every_split(monkeypatch):
    data, seen = make(), []
    for rank in range(2):
        monkeypatch.setattr(loader_module, "rank_and_world_size", lambda rank=rank: (rank, 2))
        loaders = [data.train_dataloader(), *data.val_dataloader(), *data.test_dataloader()]
        seen.append([rows(images_of(loader)) for loader in loaders])
    assert [len(left) for left in seen[0]] == [80, 10, 90, 20, 100]
    assert all(len(right) == len(left) and not right & left for left, right in zip(*seen, strict=True))


def test_decodes_once(tmp_path, monkeypatch):
    source = str(write_images(tmp_path / "photos"))
    first = make(source=source, image_size=8)
    assert first.has_labels is False
    assert first.class_names == ()
    assert set(first._labels.tolist()) == {-1}
    assert first.describe()["source"] == source

    def never(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr("readers.images.folders.decode_all", never)
    assert torch.equal(make(source=source, image_size=8)._images, first._images)
    with pytest.raises(AssertionError, match="decoded again"):
        make(source=source, image_size=16)


def test_unlabelled_images_train_and_are_not_judged(tmp_path):
    root = tmp_path / "photos"
    for name, count in (("train/cat", 20), ("train/dog", 20), ("unlabeled/any", 60), ("val/cat", 4), ("test/dog", 3)):
        write_images(root / name, count)
    data = make(source=str(root), memory_size=1000)
    labels = {name: torch.cat([labels for _, labels in loader]) for name, loader in loaders_of(data).items()}
    assert [len(data._train), len(labels["val"]), len(labels["test"])] == [100, 4, 3]
    assert (data._labels[data._train] < 0).sum() == 60
    assert len(labels["val memory"]) == 40
    assert len(labels["test memory"]) == 44
    assert all((found >= 0).all() for found in labels.values())
    assert data.describe()["unlabeled_images"] == 60
    assert "unlabeled_images" not in make().describe()
    for name in ("val", "test"):
        os.rename(root / name, tmp_path / name)
    data = make(source=str(root), memory_size=1000)  # all that is judged comes from the images with a class
    labels = {name: torch.cat([labels for _, labels in loader]) for name, loader in loaders_of(data).items()}
    assert [len(data._train), len(labels["val"]), len(labels["test"])] == [92, 4, 4]
    assert all((found >= 0).all() for found in labels.values())


def loaders_of(data):
    val, val_memory = data.val_dataloader()
    test, test_memory = data.test_dataloader()
    return {"val": val, "val memory": val_memory, "test": test, "test memory": test_memory}


def test_unreadable_images_stop_or_are_skipped(tmp_path, capsys):
    folder = write_images(tmp_path / "photos")
    (folder / "3.png").write_bytes(b"broken")
    (folder / "4.png").unlink()
    (folder / "4.png").symlink_to(folder / "gone.png")
    (folder / "x.heic").write_text("")
    with pytest.raises(DataError, match=r"cannot read 2 images; .*data\.on_error=skip: .*3\.png: .*4\.png: "):
        make(source=str(folder))
    with pytest.warns(UserWarning, match=r"Skipped images of .*: 2 can't be decoded: .*3\.png.*4\.png"):
        data = make(source=str(folder), on_error="skip")
    about = data.describe()
    assert sum(about[f"{split}_images"] for split in ("train", "val", "test")) == 28
    assert (about["unreadable_images"], about["left_out_files"]) == (2, {".heic": 1})
    assert [str(folder / name) in line for name, line in zip(("3.png", "4.png"), about["unreadable"], strict=True)]
    rows = torch.cat([data._train, data._val, data._test])
    assert (data._images[rows].flatten(1) > 0).any(1).all()  # no black image
    with pytest.raises(DataError, match="cannot read 2 images"):  # also when the cache has the others
        make(source=str(folder))


def test_a_broken_image_may_have_a_name_that_is_not_utf8(tmp_path):
    folder = write_images(tmp_path / "photos")
    (folder / os.fsdecode(b"\xe9.png")).write_bytes(b"broken")
    for _ in range(2):  # from the cache, too
        with pytest.warns(UserWarning, match=r"1 can't be decoded: .*\\udce9\.png"):
            data = make(source=str(folder), on_error="skip")
        assert str(folder) in data.describe()["unreadable"][0]


def test_an_interrupted_cache_is_completed(tmp_path, monkeypatch):
    folder = write_images(tmp_path / "photos")
    whole = make(source=str(folder), image_size=16)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    monkeypatch.setattr("readers.images.decoding.CHUNK_IMAGES", 4)
    decode, calls = decoding.decode_chunk, []

    def killed(*arguments):
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return decode(*arguments)

    monkeypatch.setattr(decoding, "decode_chunk", killed)
    with pytest.raises(KeyboardInterrupt):
        make(source=str(folder), image_size=16)
    calls.clear()
    monkeypatch.setattr(decoding, "decode_chunk", lambda *arguments: calls.append(1) or decode(*arguments))
    completed = make(source=str(folder), image_size=16)
    assert 0 < len(calls) <= 8 - 3
    assert torch.equal(completed._images, whole._images)
    assert completed.describe() == whole.describe()
    (cached,) = (tmp_path / "other").rglob("about.json")
    assert sorted(os.listdir(cached.parent)) == ["about.json", "images.npy", "labels.npy"]


@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_channels(tmp_path, channels):
    for source in ("sample", str(write_images(tmp_path / "photos"))):
        data = make(source=source, channels=channels, augment=True)
        batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
        assert batch.images.shape == (16, channels, 32, 32)


def test_labels():
    data = make()
    assert data.has_labels is True
    assert len(data.class_names) == 10
    assert data.describe()["class_names"] == list(data.class_names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"batch_size \(0\) must be at least 1"),
        ({"image_size": -1}, r"image_size \(-1\) must be at least 1"),
        ({"memory_size": 0}, r"memory_size \(0\)"),
        ({"eval_batch_size": 0}, r"eval_batch_size \(0\)"),
        ({"sample_train_size": 0}, r"sample_train_size \(0\)"),
        ({"sample_test_size": 0}, r"sample_test_size \(0\)"),
        ({"val_fraction": 1.0}, r"val_fraction \(1.0\) must be strictly between 0 and 1"),
        ({"seed": -1}, r"seed \(-1\)"),
        ({"pixel_range": (1, 1)}, r"pixel_range \(\(1, 1\)\)"),
    ],
)
def test_arguments_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        ImageDataModule(**options)


def test_the_column_of_labels_is_chosen(tmp_path):
    """From parquet files in the layout of ``uoft-cs/cifar100``."""
    import datasets

    names = {"fine_label": ["apple", "baby", "bear"], "coarse_label": ["living", "dead"]}
    features = {"img": datasets.Image(), **{name: datasets.ClassLabel(names=part) for name, part in names.items()}}
    for split, count in (("train", 20), ("test", 6)):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), np.uint8)
        columns = {"img": list(map(Image.fromarray, pixels))}
        columns |= {name: [row % len(part) for row in range(count)] for name, part in names.items()}
        part = datasets.Dataset.from_dict(columns, datasets.Features(features))
        part.to_parquet(tmp_path / "parquet" / f"{split}-00000-of-00001.parquet")
    source = str(tmp_path / "parquet")
    fine, coarse = make(source=source), make(source=source, label_column="coarse_label")
    assert list(fine.class_names) == names["fine_label"]
    assert list(coarse.class_names) == names["coarse_label"]
    assert fine._labels[20:].tolist() == [0, 1, 2] * 2
    assert coarse._labels[20:].tolist() == [0, 1] * 3
    assert torch.equal(fine._images, coarse._images)
    assert make(source=source, test_split="train", train_split="test").describe()["test_images"] == 20


def test_a_split_of_a_data_set_without_labels_is_named(tmp_path):
    import datasets

    labels = {"train": [0, 1] * 10, "validation": [0, -1, 1, None], "test": [-1] * 6}
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    for split, part in labels.items():
        pixels = np.random.default_rng(len(part)).integers(0, 256, (len(part), 8, 8, 3), np.uint8)
        columns = {"img": list(map(Image.fromarray, pixels)), "label": part}
        datasets.Dataset.from_dict(columns, features).to_parquet(tmp_path / f"{split}-00000-of-00001.parquet")
    with pytest.warns(UserWarning, match=r"data\.\w+_split of .* label") as warned:
        data = make(source=str(tmp_path))
    val, test = [str(warning.message) for warning in warned if "label" in str(warning.message)]
    assert val.startswith(f"data.val_split of {tmp_path}: 2 of its 4 images have no label")
    assert test.startswith(f"data.test_split of {tmp_path}: none of its images has a label: training images are held")
    assert [len(rows) for rows in (data._train, data._val, data._test)] == [18, 2, 2]


def test_errors_of_the_source(tmp_path):
    data = ImageDataModule(source=str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"data.source: .*nowhere does not exist"):
        data.prepare_data()
    with pytest.raises(RuntimeError, match="call setup"):
        _ = data.class_names
    with pytest.raises(DataError, match="2 images are too few"):
        make(source=str(write_images(tmp_path / "two", 2)))


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real data is not here")
def test_real_data():
    data = make(source=str(REAL_DATA), batch_size=64)
    description = data.describe()
    assert [description[f"{split}_images"] for split in ("train", "val", "test")] == [45000, 5000, 10000]
    assert data.class_names[:3] == ("airplane", "automobile", "bird")
    assert np.bincount(data._labels[50000:]).tolist() == [1000] * 10
    assert 100 < data._images.numpy()[:1000].mean() < 140


# The cache of decoded images.


def decoded(seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (5, 4, 4, 3), np.uint8)
    return ImageArrays(images, rng.integers(0, 2, 5), 3, ("cat", "dog"))


def must_not_build():
    raise AssertionError("the cache was not used")


def assert_same_images(left, right):
    assert np.array_equal(left.images, right.images)
    assert np.array_equal(left.labels, right.labels)
    assert (left.num_train, left.class_names) == (right.num_train, right.class_names)


def test_cache_hit():
    built = ImageCache({"a": 1}).load_or_build(decoded)
    found = ImageCache({"a": 1}).load_or_build(must_not_build)
    assert_same_images(found, decoded())
    assert isinstance(found.images, np.memmap)
    assert found.fingerprint == built.fingerprint != ""
    assert ImageCache({"a": 2}).load_or_build(lambda: decoded(1)).fingerprint != found.fingerprint
    assert ImageCache({"a": 3}).load_or_build(decoded).fingerprint == found.fingerprint


def test_writing_to_the_images_leaves_the_file_alone():
    ImageCache({}).load_or_build(decoded).images[:] = 0
    assert_same_images(ImageCache({}).load_or_build(must_not_build), decoded())


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "about.json"])
@pytest.mark.parametrize("damage", ["truncated", "altered", "empty", "missing", "other"])
def test_a_damaged_cache_is_rebuilt(name, damage):
    cache = ImageCache({})
    cache.load_or_build(decoded)
    path = cache.folder / name
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        other = b"[]" if name == "about.json" else data[:-1] + bytes([data[-1] ^ 1])
        path.write_bytes({"truncated": data[:-3], "altered": other, "empty": b"", "other": b"\x80nothing"}[damage])
    assert_same_images(cache.load_or_build(lambda: decoded(1)), decoded(1))
    assert_same_images(cache.load_or_build(must_not_build), decoded(1))


def test_concurrent_processes():
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: ImageCache({}).load_or_build(decoded), range(32)):
            assert_same_images(found, decoded())
    assert sorted(os.listdir(ImageCache({}).folder)) == ["about.json", "images.npy", "labels.npy"]


def test_failed_write_leaves_nothing_behind(monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(DataError, match=r"cannot write the cache folder .*: No space left on device; set XDG"):
        ImageCache({}).load_or_build(decoded)
    assert os.listdir(ImageCache({}).folder) == []


def test_an_unwritable_cache_suggests_another_folder(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    with pytest.raises(DataError, match=r"cannot write the cache folder .*XDG_CACHE_HOME"):
        ImageCache({}).load_or_build(decoded)


def test_about_holds_plain_values():
    cache = ImageCache({})
    cache.load_or_build(decoded)
    assert json.loads((cache.folder / "about.json").read_text())["content"]["about"]["class_names"] == ["cat", "dog"]
