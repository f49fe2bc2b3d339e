"""Edge lists as text: one link per line, with source, target and optionally a weight."""

import ast
import csv
import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .graph import Graph, name_array, number_names

BLANKS = " \t\r"
UNCLOSED = "a double quote isn't closed, or text follows the closing one"
TWO_INTEGERS = re.compile(r"-?[0-9]+[ \t]+-?[0-9]+(?=[ \t]|$)")
ATTRIBUTES = re.compile(r"\{.*\}$")  # as networkx.write_edgelist writes them
TUPLE = re.compile(r"[(\[]+[^()\[\]]+,[^()\[\]]+[)\]]+,?")  # a link as Python or JSON prints it
NOTE = re.compile(r"[ \t]+[#%]")
SMALL_TEXT = 1 << 18  # bytes that Python reads sooner than compiled code is loaded
# A field between blanks, quoted or not.
FIELD = re.compile(r'[ \t]*(?:"((?:[^"]|"")*)"|([^ \t"][^ \t]*))(?=[ \t]|$)')
COMMENTS = (b"#", b"%")
INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
# Names of columns in the first line, in lower case and without _ and -.
SOURCES = {"source", "src", "from", "fromnode", "fromnodeid", "node1", "id1", "vertex1", "sourceid"}
TARGETS = {"target", "dst", "to", "tonode", "tonodeid", "node2", "id2", "vertex2", "targetid"}
WEIGHTS = {"weight", "weights", "w", "value"}
# What numbers or dates the links: never their weights, as any other single column is.
NUMBERING = re.compile(
    r"|unnamed:\d+|index|rownames?|(row|edge|link)?id|(row|edge|link)number|time|timestamp|date|year"
)
SAMPLE = 100  # lines that show whether a column has numbers


class LineFormat(NamedTuple):
    """The layout of the lines of an edge list.

    Args:
        start: the first byte of the first link.
        separator: between the fields; a blank stands for any number of blanks and TABs.
        columns: which fields are source, target and, if there is one, weight.
        width: number of fields per line; None: two or three.
    """

    start: int
    separator: str
    columns: tuple[int, ...]
    width: int | None


def read_edge_text(data: bytes, where: str) -> Graph:
    """The graph of an edge list.

    Args:
        data: UTF-8 text.
        where: what messages call it.

    Returns:
        the graph; its nodes are in numerical order if all names are integers, else in the order of their names.

    Raises:
        DataError: a line has another layout; the message names it.
    """
    layout = find_layout(data, where)
    if layout.separator != " " or b"\t" not in data:
        return _read_links(data, layout, where)
    # Two integers are first, with a TAB anywhere: it is no more than a blank if all nodes are integers.
    found: Graph | DataError
    try:
        found = _read_links(data, layout, where)
        if found.names.dtype.kind == "U" and np.char.isdecimal(np.char.lstrip(found.names, "-")).all():
            return found
    except DataError as error:
        found = error
    try:
        return _read_links(data, find_layout(data, where, "\t"), where)
    except DataError:
        if isinstance(found, DataError):
            raise found from None
        return found


def _read_links(data: bytes, layout: LineFormat, where: str) -> Graph:
    if len(data) - layout.start <= SMALL_TEXT:
        places, found, weights = read_named_links(data, layout, where)
        return Graph(*in_order(places, found), weights)
    # Imported here: numba takes half a second, which --help need not wait for.
    from .compiled_links import number_ids, parse_links, parse_names

    fewest, most = (2, 3) if layout.width is None else (layout.width, layout.width)
    links = None
    if layout.columns in ((0, 1), (0, 1, 2)) and layout.width in (None, len(layout.columns)):
        links = parse_links(data, layout.start, len(data), layout.separator, fewest, most)
    if links is not None:
        edges, weights = links
        names = number_names(number_ids(edges))
    else:
        named = parse_names(data, layout.start, layout.separator, fewest, most, layout.columns)
        places, found, weights = named or read_named_links(data, layout, where)
        edges, names = in_order(places, found)
    return Graph(edges, names, weights)


