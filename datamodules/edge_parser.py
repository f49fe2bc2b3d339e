"""Millions of ``source target weight`` lines a second: the compiled part of reading edge lists.

It reads what is simple (integers, one number more) and gives up at anything else, without a message: whoever calls it
then takes the slow way, which understands more and knows how to complain. Compiled code is cached on disk.
"""

import numba
import numpy as np
from numpy.typing import NDArray

NEWLINE, RETURN, TAB, SPACE, ZERO, NINE = (ord(sign) for sign in "\n\r\t 09")
MINUS, PLUS, POINT, HASH, PERCENT = (ord(sign) for sign in "-+.#%")
SMALL_E, BIG_E = ord("e"), ord("E")
MAX_DIGITS = 18  # of an id: below 2^63
EXACT = 2**53  # integers up to here, and powers of ten up to 22, are exact: one division is rounded right
POWERS = np.array([float(f"1e{power}") for power in range(23)])


def parse_links(
    data: bytes, start: int, end: int, separator: str, fewest: int, most: int
) -> tuple[NDArray[np.int64], NDArray[np.float64] | None] | None:
    """The links of a part of a text.

    Args:
        data: the text; lines that begin with # or % and empty ones don't count.
        start: first byte of the part, at the beginning of a line.
        end: byte after the part.
        separator: between the fields; a blank stands for any number of blanks and TABs.
        fewest: fields a line has at least, 2 or 3.
        most: fields a line has at most, 2 or 3.

    Returns:
        (E, 2) ids and (E,) weights, None where no line has one; or None if a line is anything else than two integers
        and a finite weight that is not negative, or there is no line.
    """
    capacity = data.count(b"\n", start, end) + 1
    edges, weights = np.empty((capacity, 2), np.int64), np.empty(capacity)
    # Pages of memory that nothing is written to cost nothing.
    doubtful = np.empty((capacity, 3), np.int64)
    links, doubts, weighted = _parse(
        np.frombuffer(data, np.uint8), start, end, ord(separator), fewest, most, edges, weights, doubtful
    )
    if links <= 0:
        return None
    if not weighted:
        return edges[:links], None
    weights = weights[:links]
    try:
        numbers = [parse_weight(data[first:last].decode()) for _, first, last in doubtful[:doubts].tolist()]
    except ValueError:
        return None
    weights[doubtful[:doubts, 0]] = numbers
    return edges[:links], weights


def parse_weight(text: str) -> float:
    """A weight from its text.

    Raises:
        ValueError: it is no number, negative, or not finite.
    """
    weight = float(text) if "_" not in text else np.nan
    if not 0 <= weight < np.inf:
        raise ValueError("not a finite number from 0 on")
    return weight


