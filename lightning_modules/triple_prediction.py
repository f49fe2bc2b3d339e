"""From a file of sentences to a file of triples, in pieces: the files' size doesn't matter."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from datamodules.batches import TripleBatch
from metrics.triples import ExtractedTriple


def extract(
    path: Path, find: Callable[[list[str]], list[list[ExtractedTriple]]], batch_size: int
) -> Iterator[tuple[str, list[ExtractedTriple]]]:
    """Yields the texts of a file with their triples.

    Args:
        path: the file.
        find: the triples of each text of a batch.
        batch_size: texts given to it at once.

    Raises:
        ValueError: the file can't be read, or a line is broken.
    """
    # Sentences of like length together, and a bounded number in memory.
    for block in _blocks(TripleBatch.texts_from_file(path), 16 * batch_size):
        triples: list[list[ExtractedTriple]] = [[] for _ in block]
        order = sorted(range(len(block)), key=lambda i: len(block[i]))
        for first in range(0, len(order), batch_size):
            chunk = order[first : first + batch_size]
            for i, result in zip(chunk, find([block[i] for i in chunk]), strict=True):
                triples[i] = result
        yield from zip(block, triples, strict=True)


def _blocks(texts: Iterator[str], size: int) -> Iterator[list[str]]:
    """Lists of ``size`` texts; where reading fails, those before come first."""
    block: list[str] = []
    try:
        for text in texts:
            block.append(text)
            if len(block) == size:
                yield block
                block = []
    except ValueError:
        if block:
            yield block
        raise
    if block:
        yield block


def write_triples(
    extracted: Iterable[tuple[str, list[ExtractedTriple]]], types: Mapping[str, tuple[str, str]], output: Path
) -> tuple[int, int]:
    """Writes texts and their triples as JSON lines in the layout of SKE.

    Args:
        extracted: the texts, each with its triples.
        types: of subject and object, for each predicate.
        output: the file; an older one is intact until the new one is whole.

    Returns:
        how many sentences and triples there were.

    Raises:
        ValueError: as ``extracted`` does; the message says where what came before is kept.
    """
    sentences = found = 0
    # Beside its place: an older output is intact until the new one is whole, what was done until an error is kept.
    part = Path(f"{output}.part")
    try:
        with open(part, "w", encoding="utf-8") as file:
            for text, triples in extracted:
                record = {"text": text, "spo_list": [_record(triple, types[triple.predicate]) for triple in triples]}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                sentences += 1
                found += len(triples)
    except ValueError as error:
        if not sentences:
            part.unlink()
            raise
        raise type(error)(f"{error}; the {sentences} sentences before it are in {part}") from error
    part.replace(output)
    return sentences, found


def _record(triple: ExtractedTriple, types: tuple[str, str]) -> dict[str, Any]:
    subject_type, object_type = types
    return {
        "predicate": triple.predicate,
        "subject": triple.subject,
        "subject_type": subject_type,
        "object": triple.object,
        "object_type": object_type,
        "subject_span": list(triple.subject_span),
        "object_span": list(triple.object_span),
        "confidence": round(triple.confidence, 4),
    }


def with_progress(items: Iterator[Any], path: Path) -> Iterator[Any]:
    """The items, with a bar on the terminal; one a line of the file, about."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    with open(path, "rb") as file:
        lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    yield from track(items, "extracting", total=max(1, lines), console=Console(stderr=True))
