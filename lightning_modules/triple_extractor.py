"""Triple extraction: (subject, predicate, object) of sentences, by half pointers and half tags."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from datamodules.batches import TripleBatch
from layers import (
    DGCNN,
    GlobalDetectors,
    ObjectHead,
    SequenceEncoder,
    SubjectHead,
    binary_cross_entropy_of_log_probability,
    log_sigmoid,
    pair_spans,
)
from metrics.threshold_counts import ThresholdCounts
from metrics.triple_rules import SKE_RULES, apply_rules
from metrics.triples import ExtractedTriple, TripleF1

from .hyperparameters import save_plain_hyperparameters


class Thresholds(NamedTuple):
    """Probabilities that starts and ends must exceed to count."""

    subject_start: float
    subject_end: float
    object_start: float
    object_end: float


# Where the precision-recall curve of the test is taken, and what tuning chooses from: ends lie 0.1 below starts, as in
# the recipe. The curve begins above 1/16, what an untrained model gives every object of every predicate everywhere.
CURVE = tuple(number / 20 for number in range(2, 20))
GRID = tuple(
    Thresholds(subject, round(subject - 0.1, 1), objects, round(objects - 0.1, 1))
    for subject, objects in product((0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8), repeat=2)
)
CHARACTERS_AT_ONCE = 1 << 15  # bounds the memory of the object head: subjects times the length of their texts


class Encoded(NamedTuple):
    """What a batch of B rows of length L gives before any subject is chosen.

    Shapes:
        vectors: (B, L, D), the encoded characters, zero at padding.
        mask: (B, L, 1) float, 1 for characters.
        subjects: (B, L, 2) float32, log-probabilities of subject starts and ends.
        entities: (B, L, 2) float32, those of starts and ends of any entity.
        relations: (B, C) float32, those of the predicates in the whole row.
        shared: (B, L, 128), what the object head needs for every subject.
    """

    vectors: Tensor
    mask: Tensor
    subjects: Tensor
    entities: Tensor
    relations: Tensor
    shared: Tensor


class TripleExtractor(pl.LightningModule):
    """Extracts triples: first subjects, then for each subject the objects of every predicate.

        P(s, p, o) = P(s) P(o, p | s)

    Each factor is a sigmoid for each position, start and end, and, for objects, each predicate: "half pointer, half
    tagging", so that several subjects, several objects, and several predicates of one pair are all representable. Two
    detectors without a loss of their own are factors of all of them: where some entity begins or ends, and which
    predicates occur in the text. Products are sums of log-probabilities.

        loss = sum over starts and ends of  BCE(subjects) + sum_C BCE(objects),   both means over the characters

    Training asks for the objects of one span a sentence, which the data draws: mostly a subject, sometimes a wrong
    span, which has none. Decoding pairs each start above its threshold with the nearest end above its own.

    Batches: :class:`datamodules.batches.TripleBatch`.

    Logged: ``{train,val}/{loss,subject_loss,object_loss}`` in nats a character; ``{val,test}/{f1,precision,recall}`` in
    [0, 1], micro means over exact matches of distinct triples; in the test also ``test/f1/predicate/<name>``,
    ``test/f1/triples_1`` ... ``test/f1/triples_5_and_more`` by the number of a sentence's triples, ``test/f1/normal``,
    ``test/f1/single_entity_overlap``, ``test/f1/entity_pair_overlap``.

    Source: kexue.fm/archives/6671 and github.com/bojone/kg-2019; 7161 for the powers. Differences: probabilities in log
    space; no end before its start among the drawn spans; the average's decay is ``AveragedWeights(ramp=True)``.

    Args:
        encoder: the encoder slot, called with the vocabulary, the size of word vectors, and the longest input.
        subject_power: the subjects' probabilities are taken to this power, against the rarity of subjects among all
            spans; the BERT form has 2.
        object_power: likewise for objects; the BERT form has 4.
        thresholds: of subject starts, subject ends, object starts, object ends, each in (0, 1).
        tune_thresholds: choose them anew after each validation, by its F1; the checkpoint keeps them.
        rules: complete and filter what is found by the schema's rules (:data:`metrics.triple_rules.SKE_RULES`).
        lr: learning rate.
        optimizer: the optimizer slot, called with the parameters and ``lr``.
        characters: the vocabulary; given by the data, like all that follows.
        schema: rows of subject type, predicate, object type.
        words: words that have a vector.
        word_vector_size: of these vectors; 0 without.
        segmenter: what divides a text into words.
        prior_features: whether known triples are features (distant supervision).
        known_triples: the known ones, for prediction.
        max_length: the longest input in characters; longer texts are read in windows.

    Raises:
        ValueError: if a threshold or a power is out of its range, or the schema is empty.
    """

    monitor = "val/f1"
    mode = "max"
    data_links = (
        "characters",
        "schema",
        "words",
        "word_vector_size",
        "segmenter",
        "prior_features",
        "known_triples",
        "max_length",
    )

    def __init__(
        self,
        encoder: Callable[[Sequence[str], int, int], SequenceEncoder] = DGCNN,
        subject_power: float = 1.0,
        object_power: float = 1.0,
        thresholds: tuple[float, float, float, float] = (0.5, 0.4, 0.5, 0.4),
        tune_thresholds: bool = False,
        rules: bool = True,
        lr: float = 1e-3,
        optimizer: Callable[[Iterable, float], Optimizer] = torch.optim.Adam,
        # What may be long is a plain list: jsonargparse copies a list[...] anew for each of its entries.
        characters: list = ("<pad>", "<unk>"),
        schema: list[list[str]] = (("人物", "妻子", "人物"),),
        words: list = (),
        word_vector_size: int = 0,
        segmenter: str = "none",
        prior_features: bool = False,
        known_triples: list = (),
        max_length: int = 512,
    ) -> None:
        super().__init__()
        save_plain_hyperparameters(self)
        for name, power in (("subject_power", subject_power), ("object_power", object_power)):
            if power <= 0:
                raise ValueError(f"{name} ({power}) must be positive")
        if len(thresholds) != 4 or not all(0 < threshold < 1 for threshold in thresholds):
            raise ValueError(f"thresholds ({list(thresholds)}) must be four numbers between 0 and 1")
        if not schema:
            raise ValueError("schema: there must be a predicate")
        self.predicates = list(dict.fromkeys(predicate for _, predicate, _ in schema))
        self.types = {predicate: (subject, object) for subject, predicate, object in reversed(schema)}
        self.powers = (subject_power, object_power)
        self.make_optimizer = optimizer
        count = len(self.predicates)
        self.encoder = encoder(characters, word_vector_size, max_length)
        self.detectors = GlobalDetectors(self.encoder.size, count)
        sizes = (2, 2 * count) if prior_features else (0, 0)
        self.subject_head = SubjectHead(self.encoder.size, sizes[0])
        self.object_head = ObjectHead(self.encoder.size, count, *sizes)
        # A parameter, so that no process sends it to others again and again, but a frozen one.
        table = torch.zeros(len(words) + 1, word_vector_size)
        self.word_vectors = nn.Parameter(table, requires_grad=False) if word_vector_size else None
        # In the checkpoint only where they are learnt: otherwise the configuration has them.
        self.register_buffer("thresholds", torch.tensor(thresholds), persistent=tune_thresholds)
        self.validation_counts = ThresholdCounts(len(GRID) if tune_thresholds else 1)
        self.scores = TripleF1(self.predicates)

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.word_vectors is not None:
            self.word_vectors.data.copy_(self.trainer.datamodule.word_vectors)

    def configure_optimizers(self) -> Optimizer:
        learnt = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return self.make_optimizer(learnt, self.hparams.lr)

    # ------------------------------------------------------------------------------------------------------- model

    def encode(self, batch: TripleBatch) -> Encoded:
        """All that doesn't depend on a subject."""
        mask = (batch.characters > 0).unsqueeze(-1).float()
        word_vectors = None if self.word_vectors is None else F.embedding(batch.words, self.word_vectors)
        vectors = self.encoder(batch.characters, word_vectors, mask)
        entities, relations = self.detectors(vectors, mask)
        prior = self._subject_prior(batch)
        subjects = log_sigmoid(self.subject_head(vectors, mask, prior)) + entities
        shared = self.object_head.shared(vectors, mask, prior)
        return Encoded(vectors, mask, subjects * self.powers[0], entities, relations, shared)

    def objects(self, encoded: Encoded, candidates: Tensor, rows: Tensor, spans: Tensor) -> Tensor:
        """Objects of S subjects.

        Args:
            encoded: of :meth:`encode`.
            candidates: (Q, 6) int64, those of the batch.
            rows: (S,) int64, the row of each subject.
            spans: (S, 2) int64, its start and inclusive end.

        Returns:
            (S, L, C, 2) float32, log-probabilities of starts and ends.
        """
        prior = self._object_prior(candidates, rows, spans, encoded.vectors.shape[1])
        positions = self.encoder.positions
        log_p = self.object_head(encoded.vectors, encoded.mask, encoded.shared, positions, rows, spans, prior)
        log_p = log_p + encoded.relations[rows, None, :, None] + encoded.entities[rows].unsqueeze(2)
        return log_p * self.powers[1]

    def _subject_prior(self, batch: TripleBatch) -> Tensor | None:
        """(B, L, 2): starts and ends of the subjects that distant supervision suggests."""
        if not self.hparams.prior_features:
            return None
        prior = torch.zeros(*batch.characters.shape, 2, device=batch.characters.device)
        row, start, end = batch.candidates[:, :3].unbind(1)
        prior[row, start, 0] = 1
        prior[row, end, 1] = 1
        return prior

    def _object_prior(self, candidates: Tensor, rows: Tensor, spans: Tensor, length: int) -> Tensor | None:
        """(S, L, 2 C): starts and ends of the objects that it suggests for exactly these subjects."""
        if not self.hparams.prior_features:
            return None
        prior = torch.zeros(len(rows), length, len(self.predicates), 2, device=rows.device)
        subjects = torch.cat([rows.unsqueeze(1), spans], dim=1)
        subject, which = (subjects.unsqueeze(1) == candidates[:, :3]).all(-1).nonzero(as_tuple=True)
        start, end, predicate = candidates[which, 3:].unbind(1)
        prior[subject, start, predicate, 0] = 1
        prior[subject, end, predicate, 1] = 1
        return prior.flatten(2)

    def losses(self, encoded: Encoded, batch: TripleBatch) -> dict[str, Tensor]:
        """``subject_loss``, ``object_loss`` and their sum ``loss``, in nats a character."""
        mask = encoded.mask
        target = torch.zeros(encoded.subjects.shape, dtype=torch.bool, device=mask.device)
        row, start, end = batch.subjects.unbind(1)
        target[row, start, 0] = True
        target[row, end, 1] = True
        subject_loss = binary_cross_entropy_of_log_probability(encoded.subjects, target) * mask

        rows = torch.arange(len(mask), device=mask.device)
        # All rows, so that every network takes part in every step; a row without any subject counts nothing.
        log_p = self.objects(encoded, batch.candidates, rows, batch.spans.clamp(min=0))
        target = torch.zeros(log_p.shape, dtype=torch.bool, device=mask.device)
        row, start, end, predicate = batch.objects.unbind(1)
        target[row, start, predicate, 0] = True
        target[row, end, predicate, 1] = True
        object_loss = binary_cross_entropy_of_log_probability(log_p, target).sum((2, 3))
        asked = mask.squeeze(-1) * (batch.spans[:, :1] >= 0)
        parts = {
            "subject_loss": subject_loss.sum() / mask.sum(),
            "object_loss": (object_loss * asked).sum() / mask.sum(),
        }
        return {"loss": parts["subject_loss"] + parts["object_loss"], **parts}

    def training_step(self, batch: TripleBatch, batch_idx: int) -> Tensor:
        losses = self.losses(self.encode(batch), batch)
        size = len(batch.characters)
        self.log_dict({f"train/{name}": value.detach() for name, value in losses.items()}, batch_size=size)
        self.log("loss", losses["loss"].detach(), prog_bar=True, logger=False, batch_size=size)
        return losses["loss"]

    # ---------------------------------------------------------------------------------------------------- decoding

    def decode(
        self, batch: TripleBatch, encoded: Encoded, settings: Sequence[Thresholds]
    ) -> list[list[list[ExtractedTriple]]]:
        """The triples of each sentence, for each of several settings of the thresholds.

        The networks run once for all settings: over all spans that are a subject in any of them.

        Returns:
            a list for each setting, of a list for each sentence; distinct triples, in the order of their places.
        """
        probabilities = encoded.subjects.exp() * encoded.mask  # no span ends in the padding
        by_setting = {
            setting[:2]: pair_spans(probabilities[..., 0], probabilities[..., 1], *setting[:2]) for setting in settings
        }
        subjects = torch.unique(torch.cat(list(by_setting.values())), dim=0)
        found = self._find_objects(batch, encoded, subjects, {setting[2:] for setting in settings})
        row, start, end = subjects.unbind(1)
        strength = (probabilities[row, start, 0] * probabilities[row, end, 1]).sqrt().tolist()
        spans = [tuple(span) for span in subjects.tolist()]
        active = {key: set(map(tuple, value.tolist())) for key, value in by_setting.items()}
        origins = list(zip(batch.sentences.tolist(), batch.offsets.tolist(), strict=True))
        results = []
        for setting in settings:
            texts: list[dict[tuple[str, str, str], ExtractedTriple]] = [{} for _ in batch.texts]
            for subject, begin, finish, predicate, confidence in found[setting[2:]]:
                span = spans[subject]
                if span not in active[setting[:2]]:
                    continue
                sentence, offset = origins[span[0]]
                triple = _triple(
                    batch.texts[sentence],
                    (span[1] + offset, span[2] + offset + 1),
                    self.predicates[predicate],
                    (begin + offset, finish + offset + 1),
                    strength[subject] * confidence,
                )
                kept = texts[sentence].get(triple[:3])
                if kept is None or kept.confidence < triple.confidence:
                    texts[sentence][triple[:3]] = triple
            results.append([self._finished(list(triples.values())) for triples in texts])
        return results

    def _find_objects(
        self, batch: TripleBatch, encoded: Encoded, subjects: Tensor, settings: set[tuple[float, float]]
    ) -> dict[tuple[float, float], list[tuple[int, int, int, int, float]]]:
        """For each pair of thresholds: number of the subject, start, inclusive end, predicate, confidence."""
        found: dict[tuple[float, float], list] = {setting: [] for setting in settings}
        lowest = min(start for start, _ in settings)
        at_once = max(1, CHARACTERS_AT_ONCE // encoded.mask.shape[1])
        for first in range(0, len(subjects), at_once):
            rows, spans = subjects[first : first + at_once].split([1, 2], dim=1)
            rows = rows.squeeze(1)
            probabilities = self.objects(encoded, batch.candidates, rows, spans).exp()
            probabilities *= encoded.mask[rows].unsqueeze(-1)
            # Hardly any predicate has an object: look further only at those with a start somewhere.
            subject, predicate = (probabilities[..., 0].amax(dim=1) > lowest).nonzero(as_tuple=True)
            start, end = probabilities[subject, :, predicate].unbind(-1)
            for setting in settings:
                column, begin, finish = pair_spans(start, end, *setting).unbind(1)
                confidence = (start[column, begin] * end[column, finish]).sqrt()
                places = torch.stack([subject[column] + first, begin, finish, predicate[column]], dim=1)
                found[setting] += [(*place, c) for place, c in zip(places.tolist(), confidence.tolist(), strict=True)]
        return found

    def _finished(self, triples: list[ExtractedTriple]) -> list[ExtractedTriple]:
        if self.hparams.rules and triples:  # another schema may lack what a rule would add
            triples = [triple for triple in apply_rules(triples, SKE_RULES) if triple.predicate in self.types]
        return sorted(triples, key=lambda triple: (triple.subject_span, triple.object_span, triple.predicate))

    def forward(self, batch: TripleBatch) -> list[list[ExtractedTriple]]:
        """The triples of each sentence, by the present thresholds."""
        return self.decode(batch, self.encode(batch), [self.present_thresholds])[0]

    @property
    def present_thresholds(self) -> Thresholds:
        return Thresholds(*self.thresholds.tolist())

    # -------------------------------------------------------------------------------------------------- evaluation

    def validation_step(self, batch: TripleBatch, batch_idx: int) -> None:
        encoded = self.encode(batch)
        losses = {f"val/{name}": value for name, value in self.losses(encoded, batch).items()}
        self.log_dict(losses, on_epoch=True, sync_dist=True, batch_size=len(batch.texts))
        # Untrained, at the sanity check, all characters would be subjects by the lowest of the grid.
        tunes = self.hparams.tune_thresholds and not self.trainer.sanity_checking
        settings = GRID if tunes else [self.present_thresholds]
        self.validation_counts.update(self._counts(batch, self.decode(batch, encoded, settings)))

    def on_validation_epoch_end(self) -> None:
        # torchmetrics makes scalars of tensors with one entry.
        scores = {name: values.reshape(-1) for name, values in self.validation_counts.compute().items()}
        self.validation_counts.reset()
        best = int(scores["f1"].argmax())
        if self.hparams.tune_thresholds and not self.trainer.sanity_checking:
            self.thresholds.copy_(torch.tensor(GRID[best]))
        for name, values in scores.items():
            self.log(f"val/{name}", values[best], prog_bar=name == "f1", sync_dist=True)

    def on_test_epoch_start(self) -> None:
        self.scores.reset()

    def test_step(self, batch: TripleBatch, batch_idx: int) -> dict[str, Any]:
        """Returns texts, gold and predicted triples, and counts at several thresholds, for the pictures."""
        settings = [self.present_thresholds, *(Thresholds(*[value] * 4) for value in CURVE)]
        predicted, *others = self.decode(batch, self.encode(batch), settings)
        self.scores.update([[triple[:3] for triple in triples] for triples in predicted], batch.triples)
        return {
            "texts": batch.texts,
            "gold": batch.triples,
            "predicted": predicted,
            "thresholds": torch.tensor(CURVE),
            "threshold_counts": self._counts(batch, others),
        }

    def on_test_epoch_end(self) -> None:
        for name, value in self.scores.compute().items():
            self.log(f"test/{name}", value, sync_dist=True)

    def _counts(self, batch: TripleBatch, settings: list[list[list[ExtractedTriple]]]) -> Tensor:
        """(K, 3) int64: correct, predicted and gold triples of the batch for each setting."""
        gold = [set(triples) for triples in batch.triples]
        total = sum(map(len, gold))
        counts = []
        for sentences in settings:
            predicted = [{triple[:3] for triple in triples} for triples in sentences]
            correct = sum(len(found & true) for found, true in zip(predicted, gold, strict=True))
            counts.append((correct, sum(map(len, predicted)), total))
        return torch.tensor(counts, device=self.device)

    # -------------------------------------------------------------------------------------------------- prediction

    def predict_step(self, batch: TripleBatch, batch_idx: int) -> list[list[ExtractedTriple]]:
        return self(batch)

    @torch.inference_mode()
    def predict_file(self, input: Path, output: Path, batch_size: int = 64) -> str:
        """Reads sentences and writes their triples as JSON lines in the layout of SKE.

        The file is read and written in pieces, so its size doesn't matter. Each line of the output has ``text`` and
        ``spo_list``, each entry of which has ``subject``, ``predicate``, ``object``, ``subject_type``, ``object_type``,
        ``subject_span`` and ``object_span`` ([start, end) in characters) and ``confidence``: the geometric mean of the
        probabilities of start and end, of subject times object, in [0, 1].

        Args:
            input: a UTF-8 text file, a sentence a line, or JSON lines with ``text``.
            output: the JSON lines to write.
            batch_size: sentences read at once.

        Returns:
            What was done, for the terminal.

        Raises:
            ValueError: ``batch_size`` is below 1; or the file can't be read, isn't UTF-8, or a line is broken: then
                what came before it is in ``<output>.part``, as the message says.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size ({batch_size}) must be at least 1")
        self.eval()
        sentences = found = 0
        # Beside its place: an older output is intact until the new one is whole, what was done until an error is kept.
        part = Path(f"{output}.part")
        try:
            with open(part, "w", encoding="utf-8") as file:
                for text, triples in _with_progress(self._extract(Path(input), batch_size), Path(input)):
                    record = {"text": text, "spo_list": [self._record(triple) for triple in triples]}
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
                    sentences += 1
                    found += len(triples)
        except ValueError as error:
            if not sentences:
                part.unlink()
                raise
            raise type(error)(f"{error}; the {sentences} sentences before it are in {part}") from error
        part.replace(output)
        return f"{sentences} sentences, {found} triples -> {output}"

    def _extract(self, path: Path, batch_size: int) -> Iterator[tuple[str, list[ExtractedTriple]]]:
        encoder = TripleBatch.encoder(
            self.hparams.characters,
            self.predicates,
            words=self.hparams.words,
            segmenter=self.hparams.segmenter,
            known_triples=[tuple(triple) for triple in self.hparams.known_triples],
            max_length=self.hparams.max_length,
        )
        # Sentences of like length together, and a bounded number in memory.
        for block in _blocks(TripleBatch.texts_from_file(path), 16 * batch_size):
            triples: list[list[ExtractedTriple]] = [[] for _ in block]
            order = sorted(range(len(block)), key=lambda i: len(block[i]))
            for first in range(0, len(order), batch_size):
                chunk = order[first : first + batch_size]
                batch = encoder.batch([block[i] for i in chunk])
                batch = self.transfer_batch_to_device(batch, self.device, 0)
                for i, result in zip(chunk, self(batch), strict=True):
                    triples[i] = result
            yield from zip(block, triples, strict=True)

    def _record(self, triple: ExtractedTriple) -> dict[str, Any]:
        subject_type, object_type = self.types[triple.predicate]
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


def _triple(
    text: str, subject: tuple[int, int], predicate: str, object: tuple[int, int], confidence: float
) -> ExtractedTriple:
    return ExtractedTriple(text[slice(*subject)], predicate, text[slice(*object)], subject, object, confidence)


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


def _with_progress(items: Iterator[Any], path: Path) -> Iterator[Any]:
    """The items, with a bar on the terminal; one a line of the file, about."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    with open(path, "rb") as file:
        lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    yield from track(items, "extracting", total=max(1, lines), console=Console(stderr=True))
