"""A metric that collects frozen features over an epoch and runs the probes on them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat, rank_zero_warn

from .probes import CHUNK_ROWS, knn_accuracy, linear_probe_accuracy, mlp_probe_accuracy

PROBES = ("knn", "linear_probe", "mlp_probe")
MOST_VALUES = 1 << 28  # kept of memory and of queries: half a gigabyte in half precision


class RepresentationQuality(Metric):
    """Accuracy of k-NN, linear and MLP probes on frozen features, collected over an evaluation epoch.

    ``update`` stores features; ``compute`` runs the probes with the samples marked ``memory=True`` (training set) as
    memory and the others (test set) as queries. Under DDP every rank gets the features of all ranks, and the result
    equals that of one process, however the samples are sharded, unless samples are left out.

    Of large sets every second sample is kept, or every fourth, and so on: at most ``MOST_VALUES`` values in all
    processes together, 65,536 images of 4,096 features. ``left_out`` counts the others of this process.

    Args:
        probes: which to run, of ``"knn"``, ``"linear_probe"``, ``"mlp_probe"``.
        k: voters of the k-NN.
        mlp_epochs: epochs of the MLP probe.
        seed: of the MLP probe.
        kwargs: those of ``torchmetrics.Metric``, such as ``compute_on_cpu``.

    Computes:
        ``{"knn_accuracy", "linear_probe_accuracy", "mlp_probe_accuracy"}`` -> fp32 scalar in [0, 1], those chosen.
        Samples without a class (label -1) are ignored; if none has a class the result is ``{}``. Of features that are
        not finite the accuracies are nan.

    Raises:
        ValueError: for an unknown probe, or if ``k`` or ``mlp_epochs`` is below 1.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False

    PROBES = PROBES

    memory_features: list[Tensor]
    memory_labels: list[Tensor]
    query_features: list[Tensor]
    query_labels: list[Tensor]

    def __init__(
        self, probes: Sequence[str] = PROBES, k: int = 20, mlp_epochs: int = 10, seed: int = 0, **kwargs
    ) -> None:
        super().__init__(**kwargs)
        for probe in probes:
            if probe not in self.PROBES:
                raise ValueError(f"unknown probe {probe!r}, choose from {', '.join(self.PROBES)}")
        if k < 1 or mlp_epochs < 1:
            raise ValueError(f"k and mlp_epochs must be at least 1, got {k} and {mlp_epochs}")
        self.probes, self.k, self.mlp_epochs, self.seed = tuple(probes), k, mlp_epochs, seed
        self._seen, self._step = {True: 0, False: 0}, {True: 1, False: 1}  # of memory and of queries
        for state in ("memory_features", "memory_labels", "query_features", "query_labels"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, features: Tensor, labels: Tensor, *, memory: bool) -> None:
        """Stores features (B, d), in their own float dtype, and labels (B,) int64 (-1: no class).

        Raises:
            ValueError: for other shapes.
        """
        if features.ndim != 2 or labels.shape != features.shape[:1]:
            raise ValueError(f"expected features (B, d) and labels (B,), got {features.shape} and {labels.shape}")
        kept_features = self.memory_features if memory else self.query_features
        kept_labels = self.memory_labels if memory else self.query_labels
        processes = torch.distributed.get_world_size() if _is_distributed() else 1
        room = max(MOST_VALUES // features.shape[1] // processes, 1)
        first = -self._seen[memory] % self._step[memory]
        self._seen[memory] += len(labels)
        if (step := self._step[memory]) > 1:  # a view would keep the rest of the batch
            features, labels = features[first::step].clone(), labels[first::step].clone()
        kept_features.append(features.detach())
        kept_labels.append(labels)
        while sum(map(len, kept_labels)) > room:
            self._step[memory] *= 2
            kept_features[:] = [dim_zero_cat(kept_features)[::2].clone()]
            kept_labels[:] = [dim_zero_cat(kept_labels)[::2].clone()]

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """``update``: a batch alone, of memory or of queries, has no accuracy."""
        self.update(*args, **kwargs)

    @property
    def left_out(self) -> int:
        """Samples of this process that are not kept."""
        return sum(self._seen.values()) - sum(map(len, [*self.memory_labels, *self.query_labels]))

    def reset(self) -> None:
        super().reset()
        self._seen, self._step = {True: 0, False: 0}, {True: 1, False: 1}

    def compute(self) -> dict[str, Tensor]:
        """Runs the probes; accuracies by name.

        Raises:
            ValueError: if memory or queries are empty.
        """
        for role in ("memory", "query"):
            if not sum(len(part) for part in self._parts(f"{role}_labels")):
                raise ValueError(f"no {role} features: call update(features, labels, memory={role == 'memory'}) first")
        memory, memory_labels = self._labelled("memory")
        queries, query_labels = self._labelled("query")
        if not len(memory) or not len(queries):
            return {}
        if not (memory.isfinite().all() and queries.isfinite().all()):
            rank_zero_warn("features are not finite (nan or inf): no probe can judge them")
            return {f"{probe}_accuracy": torch.tensor(torch.nan, device=queries.device) for probe in self.probes}
        samples = (memory, memory_labels, queries, query_labels)
        run = {
            "knn": lambda: knn_accuracy(*samples, k=self.k),
            "linear_probe": lambda: linear_probe_accuracy(*samples),
            "mlp_probe": lambda: mlp_probe_accuracy(*samples, epochs=self.mlp_epochs, seed=self.seed),
        }
        return {f"{probe}_accuracy": torch.tensor(run[probe](), device=queries.device) for probe in self.probes}

    def sync(self, *args, **kwargs) -> None:
        """Gathers the features of all ranks; a rank without samples of a kind contributes an empty tensor."""
        if _is_distributed():
            # For such a rank torchmetrics sends an empty 1-D fp32 tensor, which the others can't match, and hangs.
            for role in ("memory", "query"):
                features, labels = self._parts(f"{role}_features"), self._parts(f"{role}_labels")
                mine = (features[0].shape[1], features[0].dtype) if features else None
                kinds: list[tuple[int, torch.dtype] | None] = [None] * torch.distributed.get_world_size()
                torch.distributed.all_gather_object(kinds, mine)
                kind = next((kind for kind in kinds if kind is not None), None)
                if not features and kind is not None:
                    features.append(torch.empty(0, kind[0], dtype=kind[1], device=self.device))
                    labels.append(torch.empty(0, dtype=torch.int64, device=self.device))
        super().sync(*args, **kwargs)

    def _parts(self, state: str) -> list[Tensor]:
        value = getattr(self, state)
        # After gathering, torchmetrics has concatenated the list to one tensor.
        return value if isinstance(value, list) else [value]

    def _labelled(self, role: str) -> tuple[Tensor, Tensor]:
        """The samples that have a class, in canonical order."""
        features, labels = (dim_zero_cat(self._parts(f"{role}_{what}")) for what in ("features", "labels"))
        order = _canonical_order(features, labels)
        order = order[labels[order] >= 0]
        return features[order], labels[order]


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _canonical_order(features: Tensor, labels: Tensor) -> Tensor:
    """An order of the samples, (N,) int64, that depends on their values and not on the order in which they came.

    Samples are sorted by a fixed projection of their features, ties by label, so that probes that depend on the order
    (batches, rounding) give the same result for one process and for many.
    """
    direction = torch.sin(torch.arange(1, features.shape[1] + 1, device=features.device, dtype=torch.float64))
    keys = torch.cat([part.double() @ direction for part in features.split(CHUNK_ROWS)])
    by_label = labels.argsort(stable=True)
    return by_label[keys[by_label].argsort(stable=True)]


def baselines_ahead(metrics: Mapping[str, float]) -> list[str]:
    """Which baselines a trained code is not better than, each with the probes and accuracies that say so.

    Args:
        metrics: of a test, ``test/[untrained/|raw_pixels/]<probe>_accuracy``.
    """
    ahead = []
    for baseline in ("untrained", "raw_pixels"):
        names = {probe: (f"test/{probe}_accuracy", f"test/{baseline}/{probe}_accuracy") for probe in PROBES}
        pairs = {probe: (metrics[a], metrics[b]) for probe, (a, b) in names.items() if {a, b} <= metrics.keys()}
        lost = [f"{probe} {own:.3f} <= {other:.3f}" for probe, (own, other) in pairs.items() if own <= other]
        if lost:
            ahead.append(f"{baseline.replace('_', ' ')} ({', '.join(lost)})")
    return ahead
