"""Files of formula pairs as published by Bowman et al.: relation, TAB, formula, TAB, formula."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from .errors import DataError
from .lines import iterate_lines

VARIABLES = ("a", "b", "c", "d", "e", "f")
VOCABULARY = ("<pad>", "(", ")", "not", "and", "or", *VARIABLES)
OPEN, CLOSE, NOT, AND, OR, FIRST_VARIABLE = (
    bytes([VOCABULARY.index(word)]) for word in ("(", ")", "not", "and", "or", "a")
)
# Equivalence, forward and reverse entailment, negation (exhaustive contradiction), alternation (not exhaustive), cover,
# independence: the symbols of Bowman et al.
RELATIONS = ("=", "<", ">", "^", "|", "v", "#")


class Pair(NamedTuple):
    """Two formulas, the index of their relation in ``RELATIONS``, and the number of operations of the longer one."""

    premise: bytes
    hypothesis: bytes
    label: int
    operations: int


class WrittenPair(NamedTuple):
    """Two formulas as in a file, and their words as indices into a vocabulary."""

    formulas: tuple[str, str]
    premise: list[int]
    hypothesis: list[int]


def read_pairs(file: Path, encoding: str = "utf-8") -> list[Pair]:
    """The pairs of a file: relation, TAB, formula, TAB, formula. Blanks around brackets are optional.

    Args:
        file: the file, gzipped or not.
        encoding: of the file.

    Raises:
        DataError: a line has another layout; the message names it.
    """
    pairs, numbers = [], word_numbers(VOCABULARY)
    for where, (relation, *formulas) in _fields(file, encoding):
        if len(formulas) != 2 or relation not in RELATIONS:
            raise DataError(f"{where}: expected one of {' '.join(RELATIONS)}, a TAB, a formula, a TAB, a formula")
        premise, hypothesis = (bytes(encode_formula(formula, numbers, where)) for formula in formulas)
        operations = max(sum(formula.count(sign) for sign in (NOT, AND, OR)) for formula in (premise, hypothesis))
        pairs.append(Pair(premise, hypothesis, RELATIONS.index(relation), operations))
    return pairs


def read_written_pair(line: str, numbers: Mapping[str, int], where: str) -> WrittenPair:
    """The pair of a line to predict the relation of: formula, TAB, formula; a relation before them is ignored.

    Args:
        line: the line.
        numbers: of the words (``word_numbers``).
        where: what messages call the line.

    Raises:
        DataError: it has another layout, or a word that is not in the vocabulary.
    """
    fields = [part.strip() for part in line.split("\t")]
    formulas = fields[1:] if len(fields) == 3 else fields
    if len(formulas) != 2:
        raise DataError(f"{where}: expected a formula, a TAB, a formula, found {len(fields)} part(s)")
    encoded = (encode_formula(formula, numbers, where) for formula in formulas)
    return WrittenPair((formulas[0], formulas[1]), *encoded)


def encode_formula(formula: str, numbers: Mapping[str, int], where: str) -> list[int]:
    """The numbers of a formula's words, brackets included.

    Raises:
        DataError: it is empty, has an unknown word, or its brackets don't match; the message names ``where``.
    """
    words = formula.replace("(", " ( ").replace(")", " ) ").split()
    unknown = next((word for word in words if word not in numbers), None)
    if unknown is not None or not words:
        what = "an empty formula" if unknown is None else f"the word {unknown}"
        raise DataError(f"{where}: {what}; the vocabulary is {' '.join(numbers)}")
    depths = list(accumulate((word == "(") - (word == ")") for word in words))
    if min(depths) < 0 or depths[-1] != 0:
        raise DataError(f"{where}: the brackets of a formula don't match; repair them")
    return [numbers[word] for word in words]


def word_numbers(vocabulary: Sequence[str]) -> dict[str, int]:
    """The index of each word; the vocabulary's first is the padding, which no formula contains."""
    return {word: number for number, word in enumerate(vocabulary) if number}


def _fields(file: Path, encoding: str) -> Iterator[tuple[str, list[str]]]:
    """Yields the place of each line and its fields between TABs; blank lines are skipped."""
    for place, line in iterate_lines(file, encoding):
        if line.strip():
            yield f"{file}, line {place}", [part.strip() for part in line.split("\t")]
