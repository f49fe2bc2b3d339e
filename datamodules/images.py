"""Images of a data set or of the user, or a procedural sample: decoded once, batched in memory."""

from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from readers.errors import DataError
from readers.images import (
    DataSetLayout,
    ImageArrays,
    LeftOut,
    describe_left_out,
    describe_skipped,
    open_source,
    refit_images,
)

from .arguments import check_at_least, check_seed, check_val_fraction
from .augmentation.images import Augmentation, MirrorShift
from .batches import ImageBatch
from .image_cache import ImageCache
from .loader import BatchLoader
from .samples.shapes import CLASS_NAMES, render_shapes


class ImageDataModule(pl.LightningDataModule):
    """Images with or without labels, for learning and evaluating features.

    Every image is decoded once, resized and kept as uint8 in a memory-mapped cache file in ``$XDG_CACHE_HOME`` (or
    ``~/.cache``). A batch is one indexing operation; scaling to ``pixel_range`` and augmentation run on the device,
    for the whole batch at once. Checkpoints contain the position in the data, so a run resumes mid-epoch.

    Splits: where the source has no validation split, ``val_fraction`` of the training images, drawn by ``seed``, are
    held out for it. If it has no test split, the same fraction of all images is set aside for testing first.

    Loaders: training yields shuffled full batches. Validation yields two loaders, the held-out images and a *memory*
    of training images, on which nearest neighbours are looked up and probes are trained; so does testing, whose memory
    is every other image that may be judged. Batches reach the module as ``ImageBatch``.

    Args:
        source: ``hub`` (``hub_id``, by Hugging Face ``datasets``), ``sample`` (ten shapes, made at load time), or a
            folder: your image files, with optional sub-folders per class and per split (``train/``, ``test/``,
            ``val/``, ``unlabeled/`` …), or a data set as parquet files or as CIFAR-10's authors publish it
            (``readers.images.open_source``).
        batch_size: images per training batch and process.
        image_size: height and width in pixels that images are resized to, after cropping to the central square.
        pixel_range: the values that black and white are mapped to.
        val_fraction: fraction of the training images held out for validation, strictly between 0 and 1.
        memory_size: maximum number of images in the memory of validation.
        eval_batch_size: images per batch of the memories and of the test, per process.
        augment: change training images at random by ``augmentation``, ``MirrorShift`` if none is named.
        augmentation: the augmentation slot: what changes training images at random; naming one turns it on.
        views: 2: training batches have two versions of each image, changed independently, for objectives that compare
            them; validation batches have the image as it is and one changed version, the same in each validation.
        seed: of the splits, of the order of training images, and of the sample.
        sample_train_size: number of training images (including validation) of ``sample``.
        sample_test_size: number of test images of ``sample``.
        hub_id: the data set on the hub, ``owner/name``.
        hub_config: its configuration, if it has several. This and the following also apply to parquet files.
        image_column: its column of images; None: ``img`` or ``image``, else the first column of images, else
            the only one of bytes.
        label_column: its column of classes; None: ``label`` or ``labels``, else the first column of classes, if any.
        train_split: its split of training images.
        test_split: its split of test images; None: the first of test, validation, valid and val that exists, if any.
        val_split: its split of validation images; None: the first of validation, valid, val and dev that is not the
            test split, if any. Images of a split ``unlabeled`` are for training, and never judged.
        channels: of the images: 1 (grey), 2 (grey and opacity), 3 (RGB) or 4 (RGB and opacity).
        on_error: with images that can't be decoded: ``stop`` and name all of them, or ``skip`` them.

    Attributes:
        class_names: the classes, after ``setup``; empty without labels.
        classes: the same as a list; also before ``setup``, and loads the images if need be.
        has_labels: whether the images have classes, after ``setup``; if not, every label is -1.

    Raises:
        ValueError: an argument is out of range.
        DataError: from ``prepare_data`` or ``setup``: the source is not available, can't be read, or has too few
            images.

    Example:
        data:
          class_path: ImageDataModule
          init_args: {source: hub, hub_id: uoft-cs/cifar100, label_column: coarse_label}
    """

    def __init__(
        self,
        source: str = "hub",
        batch_size: int = 64,
        image_size: int = 32,
        pixel_range: tuple[float, float] = (-0.5, 0.5),
        val_fraction: float = 0.1,
        memory_size: int = 10000,
        eval_batch_size: int = 512,
        augment: bool = False,
        augmentation: Augmentation | None = None,
        views: Literal[1, 2] = 1,
        seed: int = 0,
        sample_train_size: int = 5000,
        sample_test_size: int = 1000,
        hub_id: str = "uoft-cs/cifar10",
        hub_config: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        train_split: str = "train",
        test_split: str | None = None,
        val_split: str | None = None,
        channels: Literal[1, 2, 3, 4] = 3,
        on_error: Literal["stop", "skip"] = "stop",
    ) -> None:
        super().__init__()
        check_at_least(1, batch_size=batch_size, image_size=image_size, memory_size=memory_size)
        check_at_least(1, eval_batch_size=eval_batch_size)
        check_at_least(1, sample_train_size=sample_train_size, sample_test_size=sample_test_size)
        check_val_fraction(val_fraction)
        check_seed(seed)
        if len(pixel_range) != 2 or not pixel_range[0] < pixel_range[1]:
            raise ValueError(f"pixel_range ({pixel_range}) must be two numbers, the lower one first")
        self.source = source
        self.batch_size = batch_size
        self.image_size = image_size
        self.pixel_range = (float(pixel_range[0]), float(pixel_range[1]))
        self.val_fraction = val_fraction
        self.memory_size = memory_size
        self.eval_batch_size = eval_batch_size
        self.augmentation = MirrorShift() if augment and augmentation is None else augmentation
        if views == 2 and self.augmentation is None:
            raise ValueError("views=2 needs images that differ: name data.augmentation, or set data.augment=true")
        self.views = views
        self.seed = seed
        self.sample_train_size = sample_train_size
        self.sample_test_size = sample_test_size
        self.hub_id = hub_id
        self.layout = DataSetLayout(hub_config, image_column, label_column, train_split, test_split, val_split)
        self.channels = channels
        self.on_error = on_error
        self._arrays: ImageArrays | None = None
        self._left_out: LeftOut = {}
        self._remarks: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes; empty without labels."""
        return self._data.class_names

    @property
    def classes(self) -> list[str]:
        """``class_names`` as a list; also before ``setup``, and loads the images if need be."""
        self.setup()
        return list(self.class_names)

    @property
    def has_labels(self) -> bool:
        """Whether the images have classes; if not, every label is -1."""
        return bool(self.class_names)

    @property
    def _data(self) -> ImageArrays:
        if self._arrays is None:
            raise RuntimeError("the images are not loaded yet: call setup() first")
        return self._arrays

    def prepare_data(self) -> None:
        """Fill the cache, in one process."""
        if self.source != "sample" and self._arrays is None:
            self._say_what_is_unusual(self._load())

    def setup(self, stage: str | None = None) -> None:
        """Load the images and split them; the same in every process and at every stage."""
        if self._arrays is not None:
            return
        self._arrays = self._load()
        self._images = torch.from_numpy(self._arrays.images)
        self._labels = torch.from_numpy(np.array(self._arrays.labels))
        self._split(self._arrays)

    def _load(self) -> ImageArrays:
        if self.source == "sample":
            return self._make_sample()
        source = open_source(self.source, self.hub_id, self.layout)
        self._left_out, self._remarks = source.left_out, source.remarks
        key = {"source": source.key(), "image_size": self.image_size, "channels": self.channels}
        cache = ImageCache(key)

        def build() -> ImageArrays:
            rank_zero_info(f"Decoding the images of {self.source} once; they are kept in {cache.folder}")
            return source.read(self.image_size, self.channels, cache.folder, self.on_error)

        arrays = cache.load_or_build(build)
        if self.on_error == "stop":  # the cache may be of a run that skipped them
            arrays.check_readable()
        return arrays

    def _say_what_is_unusual(self, arrays: ImageArrays) -> None:
        for remark in self._remarks:
            rank_zero_warn(remark)
        if self._left_out:
            rank_zero_warn(f"Left out of {self.source}, not read as images: {describe_left_out(self._left_out)}")
        if arrays.scaled:
            by = ", ".join(f"{count} by {what}" for what, count in sorted(arrays.scaled.items()))
            rank_zero_warn(f"Scaled to 8 bits: images of {self.source} with other ranges of values, {by}")
        if arrays.unreadable:
            skipped = describe_skipped([reason for _, reason in arrays.unreadable])
            rank_zero_warn(f"Skipped images of {self.source}: {skipped}")
        if arrays.class_names:
            self._say_what_has_no_labels(arrays)

    def _say_what_has_no_labels(self, arrays: ImageArrays) -> None:
        start = arrays.num_train
        for argument, stop in (("val_split", start + arrays.num_val), ("test_split", len(arrays.labels))):
            count, without = stop - start, int((arrays.labels[start:stop] < 0).sum())
            if without:
                what = "none of its images has a" if without == count else f"{without} of its {count} images have no"
                effect = "training images are held out in its place" if without == count else "these are not judged"
                rank_zero_warn(f"data.{argument} of {self.source}: {what} label: {effect}; or name another split")
            start = stop

    def _make_sample(self) -> ImageArrays:
        train = render_shapes(self.sample_train_size, self.image_size, (self.seed, 0))
        test = render_shapes(self.sample_test_size, self.image_size, (self.seed, 1))
        images, labels = (np.concatenate(pair) for pair in zip(train, test, strict=True))
        images = refit_images(images, self.image_size, self.channels)
        return ImageArrays(images, labels, self.sample_train_size, CLASS_NAMES).with_fingerprint()

    def _split(self, arrays: ImageArrays) -> None:
        """The rows (int64) of each split; and of the training images that may be judged, which come first."""
        num_images, num_train, num_val = len(arrays.labels), arrays.num_train, arrays.num_val
        usable = torch.ones(num_images, dtype=torch.bool)
        usable[[row for row, _ in arrays.unreadable]] = False
        if self.has_labels:  # images without a class tell nothing about the quality of features
            usable[num_train:] &= self._labels[num_train:] >= 0
        order = torch.randperm(num_train, generator=torch.Generator().manual_seed(self.seed))
        order = order[usable[order]]
        judged = (self._labels[order] >= 0) | (not self.has_labels)
        order, unlabeled = order[judged], order[~judged]
        val, test = (
            rows[usable[rows]]
            for rows in torch.arange(num_train, num_images).split([num_val, num_images - num_train - num_val])
        )
        if not len(test):
            held_out = _share(self.val_fraction, len(order))
            test, order = order[:held_out], order[held_out:]
        if not len(val):
            held_out = _share(self.val_fraction, len(order))
            val, order = order[:held_out], order[held_out:]
        if not len(order) or not len(val):
            raise DataError(
                f"data.source {self.source}: {int(usable.sum())} images are too few to train, validate and test"
            )
        # The memory takes the beginning of the rest, which is a random choice, too.
        self._train, self._judged_train, self._val, self._test = torch.cat([order, unlabeled]), order, val, test

    def train_dataloader(self) -> BatchLoader:
        return self._loader(self._train, self.batch_size, training=True)

    def val_dataloader(self) -> list[BatchLoader]:
        # Batches of the same size as in training: losses that compare the images within a batch depend on it.
        memory = self._judged_train[: self.memory_size]
        return [self._loader(self._val, self.batch_size), self._loader(memory, self.eval_batch_size)]

    def test_dataloader(self) -> list[BatchLoader]:
        memory = torch.cat([self._judged_train, self._val])
        return [self._loader(rows, self.eval_batch_size) for rows in (self._test, memory)]

    def _loader(self, rows: Tensor, batch_size: int, training: bool = False) -> BatchLoader:
        def fetch(positions: Tensor) -> tuple[Tensor, Tensor]:
            index = rows[positions]
            return self._images.index_select(0, index), self._labels.index_select(0, index)

        return BatchLoader(fetch, len(rows), batch_size, shuffle=training, drop_last=training, seed=self.seed)

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> ImageBatch:
        """An ``ImageBatch`` from (B, S, S, C) uint8 images and (B,) labels on the device."""
        pixels, labels = batch
        changed = self._changed(pixels, dataloader_idx)
        images, *views = [ImageBatch.from_pixels(each, self.pixel_range).images for each in changed]
        return ImageBatch(images, labels, *views)

    def _changed(self, pixels: Tensor, dataloader_idx: int) -> list[Tensor]:
        """The pixels of the batch's images and, with two views, of its ``views``."""
        trainer = self.trainer
        if self.augmentation is None or trainer is None:
            return [pixels]
        if trainer.training:
            return [self.augmentation(pixels) for _ in range(self.views)]
        if self.views == 2 and dataloader_idx == 0 and (trainer.validating or trainer.sanity_checking):
            # The same changes in every validation, without touching the random state of training.
            with torch.random.fork_rng(devices=[pixels.device] if pixels.device.type == "cuda" else []):
                torch.manual_seed(self.seed)
                return [pixels, self.augmentation(pixels)]
        return [pixels]

    def describe(self) -> dict[str, Any]:
        """What the run was trained on, as plain values."""
        return {
            "source": self.source,
            "train_images": len(self._train),
            "val_images": len(self._val),
            "test_images": len(self._test),
            "class_names": list(self.class_names),
            "fingerprint": self._data.fingerprint,
            **self._describe_what_is_unusual(),
        }

    def _describe_what_is_unusual(self) -> dict[str, Any]:
        """Numbers of images that were treated in another way; nothing where there are none."""
        numbers = {
            "unlabeled_images": len(self._train) - len(self._judged_train),
            "unreadable_images": len(self._data.unreadable),
            "unreadable": [reason for _, reason in self._data.unreadable],
            "scaled_images": self._data.scaled,
            "left_out_files": {ending: count for ending, (count, _) in self._left_out.items()},
        }
        return {name: value for name, value in numbers.items() if value}


def _share(fraction: float, count: int) -> int:
    """A fraction of ``count``, at least one."""
    return max(1, round(fraction * count))
