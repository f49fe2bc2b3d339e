"""A two-dimensional map of the codes of test images."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torch.nn import functional as F

from .base import INK, PALETTE, PictureOfSample, class_names_of, log_figure, new_figure


class CodeMap(PictureOfSample):
    """Draws test codes as points in the plane, coloured by class: t-SNE of their cosine distances.

    Close points have similar codes; the axes and the distances between distant points mean nothing. During the test,
    ``test_step`` returns ``{"code": (B, d)}`` for batches of images (``ImageBatch``); the points are a random sample of
    data loader 0, with several processes of rank zero's share. The global random state is not changed. The picture is
    ``code_map``.

    Args:
        num_points: images to draw; t-SNE takes a few seconds for 2,000.
        seed: of the sample and of t-SNE.

    Raises:
        ValueError: if ``num_points`` is below 10.

    Example:
        trainer:
          callbacks+:
            - class_path: CodeMap
              init_args: {num_points: 500}
    """

    MIN_POINTS = 10
    needs = ("code",)

    def __init__(self, num_points: int = 2000, seed: int = 0) -> None:
        if num_points < self.MIN_POINTS:
            raise ValueError(f"num_points must be at least {self.MIN_POINTS}, got {num_points}")
        super().__init__(num_points, seed)

    def rows(self, outputs: Mapping[str, Any], batch: Any, dataloader_idx: int) -> tuple[Tensor, ...]:
        return (outputs["code"].float(), batch.labels) if dataloader_idx == 0 else ()

    def draw(self, trainer: pl.Trainer, *rows: Tensor) -> None:
        codes, labels = rows
        finite = codes.isfinite().all(dim=1)
        if int(finite.sum()) < self.MIN_POINTS:
            rank_zero_warn(f"CodeMap: no picture, fewer than {self.MIN_POINTS} finite codes in the test")
            return
        codes, labels = codes[finite], labels[finite]
        points = plane_map(codes, self.seed)
        names = class_names_of(trainer, labels)
        present = sorted(set(labels[labels >= 0].tolist()))
        figure = new_figure(6.6 if len(present) > 1 else 5.4, 5.2)
        axes = figure.add_subplot()
        size = max(3, min(24, 16000 / len(points)))
        style: dict[str, Any] = {"s": size, "linewidths": 0, "alpha": 0.8}
        if not present:
            axes.scatter(*points.T, color=PALETTE[0], **style)
        elif len(present) <= 2 * len(PALETTE):
            for number, label in enumerate(present):
                marker = "o" if number < len(PALETTE) else "^"
                chosen = (labels == label).numpy()
                colour = PALETTE[number % len(PALETTE)]
                axes.scatter(*points[chosen].T, color=colour, marker=marker, label=names[label], **style)
            legend = axes.legend(
                loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, handletextpad=0.2, labelcolor=INK
            )
            handles: list[Any] = legend.legend_handles
            for handle in handles:
                handle.set_sizes([40])
                handle.set_alpha(1)
        else:
            # Too many classes for a legend: a colour map over the labels.
            axes.scatter(points[:, 0], points[:, 1], c=labels.tolist(), cmap="turbo", **style)
        axes.set_title(f"t-SNE of {len(points):,} test codes, by cosine", color=INK, fontsize=10)
        axes.set(xticks=[], yticks=[])
        axes.set_box_aspect(1)
        axes.spines[:].set_visible(False)
        log_figure(trainer, "code_map", figure)


def plane_map(codes: Tensor, seed: int) -> Any:
    """t-SNE of codes (N, d) by cosine distance, (N, 2) float32. Deterministic, without the global random state."""
    from sklearn.manifold import TSNE

    directions = F.normalize(codes.double()).numpy()
    tsne = TSNE(
        metric="cosine",
        init="pca" if directions.shape[1] > 1 else "random",
        perplexity=min(30, (len(directions) - 1) / 3),
        random_state=seed,
    )
    return tsne.fit_transform(directions)
