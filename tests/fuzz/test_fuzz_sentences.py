"""Readers of JSON lines (sentences, schemas, texts); each against a small independent parser."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from datamodules.triples import TripleDataModule
from readers.errors import DataError
from readers.triples.json_lines import has_triples, read_sentences
from readers.triples.schemas import read_schema
from tests.fuzz.fuzzing import broken, fuzz, outcome
from tests.fuzz.test_fuzz_texts import decoded, make_no_file

PREDICATES = ["导演", "born in", "导演@inWork"]
NAMES = st.sampled_from(["王家卫", "Ana", "x\ny", "'", "\U0001f600", "\x1b[31m", "\u2028"])
OTHERS = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(["", "a", "\ud800", "\n", "@value"])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(["@value", "text", "a"]), inner)
    ),
    max_leaves=4,
)
LISTS = st.lists(st.one_of(NAMES, OTHERS), max_size=2)


def sometimes(usual: st.SearchStrategy[Any], other: st.SearchStrategy[Any] = OTHERS) -> st.SearchStrategy[Any]:
    """A value of ``other``, one time in twelve."""
    return st.integers(0, 11).flatmap(lambda draw: other if draw == 11 else usual)


TRIPLES = st.fixed_dictionaries(
    {
        "subject": sometimes(NAMES),
        "predicate": sometimes(
            st.sampled_from(PREDICATES), st.sampled_from(["directed\nby", "born at", "\ud800", 1, None])
        ),
        "object": sometimes(st.one_of(NAMES, st.fixed_dictionaries({"@value": NAMES, "inWork": sometimes(NAMES)}))),
    }
)
COLUMNS = st.dictionaries(st.sampled_from(["subject", "predicate", "object"]), sometimes(LISTS))
RECORDS = sometimes(
    st.fixed_dictionaries(
        {"text": sometimes(NAMES), "spo_list": sometimes(st.lists(sometimes(TRIPLES), max_size=2), COLUMNS)}
    )
)
LINES = st.lists(RECORDS.map(json.dumps), min_size=1, max_size=3).map(lambda lines: "\n".join(lines).encode())
DEEP = b'{"text": "a", "spo_list": ' + b"[" * 200_000
HUGE = b'{"text": "a", "spo_list": [], "id": ' + b"9" * 5000 + b"}"


def records(data: bytes) -> list[Any] | None:
    """The content of the lines, or None if one is broken."""
    text = decoded(data)
    try:
        lines = [line.strip() for line in (text or "").split("\n")]
        return [json.loads(line) for line in lines if line] or None
    except (ValueError, RecursionError):
        return None


def is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != "" and not any(0xD800 <= ord(sign) < 0xE000 for sign in value)


def sentence(record: Any) -> tuple[str, tuple] | None:
    """Text and distinct triples; None for any other layout."""
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        return None
    rows = record.get("spo_list")
    if isinstance(rows, dict):
        columns = list(rows.values())
        if not rows or not all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
            return None
        rows = [{name: column[i] for name, column in rows.items()} for i in range(len(columns[0]))]
    if not isinstance(rows, list) or not (is_text(record["text"]) or (rows == [] and not record["text"].strip())):
        return None
    triples = []
    for row in rows:
        if not isinstance(row, dict):
            return None
        end = row.get("object")
        slots = {"@value": end}
        if isinstance(end, dict):
            others = {slot: value for slot, value in end.items() if slot != "@value" and value not in (None, "")}
            slots = {"@value": end.get("@value"), **others}
        for slot, value in slots.items():
            names = (row.get("subject"), row.get("predicate"), value)
            if not all(map(is_text, names)):
                return None
            predicate = names[1] if slot == "@value" else f"{names[1]}@{slot}"
            if predicate not in PREDICATES:
                return None
            triple = (names[0].strip(), predicate, names[2].strip())
            triples += [] if triple in triples else [triple]
    return record["text"].strip(), tuple(triples)


@fuzz(80)
@given(data=broken(LINES))
@example(data=DEEP)
@example(data=HUGE)
@example(data=b'{"text": "a", "spo_list": {"subject": 1, "predicate": [], "object": []}}')
@example(data=b'{"text": "a", "spo_list": [{"subject": "b", "predicate": "' + b"x" * 100_000 + b'", "object": "c"}]}')
def test_sentences(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    path = tmp_path_factory.mktemp("ske") / "train.json"
    path.write_bytes(data)
    a_line = not data.startswith(b"\x1f\x8b") and data.decode(errors="replace").lstrip("\ufeff").strip() != ""
    file = outcome(lambda: read_sentences(path, PREDICATES), path, line=a_line)
    parsed = records(data)
    expected = [sentence(record) for record in parsed] if parsed is not None else [None]
    expected = [found for found in expected if found != ("", ())] or [None]
    assert (file is None) == (None in expected)
    if file is not None:
        assert [tuple(found[:2]) for found in file] == expected
        assert has_triples(path) is True


@fuzz(30)
@given(data=broken(LINES))
@example(data=HUGE)
@example(data=rb'{"text": "a", "spo_list": [{"subject": "a", "predicate": "\ud800", "object": {"@value": "a"}}]}')
def test_sentences_train(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    """What the reader accepts becomes batches, or is rejected in one line."""
    folder = tmp_path_factory.mktemp("ske")
    schema = [{"subject_type": "a", "predicate": name, "object_type": "b"} for name in PREDICATES]
    (folder / "all_50_schemas").write_text("\n".join(map(json.dumps, schema)))
    (folder / "train_data.json").write_bytes(data)
    (folder / "dev_data.json").write_bytes(data)

    def read():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
            module = TripleDataModule(str(folder), batch_size=1, max_length=4, min_count=1)
            module.setup()
            return list(module.train_dataloader()), list(module.val_dataloader())

    outcome(read, folder, line=False)


@fuzz(40)
@given(
    data=broken(
        st.lists(
            st.fixed_dictionaries(
                {
                    "subject_type": sometimes(NAMES),
                    "predicate": NAMES,
                    "object_type": sometimes(NAMES, st.just({"@value": "a"})),
                }
            ).map(json.dumps),
            min_size=1,
            max_size=3,
        ).map(lambda lines: "\n".join(lines).encode())
    )
)
def test_schema(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    path = tmp_path_factory.mktemp("ske") / "schema"
    path.write_bytes(data)
    found = outcome(lambda: read_schema(path), path)
    expected: list[Any] | None = []
    for record in records(data) or [None]:
        names = (
            [record.get(name) for name in ("subject_type", "predicate", "object_type")]
            if isinstance(record, dict)
            else [None]
        )
        names = [
            name.get("@value") if isinstance(name, dict) and place == 2 else name for place, name in enumerate(names)
        ]
        # Types may be empty, the predicate not.
        fine = len(names) == 3 and all(is_text(f"x{name}") and isinstance(name, str) for name in names) and names[1]
        expected = [*expected, *([names] if names not in expected else [])] if expected is not None and fine else None
    assert (None if found is None else found.rows) == expected


@pytest.mark.parametrize("make", ["folder", "loop", "nothing", "dangling"])
@pytest.mark.parametrize("reader", [has_triples, read_schema])
def test_what_is_no_file_of_lines(tmp_path: Path, make: str, reader):
    path = tmp_path / "it.json"
    make_no_file(path, make)
    with pytest.raises(DataError, match=r"it\.json"):
        reader(path)


def test_recursion_limit_is_pythons():
    assert sys.getrecursionlimit() < 100_000  # otherwise DEEP is not too deep
