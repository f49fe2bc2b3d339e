"""The augmentations of images against closed forms and loops, and the two views of a batch."""

import math

import pytest
import torch

from datamodules import Blur, ChannelMixing, ColorJitter, Composed, Crops, Grey, ImageDataModule, MirrorShift
from datamodules.augmentation.images import _rotations_about_grey
from tests.datamodules.test_image_data import Recorder
from tests.tools import quiet_trainer

ALL = [MirrorShift(), Crops(), ColorJitter(), ChannelMixing(), Grey(0.5), Blur(0.5)]


def pixels(count=6, size=8, channels=3):
    shape = (count, size, size, channels)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("part", [*ALL, Composed([ALL[1], ALL[0], *ALL[2:]])], ids=lambda part: type(part).__name__)
def test_all_keep_shape_and_range_and_are_decided_by_the_random_state(part, channels):
    images = pixels(channels=channels)
    before = images.clone()
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(part(images))
    assert torch.equal(images, before)
    first, again, other = results
    assert first.shape == images.shape
    assert first.is_contiguous()
    assert first.dtype in (torch.uint8, torch.float32)
    assert first.min() >= 0
    assert first.max() <= 255
    assert torch.equal(first, again)
    if channels >= 3 or not isinstance(part, Grey):  # one channel is grey already
        assert not torch.equal(first, other)


@pytest.mark.parametrize("part", [ColorJitter(), ChannelMixing(), Grey(0.5)], ids=lambda part: type(part).__name__)
@pytest.mark.parametrize("colours", [1, 3])
def test_opacity_is_no_colour(part, colours):
    images = pixels(channels=colours + 1)
    torch.manual_seed(0)
    changed = part(images)
    torch.manual_seed(0)
    assert torch.equal(changed[..., :colours], part(images[..., :colours]))
    assert torch.equal(changed[..., colours], images[..., colours].float())


def test_amounts_of_nothing_change_nothing():
    images = pixels()
    for part in (
        Crops((1.0, 1.0), (1.0, 1.0), mirror=False),
        ColorJitter(0.0, 0.0, 0.0, 0.0),
        ChannelMixing(0.0),
        Grey(0.0),
        Blur(0.0),
    ):
        torch.testing.assert_close(part(images), images.float(), atol=1e-3, rtol=0)


def test_a_crop_of_a_ramp_is_a_part_of_the_ramp():
    """x + 10 y at the pixels' centres: a quarter of the area has half the slope in each direction."""
    place = torch.arange(16.0)
    images = (place[None, :] + 10 * place[:, None])[None, :, :, None].repeat(40, 1, 1, 1)
    torch.manual_seed(0)
    inner = Crops((0.25, 0.25), (1.0, 1.0))(images)[:, 2:-2, 2:-2, 0]  # without what the border clamps
    down, right = inner.diff(dim=1), inner.diff(dim=2)
    torch.testing.assert_close(down, torch.full_like(down, 5.0), atol=1e-3, rtol=0)
    slopes = right.mean((1, 2))
    torch.testing.assert_close(slopes.abs(), torch.full((40,), 0.5), atol=1e-3, rtol=0)
    assert (slopes < 0).any()
    assert (slopes > 0).any()
    assert inner.mean((1, 2)).std() > 10


def test_a_wide_crop_is_wide():
    place = torch.arange(16.0)
    images = (place[None, :] + 10 * place[:, None])[None, :, :, None].repeat(4, 1, 1, 1)
    inner = Crops((0.25, 0.25), (2.25, 2.25), mirror=False)(images)[:, 4:-4, 4:-4, 0]
    assert inner.diff(dim=2).mean().item() == pytest.approx(0.75, abs=1e-3)
    assert inner.diff(dim=1).mean().item() == pytest.approx(10 / 3, abs=1e-2)


def test_a_third_of_the_circle_exchanges_the_colours():
    turn = _rotations_about_grey(torch.tensor([2 * math.pi / 3]))[0]
    torch.testing.assert_close(turn @ torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0, 1.0, 2.0]))


