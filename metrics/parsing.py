"""Scores of unlabelled parse trees, by the two scorers of the literature."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

SHORT = 10  # words: "WSJ10"
GROUPS = ("", "_wsj10")  # all sentences; those of ten words and fewer
EPSILON = 1e-8

Spans = Iterable[tuple[int, int]]
LabelledSpans = Sequence[tuple[int, int, str]]


class ParseF1(Metric):
    """Unlabelled F1 of predicted constituents, in percent, by two scorers that must not be confused.

    ``sentence_f1_no_root``: the F1 of each sentence, without the whole-sentence span, averaged over sentences; without
    gold spans R = 1, and P = 1 too if nothing is predicted:

        P = |pred ∩ gold| / (|pred| + ε),   R = |pred ∩ gold| / (|gold| + ε),   F1 = 2 P R / (P + R + ε),   ε = 1e-8

    ``corpus_f1_evalb``: spans counted over all sentences, including the whole-sentence spans, as EVALB does with
    COLLINS.prm on unlabelled trees; the ON-LSTM paper reports this one. In both, spans are sets and have at least two
    words.

    ``compute`` gives both for all sentences, both for those of at most ten words (``…_wsj10``), and
    ``recall/<label>``, the share (in percent) of a label's gold constituents that are predicted. Scores without any
    sentence are left out. Only sums are kept, so the result doesn't depend on how sentences are divided among
    processes.

    Args:
        labels: those whose recall is computed.

    Source: Shen et al. (arXiv 1810.09536), ``test_phrase_grammar.py``, and their explanation of the two scores
    (Ordered-Neurons, issue 23).
    """

    full_state_update = False
    higher_is_better = True
    totals: Tensor
    label_totals: Tensor

    def __init__(
        self, labels: Sequence[str] = ("ADJP", "ADVP", "INTJ", "NP", "PP", "QP", "S", "SBAR", "VP"), **kwargs
    ) -> None:
        super().__init__(**kwargs)
        self.labels = tuple(labels)
        # Rows: GROUPS. Columns: sentences, sum of their F1, spans in both, predicted, gold.
        zeros = torch.zeros(len(GROUPS), 5, dtype=torch.float64)
        self.add_state("totals", default=zeros, dist_reduce_fx="sum")
        # Rows: labels. Columns: found, gold.
        zeros = torch.zeros(len(self.labels), 2, dtype=torch.float64)
        self.add_state("label_totals", default=zeros, dist_reduce_fx="sum")

    def update(
        self, predicted_spans: Sequence[Spans], gold_spans: Sequence[LabelledSpans], num_words: Sequence[int] | Tensor
    ) -> None:
        """Adds sentences.

        Args:
            predicted_spans: [start, end) in words, for each sentence.
            gold_spans: [start, end) in words and label, for each sentence; joined labels (``S+VP``) count as each.
            num_words: (B,) words per sentence.

        Raises:
            ValueError: if the three differ in length.
        """
        lengths = num_words.tolist() if isinstance(num_words, Tensor) else list(num_words)
        if not len(predicted_spans) == len(gold_spans) == len(lengths):
            counts = f"{len(predicted_spans)} predictions, {len(gold_spans)} gold trees and {len(lengths)} lengths"
            raise ValueError(f"each sentence needs a prediction, a gold tree and its number of words; got {counts}")
        totals = torch.zeros_like(self.totals, device="cpu")
        found = {label: [0, 0] for label in self.labels}
        for predicted, labelled, length in zip(predicted_spans, gold_spans, lengths, strict=True):
            ours = _constituents(predicted)
            row = torch.tensor(_judge(ours, _constituents(labelled), length), dtype=torch.float64)
            totals[0] += row
            if length <= SHORT:
                totals[1] += row
            for start, end, joined in labelled:
                for label in joined.split("+"):
                    if label in found and end - start > 1:
                        found[label][0] += (start, end) in ours
                        found[label][1] += 1
        self.totals += totals.to(self.totals.device)
        self.label_totals += (
            torch.tensor(list(found.values()), dtype=torch.float64)
            .view_as(self.label_totals)
            .to(self.label_totals.device)
        )

    def compute(self) -> dict[str, Tensor]:
        """The scores, in percent, each a scalar in float64."""
        scores = {}
        for suffix, (sentences, f1, both, predicted, gold) in zip(GROUPS, self.totals, strict=True):
            if sentences > 0:
                scores[f"sentence_f1_no_root{suffix}"] = 100 * f1 / sentences
            if predicted + gold > 0:
                scores[f"corpus_f1_evalb{suffix}"] = 100 * 2 * both / (predicted + gold)
        for label, (found, gold) in zip(self.labels, self.label_totals, strict=True):
            if gold > 0:
                scores[f"recall/{label}"] = 100 * found / gold
        return scores


def _constituents(spans: Iterable[tuple]) -> set[tuple[int, int]]:
    return {(int(start), int(end)) for start, end, *_ in spans if end - start > 1}  # of a tensor, too


def _judge(predicted: set[tuple[int, int]], gold: set[tuple[int, int]], length: int) -> tuple[float, ...]:
    """A sentence's contribution to a row of the totals."""
    root = {(0, length)}
    ours, theirs = predicted - root, gold - root
    both = len(ours & theirs)
    precision = both / (len(ours) + EPSILON) if ours or theirs else 1.0
    recall = both / (len(theirs) + EPSILON) if theirs else 1.0
    f1 = 2 * precision * recall / (precision + recall + EPSILON)
    return 1, f1, len(predicted & gold), len(predicted), len(gold)
