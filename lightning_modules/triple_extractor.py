"""Triple extraction: (subject, predicate, object) from sentences, by half pointer, half tagging."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.batches import TripleBatch
from layers.triples import (
    DGCNN,
    GlobalDetectors,
    ObjectHead,
    Pairing,
    SequenceEncoder,
    SubjectHead,
    binary_cross_entropy_of_log_probability,
    log_sigmoid,
    mark_ends,
)
from layers.weights import normalize_weights
from metrics.threshold_counts import ThresholdCounts, count_items, count_predicates
from metrics.triple_official import OfficialTripleF1
from metrics.triple_rules import SKE_RULES, apply_rules
from metrics.triples import ExtractedTriple, TripleF1
from readers.triples.normalization import Normalize

from .hyperparameters import add_slot_arguments, save_plain_hyperparameters
from .optimization import Interval, Optimized, OptimizerSlot, SchedulerSlot
from .prediction.triples import PredictsTriples
from .step_logging import log_epoch_means
from .trained_models import LoadsTrained
from .triple_decoding import CURVE, GRID, Encoded, Thresholds, best_setting, decode_triples, is_sparse
from .triple_slots import in_text, whole_objects


class TripleExtractor(Optimized, LoadsTrained, PredictsTriples, pl.LightningModule):
    """Extracts triples: first the subjects, then for each subject the objects of every predicate.

        P(s, p, o) = P(s) P(o, p | s)

    Each factor is a sigmoid per position for start and end and, for objects, per predicate: "half pointer, half
    tagging", which can represent several subjects, several objects, and several predicates of one pair. They are
    multiplied by two detectors without a loss of their own: where any entity starts or ends, and which predicates occur
    in the text. Products are sums of log-probabilities.

        loss = sum over starts and ends of  BCE(subjects) + sum_C BCE(objects),   both means over the characters

    Training predicts the objects of one span per sentence, sampled by the data: mostly a subject, sometimes a wrong
    span, which has none. Decoding pairs each start above its threshold with the nearest end above its own. Each
    validation finds the thresholds with the best F1, which predictions use; val and test keep the given ones.

    Batches: ``datamodules.batches.TripleBatch``.

    Logged: ``{train,val}/{loss,subject_loss,object_loss}`` in nats per character; ``{val,test}/{f1,precision,recall}``
    in [0, 1], micro averages over exact matches of distinct triples; in the test also ``test/f1/predicate/<name>``,
    ``test/f1/triples_1`` ... ``test/f1/triples_5_and_more`` by number of triples per sentence, ``test/f1/normal``,
    ``test/f1/single_entity_overlap``, ``test/f1/entity_pair_overlap``, and ``test/official_{f1,precision,recall}`` by
    the competitions' rules (``metrics.triple_official``).

    Source: kexue.fm/archives/6671 and github.com/bojone/kg-2019; 7161 for the powers. Differences: probabilities in log
    space; sampled spans never end before they start; the decay of the weight average is ``AveragedWeights(ramp=True)``.

    Args:
        encoder: the encoder slot, called with the vocabulary, the size of word vectors, and the longest input.
        subject_power: the subjects' probabilities are raised to this power, as subjects are rare among all spans; 2 in
            the BERT form.
        object_power: likewise for objects; 4 in the BERT form.
        thresholds: of subject starts, subject ends, object starts, object ends, each in (0, 1).
        tune_thresholds: use the best ones of the last validation in val and test, too.
        spans: which starts and ends make a span: ``nearest``, each start with the nearest end, as in the article; or
            ``nested``, which also finds longer spans with the same start (``北京市`` in ``北京市政府``).
        rules: complete and filter the triples by the schema's rules (``metrics.triple_rules.SKE_RULES``).
        weight_normalization: which weights are normalised before use, ``{pattern: kind}`` (see
            ``layers.normalize_weights``).
        lr: learning rate.
        optimizer: the optimizer slot, called with the parameters and ``lr``.
        scheduler: the slot of the learning-rate scheduler, called with the optimizer; None: a constant rate.
        scheduler_interval: when it moves on: after each ``epoch`` or each optimizer ``step``.
        characters: the vocabulary; given by the data, as is everything below.
        schema: rows of subject type, predicate, object type.
        words: words that have a vector.
        word_vector_size: of these vectors; 0 for none.
        segmenter: how a text is divided into words.
        prior_features: whether known triples are features (distant supervision).
        known_triples: the known triples, for prediction.
        max_length: the longest input in characters; longer texts are read in windows.
        normalize: the form in which the model reads texts: ``none``, ``width``, ``case`` or ``both``.
        object_slots: whether objects are written in DuIE 2.0's form, ``{"@value": …}``.

    Raises:
        ValueError: if a threshold or a power is out of range, or the schema is empty.

    Example:
        model:
          class_path: TripleExtractor
          init_args: {encoder: BiLSTM, tune_thresholds: true}
        data:
          class_path: TripleDataModule
          init_args: {source: sample}
    """

    hparams: Any  # Lightning types it as a mapping without attributes

    thresholds: Tensor

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
        "normalize",
        "object_slots",
    )

    def __init__(
        self,
        encoder: Callable[[Sequence[str], int, int], SequenceEncoder] = DGCNN,
        subject_power: float = 1.0,
        object_power: float = 1.0,
        thresholds: tuple[float, float, float, float] = (0.5, 0.4, 0.5, 0.4),
        tune_thresholds: bool = False,
        spans: Pairing = "nearest",
        rules: bool = True,
        weight_normalization: dict[str, str] | None = None,
        lr: float = 1e-3,
        optimizer: OptimizerSlot = torch.optim.Adam,
        scheduler: SchedulerSlot | None = None,
        scheduler_interval: Interval = "epoch",
        # A plain Sequence where it may be long: jsonargparse copies a Sequence[...] once per entry.
        characters: Sequence = ("<pad>", "<unk>"),
        schema: Sequence[Sequence[str]] = (("人物", "妻子", "人物"),),
        words: Sequence = (),
        word_vector_size: int = 0,
        segmenter: str = "none",
        prior_features: bool = False,
        known_triples: Sequence = (),
        max_length: int = 512,
        normalize: Normalize = "none",
        object_slots: bool = False,
    ) -> None:
        super().__init__()
        save_plain_hyperparameters(self)
        for name, power in (("subject_power", subject_power), ("object_power", object_power)):
            if power <= 0:
                raise ValueError(f"{name} ({power}) must be positive")
        if len(thresholds) != 4 or not all(0 < threshold < 1 for threshold in thresholds):
            raise ValueError(f"thresholds ({list(thresholds)}) must be four numbers strictly between 0 and 1")
        if not schema:
            raise ValueError("schema is empty: it needs at least one predicate")
        self.predicates = list(dict.fromkeys(predicate for _, predicate, _ in schema))
        self.types = {predicate: (subject, object) for subject, predicate, object in reversed(schema)}
        self.powers, self.pairing = (subject_power, object_power), spans
        self.set_optimizer(optimizer, scheduler, scheduler_interval)
        count = len(self.predicates)
        self.encoder = encoder(characters, word_vector_size, max_length)
        add_slot_arguments(self, "encoder", self.encoder.portable_arguments())
        self.detectors = GlobalDetectors(self.encoder.size, count)
        sizes = (2, 2 * count) if prior_features else (0, 0)
        self.subject_head = SubjectHead(self.encoder.size, sizes[0])
        self.object_head = ObjectHead(self.encoder.size, count, *sizes)
        normalize_weights(self, weight_normalization)
        # A frozen parameter: DDP would broadcast a buffer in every step.
        table = torch.zeros(len(words) + 1, word_vector_size)
        self.word_vectors = nn.Parameter(table, requires_grad=False) if word_vector_size else None
        # In the checkpoint only if they are tuned: otherwise the configuration has them.
        self.register_buffer("thresholds", torch.tensor(thresholds), persistent=tune_thresholds)
        self.tuned: Thresholds | None = None  # the best of the last validation in which a triple was found
        self.validation_counts = ThresholdCounts(1)
        self.grid_counts = ThresholdCounts(len(GRID))
        self.scores = TripleF1(self.predicates)
        self.official_scores = OfficialTripleF1()

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.word_vectors is not None:
            self.word_vectors.data.copy_(self.trainer.datamodule.word_vectors)  # type: ignore[attr-defined]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return self.optimize([parameter for parameter in self.parameters() if parameter.requires_grad])

    # ------------------------------------------------------------------------------------------------------- model

    def encode(self, batch: TripleBatch) -> Encoded:
        """Everything that doesn't depend on a subject."""
        mask = (batch.characters > 0).unsqueeze(-1).float()
        word_vectors = None if self.word_vectors is None else F.embedding(batch.words, self.word_vectors)
        texts = (batch.row_texts(),) if self.encoder.reads_texts else ()
        vectors = self.encoder(batch.characters, word_vectors, mask, *texts)
        entities, relations = self.detectors(vectors, mask)
        prior = self._subject_prior(batch)
        subjects = log_sigmoid(self.subject_head(vectors, mask, prior)) + entities
        shared = self.object_head.shared(vectors, mask, prior)
        return Encoded(vectors, mask, subjects * self.powers[0], entities, relations, shared)

    def objects(self, encoded: Encoded, candidates: Tensor, rows: Tensor, spans: Tensor) -> Tensor:
        """Objects of S subjects.

        Args:
            encoded: from ``encode``.
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
        """(B, L, 2): starts and ends of the subjects suggested by distant supervision."""
        if not self.hparams.prior_features:
            return None
        return mark_ends((*batch.characters.shape, 2), *batch.candidates[:, :3].unbind(1))

    def _object_prior(self, candidates: Tensor, rows: Tensor, spans: Tensor, length: int) -> Tensor | None:
        """(S, L, 2 C): starts and ends of the objects it suggests for exactly these subjects."""
        if not self.hparams.prior_features:
            return None
        subjects = torch.cat([rows.unsqueeze(1), spans], dim=1)
        fits = (subjects.unsqueeze(1) == candidates[:, :3]).all(-1)
        # What does not fit goes to a row that is dropped: to count what fits, the host would wait for the device.
        number = torch.arange(len(rows), device=rows.device).unsqueeze(1)
        place = torch.where(fits, number, len(rows))
        ends = (column.expand_as(fits) for column in candidates[:, 3:].unbind(1))
        return mark_ends((len(rows) + 1, length, len(self.predicates), 2), place, *ends)[:-1].flatten(2)

    def losses(self, encoded: Encoded, batch: TripleBatch) -> dict[str, Tensor]:
        """``subject_loss``, ``object_loss`` and their sum ``loss``, in nats per character."""
        mask = encoded.mask
        target = mark_ends(encoded.subjects.shape, *batch.subjects.unbind(1))
        subject_loss = binary_cross_entropy_of_log_probability(encoded.subjects, target) * mask
        rows = torch.arange(len(mask), device=mask.device)
        # All rows, so that every network takes part in every step; rows without a subject have weight 0.
        log_p = self.objects(encoded, batch.candidates, rows, batch.spans.clamp(min=0))
        target = mark_ends(log_p.shape, *batch.objects.unbind(1))
        object_loss = binary_cross_entropy_of_log_probability(log_p, target).sum((2, 3))
        asked = mask.squeeze(-1) * (batch.spans[:, :1] >= 0)
        parts = {
            "subject_loss": subject_loss.sum() / mask.sum(),
            "object_loss": (object_loss * asked).sum() / mask.sum(),
        }
        return {"loss": parts["subject_loss"] + parts["object_loss"], **parts}

    def training_step(self, batch: TripleBatch, batch_idx: int) -> Tensor:
        losses = self.losses(self.encode(batch), batch)
        self.log_dict({f"train/{name}": value.detach() for name, value in losses.items()})
        self.log("loss", losses["loss"].detach(), prog_bar=True, logger=False)
        return losses["loss"]

    # ---------------------------------------------------------------------------------------------------- decoding

    def decode(
        self, batch: TripleBatch, encoded: Encoded, settings: Sequence[Thresholds]
    ) -> list[list[list[ExtractedTriple]]]:
        """The triples of each sentence, for each of several settings of the thresholds.

        Returns:
            For each setting, a list per sentence of distinct triples, ordered by position.
        """
        objects = partial(self.objects, encoded, batch.candidates)
        found = decode_triples(batch, encoded, objects, self.predicates, settings, self.pairing)
        return [[self._finished(triples) for triples in texts] for texts in found]

    def _finished(self, triples: list[ExtractedTriple]) -> list[ExtractedTriple]:
        if self.hparams.rules and triples:  # another schema may lack the predicates that a rule would add
            triples = [triple for triple in apply_rules(triples, SKE_RULES) if triple.predicate in self.types]
        return sorted(triples, key=lambda triple: (triple.subject_span, triple.object_span, triple.predicate))

    def forward(self, batch: TripleBatch) -> list[list[ExtractedTriple]]:
        """The triples of each sentence, by the current thresholds."""
        return self.decode(batch, self.encode(batch), [self.present_thresholds])[0]

    @property
    def present_thresholds(self) -> Thresholds:
        """The thresholds given or, if tuned, those chosen in the last validation."""
        return Thresholds(*self.thresholds.tolist())

    # -------------------------------------------------------------------------------------------------- evaluation

    def validation_step(self, batch: TripleBatch, batch_idx: int) -> None:
        encoded = self.encode(batch)
        losses = {f"val/{name}": value for name, value in self.losses(encoded, batch).items()}
        log_epoch_means(self, losses, len(batch.texts))
        found = self.decode(batch, encoded, [self.present_thresholds])
        self.validation_counts.update(count_items(found, batch.triples))
        # With the lowest thresholds an untrained model would make every character a subject.
        if not self.trainer.sanity_checking and is_sparse(encoded):
            self.grid_counts.update(count_items(self.decode(batch, encoded, GRID), batch.triples))
        else:
            self.grid_counts.update(torch.zeros(len(GRID), 3, dtype=torch.int64))

    def on_validation_epoch_end(self) -> None:
        # torchmetrics squeezes tensors with one entry to scalars.
        scores = {name: values.reshape(-1)[0] for name, values in self.validation_counts.compute().items()}
        tuning = self.grid_counts.compute()
        # F1 is 1 everywhere where nothing was counted, and almost 0 where nothing was right.
        told = bool((tuning["f1"] < 1).any()) and float(tuning["f1"].max()) > 1e-6
        best = best_setting(tuning["f1"], self.hparams.thresholds) if told else None
        self.validation_counts.reset()
        self.grid_counts.reset()
        self.tuned = self.tuned if best is None else GRID[best]
        if self.hparams.tune_thresholds and best is not None:
            scores = {name: values[best] for name, values in tuning.items()}
            self.thresholds.copy_(torch.tensor(GRID[best]))
        for name, value in scores.items():
            self.log(f"val/{name}", value, prog_bar=name == "f1", sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["tuned_thresholds"] = None if self.tuned is None else list(self.tuned)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        tuned = checkpoint.get("tuned_thresholds")
        if tuned is None and self.hparams.tune_thresholds:  # an earlier version had them in its state alone
            tuned = checkpoint["state_dict"]["thresholds"].tolist()
        self.tuned = None if tuned is None else Thresholds(*tuned)

    def on_test_epoch_start(self) -> None:
        self.scores.reset()
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        self.official_scores = OfficialTripleF1(getattr(datamodule, "aliases", None)).to(self.device)

    def test_step(self, batch: TripleBatch, batch_idx: int) -> dict[str, Any]:
        """Returns texts, gold and predicted triples, and counts at several thresholds, for the pictures.

        ``predicate_counts`` (1 + K, C, 3) are those of each predicate, first at the present thresholds.
        """
        settings = [self.present_thresholds, *(Thresholds(*[value] * 4) for value in CURVE)]
        found = self.decode(batch, self.encode(batch), settings)
        predicted, counts = found[0], count_predicates(found, batch.triples, self.predicates)
        self.scores.update([[triple[:3] for triple in triples] for triples in predicted], batch.triples)
        official = [
            [whole_objects(triples, self.predicates) for triples in several]
            for several in (predicted, map(in_text, batch.texts, batch.triples))
        ]
        self.official_scores.update(*official)
        return {
            "texts": batch.texts,
            "gold": batch.triples,
            "predicted": predicted,
            "thresholds": torch.tensor(CURVE),
            "threshold_counts": counts[1:].sum(1),
            "predicates": self.predicates,
            "predicate_counts": counts,
        }

    def on_test_epoch_end(self) -> None:
        official = {f"official_{name}": value for name, value in self.official_scores.compute().items()}
        for name, value in (self.scores.compute() | official).items():
            self.log(f"test/{name}", value, sync_dist=True)