def number_ids(edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Replaces ids by their places among the different ones, in place.

    Args:
        edges: (E, 2) int64, E > 0.

    Returns:
        (n,) int64, the different ids, ascending.
    """
    low, high = int(edges.min()), int(edges.max())
    if high - low < max(8 * len(edges), 1 << 20):
        table = np.zeros(high - low + 1, np.int32)
        _mark(edges, low, table)
        ids = np.flatnonzero(table) + low
        np.cumsum(table, out=table)
        _replace(edges, low, table)
        return ids
    ids = np.unique(edges)
    edges[:] = np.searchsorted(ids, edges)
    return ids


@numba.njit(cache=True, nogil=True)
def _mark(edges, low, table):
    for link in range(len(edges)):
        table[edges[link, 0] - low] = 1
        table[edges[link, 1] - low] = 1


@numba.njit(cache=True, nogil=True)
def _replace(edges, low, table):
    for link in range(len(edges)):
        edges[link, 0] = table[edges[link, 0] - low] - 1
        edges[link, 1] = table[edges[link, 1] - low] - 1


@numba.njit(cache=True, nogil=True)
def _parse(data, start, end, separator, fewest, most, edges, weights, doubtful):
    """Number of links or -1, of doubtful weights (link, first byte, byte after the last), and whether there are any."""
    place, links, doubts = start, 0, 0
    weighted = False
    while place < end:
        place = _skip_blanks(data, place, end, separator)
        if place == end or data[place] == NEWLINE:
            place += 1
            continue
        if data[place] == HASH or data[place] == PERCENT:
            while place < end and data[place] != NEWLINE:
                place += 1
            continue
        source, place = _read_id(data, place, end)
        place = _next_field(data, place, end, separator)
        if place < 0:
            return -1, 0, False
        target, place = _read_id(data, place, end)
        if place < 0:
            return -1, 0, False
        after = _next_field(data, place, end, separator)
        weight = 1.0
        if after >= 0:
            if most < 3:
                return -1, 0, False
            weight, place, sure = _read_weight(data, after, end, separator)
            if place == after:
                return -1, 0, False
            if not sure:
                doubtful[doubts] = links, after, place
                doubts += 1
            if not weighted:
                weights[:links] = 1.0
                weighted = True
        elif fewest > 2:
            return -1, 0, False
        place = _skip_blanks(data, place, end, separator)
        if place < end and data[place] != NEWLINE:
            return -1, 0, False
        edges[links, 0], edges[links, 1] = source, target
        if weighted:
            weights[links] = weight
        links += 1
    return links, doubts, weighted


@numba.njit(cache=True, nogil=True)
def _is_blank(byte, separator):
    return byte in (SPACE, RETURN) or (byte == TAB and separator != TAB)


@numba.njit(cache=True, nogil=True)
def _skip_blanks(data, place, end, separator):
    while place < end and _is_blank(data[place], separator):
        place += 1
    return place


@numba.njit(cache=True, nogil=True)
def _next_field(data, place, end, separator):
    """Where the next field begins, or -1 if nothing separates it, or the line ends."""
    if place < 0:
        return -1
    after = _skip_blanks(data, place, end, separator)
    if separator == SPACE:
        if after == place:
            return -1
    else:
        if after == end or data[after] != separator:
            return -1
        after = _skip_blanks(data, after + 1, end, separator)
    return -1 if after == end or data[after] == NEWLINE else after


@numba.njit(cache=True, nogil=True)
def _read_id(data, place, end):
    """An integer as it would be written again, and the byte after it; -1 for the latter if it is something else."""
    negative = place < end and data[place] == MINUS
    first = place + negative
    place = first
    value = np.int64(0)
    while place < end and ZERO <= data[place] <= NINE:
        value = 10 * value + np.int64(data[place] - ZERO)
        place += 1
    digits = place - first
    if digits == 0 or digits > MAX_DIGITS or (data[first] == ZERO and (digits > 1 or negative)):
        return np.int64(0), -1
    return (-value if negative else value), place


@numba.njit(cache=True, nogil=True)
def _read_weight(data, place, end, separator):
    """A number, the byte after it, and whether it is surely right; else only that byte counts."""
    first = place
    value, digits, power = np.int64(0), 0, 0
    point = False
    while place < end and (ZERO <= data[place] <= NINE or (data[place] == POINT and not point)):
        if data[place] == POINT:
            point = True
        else:
            if digits < MAX_DIGITS:
                value = 10 * value + np.int64(data[place] - ZERO)
            digits += 1
            power -= point
        place += 1
    sure = 0 < digits <= MAX_DIGITS
    if sure and place + 1 < end and (data[place] == SMALL_E or data[place] == BIG_E):
        place += 1
        negative = data[place] == MINUS
        if negative or data[place] == PLUS:
            place += 1
        exponent, begin = 0, place
        while place < end and place < begin + 4 and ZERO <= data[place] <= NINE:
            exponent = 10 * exponent + np.int64(data[place] - ZERO)
            place += 1
        sure = place > begin
        power += -exponent if negative else exponent
    if place < end and data[place] != NEWLINE and data[place] != separator and not _is_blank(data[place], separator):
        sure = False
    if not sure or value > EXACT or abs(power) > 22:
        while place < end and data[place] != NEWLINE and data[place] != separator and data[place] != RETURN:
            if _is_blank(data[place], separator):
                break
            place += 1
        return 0.0, place, first == place
    return (value / POWERS[-power] if power < 0 else value * POWERS[power]), place, True
