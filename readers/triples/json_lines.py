"""Files for triple extraction: JSON lines in SKE's (DuIE's) format, and plain texts."""

import difflib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DataError
from ..lines import TextFile, iterate_lines
from .normalization import Normalize, NormalizedText, Span, normalize_text

Triple = tuple[str, str, str]  # subject, predicate, object
Mention = tuple[Span | None, Span | None]  # of subject and object, [start, end) in characters; None: not given

VALUE = "@value"  # the slot of an object's own name, among those of DuIE 2.0
LONGEST_NAME, LONGEST_LIST = 60, 6000  # characters in messages
MOST_HINTS = 20
SCHEMA_WAY_OUT = "correct it in the file, or give data.schema_file a schema that has it, or data.schema=from_data"


class Sentence(NamedTuple):
    """A text and its distinct triples, in the order of the file.

    Args:
        text: the text, normalized.
        triples: subject, predicate, object. Another slot of an object in DuIE 2.0's form is a triple of its own,
            whose predicate is ``slot_predicate(predicate, slot)``.
        mentions: of each triple, those that the file gives; empty if it gives none at all.
    """

    text: str
    triples: tuple[Triple, ...]
    mentions: tuple[tuple[Mention, ...], ...] = ()


def slot_predicate(predicate: str, slot: str) -> str:
    """What the triples of an object's slot are called: the predicate itself for ``@value``, else ``票房@inArea``."""
    return predicate if slot == VALUE else f"{predicate}@{slot}"


def slot_of(predicate: str, predicates: Collection[str]) -> tuple[str, str]:
    """Predicate and slot of what ``slot_predicate`` made of them: ``票房@inArea`` -> ``票房``, ``inArea``.

    Args:
        predicate: of a triple.
        predicates: those of the schema: a name with ``@`` in it whose first part is none of them is no slot's.
    """
    base, _, slot = predicate.rpartition("@")
    return (base, slot) if base in predicates else (predicate, VALUE)


