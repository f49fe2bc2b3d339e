"""What picture callbacks share: drawing without global state, logging, sampling, pixels."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from colorsys import hls_to_rgb
from random import Random
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

INK, FAINT = "#222222", "#9a9a9a"
# Ten colours that colour-blind readers can tell apart, too.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f", "#9467bd", "#bcbd22")
RIGHT, WRONG = PALETTE[2], PALETTE[1]  # a model's correct and wrong results


def distinct_colours(count: int) -> list[str]:
    """So many colours, of a thousand no two alike: the palette, then hues a golden section apart, light and dark."""
    more = []
    for number in range(count - len(PALETTE)):
        rgb = hls_to_rgb(0.618034 * number % 1, (0.36, 0.52, 0.7)[number % 3], (0.45, 0.65)[number // 3 % 2])
        more.append("#" + "".join(f"{round(255 * part):02x}" for part in rgb))
    return [*PALETTE, *more][:count]


def wants_pictures(trainer: pl.Trainer) -> bool:
    """Whether this process should draw: rank zero, if a logger takes pictures."""
    return trainer.is_global_zero and any(hasattr(logger, "log_image") for logger in trainer.loggers)


def has_entries(outputs: Any, *names: str) -> bool:
    """Whether a step returned a dict with these entries; callbacks ignore the outputs of other modules."""
    return isinstance(outputs, dict) and set(names) <= outputs.keys()


class PictureOfTest(pl.Callback, ABC):
    """A callback that collects what ``test_step`` returns and draws when the test is over.

    Attributes:
        needs: the entries that the dict of ``test_step`` must have; other outputs are ignored.
    """

    needs: tuple[str, ...]

    @abstractmethod
    def forget(self) -> None:
        """Drop what was collected."""

    @abstractmethod
    def collect(self, trainer: pl.Trainer, outputs: Mapping[str, Any], batch: Any, dataloader_idx: int) -> None:
        """Keep what the picture needs of a batch; called in every process."""

    @abstractmethod
    def finish(self, trainer: pl.Trainer) -> None:
        """Draw what was collected; called in every process."""

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.forget()

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if has_entries(outputs, *self.needs):
            self.collect(trainer, outputs, batch, dataloader_idx)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.finish(trainer)
        self.forget()


class PictureOfSample(PictureOfTest):
    """A callback that draws a random sample of the test's rows; with several processes, of rank zero's share.

    Args:
        size: the most rows to draw.
        seed: of the sample.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self.forget()

    @abstractmethod
    def rows(self, outputs: Mapping[str, Any], batch: Any, dataloader_idx: int) -> tuple[Tensor, ...]:
        """The rows of a batch that may be drawn: tensors (B, ...) of equal first dimension; empty for none."""

    @abstractmethod
    def draw(self, trainer: pl.Trainer, *rows: Tensor) -> None:
        """Draw the sampled rows: tensors like those of ``rows``, on the CPU."""

    def forget(self) -> None:
        self._sample = RandomSample(self.size, self.seed)

    def collect(self, trainer: pl.Trainer, outputs: Mapping[str, Any], batch: Any, dataloader_idx: int) -> None:
        if wants_pictures(trainer) and (rows := self.rows(outputs, batch, dataloader_idx)):
            self._sample.add(*rows)

    def finish(self, trainer: pl.Trainer) -> None:
        if len(self._sample):
            self.draw(trainer, *self._sample.rows)


