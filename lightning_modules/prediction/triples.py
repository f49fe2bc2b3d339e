"""Triples of texts: in Python, or from a file of any size to another one."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor

from datamodules.batches import TripleBatch
from layers.triples import Pairing
from metrics.triples import ExtractedTriple
from readers.errors import DataError
from readers.triples import (
    NormalizedText,
    TripleEncoder,
    holds_records,
    is_record,
    normalize_text,
    parse_json,
    parse_text,
)

from ..triple_decoding import Thresholds
from ..triple_slots import VALUE, compose_objects, spo_record
from .lines import OnError, in_batches, list_of_texts, predict_lines

ThresholdsFrom = Literal["tuned", "config"]


class _Text(NamedTuple):
    """A line to predict for.

    Args:
        record: what is written beside the triples; its ``text`` is that of the file.
        text: what the model reads.
    """

    record: dict[str, Any]
    text: NormalizedText


class PredictsTriples:
    """Mixin of the triple extractor: ``extract`` for texts, ``predict_file`` for files."""

    hparams: Any
    predicates: list[str]
    types: Mapping[str, tuple[str, str]]
    thresholds: Tensor
    tuned: Thresholds | None
    pairing: Pairing

    @torch.inference_mode()
    def extract(self, texts: Iterable[str], batch_size: int = 64) -> list[list[ExtractedTriple]]:
        """The triples of texts.

        Args:
            texts: any number, of any length; an empty text has no triples.
            batch_size: texts per batch.

        Returns:
            A list for each text: triples with ``subject``, ``predicate``, ``object``, ``subject_span``, ``object_span``
            ([start, end) in characters of the text) and ``confidence``, by position. In DuIE 2.0's form a further slot
            of an object is a triple of its own, with a predicate such as ``票房@inArea``.

        Raises:
            TypeError: ``texts`` is a single string, or holds something other than strings.
        """
        texts = list_of_texts(texts, "extract")
        self.eval()  # type: ignore[attr-defined]
        normal = [normalize_text(text, self.hparams.normalize) for text in texts]
        found = iter(
            in_batches([text.text for text in normal if text.text], lambda part, _: self._find(part), batch_size)
        )
        return [
            [_as_written(triple, text, read) for triple in next(found)] if read.text else []
            for text, read in zip(texts, normal, strict=True)
        ]

    @torch.inference_mode()
    def predict_file(
        self,
        input: Path,
        output: Path,
        batch_size: int = 64,
        thresholds: ThresholdsFrom | None = None,
        spans: Pairing | None = None,
        on_error: OnError = "stop",
        resume: bool = False,
        encoding: str = "utf-8",
    ) -> str:
        """Reads sentences and writes their triples as JSON lines in the SKE format.

        The file is processed in pieces, so it may be of any size. There is a line of output for each line of input: an
        object with ``text``, what else the line's own object has (``id`` …), and ``spo_list``, whose entries have
        ``subject``, ``predicate``, ``object``, ``subject_type``, ``object_type``, ``subject_span`` and ``object_span``
        ([start, end) in characters of ``text``) and ``confidence``: the geometric mean of the probabilities of start
        and end, of subject times object, in [0, 1]. A model of DuIE 2.0's schema writes objects and their types in
        that form, ``{"@value": …, "inArea": …}``, and the spans of further slots as ``slot_spans``.

        Args:
            input: a text file, one sentence per line, or JSON lines with ``text``; gzipped or not. An empty text has no
                triples.
            output: the JSON lines to write, gzipped if the name ends in ``.gz``.
            batch_size: sentences per batch.
            thresholds: ``tuned``: those that were best in the run's validation; ``config``: those of its configuration;
                left out: tuned ones if there are any.
            spans: ``nearest``: a start is paired with the nearest end; ``nested``: of spans that begin together all are
                found; left out: as the model was trained.
            on_error: at a line that can't be read ``stop``, or name it and ``skip`` it: its triples are none.
            resume: go on with the ``<output>.part`` of an interrupted prediction.
            encoding: of the input.

        Returns:
            A summary for the terminal.

        Raises:
            ValueError: if an argument is out of range, there are no tuned thresholds, the file can't be read, or a line
                is malformed: the message says where the sentences before it are.
        """
        input, output, found = Path(input), Path(output), 0
        # A pipe can't be read twice: there the first line tells.
        is_json = holds_records(input, encoding, "--encoding") if input.is_file() else None
        objects = bool(self.hparams.object_slots)

        def read(line: str, where: str) -> _Text | str:
            nonlocal is_json
            if is_json is None and line.strip():
                is_json = is_record(line)
            record = parse_json(line, where) if is_json and line.strip() else {"text": line}
            text = parse_text(record, where)
            normal = normalize_text(text, self.hparams.normalize)
            return _Text(record, normal) if normal.text else _line(record, [])

        def predict(items: list[_Text], first: int) -> list[str]:
            nonlocal found
            lines = []
            for item, triples in zip(items, self._find([item.text.text for item in items]), strict=True):
                triples = [_as_written(triple, item.record["text"], item.text) for triple in triples]
                composed = compose_objects(triples, self.types) if objects else [{VALUE: triple} for triple in triples]
                found += len(composed)
                lines.append(_line(item.record, [spo_record(slots, self.types, objects) for slots in composed]))
            return lines

        self.eval()  # type: ignore[attr-defined]
        with self._decoding_as(thresholds, spans):
            counts = predict_lines(
                input,
                output,
                read,
                predict,
                batch_size=batch_size,
                size=lambda item: len(item.text.text),
                on_error=on_error,
                resume=resume,
                encoding=encoding,
                failed=_failed,
            )
        return f"{counts.lines} sentences, {found} triples{counts.remarks} -> {output}"

    @cached_property
    def _text_encoder(self) -> TripleEncoder:
        return TripleEncoder(
            self.hparams.characters,
            self.predicates,
            words=self.hparams.words,
            segmenter=self.hparams.segmenter,
            known_triples=[tuple(triple) for triple in self.hparams.known_triples],
            max_length=self.hparams.max_length,
        )

    def _find(self, texts: list[str]) -> list[list[ExtractedTriple]]:
        """The triples of normalized texts that are not empty."""
        batch = TripleBatch.from_arrays(*self._text_encoder.batch_arrays(texts))
        model = cast(Any, self)
        batch = model.transfer_batch_to_device(batch, model.device, 0)
        return model.decode(batch, model.encode(batch), [self.tuned or model.present_thresholds])[0]

    @contextlib.contextmanager
    def _decoding_as(self, thresholds: ThresholdsFrom | None, spans: Pairing | None) -> Iterator[None]:
        """Decodes with other thresholds and spans for a while."""
        before = self.tuned, self.pairing
        if thresholds == "tuned" and self.tuned is None:
            raise ValueError(
                "--thresholds=tuned: this run has none, as it had no validation that found a triple; take config"
            )
        if thresholds == "config":
            self.tuned = Thresholds(*self.hparams.thresholds)
        self.pairing = spans or self.pairing
        try:
            yield
        finally:
            self.tuned, self.pairing = before


def _as_written(triple: ExtractedTriple, text: str, normal: NormalizedText) -> ExtractedTriple:
    """A triple of a normalized text as it stands in the text itself."""
    subject, object_ = normal.original(triple.subject_span), normal.original(triple.object_span)
    return ExtractedTriple(
        text[slice(*subject)], triple.predicate, text[slice(*object_)], subject, object_, triple.confidence
    )


def _line(record: dict[str, Any], spo_list: list[dict[str, Any]]) -> str:
    return json.dumps({**record, "spo_list": spo_list}, ensure_ascii=False)


def _failed(line: str) -> str:
    """What is written for a line that was skipped: its object, if it is one, without a text that isn't one."""
    try:
        record = parse_json(line, "")
    except DataError:
        record = None
    return _line({**(record if isinstance(record, dict) else {}), "text": ""}, [])
