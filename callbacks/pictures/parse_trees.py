"""Pictures of a language model's parse trees beside the gold trees, and of the distances they come from."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn

from .base import FAINT, INK, RIGHT, WRONG, PictureOfTest, Reservoir, log_figure, new_figure, wants_pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from torch import Tensor

LONGEST_WORD = 14  # letters
USUAL_LAYER = 2

Span = tuple[int, int]


class _Sentence(NamedTuple):
    """A test sentence: gold spans [start, end) with labels, each layer's tree and distances (L, T)."""

    words: tuple[str, ...]
    gold: tuple[tuple[int, int, str], ...]
    trees: list[Any]
    distances: "Tensor"


class ParseTrees(PictureOfTest):
    """Draws predicted trees beside gold trees, and a heat map of the distances they come from.

    During the test, ``test_step`` returns ``{"trees": [layer][sentence], "distances": (L, B, T)}`` for a batch of
    sentences with trees (``ParseBatch``): trees as nested pairs of word indices, distances with any values after a
    sentence's end. Other outputs are ignored. A sample of sentences of medium length is drawn: the picture
    ``parse_trees`` shows the trees of one layer, with correct constituents in green; ``distance_heatmap`` the distances
    of all layers, in one scale of colours. With several processes the pictures show rank zero's share.

    Args:
        num_sentences: sentences to draw.
        layer: the layer whose trees are drawn, counted from 1; the last one if the module has fewer. None: its
            ``best_layer``, the one that validation found best; the second, if there is none.
        min_words: words in the shortest sentence that may be drawn.
        max_words: words in the longest sentence that may be drawn.
        seed: of the choice of sentences.

    Raises:
        ValueError: a number is below 1, or ``min_words`` above ``max_words``.

    Example:
        trainer:
          callbacks+:
            - class_path: ParseTrees
              init_args: {num_sentences: 2, layer: 1}
    """

    needs = ("trees", "distances")

    def __init__(
        self,
        num_sentences: int = 4,
        layer: int | None = None,
        min_words: int = 7,
        max_words: int = 14,
        seed: int = 0,
    ) -> None:
        if min(num_sentences, 1 if layer is None else layer, min_words) < 1 or min_words > max_words:
            raise ValueError(
                "num_sentences, layer and min_words must be at least 1 and max_words not below min_words, got "
                f"{num_sentences}, {layer}, {min_words}, {max_words}"
            )
        self.num_sentences, self.layer, self.seed = num_sentences, layer, seed
        self.min_words, self.max_words = min_words, max_words
        self.forget()

    def forget(self) -> None:
        self._sentences: Reservoir[_Sentence] = Reservoir(self.num_sentences, self.seed)

    def collect(self, trainer: pl.Trainer, outputs: Mapping[str, Any], batch: Any, dataloader_idx: int) -> None:
        if not wants_pictures(trainer):
            return
        distances = outputs["distances"].detach().float().cpu()
        for place, words in enumerate(batch.words):
            if self.min_words <= len(words) <= self.max_words:
                trees = [layer[place] for layer in outputs["trees"]]
                own = distances[:, place, : len(words)].clone()
                self._sentences.offer(_Sentence(words, batch.spans[place], trees, own))

    def finish(self, trainer: pl.Trainer) -> None:
        if not wants_pictures(trainer):
            return
        if self._sentences:
            self._sentences.sort(key=lambda sentence: len(sentence.words))
            self._draw_trees(trainer)
            self._draw_distances(trainer)
        else:
            rank_zero_warn(
                f"ParseTrees: no picture, the test had no trees of {self.min_words} to {self.max_words} words"
            )

    def _draw_trees(self, trainer: pl.Trainer) -> None:
        longest = max(len(sentence.words) for sentence in self._sentences)
        figure = new_figure(1 + 0.85 * longest, 2.7 * len(self._sentences))
        grid = figure.subplots(len(self._sentences), 2, squeeze=False)
        best = getattr(trainer.lightning_module, "best_layer", None) or USUAL_LAYER
        layer = min(self.layer or best, len(self._sentences[0].trees))
        for row, sentence in zip(grid, self._sentences, strict=True):
            gold = {(start, end): label for start, end, label in sentence.gold}
            predicted = dict.fromkeys(_spans(sentence.trees[layer - 1]), "")
            for axes, ours, others in ((row[0], predicted, gold), (row[1], gold, predicted)):
                wrong = WRONG if ours is predicted else FAINT
                colours = {span: RIGHT if span in others else wrong for span in ours}
                _draw_tree(axes, sentence.words, ours, colours)
        _colour_title(grid[0][0], f"predicted by layer {layer}:", ("right", RIGHT), ("wrong", WRONG))
        _colour_title(grid[0][1], "gold:", ("found", RIGHT), ("missed", FAINT))
        log_figure(trainer, "parse_trees", figure)

    def _draw_distances(self, trainer: pl.Trainer) -> None:
        longest = max(len(sentence.words) for sentence in self._sentences)
        layers = len(self._sentences[0].distances)
        figure = new_figure(1.8 + 0.55 * longest, len(self._sentences) * (0.9 + 0.3 * layers))
        grid = figure.subplots(len(self._sentences), 1, squeeze=False)[:, 0]
        low = min(float(sentence.distances.min()) for sentence in self._sentences)
        high = max(float(sentence.distances.max()) for sentence in self._sentences)
        for axes, sentence in zip(grid, self._sentences, strict=True):
            values = sentence.distances
            shades = {"cmap": _pale_blues(), "vmin": low, "vmax": max(high, low + 1e-6)}
            image = axes.imshow(values.numpy(), aspect="auto", **shades)
            for layer, row in enumerate(values.tolist()):
                for place, value in enumerate(row):
                    axes.text(place, layer, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=INK)
            axes.set_xticks(
                range(len(sentence.words)), [_short(word) for word in sentence.words], rotation=30, ha="right"
            )
            axes.set_yticks(range(layers), [f"layer {layer + 1}" for layer in range(layers)])
            axes.tick_params(length=0, labelsize=7.5, labelcolor=INK)
            axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=grid, fraction=0.03, pad=0.01)
        bar.set_label("distance before the word, in [0, 1]", fontsize=8, color=INK)
        bar.ax.tick_params(labelsize=7.5, labelcolor=INK)
        log_figure(trainer, "distance_heatmap", figure)