def new_figure(width: float, height: float, dpi: int = 150) -> "Figure":
    """An empty figure of ``width`` x ``height`` inches, without pyplot: no window, no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def plain_axes(axes: "Axes") -> None:
    """A faint grid, no top and right spines."""
    axes.grid(color=FAINT, alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def render(figure: "Figure") -> "np.ndarray":
    """The figure as pixels: (height * dpi, width * dpi, 3) uint8."""
    import numpy as np

    canvas = cast("FigureCanvasAgg", figure.canvas)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def log_figure(trainer: pl.Trainer, name: str, figure: "Figure") -> None:
    """Pass the figure to every logger that has ``log_image(key, images)``, on rank zero only; then clear the figure.

    No step is passed: Weights & Biases drops pictures with an earlier step than it has seen.

    Args:
        trainer: its ``loggers`` get the picture.
        name: key of the picture; a logger that writes files uses it as the file name.
        figure: made by ``new_figure``.
    """
    if wants_pictures(trainer):
        from PIL import Image

        image = Image.fromarray(render(figure))
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image(key=name, images=[image])
    figure.clear()


def to_uint8(images: Tensor, pixel_range: Sequence[float]) -> Tensor:
    """Images (N, C, H, W) float, with black and white at ``pixel_range``, as (N, H, W, 3) uint8 on the CPU, 0 to 255.

    Of one or two channels the first is the grey; of four the first three are red, green, blue.
    This undoes the actual preprocessing; with a fixed range, images of another range would have the wrong contrast.
    """
    low, high = pixel_range
    images = images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)
    pixels = (images.float() - low) / (high - low) * 255
    return pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu()


def thumbnails(images: Tensor, pixel_range: Sequence[float], longest_side: int = 96) -> Tensor:
    """Like ``to_uint8``, with larger images reduced to ``longest_side`` pixels; smaller ones keep every pixel."""
    height, width = images.shape[-2:]
    shrink = longest_side / max(height, width)
    if shrink < 1:
        size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
        images = F.interpolate(images.float(), size=size, mode="area")
    return to_uint8(images, pixel_range)


def pixel_range_of(pl_module: pl.LightningModule) -> tuple[float, float]:
    """The values of black and white in the module's images, from its hyperparameter ``pixel_range``.

    Raises:
        ValueError: if the module has none.
    """
    if "pixel_range" not in pl_module.hparams:
        raise ValueError(
            f"{type(pl_module).__name__} has no hyperparameter pixel_range, which the contrast of its images depends "
            "on: add the argument and call save_hyperparameters()"
        )
    low, high = pl_module.hparams["pixel_range"]
    return float(low), float(high)


def class_names_of(trainer: pl.Trainer, labels: Tensor) -> list[str]:
    """Names of the classes from 0 to the largest label: the datamodule's ``class_names``, else numbers."""
    known = list(getattr(trainer.datamodule, "class_names", None) or [])  # type: ignore[attr-defined]
    count = int(labels.max()) + 1 if len(labels) else 0
    return [str(known[number]) if number < len(known) else f"class {number}" for number in range(count)]


Item = TypeVar("Item")


class Reservoir(list, Generic[Item]):
    """A uniform random sample of a stream of unknown length, as a list: reservoir sampling.

    Args:
        size: items to keep.
        seed: decides, together with the order of the stream, which items stay. The global random state is not used.
    """

    def __init__(self, size: int, seed: int) -> None:
        super().__init__()
        self.size = size
        self._random = Random(seed)
        self._seen = 0

    def offer(self, item: Item) -> None:
        """The next item of the stream."""
        self._seen += 1
        place = self._seen - 1 if self._seen <= self.size else self._random.randrange(self._seen)
        if place < self.size:
            self[place : place + 1] = [item]


class RandomSample:
    """A uniform random sample of rows from a stream of unknown length, each row split over several tensors.

    Every row draws a random key from the sample's own generator, and the ``size`` smallest keys stay. The global random
    state is neither read nor changed; only the sampled rows are kept, on the CPU.

    Args:
        size: rows to keep.
        seed: decides, together with the order of the stream, which rows stay.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self._generator = torch.Generator().manual_seed(seed)
        self._keys = torch.empty(0, dtype=torch.float64)
        self._rows: tuple[Tensor, ...] = ()

    def add(self, *rows: Tensor) -> None:
        """Offer rows: tensors of equal first dimension (B, ...)."""
        keys = torch.rand(len(rows[0]), generator=self._generator, dtype=torch.float64)
        keys = torch.cat([self._keys, keys])
        stay = keys.argsort()[: self.size]
        new = stay[stay >= len(self._keys)] - len(self._keys)
        old = stay[stay < len(self._keys)]
        chosen = tuple(tensor.detach()[new.to(tensor.device)].cpu() for tensor in rows)
        if self._rows:
            chosen = tuple(torch.cat([kept[old], part]) for kept, part in zip(self._rows, chosen, strict=True))
        self._keys = torch.cat([keys[: len(self._keys)][old], keys[len(self._keys) :][new]])
        self._rows = chosen

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def rows(self) -> tuple[Tensor, ...]:
        """The rows sampled so far, as tensors, in the order of their keys; empty before the first ``add``."""
        order = self._keys.argsort()
        return tuple(tensor[order] for tensor in self._rows)
