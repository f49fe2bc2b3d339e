"""A table of a graph's largest modules, with the names of their nodes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from .base import INK, has_entries, log_figure, new_figure, wants_pictures
from .fonts import font_families, quiet_fonts

COLUMNS = ["module", "nodes", "flow", "names"]


class LargestModules(pl.Callback):
    """Lists the largest bottom modules with their most visited nodes; for words, what each cluster is about.

    ``test_step`` returns ``{"partition": ...}``, a ``map_equation.Partition``; other outputs are ignored. The table is
    written to the run folder, as ``largest_modules.md``, and to Weights & Biases, and drawn as the picture
    ``largest_modules``.

    Args:
        num_modules: modules to list, by falling number of nodes.
        num_names: nodes to name of each module.

    Raises:
        ValueError: a number is below 1.

    Example:
        trainer:
          callbacks+:
            - class_path: LargestModules
              init_args: {num_modules: 10}
    """

    def __init__(self, num_modules: int = 20, num_names: int = 15) -> None:
        if min(num_modules, num_names) < 1:
            raise ValueError(f"num_modules and num_names must be at least 1, got {num_modules}, {num_names}")
        self.num_modules, self.num_names = num_modules, num_names

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        if not trainer.is_global_zero or not has_entries(outputs, "partition"):
            return
        rows = self.rows(outputs["partition"])
        lines = [" | ".join(str(cell).replace("|", r"\|") for cell in row) for row in [COLUMNS, ["---"] * 4, *rows]]
        text = "".join(f"| {line} |\n" for line in lines)
        for logger in trainer.loggers:
            if hasattr(logger, "log_file"):
                logger.log_file("largest_modules.md", lambda path: Path(path).write_text(text, encoding="utf-8"))
            if hasattr(logger, "log_table"):
                logger.log_table(key="largest_modules", columns=COLUMNS, data=rows)
        self._draw(trainer, rows)

    def rows(self, partition: Any) -> list[list[Any]]:
        """``[module (from 1), nodes, share of the walk's time, names]`` of each module, the largest first."""
        sizes = np.bincount(partition.modules)
        flow = np.bincount(partition.modules, partition.flow)
        order = partition.order()
        start = np.concatenate([[0], np.cumsum(sizes)])
        rows = []
        for module in np.argsort(-sizes, kind="stable")[: self.num_modules].tolist():
            nodes = order[start[module] : start[module + 1]][: self.num_names]
            names = ", ".join(str(partition.name(node)) for node in nodes)
            rows.append([module + 1, int(sizes[module]), round(float(flow[module]), 6), names])
        return rows

    def _draw(self, trainer: pl.Trainer, rows: list[list[Any]]) -> None:
        if not wants_pictures(trainer):
            return
        figure = new_figure(11, 0.5 + 0.26 * len(rows))
        axes = figure.add_subplot()
        families = font_families("".join(row[3] for row in rows))
        for place, (_, nodes, _, names) in enumerate(rows):
            axes.text(0.035, -place, f"{nodes}", ha="right", va="center", fontsize=9, color=INK)
            clipped = names if len(names) <= 110 else f"{names[:109]}…"
            axes.text(
                0.05,
                -place,
                clipped,
                va="center",
                fontsize=9,
                color=INK,
                family=families,
                parse_math=False,
                clip_on=True,
            )
        axes.set_title("largest modules: number of nodes, most visited nodes", fontsize=10, color=INK, loc="left")
        axes.set_xlim(0, 1)
        axes.set_ylim(-len(rows) + 0.4, 0.6)
        axes.axis("off")
        with quiet_fonts():
            log_figure(trainer, "largest_modules", figure)
