"""Names written beside the nodes of a graph's picture, where they cover least."""

from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from .base import INK
from .fonts import font_families

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLACES = ((0, 1), (0, -1), (1, 0), (-1, 0), (0.7, 0.7), (-0.7, 0.7), (0.7, -0.7), (-0.7, -0.7))  # right, up


def write_names(
    axes: "Axes", positions: NDArray[np.float64], diameters: NDArray[np.float64], names: dict[int, str], size: float
) -> None:
    """Writes names beside nodes, each where it covers the fewest nodes and names before it.

    Args:
        axes: as they will be drawn, with their limits.
        positions: (n, 2) of all nodes, in data units.
        diameters: (n,) of their discs, in points.
        names: name of each node to be named, the most important first.
        size: of the letters, in points.
    """
    from matplotlib.patheffects import withStroke

    figure = cast("Figure", axes.figure)
    figure.draw_without_rendering()
    point = figure.dpi / 72
    centres, radii = axes.transData.transform(positions), diameters / 2 * point
    taken = np.concatenate([centres - radii[:, None], centres + radii[:, None]], 1)  # left, bottom, right, top
    window = axes.get_window_extent()
    families = font_families("".join(names.values()))
    for node, name in names.items():
        text = axes.annotate(
            name,
            positions[node],
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=size,
            family=families,
            ha="center",
            va="center",
            color=INK,
            zorder=4,
            parse_math=False,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )
        text.set_in_layout(False)
        extent = text.get_window_extent()
        half = np.array([extent.width, extent.height]) / 2
        offsets = np.array(PLACES) * (radii[node] + point + half)
        low, high = centres[node] + offsets - half, centres[node] + offsets + half
        boxes = np.concatenate([low, high], 1)
        outside = np.maximum(window.min - low, 0).sum(1) + np.maximum(high - window.max, 0).sum(1)
        best = int(np.argmin(overlaps(boxes, taken) + 1e3 * outside))
        text.set_position(tuple(offsets[best] / point))
        taken = np.concatenate([taken, boxes[best : best + 1]])


def overlaps(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """The area that each box (B, 4) shares with the others (N, 4), summed: (B,); left, bottom, right, top."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.maximum(high - low, 0).prod(-1).sum(1)
