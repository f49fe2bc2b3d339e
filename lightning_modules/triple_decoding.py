"""Decodes the triple extractor's probabilities into triples."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.batches import TripleBatch
from layers.triples import Pairing, pair_spans
from metrics.triples import ExtractedTriple


class Thresholds(NamedTuple):
    """Probabilities that starts and ends must exceed."""

    subject_start: float
    subject_end: float
    object_start: float
    object_end: float


# The thresholds of the test's precision-recall curve, and the grid of tuning, where ends are 0.1 below starts, as in
# the recipe. The curve begins above 1/16, an untrained model's probability of any object of any predicate anywhere.
CURVE = tuple(number / 20 for number in range(2, 20))
GRID = tuple(
    Thresholds(subject, round(subject - 0.1, 1), objects, round(objects - 0.1, 1))
    for subject, objects in product((0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8), repeat=2)
)
MOST_SUBJECTS = 8  # of a row, on average, at the lowest thresholds of the grid
CHARACTERS_AT_ONCE = 1 << 15  # bounds the memory of the object head: subjects times text length


class Encoded(NamedTuple):
    """Everything computed for a batch of B rows of length L before a subject is chosen.

    Shapes:
        vectors: (B, L, D), the encoded characters, zero at padding.
        mask: (B, L, 1) float, 1 for characters.
        subjects: (B, L, 2) float32, log-probabilities of subject starts and ends.
        entities: (B, L, 2) float32, those of starts and ends of any entity.
        relations: (B, C) float32, those of the predicates in the whole row.
        shared: (B, L, 128 units), the part of the object head that is the same for all subjects.
    """

    vectors: Tensor
    mask: Tensor
    subjects: Tensor
    entities: Tensor
    relations: Tensor
    shared: Tensor


Objects = Callable[[Tensor, Tensor], Tensor]  # rows (S,) and spans (S, 2) -> log-probabilities (S, L, C, 2)


def decode_triples(
    batch: TripleBatch,
    encoded: Encoded,
    objects: Objects,
    predicates: Sequence[str],
    settings: Sequence[Thresholds],
    pairing: Pairing = "nearest",
) -> list[list[list[ExtractedTriple]]]:
    """The triples of each sentence, for each of several settings of the thresholds.

    ``objects`` runs once for all settings, over all spans that are a subject in any of them.

    Args:
        batch: the sentences.
        encoded: the model's encoding of them.
        objects: log-probabilities of the objects of given subjects.
        predicates: C names.
        settings: the thresholds.
        pairing: of starts and ends.

    Returns:
        For each setting, a list per sentence of distinct triples, each with its most confident spans.
    """
    probabilities = encoded.subjects.exp() * encoded.mask  # no span ends in the padding
    by_setting = {
        setting[:2]: pair_spans(probabilities[..., 0], probabilities[..., 1], *setting[:2], pairing)
        for setting in settings
    }
    subjects = torch.unique(torch.cat(list(by_setting.values())), dim=0)
    found = _find_objects(encoded.mask, objects, subjects, {setting[2:] for setting in settings}, pairing)
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
                predicates[predicate],
                (begin + offset, finish + offset + 1),
                strength[subject] * confidence,
            )
            kept = texts[sentence].get(triple[:3])
            if kept is None or kept.confidence < triple.confidence:
                texts[sentence][triple[:3]] = triple
        results.append([list(triples.values()) for triples in texts])
    return results


def _find_objects(
    mask: Tensor, objects: Objects, subjects: Tensor, settings: set[tuple[float, float]], pairing: Pairing
) -> dict[tuple[float, float], list[tuple[int, int, int, int, float]]]:
    """For each pair of thresholds: index of the subject, start, inclusive end, predicate, confidence."""
    found: dict[tuple[float, float], list] = {setting: [] for setting in settings}
    lowest = min(start for start, _ in settings)
    at_once = max(1, CHARACTERS_AT_ONCE // mask.shape[1])
    for first in range(0, len(subjects), at_once):
        rows, spans = subjects[first : first + at_once].split([1, 2], dim=1)
        rows = rows.squeeze(1)
        probabilities = objects(rows, spans).exp()
        probabilities *= mask[rows].unsqueeze(-1)
        # Hardly any predicate has an object: continue only with those that have a start somewhere.
        subject, predicate = (probabilities[..., 0].amax(dim=1) > lowest).nonzero(as_tuple=True)
        start, end = probabilities[subject, :, predicate].unbind(-1)
        for setting in settings:
            column, begin, finish = pair_spans(start, end, *setting, pairing).unbind(1)
            confidence = (start[column, begin] * end[column, finish]).sqrt()
            places = torch.stack([subject[column] + first, begin, finish, predicate[column]], dim=1)
            found[setting] += [(*place, c) for place, c in zip(places.tolist(), confidence.tolist(), strict=True)]
    return found


def is_sparse(encoded: Encoded) -> bool:
    """Whether so few subjects may start, at the lowest thresholds of the grid, that decoding with it is affordable."""
    starts = (encoded.subjects[..., :1].exp() * encoded.mask > GRID[0].subject_start).sum()
    return int(starts) <= MOST_SUBJECTS * len(encoded.mask)


def best_setting(f1: Tensor, usual: Sequence[float]) -> int:
    """The place in the grid of the best F1; of several that of the thresholds nearest to the usual ones."""
    best = (f1 == f1.max()).nonzero().flatten().tolist()
    return min(best, key=lambda place: sum(abs(a - b) for a, b in zip(GRID[place], usual, strict=True)))


def _triple(
    text: str, subject: tuple[int, int], predicate: str, object: tuple[int, int], confidence: float
) -> ExtractedTriple:
    return ExtractedTriple(text[slice(*subject)], predicate, text[slice(*object)], subject, object, confidence)