def find_layout(data: bytes, where: str, separator: str | None = None) -> LineFormat:
    """The layout that the first lines show; ``separator`` instead of that of the first line.

    The first line is a header if it names columns source and target (or the like), or if it has no number while the
    second line has two integers, or a number as its third field. A single column beside source and target has the
    weights, whatever its name, if it has numbers and is no index, id or time of the links.

    Raises:
        DataError: there is no line, or too few or too many fields.
    """
    lines = list(itertools.islice(data_lines(data), 2))
    if not lines:
        raise DataError(f"{where} is an empty graph: it has no link")
    number, start, line = lines[0]
    separator = separator or find_separator(line)
    place = f"{where}, line {number}"
    if TUPLE.fullmatch(line.strip()):
        raise DataError(f"{place}: write a link as source and target alone, not as {line.strip()[:40]!r}")
    first = link_fields(line, separator, place)
    second = link_fields(lines[1][2], separator, f"{where}, line {lines[1][0]}") if len(lines) > 1 else []
    columns = _named_columns(first)
    if columns is not None and len(columns) == 2 and len(first) == 3 and second:
        third = 3 - sum(columns)
        numbering = NUMBERING.fullmatch(plain_name(first[third]))
        if not numbering and _has_numbers(data, lines[1][1], separator, third, where):
            columns = (*columns, third)
    if columns is None and not _is_header(first, second):
        if len(first) not in (2, 3):
            raise DataError(
                f"{place}: expected source, target and optionally a weight, found {count_fields(first)}"
                + ("; name the columns in the first line" if len(first) > 3 else "")
            )
        if separator == " ":
            return LineFormat(start, separator, (0, 1, 2), None)
        return LineFormat(start, separator, tuple(range(len(first))), len(first))
    if not second:
        raise DataError(f"{where} is an empty graph: it has no link")
    if columns is None:
        if len(first) > 3:
            raise DataError(f"{place}: which of {len(first)} columns are source, target and weight? Name them so")
        columns = tuple(range(len(first)))
    return LineFormat(lines[1][1], separator, columns, len(first))


def find_separator(line: str) -> str:
    """The separator of a line's fields: the first of TAB, semicolon and comma that it has, else a blank.

    A blank, which stands for TABs too, if the line begins with two integers between which there are only such.
    """
    line = line.strip(BLANKS)
    if TWO_INTEGERS.match(line):
        return " "
    bare = re.sub(r'"[^"]*"', "", ATTRIBUTES.sub("", line).rstrip(BLANKS))
    return next((sign for sign in "\t;," if sign in bare), " ")


def _named_columns(fields: list[str]) -> tuple[int, ...] | None:
    names = [plain_name(field) for field in fields]
    found = [next((i for i, name in enumerate(names) if name in known), None) for known in (SOURCES, TARGETS, WEIGHTS)]
    if found[0] is None or found[1] is None:
        return None
    return tuple(column for column in found if column is not None)


def plain_name(column: object) -> str:
    """The name of a column as ``SOURCES`` and the like have it."""
    return re.sub("[_ -]", "", str(column).lower())


def _is_header(first: list[str], second: list[str]) -> bool:
    if min(len(first), len(second)) < 2:
        return False
    if any(map(_is_number, first)):
        return False
    return all(map(INTEGER.fullmatch, second[:2])) or (len(first) == len(second) == 3 and _is_number(second[2]))


def _has_numbers(data: bytes, start: int, separator: str, column: int, where: str) -> bool:
    """Whether a column has numbers in the lines from ``start``, of which some may be missing; a sample is looked at."""
    fields = []
    for number, _, line in itertools.islice(data_lines(data, start), SAMPLE):
        found = link_fields(line, separator, f"{where}, line {number}")
        fields += found[column : column + 1]
    given = [field for field in fields if field]
    return bool(given) and all(map(_is_number, given))


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def data_lines(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, str]]:
    """Yields line number, first byte and text of each line that is neither empty nor a comment.

    Args:
        data: UTF-8 text.
        start: the first byte to read.
        end: the byte to stop at.
    """
    end = len(data) if end is None else end
    number = data.count(b"\n", 0, start)
    while start < end:
        stop = data.find(b"\n", start, end)
        stop = end if stop < 0 else stop
        line = data[start:stop].strip(b" \r")
        number += 1
        bare = line.strip()
        if bare and not bare.startswith(COMMENTS):
            yield number, start, line.decode()
        start = stop + 1


