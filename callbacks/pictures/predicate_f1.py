"""A report of the scores of each predicate's triples: a picture and a table."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor

from layers.processes import gather_objects

from .base import FAINT, INK, PALETTE, PictureOfTest, log_figure, new_figure, wants_pictures
from .fonts import font_families, quiet_fonts

FILE = "predicates.csv"


class PredicateScores(NamedTuple):
    """A row of the report; precision is 0 where nothing was predicted, recall where there is nothing to find.

    Args:
        predicate: its name.
        precision, recall, f1: in [0, 1], at the thresholds of the test.
        support: gold triples.
        predicted: triples found.
        best_threshold: for all starts and ends, the one with the best F1 among those tried; the middle one of several.
        best_f1: the F1 there.
    """

    predicate: str
    precision: float
    recall: float
    f1: float
    support: int
    predicted: int
    best_threshold: float | None
    best_f1: float | None


class PredicateF1(PictureOfTest):
    """Reports on each predicate: F1 as bars from best to worst with precision, recall and support, and a table.

        precision = correct / predicted,   recall = correct / gold,   F1 = 2 correct / (predicted + gold)

    During the test, ``test_step`` returns ``{"predicates": C names, "thresholds": (K,) float, "predicate_counts":
    (1 + K, C, 3) int64}``: correct, predicted and gold items of the batch for each predicate, first at the test's own
    thresholds, then at each of the others; other outputs are ignored. Predicates that occur neither in gold nor among
    the predictions are left out. The picture is ``predicate_f1``; the table, ``predicates.csv`` in the run folder, has
    the columns of ``PredicateScores``.

    Example:
        trainer:
          callbacks+:
            - class_path: PredicateF1
    """

    needs = ("predicates", "thresholds", "predicate_counts")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._predicates: list[str] = []
        self._thresholds: Tensor | None = None
        self._counts: Tensor | None = None

    def collect(self, trainer: pl.Trainer, outputs: Mapping[str, Any], batch: Any, dataloader_idx: int) -> None:
        counts = outputs["predicate_counts"].detach().cpu()
        self._counts = counts if self._counts is None else self._counts + counts
        self._predicates, self._thresholds = list(outputs["predicates"]), outputs["thresholds"].detach().float().cpu()

    def finish(self, trainer: pl.Trainer) -> None:
        # Objects, since a process whose share was empty doesn't know how many predicates there are.
        shares = [
            (predicates, thresholds, counts)
            for predicates, thresholds, counts in gather_objects((self._predicates, self._thresholds, self._counts))
            if thresholds is not None and counts is not None
        ]
        if not shares or not trainer.is_global_zero:
            return
        counts = torch.stack([counts for *_, counts in shares]).sum(0)
        rows = predicate_scores(shares[0][0], shares[0][1].tolist(), counts)
        if not rows:
            return
        for logger in trainer.loggers:
            if hasattr(logger, "log_file"):
                logger.log_file(FILE, lambda path: write_scores(rows, path))
        if wants_pictures(trainer):
            correct, predicted, gold = counts[0].sum(0).tolist()
            with quiet_fonts():
                draw_scores(trainer, rows, 2 * correct / max(predicted + gold, 1))


def predicate_scores(predicates: Sequence[str], thresholds: Sequence[float], counts: Tensor) -> list[PredicateScores]:
    """The rows of the report, by falling F1: from (1 + K, C, 3) correct, predicted and gold items."""
    correct, predicted, gold = counts.double().unbind(-1)
    precision, recall = correct / predicted.clamp(min=1), correct / gold.clamp(min=1)
    f1 = 2 * correct / (predicted + gold).clamp(min=1)
    rows = []
    for column, predicate in enumerate(predicates):
        if not (counts[0, column, 1:] > 0).any():
            continue
        best, curve = None, f1[1:, column]
        if curve.numel() and curve.max() > 0:
            places = (curve == curve.max()).nonzero().flatten().tolist()
            best = places[len(places) // 2]
        rows.append(
            PredicateScores(
                predicate,
                precision=float(precision[0, column]),
                recall=float(recall[0, column]),
                f1=float(f1[0, column]),
                support=int(gold[0, column]),
                predicted=int(predicted[0, column]),
                best_threshold=None if best is None else thresholds[best],
                best_f1=None if best is None else float(curve[best]),
            )
        )
    return sorted(rows, key=lambda row: (-row.f1, row.predicate))


def write_scores(rows: Sequence[PredicateScores], path: Path) -> None:
    """Writes the table; numbers with four decimals, as spreadsheets read it."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(PredicateScores._fields)
        for row in rows:
            writer.writerow([f"{value:.4f}" if isinstance(value, float) else value for value in row])


def draw_scores(trainer: pl.Trainer, rows: Sequence[PredicateScores], whole: float) -> None:
    """Bars of F1, worst at the bottom, with marks for precision and recall; a line for the F1 of all triples."""
    rows = rows[::-1]
    names, places = [row.predicate for row in rows], range(len(rows))
    figure = new_figure(6.5, 1.1 + 0.19 * len(rows))
    axes = figure.add_subplot()
    axes.barh(places, [row.f1 for row in rows], color=PALETTE[0], height=0.72, label="F1")
    axes.plot([row.precision for row in rows], places, ">", color=PALETTE[4], markersize=4, label="precision")
    axes.plot([row.recall for row in rows], places, "|", color=INK, markersize=8, label="recall")
    axes.axvline(whole, color=PALETTE[1], linewidth=1.2, linestyle="--", label=f"F1 of all triples: {whole:.3f}")
    axes.set_yticks(places, names, family=font_families("".join(names)), parse_math=False)
    for place, row in enumerate(rows):
        axes.text(1.06, place, f"{row.f1:.2f}", va="center", ha="right", fontsize=7, color=INK)
        axes.text(1.16, place, f"{row.support}", va="center", ha="right", fontsize=7, color=INK)
    axes.text(1.06, len(rows) - 0.2, "F1", va="bottom", ha="right", fontsize=7, color=INK)
    axes.text(1.16, len(rows) - 0.2, "triples", va="bottom", ha="right", fontsize=7, color=INK)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.02), ncols=4, frameon=False, fontsize=7)
    axes.set_xlim(0, 1.17)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.set_xlabel("F1, precision, recall", color=INK)
    axes.tick_params(axis="y", length=0, labelsize=8, labelcolor=INK)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", color=FAINT, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    log_figure(trainer, "predicate_f1", figure)
