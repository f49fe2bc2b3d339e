"""Objects with several slots, as in DuIE 2.0: from single triples to ``{"@value": …, "inArea": …}`` and its types."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from metrics.triples import ExtractedTriple
from readers.triples.json_lines import VALUE, slot_of

Slots = dict[str, ExtractedTriple]  # ``@value`` first


def compose_objects(triples: Collection[ExtractedTriple], predicates: Collection[str]) -> list[Slots]:
    """The objects that triples describe: a triple of a predicate and those of its further slots, by slot.

    Subject and predicate decide which belong together. Where they have as many objects as values of a slot, these go
    together in the order of the text, else each with the nearest. A value that is nobody's nearest makes an object of
    its own with its nearest; slots without an object are left out.

    Args:
        triples: those of one text.
        predicates: those of the schema, whose further slots are called ``predicate@slot``.
    """
    groups: dict[tuple[str, str], dict[str, list[ExtractedTriple]]] = {}
    for triple in triples:
        predicate, slot = slot_of(triple.predicate, predicates)
        groups.setdefault((triple.subject, predicate), {}).setdefault(slot, []).append(triple)
    found = []
    for slots in groups.values():
        objects: list[Slots] = [{VALUE: triple} for triple in _by_place(slots.pop(VALUE, []))]
        added: list[Slots] = []
        for slot, values in sorted(slots.items()) if objects else ():
            for one, value in _pairs(objects, _by_place(values)):
                if slot in one:
                    added.append({**one, slot: value})
                else:
                    one[slot] = value
        found += [*objects, *added]
    return found


def _by_place(triples: list[ExtractedTriple]) -> list[ExtractedTriple]:
    return sorted(triples, key=lambda triple: triple.object_span)


def _pairs(objects: list[Slots], values: list[ExtractedTriple]) -> Iterator[tuple[Slots, ExtractedTriple]]:
    if len(objects) == len(values):
        yield from zip(objects, values, strict=True)
        return
    used = []
    for one in objects:
        used.append(min(values, key=lambda value: _distance(one[VALUE], value)))
        yield one, used[-1]
    for value in values:
        if value not in used:
            yield min(objects, key=lambda one: _distance(one[VALUE], value)), value


def _distance(one: ExtractedTriple, other: ExtractedTriple) -> int:
    """Characters between two objects."""
    return max(one.object_span[0] - other.object_span[1], other.object_span[0] - one.object_span[1], 0)


def in_text(text: str, triples: Collection[tuple[str, str, str]]) -> list[ExtractedTriple]:
    """Gold triples at the first occurrence of their names."""
    found = []
    for subject, predicate, obj in triples:
        spans = [(text.find(name), text.find(name) + len(name)) for name in (subject, obj)]
        found.append(ExtractedTriple(subject, predicate, obj, spans[0], spans[1], 1.0))
    return found


def whole_objects(
    triples: Collection[ExtractedTriple], predicates: Collection[str]
) -> list[tuple[str, str, dict[str, str]]]:
    """Subject, predicate and the object's slots of all objects that triples describe."""
    return [
        (slots[VALUE].subject, slots[VALUE].predicate, {slot: triple.object for slot, triple in slots.items()})
        for slots in compose_objects(triples, predicates)
    ]


def spo_record(slots: Slots, types: Mapping[str, tuple[str, str]], object_slots: bool) -> dict[str, Any]:
    """An entry of ``spo_list`` in SKE's form, or in DuIE 2.0's, whose objects are dicts.

    Args:
        slots: the object's triples by slot.
        types: of subject and object, for each predicate.
        object_slots: whether to write DuIE 2.0's form.
    """
    value = slots[VALUE]
    subject_type, object_type = types[value.predicate]
    others = {slot: triple for slot, triple in slots.items() if slot != VALUE}
    record: dict[str, Any] = {
        "predicate": value.predicate,
        "subject": value.subject,
        "subject_type": subject_type,
        "object": {slot: triple.object for slot, triple in slots.items()} if object_slots else value.object,
        "object_type": (
            {slot: types[triple.predicate][1] for slot, triple in slots.items()} if object_slots else object_type
        ),
        "subject_span": list(value.subject_span),
        "object_span": list(value.object_span),
        "confidence": round(min(triple.confidence for triple in slots.values()), 4),
    }
    if others:
        record["slot_spans"] = {slot: list(triple.object_span) for slot, triple in others.items()}
    return record
