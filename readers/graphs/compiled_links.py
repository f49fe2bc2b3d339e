"""Millions of ``source target weight`` lines a second: the compiled part of reading edge lists.

It reads simple text (no quotes, no errors) and silently gives up at anything else; the caller then takes the slow way,
which reads more and reports errors. Numba caches the code on disk. Elements are assigned one by one, as slices and
tuples take seconds to compile.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from .compiled_text import (
    NEWLINE,
    SPACE,
    is_blank,
    next_field,
    next_line,
    parse_weight,
    read_id,
    read_weight,
    skip_blanks,
)

QUOTE = ord('"')
FEW_LINKS = 10_000  # numbered by NumPy sooner than compiled code is loaded
HASH_START, HASH_FACTOR = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


def parse_links(
    data: bytes, start: int, end: int, separator: str, fewest: int, most: int
) -> tuple[NDArray[np.int64], NDArray[np.float64] | None] | None:
    """The links of a part of a text, between nodes with integer names.

    Args:
        data: the text; empty lines and those that begin with # or % are ignored.
        start: the first byte of the part, at the beginning of a line.
        end: the byte after the part.
        separator: between the fields; a blank stands for any number of blanks and TABs.
        fewest: the fewest fields of a line, 2 or 3.
        most: the most fields of a line, 2 or 3.

    Returns:
        (E, 2) ids and (E,) weights, None if no line has one; or None if a line is anything other than two integers and
        optionally a finite weight that is not negative, or there is no line.
    """
    buffers = _buffers(data, start, end)
    links, doubts, weighted = _parse(np.frombuffer(data, np.uint8), start, end, ord(separator), fewest, most, *buffers)
    return _finish(data, links, doubts, weighted, *buffers)


def parse_names(
    data: bytes, start: int, separator: str, fewest: int, most: int, columns: tuple[int, ...]
) -> tuple[NDArray[np.int64], list[str], NDArray[np.float64] | None] | None:
    """The links of a text, between nodes with any names.

    Args:
        data: the text, UTF-8; empty lines and those that begin with # or % are ignored.
        start: the first byte to read, at the beginning of a line.
        separator: between the fields; a blank stands for any number of blanks and TABs.
        fewest: the fewest fields of a line.
        most: the most fields of a line.
        columns: which fields are source, target and optionally weight; shorter lines have no weight.

    Returns:
        (E, 2) positions in the list of names, that list, in order of first appearance, and (E,) weights, None if no
        line has one; or None if a line has quotes, an empty name, another number of fields, or a weight that is
        negative or not finite, or there is no line.
    """
    buffers = _buffers(data, start, len(data))
    columns = (*columns, -1)[:3]
    links, doubts, weighted, bounds = _parse_names(
        np.frombuffer(data, np.uint8), start, ord(separator), fewest, most, columns, *buffers
    )
    found = _finish(data, links, doubts, weighted, *buffers)
    if found is None:
        return None
    return found[0], _texts(data, bounds), found[1]


def _buffers(data: bytes, start: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Room for one link per line: ends, weights, and doubtful weights (link, first byte, byte after the last)."""
    capacity = data.count(b"\n", start, end) + 1
    # Memory pages that are never written to cost nothing.
    return np.empty((capacity, 2), np.int64), np.empty(capacity), np.empty((capacity, 3), np.int64)


def _finish(
    data: bytes,
    links: int,
    doubts: int,
    weighted: bool,
    edges: NDArray[np.int64],
    weights: NDArray[np.float64],
    doubtful: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.float64] | None] | None:
    """The parsed links, with the doubtful weights read by Python."""
    if links <= 0:
        return None
    if not weighted:
        return edges[:links], None
    try:
        numbers = [parse_weight(text) for text in _texts(data, doubtful[:doubts, 1:])]
    except ValueError:
        return None
    weights[doubtful[:doubts, 0]] = numbers
    return edges[:links], weights[:links]


def _texts(data: bytes, bounds: NDArray[np.int64]) -> list[str]:
    # Two lists: a million pairs would keep the garbage collector busy.
    firsts, lasts = bounds[:, 0].tolist(), bounds[:, 1].tolist()
    return [data[first:last].decode() for first, last in zip(firsts, lasts, strict=True)]


