"""Pictures of trees and distances: the choice of sentences, the colours and the warnings."""

import warnings
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from callbacks import DistanceHistogram, ParseTrees
from callbacks.pictures import parse_trees as parse_trees_module
from datamodules.batches import ParseBatch
from tests.tools import Album, Batches, quiet_trainer

# A process's first optimizer sets environment variables, which would look like leaks in a test.
torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])


def right_branching(n: int) -> Any:
    tree: Any = n - 1
    for word in range(n - 2, -1, -1):
        tree = (word, tree)
    return tree


class Parser(pl.LightningModule):
    """Right-branching trees in two layers, given distances."""

    def __init__(self, levels: tuple[float, ...] = (0.5, 0.9), spread: float = 0.2) -> None:
        super().__init__()
        self.levels, self.spread = levels, spread

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        if dataloader_idx == 0:
            return None
        count, longest = len(batch.words), int(batch.lengths.max())
        distances = torch.linspace(0, self.spread, longest).expand(len(self.levels), count, longest).clone()
        distances += torch.tensor(self.levels)[:, None, None]
        for row, length in enumerate(batch.lengths.tolist()):
            distances[:, row, length:] = torch.nan
        trees = [[right_branching(length) for length in batch.lengths.tolist()] for _ in self.levels]
        return {"trees": trees, "distances": distances}


def parse_batch(lengths: list[int], mark: str = "w") -> ParseBatch:
    words = tuple(tuple(f"{mark}{place}" for place in range(length)) for length in lengths)
    spans = tuple(((0, length, "S"), (0, 2, "NP"), (length - 2, length, "VP")) for length in lengths)
    inputs = torch.zeros(len(lengths), max(lengths) + 2, dtype=torch.int64)
    return ParseBatch(inputs, torch.tensor(lengths), words, spans)


def run_test(callbacks: list[pl.Callback], module: Parser, batches: list[ParseBatch]) -> Album:
    album = Album()
    trainer = quiet_trainer(*callbacks, logger=album)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers|.*treespec")
        trainer.test(module, [Batches([torch.zeros(1)]), Batches(batches)], verbose=False)
    return album


def test_trees_and_heat_map_of_sentences_of_the_asked_length(monkeypatch):
    drawn = []
    draw = parse_trees_module._draw_tree
    monkeypatch.setattr(parse_trees_module, "_draw_tree", lambda *given: (drawn.append(given), draw(*given)))
    callback = ParseTrees(num_sentences=2, min_words=4, max_words=6)
    state = torch.get_rng_state()
    album = run_test([callback], Parser(), [parse_batch([3, 4, 5]), parse_batch([6, 9])])
    assert torch.equal(torch.get_rng_state(), state)
    assert {key: len(images) for key, images in album.pictures.items()} == {"parse_trees": 1, "distance_heatmap": 1}
    assert len(drawn) == 4
    assert all(4 <= len(words) <= 6 for _, words, *_ in drawn)
    _, words, labels, colours = drawn[0]
    length = len(words)
    assert set(labels) == {(start, length) for start in range(length - 1)}
    right = {span for span, colour in colours.items() if colour == parse_trees_module.RIGHT}
    assert right == {(0, length), (length - 2, length)}
    _, _, labels, colours = drawn[1]
    assert labels == {(0, length): "S", (0, 2): "NP", (length - 2, length): "VP"}
    assert [span for span, colour in colours.items() if colour != parse_trees_module.RIGHT] == [(0, 2)]
    pixels = album.pictures["parse_trees"][0].reshape(-1, 3)
    for colour in (parse_trees_module.RIGHT, parse_trees_module.WRONG):
        wanted = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])
        assert (np.abs(pixels.astype(int) - wanted).max(1) < 3).sum() > 200, colour


def test_every_sentence_may_be_chosen():
    chosen = set()
    for seed in range(30):
        callback = ParseTrees(num_sentences=1, min_words=4, max_words=9, seed=seed)
        callback._draw_trees = lambda trainer, callback=callback: chosen.add(len(callback._sentences[0].words))
        callback._draw_distances = lambda trainer: None
        run_test([callback], Parser(), [parse_batch([4, 5]), parse_batch([6, 7])])
    assert chosen == {4, 5, 6, 7}


def test_a_module_with_one_layer_and_a_test_without_sentences():
    album = run_test([ParseTrees(min_words=4, layer=2)], Parser(levels=(0.5,)), [parse_batch([7])])
    assert set(album.pictures) == {"parse_trees", "distance_heatmap"}
    with pytest.warns(UserWarning, match="ParseTrees: no picture, the test had no trees of 7 to 14 words"):
        assert not run_test([ParseTrees()], Parser(), [parse_batch([3])]).pictures


def test_histogram_counts_words_only(monkeypatch):
    seen = []
    monkeypatch.setattr(DistanceHistogram, "_draw", lambda self, trainer, counts: seen.append(counts))
    run_test([DistanceHistogram()], Parser((0.0, 0.5), spread=0.0), [parse_batch([3, 5]), parse_batch([4])])
    (counts,) = seen
    assert counts.sum(1).tolist() == [12, 12]
    assert counts[0, 0] == counts[1, 25] == 12


def test_distances_near_one_are_warned_of_in_one_line():
    with pytest.warns(UserWarning, match="nearly all distances of layer 2 are near 1") as caught:
        album = run_test([DistanceHistogram()], Parser((0.3, 0.96), spread=0.03), [parse_batch([8])])
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    assert album.pictures["distance_histogram"][0].std() > 5
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="nearly all distances")
        run_test([DistanceHistogram()], Parser((0.3, 0.9), spread=0.09), [parse_batch([8])])


def test_numbers_out_of_range():
    for options in ({"num_sentences": 0}, {"layer": 0}, {"min_words": 9, "max_words": 8}):
        with pytest.raises(ValueError, match="num_sentences, layer and min_words"):
            ParseTrees(**options)