def test_jitter_scales_pixels_contrasts_and_colours():
    images = 64 + pixels().float() / 4  # nothing is cut off
    bright = ColorJitter(0.3, 0.0, 0.0, 0.0)(images) / images
    assert bright.flatten(1).std(1).max() < 1e-4
    assert bright.flatten(1).mean(1).std() > 0.05
    luma = torch.tensor([0.299, 0.587, 0.114])
    contrast = ColorJitter(0.0, 0.3, 0.0, 0.0)(images)
    mean = (images @ luma).mean((1, 2))[:, None, None, None]
    assert ((contrast - mean) / (images - mean)).flatten(1).median(1).values.std() > 0.05
    torch.testing.assert_close((contrast @ luma).mean((1, 2)), mean.flatten(), atol=1e-2, rtol=0)
    colourless = ColorJitter(0.0, 0.0, 1.0, 0.0)(images)
    torch.testing.assert_close(colourless @ luma, images @ luma, atol=1e-2, rtol=0)


def test_mixing_is_one_linear_map_an_image():
    images = 112 + pixels().float() / 8
    mixed = ChannelMixing(0.5)(images)
    for image, result in zip(images.flatten(1, 2) - 127.5, mixed.flatten(1, 2) - 127.5, strict=True):
        matrix = torch.linalg.lstsq(image, result).solution
        torch.testing.assert_close(image @ matrix, result, atol=1e-2, rtol=0)
        assert not torch.allclose(matrix, torch.eye(3), atol=0.05)


def test_grey_has_equal_channels():
    grey = Grey(1.0)(pixels())
    torch.testing.assert_close(
        grey, (pixels().float() @ torch.tensor([0.299, 0.587, 0.114]))[..., None].expand(grey.shape)
    )


def test_blur_is_a_weighted_mean_of_the_neighbours():
    images, sigma = pixels(2, 8, 1), 0.1 * 8
    blurred = Blur(1.0, (0.1, 0.1))(images)
    for y, x in ((0, 0), (3, 7), (4, 4)):
        weights = {
            (j, i): math.exp(-((j - y) ** 2 + (i - x) ** 2) / (2 * sigma**2)) for j in range(8) for i in range(8)
        }
        mean = sum(w * float(images[1, j, i, 0]) for (j, i), w in weights.items()) / sum(weights.values())
        assert blurred[1, y, x, 0].item() == pytest.approx(mean, abs=1e-3)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Crops((0.0, 1.0)), "scale"),
        (lambda: Crops((0.9, 0.5)), "scale"),
        (lambda: Crops(ratio=(0.0, 1.0)), "ratio"),
        (lambda: ColorJitter(brightness=1.5), "brightness"),
        (lambda: ColorJitter(hue=0.6), "hue"),
        (lambda: ChannelMixing(-1.0), "strength"),
        (lambda: Grey(2.0), "probability"),
        (lambda: Blur(sigma=(0.0, 0.1)), "sigma"),
        (lambda: MirrorShift(1.0), "shift"),
        (lambda: Composed([]), "parts"),
        (lambda: ImageDataModule("sample", views=2), "views"),
    ],
)
def test_wrong_arguments_are_named(make, name):
    with pytest.raises(ValueError, match=name):
        make()


class Views(Recorder):
    """Also keeps which loader a batch came from."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.other_batches.append((dataloader_idx, batch))

    test_step = validation_step


def fit(views):
    data = ImageDataModule(
        "sample",
        sample_train_size=60,
        sample_test_size=20,
        batch_size=16,
        image_size=16,
        views=views,
        augmentation=Composed([Crops(), ColorJitter(), ChannelMixing(), Grey(), Blur()]),
    )
    torch.manual_seed(3)
    recorder = Views()
    quiet_trainer(max_epochs=2).fit(recorder, data)
    return recorder, data


@pytest.mark.filterwarnings("ignore")
def test_training_has_two_versions_and_validation_one_beside_the_image():
    recorder, data = fit(2)
    quiet_trainer().test(recorder, data, verbose=False)
    for batch in recorder.train_batches:
        assert batch.views.shape == batch.images.shape
        assert batch.views.is_contiguous(memory_format=torch.channels_last)
        assert not torch.equal(batch.views, batch.images)
    first, memory, again, _, *tested = recorder.other_batches
    assert [memory[0], memory[1].views] == [1, None]
    assert torch.equal(first[1].views, again[1].views)
    assert not torch.equal(first[1].views, first[1].images)
    assert all(batch.views is None for _, batch in tested)
    one, _ = fit(1)
    assert all(batch.views is None for batch in one.train_batches)
    assert torch.equal(one.train_batches[0].images, recorder.train_batches[0].images)
