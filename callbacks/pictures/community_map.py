"""A picture of a graph and its modules."""

from typing import TYPE_CHECKING, Any, cast
from unicodedata import east_asian_width

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray

from .base import FAINT, INK, distinct_colours, has_entries, log_figure, new_figure, wants_pictures
from .fonts import font_families, quiet_fonts
from .graph_layout import module_layout, push_apart, spring
from .node_names import write_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NAMES = 60  # nodes whose names are all legible
NAMED_MODULES = 15
MOST_DISCS = 400  # modules whose layout takes about a second
LEAST_LETTERS = 4.5  # points, of a name within a disc
WIDTH = 8.0  # inches
ALIKE = "#a6cbe3"


class CommunityMap(pl.Callback):
    """Draws the graph with each module in its own place and colour; of a large graph, a map of its modules.

    ``test_step`` returns ``{"partition", "graph"}``, a ``map_equation.Partition`` and its ``GraphBatch``; other outputs
    are ignored. Each top module has a colour of its own; where each disc is a top module, all have one colour. The
    picture is ``communities``.

    Args:
        max_nodes: the most nodes to draw individually; in a larger graph, or one with more than 400 modules, each
            bottom module is a disc, whose area is its share of the walk's time, with the name of its most visited node.
        max_modules: the most modules on such a map; the most visited ones are drawn.
        seed: of the layout.

    Raises:
        ValueError: a number is below 1.

    Example:
        trainer:
          callbacks+:
            - class_path: CommunityMap
              init_args: {max_nodes: 500}
    """

    def __init__(self, max_nodes: int = 2000, max_modules: int = 150, seed: int = 0) -> None:
        if min(max_nodes, max_modules) < 1:
            raise ValueError(f"max_nodes and max_modules must be at least 1, got {max_nodes}, {max_modules}")
        self.max_nodes, self.max_modules, self.seed = max_nodes, max_modules, seed

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        if not wants_pictures(trainer) or not has_entries(outputs, "partition", "graph"):
            return
        partition, edges = outputs["partition"], outputs["graph"].edges.cpu().numpy()
        figure = new_figure(WIDTH, WIDTH + 0.3)
        axes = figure.add_subplot()
        axes.set_aspect("equal")
        axes.axis("off")
        title = (
            f"{len(partition.modules)} nodes, {partition.num_modules} modules, {partition.num_levels} levels: "
            f"{partition.codelength:.4f} bits ({partition.one_level_codelength:.4f} without modules)"
        )
        axes.set_title(title, fontsize=10, color=INK)
        with quiet_fonts():
            if len(partition.modules) <= self.max_nodes and partition.num_modules <= MOST_DISCS:
                self._draw_nodes(axes, partition, edges)
            else:
                self._draw_modules(axes, partition, edges)
            log_figure(trainer, "communities", figure)

    def _draw_nodes(self, axes: "Axes", partition: Any, edges: NDArray[np.int64]) -> None:
        edges = np.unique(np.sort(edges[edges[:, 0] != edges[:, 1]], axis=1), axis=0)
        positions, _ = module_layout(edges, partition.table, self.seed)
        colours = node_colours(partition)
        same = partition.modules[edges[:, 0]] == partition.modules[edges[:, 1]]
        crowded = min(1.0, 3 * len(positions) / max(len(edges), 1))
        draw_links(axes, positions, edges[~same], [FAINT] * int((~same).sum()), 0.15 + 0.25 * crowded)
        draw_links(axes, positions, edges[same], [colours[node] for node in edges[same, 0]], 0.25 + 0.4 * crowded)
        # A node's area shows its share of the walk's time, with a lower bound.
        share = partition.flow / partition.flow.max()
        spacing = fit(axes, positions - 0.5, positions + 0.5)
        diameters = spacing * np.sqrt(0.04 + 0.3 * share)
        x, y = positions.T
        axes.scatter(x, y, s=diameters**2, c=colours, linewidths=0.3, edgecolors="white", zorder=3)
        all_named = len(positions) <= MOST_NAMES
        named = np.argsort(-partition.flow, kind="stable") if all_named else busiest_nodes(partition)[:NAMED_MODULES]
        write_names(axes, positions, diameters, names_of(partition, named), 7 if all_named else 8)

    def _draw_modules(self, axes: "Axes", partition: Any, edges: NDArray[np.int64]) -> None:
        flow = np.bincount(partition.modules, partition.flow)
        chosen = np.argsort(-flow, kind="stable")[: self.max_modules]
        number = np.full(len(flow), -1)
        number[chosen] = np.arange(len(chosen))
        between = number[partition.modules[edges]]
        between = between[(between >= 0).all(1) & (between[:, 0] != between[:, 1])]
        radii = np.sqrt(flow[chosen])
        centres = spring(len(chosen), between, self.seed) * np.sqrt((radii**2).sum())
        centres = push_apart(centres, 1.15 * radii)
        pairs, counts = np.unique(np.sort(between, axis=1), axis=0, return_counts=True)
        widths = 0.3 + 3 * np.sqrt(counts / counts.max(initial=1))
        draw_links(axes, centres, pairs, [FAINT] * len(pairs), 0.3, widths)
        busiest = busiest_nodes(partition)[chosen]
        of_nodes = node_colours(partition)
        colours = [of_nodes[node] for node in busiest]
        if len(set(colours)) == len(colours):  # they would only repeat the discs
            colours = [ALIKE] * len(busiest)
        point = fit(axes, centres - radii[:, None], centres + radii[:, None])
        from matplotlib.patches import Circle

        names = names_of(partition, busiest)
        families = font_families("".join(names.values()))
        for centre, radius, node, colour in zip(centres, radii, busiest.tolist(), colours, strict=True):
            axes.add_patch(Circle(centre, radius, facecolor=colour, edgecolor="white", zorder=3))
            name = names[node]
            wide = sum(1 + (east_asian_width(letter) in "WF") for letter in name) / 2  # in letters as wide as high
            size = min(10.0, 1.6 * radius * point / max(wide, 1))
            if size >= LEAST_LETTERS:
                style: dict[str, Any] = {"fontsize": size, "family": families, "parse_math": False, "color": INK}
                axes.text(centre[0], centre[1], name, ha="center", va="center", zorder=4, **style)