def number_ids(edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Replaces ids by their positions among the distinct ones, in place.

    Args:
        edges: (E, 2) int64, E > 0.

    Returns:
        (n,) int64, the distinct ids, ascending.
    """
    low, high = int(edges.min()), int(edges.max())
    if len(edges) > FEW_LINKS and high - low < max(8 * len(edges), 1 << 20):
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
    """The number of links or -1, the number of doubtful weights, and whether there are weights."""
    links, doubts = 0, 0
    weighted = False
    place = next_line(data, start, end, separator)
    while place < end:
        source, place = read_id(data, place, end)
        place = next_field(data, place, end, separator)
        if place < 0:
            return -1, 0, False
        target, place = read_id(data, place, end)
        if place < 0:
            return -1, 0, False
        after = next_field(data, place, end, separator)
        weight = 1.0
        if after >= 0:
            if most < 3:
                return -1, 0, False
            weight, place, sure = read_weight(data, after, end, separator)
            if place == after:
                return -1, 0, False
            if not sure:
                doubtful[doubts, 0], doubtful[doubts, 1], doubtful[doubts, 2] = links, after, place
                doubts += 1
            if not weighted:
                for earlier in range(links):
                    weights[earlier] = 1.0
                weighted = True
        elif fewest > 2:
            return -1, 0, False
        place = skip_blanks(data, place, end, separator)
        if place < end and data[place] != NEWLINE:
            return -1, 0, False
        edges[links, 0], edges[links, 1] = source, target
        if weighted:
            weights[links] = weight
        links += 1
        place = next_line(data, place, end, separator)
    return links, doubts, weighted


@numba.njit(cache=True, nogil=True)
def _parse_names(data, start, separator, fewest, most, columns, edges, weights, doubtful):
    """Like ``_parse``, plus the first byte of each name and the byte after its last."""
    end = len(data)
    links, doubts, names = 0, 0, 0
    weighted = False
    bounds = np.empty((1024, 2), np.int64)
    hashes = np.empty(1024, np.uint64)
    slots = np.full(4096, -1, np.int64)
    nothing = np.empty((0, 2), np.int64)
    ends = np.empty((3, 2), np.int64)
    place = next_line(data, start, end, separator)
    while place < end:
        fields, place = _read_fields(data, place, separator, columns, ends)
        if fields < fewest or fields > most:
            return -1, 0, False, nothing
        for which in range(2):
            first, last = ends[which, 0], ends[which, 1]
            if first == last:
                return -1, 0, False, nothing
            if names == len(bounds):
                bounds, hashes, slots = _with_more_room(data, bounds, hashes)
            code = _hash(data, first, last)
            slot = _find(data, slots, bounds, hashes, code, first, last)
            if slots[slot] < 0:
                slots[slot] = names
                hashes[names] = code
                bounds[names, 0], bounds[names, 1] = first, last
                names += 1
            edges[links, which] = slots[slot]
        weight = 1.0
        if 0 <= columns[2] < fields:
            first, last = ends[2, 0], ends[2, 1]
            weight, _, sure = read_weight(data, first, last, separator)
            if first == last:
                return -1, 0, False, nothing
            if not sure:
                doubtful[doubts, 0], doubtful[doubts, 1], doubtful[doubts, 2] = links, first, last
                doubts += 1
            if not weighted:
                for earlier in range(links):
                    weights[earlier] = 1.0
                weighted = True
        if weighted:
            weights[links] = weight
        links += 1
        place = next_line(data, place, end, separator)
    return links, doubts, weighted, bounds[:names]


@numba.njit(cache=True, nogil=True)
def _read_fields(data, place, separator, columns, ends):
    """The number of fields of a line, -1 if it has quotes, and its end.

    ``ends`` receives the first byte of the field in each of the columns and the byte after its last; both are 0 where
    the line has no such field.
    """
    end = len(data)
    for which in range(3):
        ends[which, 0] = ends[which, 1] = 0
    fields = 0
    while True:
        first = skip_blanks(data, place, end, separator)
        place = first
        while place < end and data[place] != NEWLINE and data[place] != separator:
            if data[place] == QUOTE:
                return -1, place
            if separator == SPACE and is_blank(data[place], separator):
                break
            place += 1
        last = place
        while last > first and is_blank(data[last - 1], separator):
            last -= 1
        for which in range(3):
            if fields == columns[which]:
                ends[which, 0], ends[which, 1] = first, last
        fields += 1
        place = skip_blanks(data, place, end, separator)
        if place == end or data[place] == NEWLINE:
            return fields, place
        place += separator != SPACE


@numba.njit(cache=True, nogil=True)
def _with_more_room(data, bounds, hashes):
    """Bounds and hashes of all names, with twice the room, and slots for them."""
    names = len(bounds)
    bounds = np.concatenate((bounds, np.empty_like(bounds)))
    hashes = np.concatenate((hashes, np.empty_like(hashes)))
    slots = np.full(4 * len(bounds), -1, np.int64)
    for name in range(names):
        slots[_find(data, slots, bounds, hashes, hashes[name], 0, 0)] = name
    return bounds, hashes, slots


@numba.njit(cache=True, nogil=True)
def _hash(data, first, last):
    """FNV-1a of some bytes."""
    code = HASH_START
    for at in range(first, last):
        code = (code ^ np.uint64(data[at])) * HASH_FACTOR
    return code


@numba.njit(cache=True, nogil=True)
def _find(data, slots, bounds, hashes, code, first, last):
    """The slot of the name in these bytes, or a free one if it is new (an empty name always is)."""
    mask = np.uint64(len(slots) - 1)
    slot = (code ^ (code >> np.uint64(32))) & mask
    while slots[slot] >= 0:
        name = slots[slot]
        if hashes[name] == code and bounds[name, 1] - bounds[name, 0] == last - first:
            same = True
            for at in range(last - first):
                if data[first + at] != data[bounds[name, 0] + at]:
                    same = False
                    break
            if same:
                return slot
        slot = (slot + np.uint64(1)) & mask
    return slot
