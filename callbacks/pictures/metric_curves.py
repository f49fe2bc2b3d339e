"""A picture of logged metrics over optimizer steps."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

from .base import INK, PALETTE, log_figure, new_figure, plain_axes, wants_pictures

if TYPE_CHECKING:
    import numpy as np


class MetricCurves(pl.Callback):
    """Draws curves of logged metrics over optimizer steps, such as mutual-information estimates.

    Metrics that start with ``val/`` are recorded at the end of each validation, the others every
    ``trainer.log_every_n_steps`` optimizer steps. The picture is updated after each validation and at the end of
    training. The points are part of the checkpoint: a resumed run's picture shows the whole run. Dense curves are
    faint, with their running mean on top.

    Args:
        metrics: names as logged, e.g. ``["train/local_mi", "val/local_mi"]``; those that are never logged are left out.
        name: name of the picture.
        ylabel: label of the vertical axis, with the unit, e.g. ``"nats"``.

    Raises:
        ValueError: if ``metrics`` is empty.

    Example:
        trainer:
          callbacks+:
            - class_path: MetricCurves
              init_args: {metrics: [train/loss, val/loss], name: loss, ylabel: nats}
    """

    def __init__(self, metrics: Sequence[str], name: str, ylabel: str | None = None) -> None:
        if not metrics:
            raise ValueError("metrics: name at least one metric to draw")
        self.metrics, self.name, self.ylabel = tuple(metrics), name, ylabel
        self.steps: dict[str, list[int]] = {metric: [] for metric in self.metrics}
        self.values: dict[str, list[float]] = {metric: [] for metric in self.metrics}

    @property
    def state_key(self) -> str:
        # Lightning refuses several stateful callbacks of one type with the same key.
        return self._generate_state_key(name=self.name)

    def state_dict(self) -> dict[str, Any]:
        """The points so far, as plain numbers."""
        return {
            "steps": {metric: list(steps) for metric, steps in self.steps.items()},
            "values": {metric: list(values) for metric, values in self.values.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the points of those metrics that are drawn now."""
        for metric in self.metrics:
            self.steps[metric] = list(state_dict["steps"].get(metric, []))
            self.values[metric] = list(state_dict["values"].get(metric, []))

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and trainer.global_step % every == 0:
            self._collect(trainer, validation=False)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Validation outside of training has no place on the step axis.
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._collect(trainer, validation=True)
        self._draw(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._draw(trainer)

    def _collect(self, trainer: pl.Trainer, validation: bool) -> None:
        logged = trainer.callback_metrics
        for metric in self.metrics:
            # Lightning keeps validation metrics until the next validation: in training steps they would repeat.
            if metric in logged and metric.startswith("val/") == validation:
                steps, values = self.steps[metric], self.values[metric]
                if steps and steps[-1] >= trainer.global_step:
                    # Batches of one accumulated step, or a validation repeated after a resume: the last one counts.
                    steps.pop()
                    values.pop()
                steps.append(int(trainer.global_step))
                values.append(float(logged[metric]))

    def _draw(self, trainer: pl.Trainer) -> None:
        drawn = [metric for metric in self.metrics if self.steps[metric]]
        if not drawn or not wants_pictures(trainer):
            return
        figure = new_figure(7, 4)
        axes = figure.add_subplot()
        for number, metric in enumerate(drawn):
            colour = PALETTE[number % len(PALETTE)]
            steps, values = self.steps[metric], self.values[metric]
            window = len(values) // 20
            if window > 1:
                axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
                axes.plot(steps, _running_mean(values, window), color=colour, linewidth=1.8, label=metric)
            else:
                marker = "o" if len(values) <= 30 else None
                axes.plot(steps, values, color=colour, linewidth=1.8, marker=marker, markersize=4, label=metric)
        axes.set_xlabel("optimizer steps", color=INK)
        if self.ylabel is None and len(drawn) == 1:
            axes.set_ylabel(drawn[0], color=INK)
        else:
            axes.set_ylabel(self.ylabel or "", color=INK)
            axes.legend(frameon=False)
        axes.locator_params(axis="x", integer=True)
        plain_axes(axes)
        axes.margins(x=0.02)
        log_figure(trainer, self.name, figure)


def _running_mean(values: Sequence[float], window: int) -> "np.ndarray":
    """Mean of the ``window`` values around each place (fewer at the ends), without values that are not finite."""
    import numpy as np

    points = np.asarray(values)
    finite = np.isfinite(points)
    sums, counts = (np.convolve(part, np.ones(window), "same") for part in (np.where(finite, points, 0), finite))
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
