"""A picture of the hierarchy of a graph's modules."""

from typing import Any

import numpy as np
import pytorch_lightning as pl

from .base import INK, distinct_colours, has_entries, log_figure, new_figure, wants_pictures
from .fonts import font_families, quiet_fonts

LEAST_NAMED = 0.02  # share of the width with room for a name
LEAST_DRAWN = 2e-4  # share of the width that is visible


class ModuleHierarchy(pl.Callback):
    """Draws the modules level by level, from the top; a module's width is its share of the walk's time.

    ``test_step`` returns ``{"partition": ...}``, a ``map_equation.Partition``; other outputs are ignored. Each module's
    submodules are below it; its name is that of its most visited node. The picture is ``hierarchy``.

    Example:
        trainer:
          callbacks+:
            - class_path: ModuleHierarchy
    """

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        if not wants_pictures(trainer) or not has_entries(outputs, "partition"):
            return
        partition = outputs["partition"]
        order = partition.order()
        depth = partition.table.shape[1]
        right = np.cumsum(partition.flow[order])
        left = right - partition.flow[order]
        figure = new_figure(9, 1.2 + 0.8 * depth)
        axes = figure.add_subplot()
        texts, colours = [], distinct_colours(int(partition.table[:, 0].max()) + 1)
        for level in range(depth):
            for start, end in runs(partition.table[order, : level + 1]):
                width = right[end - 1] - left[start]
                if width < LEAST_DRAWN:
                    continue
                top = int(partition.table[order[start], 0])
                axes.barh(
                    depth - level,
                    width,
                    left=left[start],
                    height=0.94,
                    color=colours[top],
                    alpha=1 - 0.5 * level / depth,
                    edgecolor="white",
                    linewidth=0.6 if width > 2e-3 else 0,
                )
                if width > LEAST_NAMED:
                    members = order[start:end]
                    name = str(partition.name(members[np.argmax(partition.flow[members])]))
                    texts.append(((left[start] + right[end - 1]) / 2, depth - level, name[: max(2, int(110 * width))]))
        families = font_families("".join(name for *_, name in texts))
        for x, y, name in texts:
            axes.text(x, y, name, ha="center", va="center", fontsize=7, color=INK, family=families, parse_math=False)
        axes.set_xlim(0, 1)
        axes.set_ylim(0.5, depth + 0.5)
        axes.set_yticks(range(depth, 0, -1), [f"level {level + 1}" for level in range(depth)])
        axes.set_xlabel("share of the walk's time", color=INK)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        with quiet_fonts():
            log_figure(trainer, "hierarchy", figure)


def runs(paths: np.ndarray) -> list[tuple[int, int]]:
    """[start, end) of runs of equal rows that are modules, that is, without -1."""
    if not len(paths):
        return []
    changes = np.flatnonzero((paths[1:] != paths[:-1]).any(1)) + 1
    ends = [*changes.tolist(), len(paths)]
    starts = [0, *changes.tolist()]
    return [(start, end) for start, end in zip(starts, ends, strict=True) if paths[start, -1] >= 0]
