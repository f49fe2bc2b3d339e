"""Formulas of propositional logic, the exact relation between two, and random pairs with balanced relations.

A formula is a ``bytes`` object, one byte per token. Its truth set is a 64-bit integer: bit j is the formula's value if
variable i has the value of bit i of j.
"""

import zlib
from functools import lru_cache
from itertools import permutations
from random import Random

import numpy as np
from numpy.typing import NDArray

from readers.logic import AND, CLOSE, FIRST_VARIABLE, NOT, OPEN, OR, RELATIONS, VARIABLES, Pair

ALL = (1 << 64) - 1
TRUTH = [sum(1 << j for j in range(64) if j >> i & 1) for i in range(len(VARIABLES))]

SHARED_VARIABLES = 4  # maximum number of variables in a pair
POOL = 4000  # formulas to draw pairs from, for each number of operations
DRAWS = 20_000  # pairs drawn at once
POOR = 0.01  # a draw is poor if it yields no more than this share of the missing pairs ...
PATIENCE = 5  # ... and after this many poor draws, rare relations are left to longer formulas


def relations(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The relation of truth sets X and Y, neither empty nor full, as indices into ``RELATIONS``.

        =  X equals Y;  <  X in Y;  >  Y in X;  ^  disjoint, union full;  |  disjoint, union not full;
        v  union full, not disjoint;  #  none of these

    Shapes:
        first, second: (N,) uint64; the result (N,) int64.
    """
    everything = np.uint64(ALL)
    disjoint, covering = (first & second) == 0, (first | second) == everything
    rules = [
        first == second,
        (first & ~second) == 0,
        (second & ~first) == 0,
        disjoint & covering,
        disjoint,
        covering,
    ]
    return np.select(rules, list(range(6)), default=6)


class FormulaPool:
    """Random formulas of 0 to ``max_operations`` operations over the first four variables.

    A formula of k operations is, with equal probability, ``( not X )``, ``( X and Y )`` or ``( X or Y )``; all ways to
    divide the other k - 1 operations between X and Y are equally likely.

    Args:
        max_operations: of the longest formulas.
        random: the source of randomness.
    """

    def __init__(self, max_operations: int, random: Random) -> None:
        self.random = random
        # Longer formulas are built from shorter ones.
        self.levels = [[(bytes([FIRST_VARIABLE[0] + i]), TRUTH[i]) for i in range(SHARED_VARIABLES)]]
        for operations in range(1, max_operations + 1):
            self.levels.append([self._make(operations) for _ in range(POOL)])
        # Tautologies and contradictions are in none of the seven relations.
        self.levels = [[formula for formula in level if 0 < formula[1] < ALL] for level in self.levels]
        self.truth = [np.array([truth for _, truth in level], np.uint64) for level in self.levels]

    def _pick(self, operations: int) -> tuple[bytes, int]:
        level = self.levels[operations]
        return level[int(self.random.random() * len(level))]

    def _make(self, operations: int) -> tuple[bytes, int]:
        kind = int(self.random.random() * 3)
        if kind == 0:
            formula, truth = self._pick(operations - 1)
            return OPEN + NOT + formula + CLOSE, ALL & ~truth
        left = int(self.random.random() * operations)
        (first, first_truth), (second, second_truth) = self._pick(left), self._pick(operations - 1 - left)
        if kind == 1:
            return OPEN + first + AND + second + CLOSE, first_truth & second_truth
        return OPEN + first + OR + second + CLOSE, first_truth | second_truth


def make_pairs(count: int, operations: range, seed: int, test: bool) -> list[Pair]:
    """Distinct random pairs, balanced over relations and, as far as there are enough, over numbers of operations.

    Independence holds for most pairs of random formulas, equivalence for hardly any; so pairs are drawn until each
    relation has its share. Both formulas of a pair have at most four variables, as in Bowman et al., which makes
    relations other than independence less rare. There are too few distinct pairs of short formulas for some relations
    (single variables are only equivalent or independent); the missing ones are spread over the longer formulas.

    Args:
        count: number of pairs.
        operations: allowed numbers of operations of a pair's longer formula.
        seed: together with ``test``, of all draws.
        test: make test pairs; a checksum reserves one pair in four for them, so that no pair is in training and test.

    Returns:
        ``count`` pairs, or fewer if more are too hard to find.
    """
    random = Random(2 * seed + test)
    pool, rng = FormulaPool(operations[-1], random), np.random.default_rng([seed, test])
    pairs: dict[tuple[bytes, bytes], Pair] = {}
    label = np.arange(len(RELATIONS))
    remaining = count // len(RELATIONS) + (label < count % len(RELATIONS))
    for step, longest in enumerate(operations):
        left = len(operations) - step
        # An equal share of what remains; fractions are rounded up for different relations in turn.
        wanted = (remaining + (label + step) % left) // left
        before = wanted.copy()
        poor = 0
        while wanted.any() and poor < PATIENCE:
            missing = wanted.sum()
            _draw(pool, longest, wanted, pairs, test, rng, random)
            poor += missing - wanted.sum() <= missing * POOR
        remaining -= before - wanted
    return list(pairs.values())


def _draw(
    pool: FormulaPool,
    longest: int,
    wanted: NDArray[np.int64],
    pairs: dict[tuple[bytes, bytes], Pair],
    test: bool,
    rng: np.random.Generator,
    random: Random,
) -> None:
    """Draw pairs once and keep those that are wanted and new; lowers ``wanted``."""
    other = int(random.random() * (longest + 1))
    sizes = (longest, other) if random.random() < 0.5 else (other, longest)
    choices = [rng.integers(len(pool.levels[size]), size=DRAWS) for size in sizes]
    labels = relations(*(pool.truth[size][choice] for size, choice in zip(sizes, choices, strict=True)))
    # Not all of a relation at once: another draw has another length of the other formula.
    limits = np.maximum(1, wanted // 4 + 1)
    renamings = _renamings()
    for label in np.flatnonzero(wanted):
        taken = 0
        for place in np.flatnonzero(labels == label)[: 8 * limits[label]]:
            names = renamings[int(random.random() * len(renamings))]
            premise, hypothesis = (
                pool.levels[size][choice[place]][0].translate(names)
                for size, choice in zip(sizes, choices, strict=True)
            )
            if (premise, hypothesis) in pairs or is_test_pair(premise, hypothesis) != test:
                continue
            pairs[premise, hypothesis] = Pair(premise, hypothesis, int(label), longest)
            taken += 1
            if taken == min(limits[label], wanted[label]):
                break
        wanted[label] -= taken


def is_test_pair(premise: bytes, hypothesis: bytes) -> bool:
    """Whether a pair is reserved for the test: one in four."""
    return zlib.crc32(hypothesis, zlib.crc32(premise)) % 4 == 0


@lru_cache
def _renamings() -> list[bytes]:
    """Tables for ``bytes.translate``: all permutations of the variables, under which relations are invariant."""
    first = FIRST_VARIABLE[0]
    names, rest = range(first, first + len(VARIABLES)), range(first + len(VARIABLES), 256)
    return [bytes([*range(first), *order, *rest]) for order in permutations(names)]