def node_colours(partition: Any) -> list[str]:
    """Each node's colour, that of its top module; top modules are numbered by falling flow."""
    colours = distinct_colours(int(partition.top_modules.max()) + 1)
    return [colours[module] for module in partition.top_modules.tolist()]


def names_of(partition: Any, nodes: NDArray[np.int64]) -> dict[int, str]:
    """The names of some nodes, long ones cut."""
    return {int(node): str(partition.name(node))[:18] for node in nodes}


def fit(axes: "Axes", low: NDArray[np.float64], high: NDArray[np.float64]) -> float:
    """Shows just these boxes (n, 2), the figure as high as they need; returns the points of a unit of length."""
    low, high = low.min(0), high.max(0)
    margin = 0.02 * (high - low).max()
    (left, bottom), (right, top) = low - margin, high + margin
    axes.set(xlim=(left, right), ylim=(bottom, top))
    height = float(np.clip(WIDTH * (top - bottom) / (right - left), 0.3 * WIDTH, 1.4 * WIDTH))
    cast("Figure", axes.figure).set_size_inches(WIDTH, height + 0.3)
    return 72 * min(WIDTH / (right - left), height / (top - bottom))


def busiest_nodes(partition: Any) -> NDArray[np.int64]:
    """The most visited node of each bottom module."""
    order = np.lexsort((-partition.flow, partition.modules))
    return order[np.unique(partition.modules[order], return_index=True)[1]]


def draw_links(
    axes: "Axes",
    positions: NDArray[np.float64],
    pairs: NDArray[np.int64],
    colours: list[str],
    alpha: float,
    widths: Any = 0.5,
) -> None:
    """Draws links ``pairs`` (E, 2) between positions (n, 2), each in its colour; widths in points, one or (E,)."""
    from matplotlib.collections import LineCollection

    axes.add_collection(LineCollection([*positions[pairs]], colors=colours, linewidths=widths, alpha=alpha, zorder=1))
