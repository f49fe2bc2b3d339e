"""Binary trees over the words of a sentence, as nested pairs of word indices: ``((0, 1), 2)``; a word is its index.

Nothing here recurses as deep as a tree may be: that is as deep as the sentence is long.
"""

from collections.abc import Callable, Sequence

import torch

Tree = int | tuple["Tree", "Tree"]


def tree_from_distances(distances: Sequence[float]) -> Tree:
    """The tree of the greedy split: the word with the largest distance opens the right part of the sentence.

        m = argmax(d), the first one;   T(d) = [T(d[:m]), [m, T(d[m+1:])]]

    with what is empty left out, so that each node has two children. The scheme can't make every binary tree, and it
    leans to the right (Dyer et al. 2019): give right branching beside its scores.

    Args:
        distances: (n,) one number a word, n >= 1.

    Returns:
        the tree.

    Raises:
        ValueError: there is no word, or a distance is not a number.

    Source: Shen et al. (arXiv 1810.09536), ``test_phrase_grammar.py``.
    """
    values = [float(value) for value in distances]
    if not values or any(value != value for value in values):
        raise ValueError(f"distances must be at least one number, none of them nan, got {values}")
    order, left, right = _split(values)
    trees: list[Tree] = [0] * len(values)
    for node in reversed(order):
        tail = node if right[node] is None else (node, trees[right[node]])
        trees[node] = tail if left[node] is None else (trees[left[node]], tail)
    return trees[order[0]]


def _split(values: Sequence[float]) -> tuple[list[int], list[int | None], list[int | None]]:
    """Places split at their first maximum, again and again, in time O(n) (a Cartesian tree, by a stack).

    Returns:
        the places, each before those that lie in its parts; for each the maximum of its left and of its right part.
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
    """``(0, (1, (2, 3)))``: a hard baseline in English.

    Raises:
        ValueError: fewer than one word; of the next three, too.
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
    """Halves again and again, the left one larger by a word where the number is odd: ``(((0, 1), 2), (3, 4))``."""
    _check(num_words)
    # As deep as log2 of the words: recursion is safe.
    return _halves(0, num_words)


def _halves(start: int, end: int) -> Tree:
    if end - start == 1:
        return start
    middle = (start + end + 1) // 2
    return (_halves(start, middle), _halves(middle, end))


def random_tree(num_words: int, generator: torch.Generator) -> Tree:
    """Split between two words, each place as likely, again and again; drawn by ``generator``, on the CPU."""
    _check(num_words)
    if num_words == 1:
        return 0
    # Splitting at the largest of random numbers is splitting uniformly, in both parts anew.
    gaps = torch.rand(num_words - 1, dtype=torch.float64, generator=generator).tolist()
    order, left, right = _split(gaps)
    trees: list[Tree] = [0] * len(gaps)
    for gap in reversed(order):
        before = gap if left[gap] is None else trees[left[gap]]
        after = gap + 1 if right[gap] is None else trees[right[gap]]
        trees[gap] = (before, after)
    return trees[order[0]]


def _check(num_words: int) -> None:
    if num_words < 1:
        raise ValueError(f"num_words ({num_words}) must be at least 1")


# Trees that need no model, of the number of words.
BASELINES: dict[str, Callable[[int, torch.Generator], Tree]] = {
    "right_branching": lambda num_words, _: right_branching(num_words),
    "left_branching": lambda num_words, _: left_branching(num_words),
    "balanced": lambda num_words, _: balanced(num_words),
    "random": random_tree,
}


def tree_spans(tree: Tree) -> list[tuple[int, int]]:
    """The spans [start, end) in words of the nodes with two children, the whole sentence included, outer ones first."""
    spans, starts, count = [], [], 0
    todo: list[Tree | None] = [tree]
    while todo:
        node = todo.pop()
        if node is None:  # all below the innermost open node is read
            spans.append((starts.pop(), count))
        elif isinstance(node, tuple):
            starts.append(count)
            todo += [None, node[1], node[0]]
        else:
            count += 1
    return sorted(spans, key=lambda span: (span[0], -span[1]))


def bracketed(tree: Tree, words: Sequence[str]) -> str:
    """The tree on one line, ``((the cat) (sat down))``; brackets among the words become ``-LRB-`` and ``-RRB-``.

    Raises:
        ValueError: words and leaves differ in number.
    """
    pieces, todo, count = [], [tree if isinstance(tree, tuple) else (tree,)], 0
    while todo:
        node = todo.pop()
        if isinstance(node, tuple):
            pieces.append("(")
            todo += [")", *reversed(node)]
        elif node == ")":
            pieces.append(")")
        else:
            if node >= len(words):
                raise ValueError(f"the tree has more leaves than the {len(words)} words")
            count += 1
            pieces.append(words[node].replace("(", "-LRB-").replace(")", "-RRB-"))
    if count != len(words):
        raise ValueError(f"the tree has {count} leaves, but there are {len(words)} words")
    return " ".join(pieces).replace("( ", "(").replace(" )", ")")
