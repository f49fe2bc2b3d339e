import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.trees import (
    balanced,
    bracketed,
    left_branching,
    random_tree,
    right_branching,
    tree_from_distances,
    tree_spans,
)


def greedy(words, distances):
    """The definition, by recursion on lists."""
    if len(words) == 1:
        return words[0]
    m = distances.index(max(distances))
    after = words[m + 1 :]
    right = (words[m], greedy(after, distances[m + 1 :])) if after else words[m]
    return (greedy(words[:m], distances[:m]), right) if m else right


def leaves(tree):
    return leaves(tree[0]) + leaves(tree[1]) if isinstance(tree, tuple) else [tree]


def spans(tree, start=0):
    """All spans of at least two words, by recursion."""
    if not isinstance(tree, tuple):
        return set()
    middle, end = start + len(leaves(tree[0])), start + len(leaves(tree))
    return {(start, end)} | spans(tree[0], start) | spans(tree[1], middle)


def internal(tree):
    return [tree, *internal(tree[0]), *internal(tree[1])] if isinstance(tree, tuple) else []


@pytest.mark.parametrize(
    ("distances", "tree"),
    [
        ([5.0], 0),
        ([1, 2], (0, 1)),
        ([2, 1], (0, 1)),
        ([1, 1, 1], (0, (1, 2))),
        ([1, 2, 3], ((0, 1), 2)),
        ([3, 2, 1], (0, (1, 2))),
        ([1, 3, 2], (0, (1, 2))),
        ([9, 1, 5, 1], (0, (1, (2, 3)))),
        ([1, 5, 2, 9, 1], ((0, (1, 2)), (3, 4))),
        ([0, 4, 7, 4, 4], ((0, 1), (2, (3, 4)))),
    ],
)
def test_trees_of_distances_by_hand(distances, tree):
    assert tree_from_distances(distances) == tree


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=24))
def test_the_greedy_split(distances):
    tree = tree_from_distances(torch.tensor(distances, dtype=torch.float32))
    assert tree == greedy(list(range(len(distances))), distances)
    assert leaves(tree) == list(range(len(distances)))
    assert all(len(node) == 2 for node in internal(tree))
    assert len(internal(tree)) == len(distances) - 1
    assert set(tree_spans(tree)) == spans(tree)
    assert len(tree_spans(tree)) == len(distances) - 1


def test_trees_as_deep_as_sentences_are_long():
    size = 5000
    for distances in (range(size), range(size, 0, -1)):
        found = tree_spans(tree_from_distances(list(distances)))
        assert len(found) == size - 1
        assert found[0] == (0, size)
    assert tree_spans(right_branching(size))[1:] == [(start, size) for start in range(1, size - 1)]
    assert bracketed(left_branching(size), ["w"] * size).startswith("(" * (size - 1))


def test_baselines():
    assert [right_branching(n) for n in (1, 2, 4)] == [0, (0, 1), (0, (1, (2, 3)))]
    assert [left_branching(n) for n in (1, 2, 4)] == [0, (0, 1), (((0, 1), 2), 3)]
    assert [balanced(n) for n in (1, 2, 5)] == [0, (0, 1), (((0, 1), 2), (3, 4))]
    for make in (right_branching, left_branching, balanced):
        with pytest.raises(ValueError, match=r"num_words \(0\)"):
            make(0)


def test_random_trees_split_uniformly():
    generator = torch.Generator().manual_seed(0)
    state = torch.get_rng_state()
    trees = [random_tree(4, generator) for _ in range(6000)]
    assert torch.equal(torch.get_rng_state(), state)
    # Three equally likely first splits; after the middle one there is no choice, after the others two each.
    expected = {
        ((0, 1), (2, 3)): 1 / 3,
        (0, (1, (2, 3))): 1 / 6,
        (0, ((1, 2), 3)): 1 / 6,
        (((0, 1), 2), 3): 1 / 6,
        ((0, (1, 2)), 3): 1 / 6,
    }
    assert set(trees) == set(expected)
    for tree, share in expected.items():
        assert abs(trees.count(tree) / 6000 - share) < 0.02
    assert random_tree(1, generator) == 0


def test_brackets():
    words = "the cat sat down".split()  # noqa: SIM905
    assert bracketed(((0, 1), (2, 3)), words) == "((the cat) (sat down))"
    assert bracketed(0, ["yes"]) == "(yes)"
    assert bracketed((0, 1), ["a", "(b)"]) == "(a -LRB-b-RRB-)"
    for count in (3, 5):
        with pytest.raises(ValueError, match="leaves"):
            bracketed(((0, 1), (2, 3)), ["w"] * count)


@pytest.mark.parametrize("distances", [[], [1.0, float("nan")]], ids=str)
def test_invalid_distances(distances):
    with pytest.raises(ValueError, match="at least one number, none of them nan"):
        tree_from_distances(distances)
