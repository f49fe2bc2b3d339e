"""Binary trees over the words of a sentence, as nested pairs of word indices: ``((0, 1), 2)``; a word is its index.

Nothing here recurses along a tree, which may be as deep as the sentence is long.
"""

from collections.abc import Callable, Sequence

import torch

Tree = int | tuple["Tree", "Tree"]


def tree_from_distances(distances: Sequence[float]) -> Tree:
    """The tree of greedy splitting: the word with the largest distance starts the right part of the sentence.

        m = argmax(d), the first one;   T(d) = [T(d[:m]), [m, T(d[m+1:])]]

    with empty parts left out, so that each node has two children. This can't produce every binary tree, and it is
    biased towards right branching (Dyer et al. 2019): report the right-branching baseline beside its scores.

    Args:
        distances: (n,) one number per word, n >= 1.

    Raises:
        ValueError: if there is no word, or a distance is nan.

    Source: Shen et al. (arXiv 1810.09536), ``test_phrase_grammar.py``.
    """
    values = [float(value) for value in distances]
    if not values or any(value != value for value in values):
        raise ValueError(f"distances must be at least one number, none of them nan, got {values}")
    order, left, right = _split(values)
    trees: list[Tree] = [0] * len(values)
    for node in reversed(order):
        before, after = left[node], right[node]
        tail = node if after is None else (node, trees[after])
        trees[node] = tail if before is None else (trees[before], tail)
    return trees[order[0]]


def _split(values: Sequence[float]) -> tuple[list[int], list[int | None], list[int | None]]:
    """Positions split recursively at their first maximum (a Cartesian tree, built with a stack in O(n)).

    Returns:
        The positions, each before those in its parts; for each, the maximum of its left and of its right part.
    """
    left: list[int | None] = [None] * len(values)
    right: list[int | None] = [None] * len(values)
    stack: list[int] = []
    for place, value in enumerate(values):
        while stack and values[stack[-1]] < value:
            left[place] = stack.pop()
        if stack:
            right[stack[-1]] = place
        stack.append(place)
    order, todo = [], stack[:1]
    while todo:
        place = todo.pop()
        order.append(place)
        todo += [part for part in (left[place], right[place]) if part is not None]
    return order, left, right


def right_branching(num_words: int) -> Tree:
    """``(0, (1, (2, 3)))``: a strong baseline in English.

    Raises:
        ValueError: if ``num_words`` is below 1; likewise in the next three functions.
    """
    _check(num_words)
    tree: Tree = num_words - 1
    for word in range(num_words - 2, -1, -1):
        tree = (word, tree)
    return tree


def left_branching(num_words: int) -> Tree:
    """``(((0, 1), 2), 3)``."""
    _check(num_words)
    tree: Tree = 0
    for word in range(1, num_words):
        tree = (tree, word)
    return tree


def balanced(num_words: int) -> Tree:
    """Recursive halving, the left half larger by one word if the number is odd: ``(((0, 1), 2), (3, 4))``."""
    _check(num_words)
    # Depth is log2 of the number of words: recursion is safe.
    return _halves(0, num_words)


def _halves(start: int, end: int) -> Tree:
    if end - start == 1:
        return start
    middle = (start + end + 1) // 2
    return (_halves(start, middle), _halves(middle, end))


def random_tree(num_words: int, generator: torch.Generator) -> Tree:
    """Recursively split at a uniformly random gap between words, drawn from ``generator``, on the CPU."""
    _check(num_words)
    if num_words == 1:
        return 0
    # Splitting at the largest of random numbers is a uniform split, independently in both parts.
    gaps = torch.rand(num_words - 1, dtype=torch.float64, generator=generator).tolist()
    order, left, right = _split(gaps)
    trees: list[Tree] = [0] * len(gaps)
    for gap in reversed(order):
        before, after = left[gap], right[gap]
        trees[gap] = (gap if before is None else trees[before], gap + 1 if after is None else trees[after])
    return trees[order[0]]


def _check(num_words: int) -> None:
    if num_words < 1:
        raise ValueError(f"num_words ({num_words}) must be at least 1")


# Trees that need no model, only the number of words.
BASELINES: dict[str, Callable[[int, torch.Generator], Tree]] = {
    "right_branching": lambda num_words, _: right_branching(num_words),
    "left_branching": lambda num_words, _: left_branching(num_words),
    "balanced": lambda num_words, _: balanced(num_words),
    "random": random_tree,
}


def tree_spans(tree: Tree) -> list[tuple[int, int]]:
    """The spans [start, end) in words of all nodes with two children, the whole sentence included, outer ones first."""
    spans: list[tuple[int, int]] = []
    starts: list[int] = []
    count = 0
    todo: list[Tree | None] = [tree]
    while todo:
        node = todo.pop()
        if node is None:  # the innermost open node is complete
            spans.append((starts.pop(), count))
        elif isinstance(node, tuple):
            starts.append(count)
            todo += [None, node[1], node[0]]
        else:
            count += 1
    return sorted(spans, key=lambda span: (span[0], -span[1]))


def bracketed(tree: Tree, words: Sequence[str]) -> str:
    """The tree on one line, ``((the cat) (sat down))``; brackets in words become ``-LRB-`` and ``-RRB-``.

    Raises:
        ValueError: if the numbers of words and leaves differ.
    """
    todo: list[Tree | tuple[int] | str] = [tree if isinstance(tree, tuple) else (tree,)]
    pieces, count = [], 0
    while todo:
        node = todo.pop()
        if isinstance(node, tuple):
            pieces.append("(")
            todo += [")", *reversed(node)]
        elif isinstance(node, str):
            pieces.append(node)
        else:
            if node >= len(words):
                raise ValueError(f"the tree has more leaves than the {len(words)} words")
            count += 1
            pieces.append(words[node].replace("(", "-LRB-").replace(")", "-RRB-"))
    if count != len(words):
        raise ValueError(f"the tree has {count} leaves, but there are {len(words)} words")
    return " ".join(pieces).replace("( ", "(").replace(" )", ")")
