"""The pictures: exact pixels, complete curves after a resume, an unchanged global random state."""

import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from torch import Tensor
from torch.nn import functional as F

from callbacks import CodeMap, MetricCurves, NearestNeighbors
from callbacks.pictures.base import RandomSample, log_figure, new_figure, thumbnails, to_uint8
from callbacks.pictures.nearest_neighbors import FRAME, RIGHT_PIXEL, WRONG_PIXEL
from datamodules.batches import ImageBatch
from tests.tools import Album, Batches, quiet_trainer

# A process's first optimizer and scikit-learn's import set environment variables, which would look like leaks.
torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
pytest.importorskip("sklearn.manifold")

SIZE = 12


class Pixels(pl.LightningModule):
    """Its code is the image minus its mean, so that the nearest image is the most similar one."""

    def __init__(self, pixel_range: tuple[float, float] = (-0.5, 0.5)) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        flat = images.float().flatten(1)
        return flat - flat.mean(1, keepdim=True)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        loss = (self.weight - 1).square()
        self.log("train/loss", loss)
        self.log("train/step", float(self.global_step))
        return loss

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        self.log("val/weight", self.weight)

    def test_step(self, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        return {"code": self(batch.images)}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class PixelsBesideUntrained(Pixels):
    """Its untrained code sees the upper half only."""

    def untrained(self, images: Tensor) -> Tensor:
        return self(images[:, :, : SIZE // 2])

    def test_step(self, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        return {"code": self(batch.images), "untrained_code": self.untrained(batch.images)}


class Photos(pl.LightningDataModule):
    """Test images, and a memory with a noisy copy of each among others."""

    class_names = ("cat", "dog", "ship")

    def __init__(self, pixel_range: tuple[float, float] = (-0.5, 0.5), labelled: bool = True) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.pixel_range = pixel_range
        self.pixels = torch.randint(256, (30, SIZE, SIZE, 3), generator=generator, dtype=torch.uint8)
        self.labels = torch.randint(3, (30,), generator=generator) if labelled else torch.full((30,), -1)
        noise = torch.randint(-9, 10, self.pixels.shape, generator=generator)
        self.near = (self.pixels.int() + noise).clamp(0, 255).to(torch.uint8)
        self.others = torch.randint(256, (45, SIZE, SIZE, 3), generator=generator, dtype=torch.uint8)

    def loader(self, pixels: Tensor, labels: Tensor, batch_size: int) -> Batches:
        low, high = self.pixel_range
        images = pixels.permute(0, 3, 1, 2) / 255 * (high - low) + low
        parts = zip(images.split(batch_size), labels.split(batch_size), strict=True)
        return Batches([ImageBatch(*part) for part in parts])

    def train_dataloader(self) -> Batches:
        return self.loader(self.pixels, self.labels, 5)

    def val_dataloader(self) -> Batches:
        return self.loader(self.pixels, self.labels, 30)

    def test_dataloader(self) -> list[Batches]:
        labels = torch.cat([self.labels, (self.labels[:1] + 1).expand(45)])
        if self.labels[0] < 0:
            labels = torch.full_like(labels, -1)
        memory = torch.cat([self.near, self.others])
        order = torch.randperm(75, generator=torch.Generator().manual_seed(3))
        return [self.loader(self.pixels, self.labels, 8), self.loader(memory[order], labels[order], 11)]


def trainer(callbacks: list[pl.Callback], logger: Any = None, **options: Any) -> pl.Trainer:
    options = {"max_epochs": 2, "log_every_n_steps": 1, "num_sanity_val_steps": 2} | options
    return quiet_trainer(*callbacks, logger=Album() if logger is None else logger, **options)


def states() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()
    return torch.get_rng_state().tolist(), random.getstate(), name, keys.tolist(), *rest


def places(picture: np.ndarray, image: np.ndarray) -> list[tuple[int, int]]:
    """Where ``image`` (H, W, 3) occurs in ``picture``, exactly."""
    height, width, _ = image.shape
    windows = np.lib.stride_tricks.sliding_window_view(picture, (height, width), axis=(0, 1))
    candidates = np.argwhere((windows[..., 0, 0] == image[0, 0]).all(-1))
    fits = [(y, x) for y, x in candidates if np.array_equal(picture[y : y + height, x : x + width], image)]
    return [(int(y), int(x)) for y, x in fits]


def enlarged(pixels: Tensor) -> np.ndarray:
    factor = round(72 / SIZE)
    return np.kron(pixels.numpy(), np.ones((factor, factor, 1), dtype=np.uint8))


@pytest.mark.parametrize("pixel_range", [(-0.5, 0.5), (-1.0, 1.0), (0.0, 1.0)])
def test_neighbours_appear_unchanged_beside_their_query(pixel_range) -> None:
    album, data = Album(), Photos(pixel_range)
    callback = NearestNeighbors(num_queries=4, num_neighbors=3)
    trainer([callback], album).test(Pixels(pixel_range), data, verbose=False)
    (picture,) = album.pictures["nearest_neighbors"]
    rows = 0
    for number, pixels in enumerate(data.pixels):
        found = places(picture, enlarged(pixels))
        if not found:
            continue
        rows += 1
        ((y, x),) = found
        # The first neighbour is the query's own noisy copy, whatever its batch, in the frame of the same class.
        ((_, near_x),) = (place for place in places(picture, enlarged(data.near[number])) if place[0] == y)
        tile = SIZE * round(72 / SIZE)
        assert x + tile < near_x < x + 2 * tile
        assert tuple(picture[y + tile // 2, near_x - FRAME // 2]) == RIGHT_PIXEL
        assert tuple(picture[y + tile // 2, near_x + tile + FRAME // 2]) == RIGHT_PIXEL
    assert rows == 4
    assert (picture == WRONG_PIXEL).all(-1).any()


def test_neighbours_are_those_of_a_full_search() -> None:
    data, model, album = Photos(), PixelsBesideUntrained(), Album()
    callback = NearestNeighbors(num_queries=6, num_neighbors=5)
    seen: dict[str, Any] = {}
    draw = callback._draw

    def spy(*args: Any) -> None:
        seen.update(queries=callback._queries.rows[0], best=callback._best)
        draw(*args)

    callback._draw = spy
    trainer([callback], album).test(model, data, verbose=False)
    memory = torch.cat([batch.images for batch in data.test_dataloader()[1]])
    assert list(seen["best"]) == ["learned", "untrained"]
    for encode, (all_scores, all_images, _) in zip((model, model.untrained), seen["best"].values(), strict=True):
        codes = encode(memory)
        for query, images, scores in zip(seen["queries"], all_images, all_scores, strict=True):
            cosines = F.cosine_similarity(encode(query[None]), codes)
            best = cosines.argsort(descending=True)[:5]
            torch.testing.assert_close(scores, cosines[best])
            assert torch.equal(images, to_uint8(memory[best], (-0.5, 0.5)))
    # The untrained block is right of the learned one, whose nearest is the query's noisy copy.
    (picture,) = album.pictures["nearest_neighbors"]
    _, images, _ = seen["best"]["untrained"]
    farthest = max(x for _, x in places(picture, enlarged(images[0, -1])))
    assert farthest > picture.shape[1] - 2 * SIZE * round(72 / SIZE)


def test_neighbours_without_classes_and_without_a_memory() -> None:
    album, data = Album(), Photos(labelled=False)
    trainer([NearestNeighbors(3, 2)], album).test(Pixels(), data, verbose=False)
    (picture,) = album.pictures["nearest_neighbors"]
    assert not (picture == RIGHT_PIXEL).all(-1).any()
    assert not (picture == WRONG_PIXEL).all(-1).any()
    data.test_dataloader = lambda: data.val_dataloader()
    with pytest.warns(UserWarning, match="no second data loader"):
        trainer([NearestNeighbors(3, 2)], Album()).test(Pixels(), data, verbose=False)


def test_pictures_of_codes_ignore_a_module_that_returns_none() -> None:
    class Silent(Pixels):
        def test_step(self, *args: Any) -> None:
            super().test_step(*args)

    album = Album()
    trainer([NearestNeighbors(3, 2), CodeMap(20)], album).test(Silent(), Photos(), verbose=False)
    assert not album.pictures


def test_neighbours_need_the_pixel_range() -> None:
    class Unknown(Pixels):
        def __init__(self) -> None:
            super().__init__()
            del self._hparams["pixel_range"]

    with pytest.raises(ValueError, match="Unknown has no hyperparameter pixel_range"):
        trainer([NearestNeighbors(3, 2)]).test(Unknown(), Photos(), verbose=False)


def test_large_images_are_reduced_and_small_ones_kept() -> None:
    images = torch.rand(2, 3, 200, 300, generator=torch.Generator().manual_seed(0)) - 0.5
    assert thumbnails(images, (-0.5, 0.5)).shape == (2, 64, 96, 3)
    grey = torch.full((1, 3, 400, 400), 0.25)
    assert thumbnails(grey, (-0.5, 0.5)).unique().tolist() == [191]
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3)
    for low, high in ((-0.5, 0.5), (-1.0, 1.0), (0.0, 1.0)):
        normalised = every.permute(0, 3, 1, 2) / 255 * (high - low) + low
        assert torch.equal(thumbnails(normalised, (low, high)), every)


@pytest.mark.parametrize("labelled", [True, False])
def test_code_map_shows_the_points(labelled: bool) -> None:
    album, data = Album(), Photos(labelled=labelled)
    trainer([CodeMap(num_points=20)], album).test(Pixels(), data, verbose=False)
    (picture,) = album.pictures["code_map"]
    assert picture.ndim == 3
    colours = {tuple(colour) for colour in picture.reshape(-1, 3).tolist() if max(colour) - min(colour) > 60}
    assert len(colours) > 2
    trainer([CodeMap(num_points=20)], album).test(Pixels(), data, verbose=False)
    again = album.pictures["code_map"][1]
    assert np.array_equal(picture, again)


def test_code_map_keeps_clusters_apart() -> None:
    from callbacks.pictures.code_map import plane_map

    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(3, 16).repeat_interleave(40, 0)
    points = plane_map(centres + 0.05 * torch.randn(120, 16, generator=generator), seed=0)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1) + 1e9 * np.eye(120)
    assert (distances.argmin(1) // 40 == np.arange(120) // 40).all()


@pytest.mark.filterwarnings("ignore:CodeMap")
def test_code_map_of_too_few_points_is_left_out() -> None:
    album, data = Album(), Photos()
    data.pixels, data.labels = data.pixels[:5], data.labels[:5]
    data.test_dataloader = lambda: data.loader(data.pixels, data.labels, 5)
    trainer([CodeMap()], album).test(Pixels(), data, verbose=False)
    assert album.pictures == {}


def test_pictures_leave_the_global_random_state_alone() -> None:
    torch.manual_seed(3)
    before = states()
    trainer([NearestNeighbors(3, 2), CodeMap(20), MetricCurves(["train/loss"], "a")]).test(
        Pixels(), Photos(), verbose=False
    )
    assert states() == before
    sample = RandomSample(5, seed=0)
    sample.add(torch.arange(100))
    assert states() == before


def test_random_sample_is_uniform_and_does_not_depend_on_the_batches() -> None:
    counts = torch.zeros(40)
    for seed in range(600):
        sample = RandomSample(10, seed)
        for rows in torch.arange(40).split(7):
            sample.add(rows, 10 * rows)
        numbers, tens = sample.rows
        assert len(sample) == len(numbers.unique()) == 10
        assert torch.equal(tens, 10 * numbers)
        counts[numbers] += 1
        whole = RandomSample(10, seed)
        whole.add(torch.arange(40))
        assert torch.equal(whole.rows[0], numbers)
    # Each row is in a quarter of the samples: 150 of 600, with a standard deviation of 11.
    assert counts.min() > 100
    assert counts.max() < 200


def test_curves_have_every_point_once() -> None:
    album = Album()
    curves = MetricCurves(["train/step", "val/weight", "never"], "progress")
    trainer([curves], album, log_every_n_steps=2, val_check_interval=3).fit(Pixels(), Photos())
    # Twelve steps in two epochs of six; the metric is the step counter before each step.
    assert curves.steps["train/step"] == [2, 4, 6, 8, 10, 12]
    assert curves.values["train/step"] == [1, 3, 5, 7, 9, 11]
    assert curves.steps["val/weight"] == [3, 6, 9, 12]
    assert curves.values["val/weight"] == pytest.approx([1 - 0.8**step for step in (3, 6, 9, 12)])
    assert curves.steps["never"] == []
    assert len(album.pictures["progress"]) == 5
    picture = album.pictures["progress"][-1]
    assert (picture == (0, 114, 178)).all(-1).any()
    assert (picture == (213, 94, 0)).all(-1).any()


def test_curves_with_accumulated_batches_and_none_logged() -> None:
    album, curves = Album(), MetricCurves(["train/loss"], "loss")
    trainer([curves, MetricCurves(["no"], "nothing")], album, accumulate_grad_batches=3).fit(Pixels(), Photos())
    assert [step for step in curves.steps["train/loss"] if step] == [1, 2, 3, 4]
    assert len(set(curves.steps["train/loss"])) == len(curves.steps["train/loss"])
    assert set(album.pictures) == {"loss"}


def test_a_resumed_runs_curves_are_those_of_an_uninterrupted_run(tmp_path) -> None:
    def curves() -> list[MetricCurves]:
        return [MetricCurves(["train/step", "val/weight"], "progress"), MetricCurves(["train/loss"], "loss")]

    whole = curves()
    trainer(whole, max_epochs=3).fit(Pixels(), Photos())
    begun = curves()
    first = trainer(begun, max_epochs=1)
    first.fit(Pixels(), Photos())
    first.save_checkpoint(tmp_path / "last.ckpt")
    torch.load(tmp_path / "last.ckpt", weights_only=True)
    resumed = curves()
    trainer(resumed, max_epochs=3).fit(Pixels(), Photos(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    for expected, got in zip(whole, resumed, strict=True):
        assert got.steps == expected.steps
        assert got.values == expected.values
        assert got.state_dict() == expected.state_dict()


def test_state_of_curves_is_a_copy() -> None:
    curves = MetricCurves(["a", "b"], "x")
    curves.load_state_dict({"steps": {"a": [1], "z": [2]}, "values": {"a": [0.5], "z": [1.0]}})
    state = curves.state_dict()
    assert state == {"steps": {"a": [1], "b": []}, "values": {"a": [0.5], "b": []}}
    curves.steps["a"].append(2)
    assert state["steps"]["a"] == [1]


def test_figures_go_to_every_logger_with_pictures_on_rank_zero_only(monkeypatch) -> None:
    albums = [Album(), Album()]
    both = trainer([], [*albums, DummyLogger()])
    figure = new_figure(2, 1, dpi=100)
    figure.add_subplot().plot([0, 1])
    log_figure(both, "line", figure)
    assert [album.pictures["line"][0].shape for album in albums] == [(100, 200, 3)] * 2
    assert figure.axes == []
    monkeypatch.setattr(type(both), "is_global_zero", False)
    log_figure(both, "other", new_figure(2, 1))
    assert "other" not in albums[0].pictures


def test_without_a_logger_nothing_is_drawn() -> None:
    run = trainer([NearestNeighbors(3, 2), CodeMap(20), MetricCurves(["train/loss"], "a")], logger=False)
    run.test(Pixels(), Photos(), verbose=False)
    run.fit(Pixels(), Photos())


def test_importing_the_callbacks_loads_no_drawing_library() -> None:
    # Lightning itself may load them.
    code = (
        "import sys, pytorch_lightning; before = set(sys.modules); import callbacks;"
        "print(sorted({name.split('.')[0] for name in set(sys.modules) - before} & {'matplotlib', 'PIL', 'sklearn'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: NearestNeighbors(num_queries=0), "at least 1, got 0, 6"),
        (lambda: CodeMap(num_points=3), "at least 10, got 3"),
        (lambda: MetricCurves([], "x"), "at least one metric"),
    ],
)
def test_arguments_are_checked(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