def _pale_blues() -> "Colormap":
    """Matplotlib's Blues without the darkest, on which ink can't be read."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["Blues"](range(150)))


def _spans(tree: Any) -> list[Span]:
    """The spans [start, end) of two or more words in a tree of nested pairs."""
    spans: list[Span] = []
    starts: list[int] = []
    count, todo = 0, [tree]
    while todo:
        node = todo.pop()
        if node is None:
            spans.append((starts.pop(), count))
        elif isinstance(node, tuple):
            starts.append(count)
            todo += [None, *reversed(node)]
        else:
            count += 1
    return spans


def _draw_tree(axes: "Axes", words: tuple[str, ...], labels: dict[Span, str], colours: dict[Span, str]) -> None:
    """Draws a tree given by its nested spans: words at the bottom, each constituent as a bar above its parts."""
    places = {(word, word + 1): (float(word), 0.0) for word in range(len(words))}
    free = list(places)  # constituents that are not yet part of another one, in order
    for start, end in sorted(labels, key=lambda span: span[1] - span[0]):
        parts = [span for span in free if start <= span[0] and span[1] <= end]
        xs, ys = zip(*(places[part] for part in parts), strict=True)
        x, y, colour = (xs[0] + xs[-1]) / 2, max(ys) + 1, colours[start, end]
        places[start, end] = (x, y)
        free = [span for span in free if span not in parts] + [(start, end)]
        free.sort()
        axes.plot([xs[0], xs[-1]], [y, y], color=colour, linewidth=1.6, solid_capstyle="round")
        for part_x, part_y in zip(xs, ys, strict=True):
            axes.plot([part_x, part_x], [part_y, y], color=colour, linewidth=1.0)
        if labels[start, end]:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
            axes.text(x, y, labels[start, end], ha="center", va="center", fontsize=6, color=INK, bbox=box)
    for place, word in enumerate(words):
        axes.text(
            place,
            -0.15,
            _short(word),
            ha="right",
            va="top",
            rotation=40,
            fontsize=7.5,
            color=INK,
            rotation_mode="anchor",
        )
    axes.set_xlim(-0.8, len(words) - 0.2)
    top = max(y for _, y in places.values())
    axes.set_ylim(-0.32 * top - 0.4, top + 0.5)
    axes.axis("off")


def _colour_title(axes: "Axes", title: str, *parts: tuple[str, str]) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=colour, linewidth=2, label=name) for name, colour in parts]
    axes.legend(
        handles=lines,
        title=title,
        ncols=len(lines),
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        frameon=False,
        fontsize=8,
        title_fontsize=8.5,
    )


def _short(word: str) -> str:
    return word if len(word) <= LONGEST_WORD else word[: LONGEST_WORD - 1] + "…"
