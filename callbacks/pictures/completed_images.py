"""A picture of test images that the model completed from their upper halves."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from .base import INK, PictureOfSample, log_figure, new_figure, pixel_range_of, to_uint8


class CompletedImages(PictureOfSample):
    """Draws random test images, their upper halves and the model's completions of these.

    ``test_step`` returns ``{"images": (B, 3, S, S)}``, and the module has ``complete_images(images, seed=...)``, which
    returns such images with new lower halves, and a hyperparameter ``pixel_range``. With several processes the picture
    shows rank zero's share. The picture is ``completed_images``.

    Args:
        num_images: rows of the picture.
        num_completions: completions of each image; one where ``trainer.limit_test_batches`` is a number of batches.
        seed: of the choice of images; the completions use seed, seed + 1, …

    Raises:
        ValueError: for numbers below 1; in the test, if the module has no ``pixel_range``.

    Example:
        trainer:
          callbacks+:
            - class_path: CompletedImages
              init_args: {num_images: 4, num_completions: 2}
    """

    needs = ("images",)

    def __init__(self, num_images: int = 8, num_completions: int = 3, seed: int = 0) -> None:
        if num_images < 1 or num_completions < 1:
            raise ValueError(f"num_images ({num_images}) and num_completions ({num_completions}) must be at least 1")
        super().__init__(num_images, seed)
        self.num_completions = num_completions

    def rows(self, outputs: Mapping[str, Any], batch: Any, dataloader_idx: int) -> tuple[Tensor, ...]:
        return (outputs["images"],)

    def draw(self, trainer: pl.Trainer, *rows: Tensor) -> None:
        (images,) = rows
        module: Any = trainer.lightning_module
        pixel_range = pixel_range_of(module)
        given = images.clone()
        given[:, :, images.shape[2] // 2 :] = pixel_range[1]
        columns = [("image", images), ("given", given)]
        # A trial of one batch (`with/debug.yaml`) gets one: they take nearly all of its time.
        limit = trainer.limit_test_batches  # type: ignore[attr-defined]
        is_trial = isinstance(limit, int) and limit == 1
        for number in range(1 if is_trial else self.num_completions):
            completed = module.complete_images(images.to(module.device), seed=self.seed + number)
            columns.append((f"completed {number + 1}", completed))
        figure = new_figure(0.9 * len(columns), 0.9 * len(images) + 0.3)
        axes = figure.subplots(len(images), len(columns), squeeze=False)
        for column, (title, part) in enumerate(columns):
            axes[0, column].set_title(title, fontsize=8, color=INK)
            for row, image in enumerate(to_uint8(part, pixel_range).numpy()):
                axes[row, column].imshow(image, interpolation="nearest")
                axes[row, column].axis("off")
        log_figure(trainer, "completed_images", figure)
