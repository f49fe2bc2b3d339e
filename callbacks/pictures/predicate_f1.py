"""A picture of the F1 of each predicate's triples."""

import pytorch_lightning as pl

from .base import FAINT, INK, PALETTE, log_figure, new_figure, wants_pictures
from .fonts import font_families, quiet_fonts

PREFIX = "test/f1/predicate/"


class PredicateF1(pl.Callback):
    """Draws ``test/f1/predicate/<predicate>`` as bars from best to worst, and ``test/f1`` as a line.

    The picture is ``predicate_f1``; a test that logs no such metric has none.

    Example:
        trainer:
          callbacks+:
            - class_path: PredicateF1
    """

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        logged = trainer.callback_metrics
        scores = {name.removeprefix(PREFIX): float(logged[name]) for name in logged if name.startswith(PREFIX)}
        if not scores or not wants_pictures(trainer):
            return
        names = sorted(scores, key=lambda name: (scores[name], name))
        families = font_families("".join(names))
        figure = new_figure(6, 0.9 + 0.19 * len(names))
        axes = figure.add_subplot()
        axes.barh(names, [scores[name] for name in names], color=PALETTE[0], height=0.72)
        axes.set_yticks(range(len(names)), names, family=families, parse_math=False)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
        for place, name in enumerate(names):
            axes.text(scores[name] + 0.01, place, f"{scores[name]:.2f}", va="center", fontsize=7, color=INK, bbox=box)
        if "test/f1" in logged:
            whole = float(logged["test/f1"])
            axes.axvline(whole, color=PALETTE[1], linewidth=1.2, linestyle="--", label=f"all triples: {whole:.3f}")
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, fontsize=8)
        axes.set_xlim(0, 1.08)
        axes.set_ylim(-0.7, len(names) - 0.3)
        axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
        axes.set_xlabel("F1", color=INK)
        axes.tick_params(axis="y", length=0, labelsize=8, labelcolor=INK)
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(axis="x", color=FAINT, alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        with quiet_fonts():
            log_figure(trainer, "predicate_f1", figure)
