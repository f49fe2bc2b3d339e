"""Schemas of triples: which predicates there are, and the types of their subjects and objects."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DataError
from .json_lines import (
    VALUE,
    check_unicode,
    numbered_lines,
    object_slots,
    parse_json,
    slot_of,
    slot_predicate,
    spo_rows,
)

SCHEMA_KEYS = ("subject_type", "predicate", "object_type")


class Schema(NamedTuple):
    """The rows of a schema.

    Args:
        rows: ``[subject_type, predicate, object_type]``. A further slot of an object in DuIE 2.0's form has a row of
            its own, with ``slot_predicate`` as its predicate and the slot's type.
        object_slots: whether objects are in DuIE 2.0's form, ``{"@value": …}``.
    """

    rows: list[list[str]]
    object_slots: bool = False


def read_schema(path: Path, encoding: str = "utf-8") -> Schema:
    """A schema from JSON lines with the keys of ``SCHEMA_KEYS``.

    Object types are strings, or a dict of slots (DuIE 2.0); types may be empty strings.

    Raises:
        DataError: it can't be read, or a line has another layout.
    """
    rows, slots = [], False
    for number, line in numbered_lines(path, "predicate", encoding):
        where = f"{path}, line {number}"
        record = parse_json(line, where)
        values: list[Any] = [record.get(name) if isinstance(record, Mapping) else None for name in SCHEMA_KEYS]
        subject, predicate, types = values
        slots |= isinstance(types, Mapping)
        types = types if isinstance(types, Mapping) else {VALUE: types}
        types = {VALUE: types.get(VALUE), **types}
        if not all(isinstance(value, str) for value in (subject, predicate, *types.values())) or not predicate:
            raise DataError(f"{where}: a schema line is a JSON object with {', '.join(SCHEMA_KEYS)}")
        for slot, object_type in types.items():
            rows.append([subject, slot_predicate(predicate, slot), object_type])
            for name, value in zip(SCHEMA_KEYS, rows[-1], strict=True):
                check_unicode(value, where, name)
    return Schema([list(row) for row in dict.fromkeys(map(tuple, rows))], slots)


def schema_of_records(records: Iterable[tuple[str, Any]]) -> Schema:
    """The schema that labelled records follow, frequent rows first; types that they don't name are empty.

    Rows of ``spo_list`` that have another layout are left out: reading the sentences reports them.

    Raises:
        DataError: there is no ``spo_list``, or a name is no Unicode text.
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    slots = False
    for where, record in records:
        for row in spo_rows(record, where) if isinstance(record, Mapping) else ():
            if not isinstance(row, Mapping) or not isinstance(row.get("predicate"), str):
                continue
            slots |= isinstance(row.get("object"), Mapping)
            subject_type, object_type = row.get("subject_type"), row.get("object_type")
            types = object_type if isinstance(object_type, Mapping) else {VALUE: object_type}
            for slot in object_slots(row.get("object")):
                names = _text(subject_type), slot_predicate(row["predicate"], slot), _text(types.get(slot))
                for name in names if names not in counts else ():
                    check_unicode(name, where, "a predicate or type")
                counts[names] += 1
    return Schema([list(row) for row, _ in counts.most_common()], slots)


def with_slots_of(schema: Schema, other: Schema) -> Schema:
    """A schema with the slots that another one has of its predicates, too."""
    predicates = {predicate for _, predicate, _ in schema.rows}
    rows = [row for row in other.rows if row[1] not in predicates and slot_of(row[1], predicates)[1] != VALUE]
    return Schema([*schema.rows, *rows], schema.object_slots or other.object_slots)


def write_schema(schema: Schema) -> str:
    """A schema as JSON lines that ``read_schema`` reads."""
    lines: dict[tuple[str, str], list[dict[str, str]]] = {}
    predicates = {predicate for _, predicate, _ in schema.rows} if schema.object_slots else set()
    for subject_type, predicate, object_type in schema.rows:
        base, slot = slot_of(predicate, predicates)
        if slot == VALUE:
            lines.setdefault((subject_type, predicate), []).append({VALUE: object_type})
            continue
        for types in lines.get((subject_type, base), ()):
            types[slot] = object_type
    return "".join(
        json.dumps(
            dict(
                zip(SCHEMA_KEYS, (subject_type, predicate, types if schema.object_slots else types[VALUE]), strict=True)
            ),
            ensure_ascii=False,
        )
        + "\n"
        for (subject_type, predicate), several in lines.items()
        for types in several
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
