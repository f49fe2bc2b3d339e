"""Files for triple extraction: JSON lines in SKE's (DuIE's) format, their schema, and plain texts."""

import difflib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DataError
from ..files import decode_utf8

Triple = tuple[str, str, str]  # subject, predicate, object

SCHEMA_KEYS = ("subject_type", "predicate", "object_type")


class Sentence(NamedTuple):
    """A text and its distinct triples, in the order of the file."""

    text: str
    triples: tuple[Triple, ...]


class SentenceFile(NamedTuple):
    """The sentences of a file.

    Args:
        sentences: all of them, including those without triples.
        other_slots: number of ignored object values besides ``@value`` (DuIE 2.0's composite objects).
    """

    sentences: list[Sentence]
    other_slots: int


def numbered_lines(path: Path, what: str = "text") -> Iterator[tuple[int, str]]:
    """Yields number and content of the non-blank lines of a UTF-8 file as it is read.

    Raises:
        DataError: it can't be read, isn't UTF-8 (the message names the line), or has no such line.
    """
    empty = True
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                text = decode_utf8(line, path, number)
                text = text.removeprefix("\ufeff").strip() if number == 1 else text.strip()
                if text:
                    empty = False
                    yield number, text
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if empty:
        raise DataError(f"{path} is empty: give it one {what} per line")


def read_sentences(path: Path, predicates: Iterable[str]) -> SentenceFile:
    """The sentences of a file of JSON lines ``{"text", "spo_list": [{"subject", "predicate", "object", …}]}``.

    Objects may be strings (SKE, DuIE 1.0) or the dicts of DuIE 2.0, whose ``@value`` is used.

    Args:
        path: the file.
        predicates: those of the schema.

    Raises:
        DataError: it can't be read, a line is broken or has another layout, or a predicate isn't in the schema; the
            message names file and line.
    """
    known = frozenset(predicates)
    lines = (
        (f"{path}, line {number}", parse_json(line, f"{path}, line {number}")) for number, line in numbered_lines(path)
    )
    return parse_sentences(lines, known)


def parse_sentences(records: Iterable[tuple[str, Any]], predicates: frozenset[str]) -> SentenceFile:
    """Sentences from records in SKE's layout.

    Args:
        records: for each, what messages call it, and its content.
        predicates: those of the schema.

    Raises:
        DataError: a record has another layout, or a predicate isn't in the schema.
    """
    sentences, other_slots = [], 0
    for where, record in records:
        text = parse_text(record, where)
        rows = record.get("spo_list")
        if isinstance(rows, Mapping):
            rows = _rows_of_columns(rows)
        if not isinstance(rows, list):
            what = "has no spo_list" if rows is None else "spo_list is not a list"
            raise DataError(f"{where}: {what}; give the triples of the text, or [] for none")
        triples: dict[Triple, None] = {}
        for row in rows:
            triple, slots = _parse_triple(row, where, predicates)
            triples[triple] = None
            other_slots += slots
        sentences.append(Sentence(text, tuple(triples)))
    return SentenceFile(sentences, other_slots)


def _rows_of_columns(columns: Mapping[str, Any]) -> list[dict[str, Any]] | Mapping[str, Any]:
    """The list of dicts that Hugging Face turned into a dict of lists; anything else is returned as is."""
    are_columns = all(isinstance(values, list) for values in columns.values())
    if not columns or not are_columns or len({len(values) for values in columns.values()}) > 1:
        return columns
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def parse_json(line: str, where: str) -> Any:
    """The content of a JSON line.

    Raises:
        DataError: it is broken.
    """
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:  # broken, an integer of thousands of digits, or too deep
        column = f" (column {error.colno}: {error.msg})" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{where}: broken JSON{column}; give one JSON object per line, or remove this line") from error


def parse_text(record: Any, where: str) -> str:
    """The text of a record.

    Raises:
        DataError: it isn't an object with a text.
    """
    if not isinstance(record, Mapping):
        raise DataError(f'{where}: not a JSON object; each line must be one: {{"text": …, "spo_list": […]}}')
    text = record.get("text")
    if not isinstance(text, str) or not text:
        what = "has no text" if text is None else "text is empty" if text == "" else "text is not a string"
        raise DataError(f"{where}: {what}; each line needs a string named text")
    _check_unicode(text, where, "text")
    return text


def _check_unicode(text: str, where: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: {name} has half of a surrogate pair ({text[error.start]!a}) at character "
            f"{error.start}; write the whole character"
        ) from error


def _parse_triple(row: Any, where: str, predicates: frozenset[str]) -> tuple[Triple, int]:
    """The triple of an entry of ``spo_list``, and the number of its object's values besides ``@value``."""
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: spo_list must hold objects with subject, predicate and object")
    values, slots = {}, 0
    for name in ("subject", "predicate", "object"):
        value = row.get(name)
        if name == "object" and isinstance(value, Mapping):
            slots = sum(1 for key, other in value.items() if key != "@value" and other is not None)
            value = value.get("@value")
        if not isinstance(value, str) or not value:
            what = "missing" if value is None else "empty" if value == "" else "not a string"
            raise DataError(f"{where}: {name} of a triple is {what}; each needs subject, predicate and object")
        _check_unicode(value, where, name)
        values[name] = value
    predicate = values["predicate"]
    if predicate not in predicates:
        close = difflib.get_close_matches(predicate, sorted(predicates), n=1, cutoff=0.3)
        hint = f"did you mean {close[0]}? Otherwise " if close else ""
        raise DataError(
            f"{where}: the predicate {predicate} is not in the schema; {hint}"
            "correct it, or give data.schema_file a schema that has it"
        )
    return (values["subject"], predicate, values["object"]), slots


def has_triples(path: Path) -> bool:
    """Whether a file is labelled, that is, its first line has ``spo_list``.

    Raises:
        DataError: as ``numbered_lines``, or the line is broken.
    """
    number, line = next(iter(numbered_lines(path)))
    record = parse_json(line, f"{path}, line {number}")
    return isinstance(record, Mapping) and "spo_list" in record


def read_schema(path: Path) -> list[list[str]]:
    """The ``[subject_type, predicate, object_type]`` rows of a schema: JSON lines with these three keys.

    Raises:
        DataError: it can't be read, or a line has another layout.
    """
    rows: list[list[str]] = []
    for number, line in numbered_lines(path, "predicate"):
        where = f"{path}, line {number}"
        record = parse_json(line, where)
        row: list[Any] = [record.get(name) if isinstance(record, Mapping) else None for name in SCHEMA_KEYS]
        row = [value.get("@value") if isinstance(value, Mapping) else value for value in row]
        if not all(isinstance(value, str) and value for value in row):
            raise DataError(f"{where}: a schema line is a JSON object with {', '.join(SCHEMA_KEYS)}")
        for name, value in zip(SCHEMA_KEYS, row, strict=True):
            _check_unicode(value, where, name)
        rows.append(row)
    return rows


def read_texts(path: Path) -> Iterator[str]:
    """Yields the texts of a file as it is read; blank lines are skipped.

    The file is JSON lines with ``text`` if its suffix is ``.json`` or ``.jsonl`` or its first line is a JSON object;
    otherwise it is plain text, one per line.

    Raises:
        DataError: it can't be read, isn't UTF-8, is empty, or a line is broken; the message names the line.
    """
    path = Path(path)
    lines = numbered_lines(path)
    first = next(lines)
    as_json = path.suffix in (".json", ".jsonl") or _is_json_object(first[1])
    for number, line in itertools.chain([first], lines):
        where = f"{path}, line {number}"
        yield parse_text(parse_json(line, where), where) if as_json else line


def _is_json_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