def numbered_lines(path: Path, what: str = "text", encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Yields number and content of the non-blank lines of a file, gzipped or not, as it is read.

    Raises:
        DataError: it can't be read or decoded (the message names the line), or has no such line.
    """
    empty = True
    for number, line in iterate_lines(path, encoding):
        if line := line.strip():
            empty = False
            yield number, line
    if empty:
        raise DataError(f"{path} is empty: give it one {what} per line")


def read_records(path: Path, encoding: str = "utf-8") -> Iterator[tuple[str, Any]]:
    """Yields what messages call a line of JSON, and its content.

    Raises:
        DataError: it can't be read, or a line is broken.
    """
    for number, line in numbered_lines(path, encoding=encoding):
        where = f"{path}, line {number}"
        yield where, parse_json(line, where)


def read_sentences(
    path: Path, predicates: Iterable[str], normalize: Normalize = "none", encoding: str = "utf-8"
) -> list[Sentence]:
    """The sentences of a file of JSON lines ``{"text", "spo_list": [{"subject", "predicate", "object", …}]}``.

    Objects may be strings (SKE, DuIE 1.0) or the dicts of DuIE 2.0, whose slots become triples of their own. Triples
    may have ``subject_span`` and ``object_span``, [start, end) in characters of the text, and ``slot_spans``.

    Args:
        path: the file.
        predicates: those of the schema.
        normalize: the form of texts and entities.
        encoding: of the file.

    Raises:
        DataError: it can't be read, a line is broken or has another layout, or predicates aren't in the schema; the
            message names file and line.
    """
    return parse_sentences(read_records(path, encoding), frozenset(predicates), normalize)


def parse_sentences(
    records: Iterable[tuple[str, Any]],
    predicates: frozenset[str],
    normalize: Normalize = "none",
    way_out: str = SCHEMA_WAY_OUT,
) -> list[Sentence]:
    """Sentences from records in SKE's layout. Blank texts without triples, which predictions have for empty lines, are
    left out.

    Args:
        records: for each, what messages call it, and its content.
        predicates: those of the schema.
        normalize: the form of texts and entities.
        way_out: what to do about other predicates, for the message.

    Raises:
        DataError: a record has another layout, predicates aren't in the schema (all are named), or there is no text.
    """
    sentences: list[Sentence] = []
    unknown: dict[str, str] = {}
    where = ""
    for where, record in records:
        text = normalize_text(parse_text(record, where), normalize)
        rows = spo_rows(record, where)
        if not text.text:
            if rows:
                raise DataError(f"{where}: text is empty, but spo_list has triples; give their text, or remove them")
            continue
        found: dict[Triple, dict[Mention, None]] = {}
        for row in rows:
            for triple, mention in _parse_row(row, where, text, normalize):
                if triple[1] not in predicates:
                    unknown.setdefault(triple[1], where)
                    break  # its slots are unknown, too
                mentions = found.setdefault(triple, {})
                if mention != (None, None):
                    mentions[mention] = None
        mentioned = tuple(map(tuple, found.values())) if any(found.values()) else ()
        sentences.append(Sentence(text.text, tuple(found), mentioned))
    if unknown:
        raise unknown_predicates(unknown, predicates, way_out)
    if not sentences:
        raise DataError(f"all texts are empty, up to {where}; give some text" if where else "there are no sentences")
    return sentences


def spo_rows(record: Mapping[str, Any], where: str) -> list[Any]:
    """The entries of ``spo_list``.

    Raises:
        DataError: it is not a list, or missing.
    """
    rows = record.get("spo_list")
    if isinstance(rows, Mapping):
        rows = _rows_of_columns(rows)
    if not isinstance(rows, list):
        what = "spo_list is not a list" if "spo_list" in record else f"has no spo_list{_but(record)}"
        raise DataError(f"{where}: {what}; give the triples of the text, or [] for none")
    return rows


def _but(record: Mapping[str, Any]) -> str:
    """The keys that a record has, which may be another maker's names for what is missing."""
    return f", only {', '.join(map(str, record))}" * bool(record)


def _rows_of_columns(columns: Mapping[str, Any]) -> list[dict[str, Any]] | Mapping[str, Any]:
    """The list of dicts that Hugging Face turned into a dict of lists; anything else is returned as is."""
    are_columns = all(isinstance(values, list) for values in columns.values())
    if not columns or not are_columns or len({len(values) for values in columns.values()}) > 1:
        return columns
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def parse_json(line: str, where: str) -> Any:
    """The content of a JSON line.

    Raises:
        DataError: it is broken, or of a file that is not JSON lines: an array, or an object over several lines.
    """
    if line[:1] == "[" or line == "{":
        what, how = ("an array", "'.[]'") if line[0] == "[" else ("the first line of one", ".")
        raise DataError(
            f"{where}: not a JSON object, but {what}; each line must be one (jq -c {how} OLD > NEW writes them so)"
        )
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:  # broken, an integer of thousands of digits, or too deep
        column = f" (column {error.colno}: {error.msg})" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{where}: broken JSON{column}; give one JSON object per line, or remove this line") from error


def parse_text(record: Any, where: str) -> str:
    """The text of a record; it may be empty.

    Raises:
        DataError: it isn't an object with a text.
    """
    if not isinstance(record, Mapping):
        raise DataError(f'{where}: not a JSON object; each line must be one: {{"text": …, "spo_list": […]}}')
    text = record.get("text")
    if not isinstance(text, str):
        what = "text is not a string" if "text" in record else f"has no text{_but(record)}"
        raise DataError(f"{where}: {what}; each line needs a string named text")
    check_unicode(text, where, "text")
    return text


def check_unicode(text: str, where: str, name: str) -> None:
    """Refuses half of a surrogate pair, which JSON may hold but no file."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: {name} has half of a surrogate pair ({text[error.start]!a}) at character "
            f"{error.start}; write the whole character"
        ) from error


def object_slots(value: Any) -> dict[str, Any]:
    """The slots of an object: itself as ``@value``, or those of DuIE 2.0 that are filled, ``@value`` first."""
    if not isinstance(value, Mapping):
        return {VALUE: value}
    others = {slot: part for slot, part in value.items() if slot != VALUE and part not in (None, "")}
    return {VALUE: value.get(VALUE), **others}


def _parse_row(row: Any, where: str, text: NormalizedText, normalize: Normalize) -> list[tuple[Triple, Mention]]:
    """The triples of an entry of ``spo_list``, one for each slot of its object, each with its spans."""
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: spo_list must hold objects with subject, predicate and object")
    subject = _parse_name(row.get("subject"), where, "subject", normalize)
    predicate = _check_name(row.get("predicate"), where, "predicate")
    subject_span = _parse_span(row.get("subject_span"), subject, text, where, "subject_span")
    spans = row.get("slot_spans")
    spans = dict(spans) if isinstance(spans, Mapping) else {}
    spans[VALUE] = row.get("object_span")
    found = []
    for slot, value in object_slots(row.get("object")).items():
        check_unicode(slot, where, "a slot of an object")
        name = "object" if slot == VALUE else f"{slot} of an object"
        entity = _parse_name(value, where, name, normalize)
        span_name = "object_span" if slot == VALUE else f"slot_spans.{slot}"
        span = _parse_span(spans.get(slot), entity, text, where, span_name)
        found.append(((subject, slot_predicate(predicate, slot), entity), (subject_span, span)))
    return found


def _check_name(value: Any, where: str, name: str) -> str:
    if isinstance(value, int | float):
        number = json.dumps(value)
        raise DataError(f'{where}: {name} of a triple is not a string but {number}; write it in quotes: "{number}"')
    if not isinstance(value, str) or not value.strip():
        what = "missing" if value is None else "not a string" if not isinstance(value, str) else "empty"
        raise DataError(f"{where}: {name} of a triple is {what}; each needs subject, predicate and object")
    check_unicode(value, where, name)
    return value


def _parse_name(value: Any, where: str, name: str, normalize: Normalize) -> str:
    return normalize_text(_check_name(value, where, name), normalize).text


def _parse_span(value: Any, entity: str, text: NormalizedText, where: str, name: str) -> Span | None:
    """A span of the normalized text, from one that counts characters of the file's."""
    if value is None:
        return None
    numbers = list(value) if isinstance(value, list | tuple) else []
    if len(numbers) != 2 or not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
        raise DataError(f"{where}: {name} must be [start, end), two whole numbers, or left out")
    start, end = text.inside((numbers[0], numbers[1])) if 0 <= numbers[0] < numbers[1] else (0, 0)
    if text.text[start:end] != entity:
        raise DataError(
            f"{where}: {name} {numbers} is '{text.text[start:end]}' in the text, not '{entity}'; correct it "
            "([start, end) in characters, from 0), or leave it out"
        )
    return start, end


def unknown_predicates(
    unknown: Mapping[str, str], predicates: frozenset[str], way_out: str = SCHEMA_WAY_OUT
) -> DataError:
    """An error that names all predicates that the schema lacks.

    Args:
        unknown: the first place of each.
        predicates: those of the schema.
        way_out: what to do about it.
    """
    names, hints = [], []
    known = sorted(predicates) if len(unknown) <= MOST_HINTS else []
    for name in unknown:
        close = difflib.get_close_matches(name[:LONGEST_NAME], known, n=1, cutoff=0.3)
        hints.append(f"did you mean {close[0]}?" if close else "")
        names.append(name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…")
    first = next(iter(unknown.values()))
    if len(names) == 1:
        what = f"{first}: the predicate {names[0]} is not in the schema; {hints[0]}{' Otherwise ' * bool(hints[0])}"
    else:
        listed = ", ".join(f"{name} ({hint})" if hint else name for name, hint in zip(names, hints, strict=True))
        what = f"{first} is the first with one of {len(names)} predicates that are not in the schema: {listed}; "
    return DataError(what + way_out, longest=LONGEST_LIST)


def has_triples(path: Path, encoding: str = "utf-8") -> bool:
    """Whether a file is labelled, that is, its first line has ``spo_list``.

    Raises:
        DataError: as ``numbered_lines``, or the line is broken.
    """
    _, record = next(read_records(path, encoding))
    return isinstance(record, Mapping) and "spo_list" in record


def holds_records(path: Path, encoding: str = "utf-8", option: str = "--data.encoding") -> bool:
    """Whether a file of texts is JSON lines: by the suffix ``.json`` or ``.jsonl`` (before ``.gz``), or if its first
    line that isn't blank is a JSON object; otherwise it is plain text, one per line.

    Raises:
        DataError: the file can't be read.
    """
    if path.name.lower().removesuffix(".gz").endswith((".json", ".jsonl")):
        return True
    with TextFile(path, encoding, option) as file:  # what can't be decoded is no JSON; whoever reads it says so
        first = next((line for _, line in file if isinstance(line, str) and line.strip()), "")
    return is_record(first)


def is_record(line: str) -> bool:
    """Whether a line is a JSON object."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