def split_fields(line: str, separator: str, where: str) -> list[str]:
    """The fields of a line; quoted ones may contain the separator, and doubled quotes. TABs at the end are ignored.

    Raises:
        DataError: a quote isn't closed.
    """
    line = line.rstrip(BLANKS)
    if separator == " ":
        return _between_blanks(line.lstrip(BLANKS), where)
    if '"' not in line:
        return [field.strip(BLANKS) for field in line.split(separator)]
    try:
        return next(csv.reader([line], delimiter=separator, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise DataError(f"{where}: {UNCLOSED}") from error


def _between_blanks(line: str, where: str) -> list[str]:
    if '"' not in line:  # not at Unicode's other blanks, which may be part of a name
        return re.split(r"[ \t\r]+", line)
    fields, place = [], 0
    while place < len(line):
        found = FIELD.match(line, place)
        if found is None:
            raise DataError(f"{where}: {UNCLOSED}")
        fields.append(found[2] if found[1] is None else found[1].replace('""', '"'))
        place = found.end()
    return fields


def link_fields(line: str, separator: str, where: str, notes: bool = True) -> list[str]:
    """``split_fields`` of a link's line, without a comment at its end (unless there are no ``notes``).

    Attributes as networkx writes them, ``{'weight': 2.0}``, become the weight, if there is one among them.
    """
    attributes: dict[str, str] = {}
    line = line.rstrip(BLANKS)
    if line.endswith("}") and (found := ATTRIBUTES.search(line)) and found.start():
        try:
            attributes = {name: str(value) for name, value in ast.literal_eval(found[0]).items()}
            line = line[: found.start()].rstrip(BLANKS).removesuffix(separator)
        except (ValueError, SyntaxError, AttributeError, MemoryError, RecursionError):
            pass  # part of a name
    if notes and separator != " " and (found := NOTE.search(line)):
        bare = line[: found.start()]
        if separator in bare and _is_number(bare.rsplit(separator, 1)[-1]):  # a name that begins with # is no comment
            line = bare
    fields = split_fields(line, separator, where)
    if "weight" in attributes and len(fields) > 1:
        fields.append(attributes["weight"])
    if notes and separator == " ":
        end = next((place for place, field in enumerate(fields) if place > 1 and field[:1] in ("#", "%")), None)
        return fields[:end]
    return fields


def read_weight(field: str, where: str) -> float:
    """The weight of a link.

    Raises:
        DataError: it is not a number, negative, or not finite.
    """
    from .compiled_text import parse_weight

    try:
        return parse_weight(field)
    except ValueError as error:
        raise DataError(f"{where}: the weight {field!r} must be a finite number, 0 or more") from error


def read_named_links(
    data: bytes, layout: LineFormat, where: str
) -> tuple[NDArray[np.int64], list[str], NDArray[np.float64] | None]:
    """Like ``parse_names``, but slower; also reads quoted fields, and reports what is wrong."""
    numbers: dict[str, int] = {}
    ends: list[int] = []
    weights: list[float] = []
    weighted = False
    source, target, weight = (*layout.columns, 1 << 30)[:3]
    for number, _, line in data_lines(data, layout.start):
        place = f"{where}, line {number}"
        fields = link_fields(line, layout.separator, place)
        if layout.width not in (None, len(fields)):
            fields = link_fields(line, layout.separator, place, notes=False)
        if len(fields) not in ((2, 3) if layout.width is None else (layout.width,)):
            expected = "source, target and optionally a weight" if layout.width is None else f"{layout.width} fields"
            raise DataError(f"{place}: expected {expected}, found {count_fields(fields)}")
        for field in (fields[source], fields[target]):
            if not field:
                raise DataError(f"{place}: a node without a name")
            ends.append(numbers.setdefault(field, len(numbers)))
        has_weight = weight < len(fields)
        weights.append(read_weight(fields[weight], place) if has_weight else 1.0)
        weighted |= has_weight
    return np.array(ends, np.int64).reshape(-1, 2), list(numbers), np.array(weights) if weighted else None


def in_order(edges: NDArray[np.int64], names: list[str]) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    """Edges and names with the nodes in numerical order if all names are integers, else in the order of their names."""
    integers = all(INTEGER.fullmatch(name) for name in names)
    order = sorted(range(len(names)), key=(lambda node: int(names[node])) if integers else names.__getitem__)
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    return rank[edges], name_array([names[node] for node in order])


def count_fields(fields: list[str]) -> str:
    """The number of fields, in words for a message."""
    return f"{len(fields)} field" + ("s" if len(fields) != 1 else "")
