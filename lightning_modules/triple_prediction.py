"""From a file of sentences to a file of triples, in pieces: files may be of any size."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from metrics.triples import ExtractedTriple
from readers.triples import read_texts


def extract(
    path: Path,
    find: Callable[[list[str]], list[list[ExtractedTriple]]],
    batch_size: int,
    advance: Callable[[int], None],
) -> Iterator[tuple[str, list[ExtractedTriple]]]:
    """Yields the texts of a file with their triples.

    Args:
        path: the file.
        find: the triples of each text in a batch.
        batch_size: texts per batch.
        advance: called with the number of texts after each batch.

    Raises:
        ValueError: if the file can't be read, or a line is malformed.
    """
    # Sentences of similar length together, and a bounded number in memory.
    for block in _blocks(read_texts(path), 16 * batch_size):
        triples: list[list[ExtractedTriple]] = [[] for _ in block]
        order = sorted(range(len(block)), key=lambda i: len(block[i]))
        for first in range(0, len(order), batch_size):
            chunk = order[first : first + batch_size]
            for i, result in zip(chunk, find([block[i] for i in chunk]), strict=True):
                triples[i] = result
            advance(len(chunk))
        yield from zip(block, triples, strict=True)


def _blocks(texts: Iterator[str], size: int) -> Iterator[list[str]]:
    """Lists of ``size`` texts; if reading fails, the texts before the error come first."""
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
    """Writes texts and their triples as JSON lines in the SKE format.

    Args:
        extracted: the texts, each with its triples.
        types: of subject and object, for each predicate.
        output: the file; an existing one stays intact until the new one is complete.

    Returns:
        Numbers of sentences and triples.

    Raises:
        ValueError: raised by ``extracted``; the message says where the sentences before the error are.
    """
    sentences = found = 0
    # Written beside it: an existing output stays intact until the new one is complete, and an error loses no work.
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


@contextlib.contextmanager
def progress_bar(path: Path) -> Iterator[Callable[[int], None]]:
    """A progress bar, if stderr is a terminal; yields a function to call with the number of texts just finished."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("extracting", total=_count_texts(path))
        yield lambda count: progress.advance(task, count)


def _count_texts(path: Path) -> int | None:
    """Number of non-blank lines; None if the file can't be read, which its reader will report."""
    try:
        with open(path, "rb") as file:
            return sum(1 for line in file if line.decode(errors="replace").strip())
    except OSError:
        return None
