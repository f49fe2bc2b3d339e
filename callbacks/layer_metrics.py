"""Metrics of any submodule's activations, gradients or weights."""

import difflib
import functools
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from layers.processes import by_rank

Reduction = Callable[[Tensor], Tensor]
QUANTITIES = ("activation", "gradient", "weight")


def sq_norm(rows: Tensor) -> Tensor:
    """(B, n) -> (): mean over rows of the sum of squares, the article's ``x_h_norm``."""
    return rows.square().sum(1).mean()


def norm(rows: Tensor) -> Tensor:
    """(B, n) -> (): mean over rows of the Euclidean norm."""
    return torch.linalg.vector_norm(rows, dim=1).mean()


def mean(rows: Tensor) -> Tensor:
    """(B, n) -> (): mean of all entries."""
    return rows.mean()


def std(rows: Tensor) -> Tensor:
    """(B, n) -> (): standard deviation of all entries."""
    return rows.std(correction=0)


REDUCTIONS: dict[str, Reduction] = {function.__name__: function for function in (sq_norm, norm, mean, std)}


class LayerMetric(NamedTuple):
    """One entry of ``LayerMetrics``, checked."""

    module: str
    of: str
    reduce: Reduction


class LayerMetrics(pl.Callback):
    """Logs numbers about the inside of a model, without any change to its code.

    Each entry is ``log name: {module, of, reduce}``. ``module`` is the path of a submodule, as in ``named_modules()``;
    ``""`` (the default) is the whole model, for gradients and weights. ``of`` is one of

    - ``activation`` (the default): the module's output in training, (B, ...); of several tensors, the first;
    - ``gradient``: the gradient of all its parameters, when complete, before clipping;
    - ``weight``: all its parameters, after the step.

    ``reduce`` turns this into a number: ``sq_norm`` (the default), the sum of squares, or ``norm``, the Euclidean norm,
    both averaged over the batch; ``mean`` or ``std`` of all entries; or the import path of your own function from a
    tensor to a scalar. The named ones get activations flattened to (B, n) float32, your own function gets them
    unchanged; weights and gradients are one row (1, n).

    Values are logged per step, like training losses. An activation's value covers all calls of the module since the
    last optimizer step, weighted by their rows: a module that is called twice, accumulated batches and several
    processes give the value of one large batch. Validation and test don't count. No graph is kept alive, and the hooks
    are removed when training ends, even by an exception.

    Args:
        metrics: the entries.

    Raises:
        ValueError: an entry is malformed; at the start of training, if the module doesn't exist or has no weights.

    Source: kexue.fm/archives/6311, ``metrics_tensors``.

    Example:
        trainer:
          callbacks+:
            - class_path: LayerMetrics
              init_args:
                metrics: {train/code_norm: {module: encoder, reduce: norm}}
    """

    process_states: list[dict[str, Any]] | None = None  # gathered for a checkpoint

    def __init__(self, metrics: dict[str, dict[str, str]]) -> None:
        if not metrics:
            raise ValueError("LayerMetrics: metrics is empty: give {log name: {module: ..., of: ..., reduce: ...}}")
        self.metrics = {name: _checked(name, entry) for name, entry in metrics.items()}
        self._forget()

    def _forget(self) -> None:
        self._modules: dict[str, nn.Module] = {}
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._in_step = False
        self._silent = {name for name, metric in self.metrics.items() if metric.of == "activation"}
        # For each activation since the last optimizer step: the sum of values times rows, and the rows.
        self._sums: dict[str, tuple[Tensor, int]] = {}

    @property
    def state_key(self) -> str:
        # Lightning refuses several stateful callbacks of one type with the same key.
        return self._generate_state_key(metrics=sorted(self.metrics))

    def state_dict(self) -> dict[str, Any]:
        """The sums of each process since the last optimizer step, for a run that stops before the next."""
        return {"ranks": by_rank(self.process_state(), self.process_states)}

    def process_state(self) -> dict[str, dict[str, Any]]:
        """The part of this process."""
        return {name: {"sum": total.cpu(), "rows": rows} for name, (total, rows) in self._sums.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        rank, world_size = 0, 1
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        ranks = state_dict["ranks"]
        own = (ranks[rank] if len(ranks) == world_size else None) or {}
        self._sums = {name: (part["sum"], part["rows"]) for name, part in own.items() if name in self.metrics}

    # ------------------------------------------------------------------------------------------------------ hooks

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        modules = dict(pl_module.named_modules(remove_duplicate=False))
        for name, metric in self.metrics.items():
            if metric.module not in modules:
                nearest = difflib.get_close_matches(metric.module, modules, n=1, cutoff=0.0)[0]
                raise ValueError(
                    f"LayerMetrics: {name!r}: {type(pl_module).__name__} has no module {metric.module!r}; "
                    f"the nearest one is {nearest!r}"
                )
            module = modules[metric.module]
            if metric.of != "activation" and metric.module and not any(True for _ in module.parameters()):
                raise ValueError(
                    f"LayerMetrics: {name!r}: {metric.module!r} ({type(module).__name__}) has no parameters, and so no "
                    f"{metric.of}; choose a module that has some"
                )
            self._modules[name] = module
        for name, module in self._modules.items():
            if self.metrics[name].of == "activation":
                self._hooks.append(module.register_forward_hook(self._hook(name, self.metrics[name].reduce)))

    def _hook(self, name: str, reduce: Reduction) -> Any:
        # A function, not a method: copies of the model, made during training, must not copy this callback.
        def take(module: nn.Module, args: tuple, output: Any) -> None:
            if not self._in_step:
                return
            activation = next(_tensors(output), None)
            if activation is None:
                kind = type(output).__name__
                raise ValueError(f"LayerMetrics: {name!r}: {type(module).__name__} returns {kind}, not a tensor")
            rows = len(activation) if activation.ndim else 1
            value = _reduced(name, reduce, activation.detach()) * rows
            total, count = self._sums.get(name, (0.0, 0))
            total = total.to(value.device) + value if isinstance(total, Tensor) else value
            self._sums[name] = (total, count + rows)

        return take

    def _remove_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._forget()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._remove_hooks()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._remove_hooks()

    # ------------------------------------------------------------------------------------------------------ steps

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        self._in_step, self._step = True, trainer.global_step

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        for name, module in self._of("gradient"):
            self._log_row(pl_module, name, [_dense(p.grad) for p in module.parameters() if p.grad is not None])

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        self._in_step = False
        for name, module in self._of("weight"):
            self._log_row(pl_module, name, [p.detach() for p in module.parameters() if p.is_floating_point()])
        self._log_activations(trainer, pl_module)
        if trainer.global_step > self._step:
            self._sums = {}

    def _log_activations(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # All names, in a fixed order: another process may have called other modules, or in another order.
        names = [name for name, _ in self._of("activation")]
        if not names:
            return
        sums = {name: self._sums.get(name, (0.0, 0)) for name in names}
        if trainer.world_size > 1:
            table = torch.tensor([[float(total), rows] for total, rows in sums.values()], dtype=torch.float64)
            table = trainer.strategy.reduce(table.to(pl_module.device), reduce_op="sum")
            sums = dict(zip(names, table, strict=True))
        for name, (total, rows) in sums.items():
            if rows:
                pl_module.log(name, total / rows)
                self._silent.discard(name)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name in sorted(self._silent):
            path = self.metrics[name].module or type(pl_module).__name__
            rank_zero_warn(f"LayerMetrics: {name!r} is not logged: {path} was not called in this training epoch")
        self._silent.clear()

    def _of(self, quantity: str) -> Iterable[tuple[str, nn.Module]]:
        return ((name, module) for name, module in self._modules.items() if self.metrics[name].of == quantity)

    def _log_row(self, pl_module: pl.LightningModule, name: str, tensors: list[Tensor]) -> None:
        if not tensors:  # all frozen, or a model without parameters
            return
        reduce = self.metrics[name].reduce
        if reduce in (norm, sq_norm):
            # Avoids a copy of all weights.
            dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
            total = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors, 2, dtype=dtype)))
            value = total if reduce is norm else total.square()
        else:
            value = _reduced(name, reduce, torch.cat([tensor.flatten() for tensor in tensors])[None])
        pl_module.log(name, value)


def _checked(name: str, entry: Mapping[str, Any]) -> LayerMetric:
    """The entry with its defaults filled in; ValueError if it is malformed."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"LayerMetrics: {name!r} ({entry!r}) must be {{module: ..., of: ..., reduce: ...}}")
    for key in entry:
        if key not in LayerMetric._fields:
            nearest = difflib.get_close_matches(str(key), LayerMetric._fields, n=1, cutoff=0.0)[0]
            raise ValueError(f"LayerMetrics: {name!r} has no key {key!r}; did you mean {nearest!r}?")
    of = entry.get("of", "activation")
    if of not in QUANTITIES:
        raise ValueError(f"LayerMetrics: {name!r}: of ({of!r}) must be one of {', '.join(QUANTITIES)}")
    if of == "activation" and not entry.get("module"):
        # Under DDP training_step runs as the model's forward, so the model's output might also be the loss.
        raise ValueError(f"LayerMetrics: {name!r}: an activation needs a module: name a submodule")
    return LayerMetric(entry.get("module", ""), of, _function(name, entry.get("reduce", "sq_norm")))


def _function(name: str, reduce: str | Reduction) -> Reduction:
    """The reduction with this name, or the function at this import path."""
    if callable(reduce):
        return reduce
    if reduce in REDUCTIONS:
        return REDUCTIONS[reduce]
    try:
        return pkgutil.resolve_name(str(reduce))
    except (ImportError, AttributeError, ValueError) as error:
        known = ", ".join(REDUCTIONS)
        raise ValueError(
            f"LayerMetrics: {name!r}: reduce ({reduce!r}) must be one of {known}, or a function's import path: {error}"
        ) from None


def _reduced(name: str, reduce: Reduction, tensor: Tensor) -> Tensor:
    """A tensor reduced to a number, () float."""
    if reduce in REDUCTIONS.values():
        tensor = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
        tensor = tensor.flatten(1) if tensor.ndim > 1 else tensor.reshape(-1, 1)
    with torch.no_grad():
        value = torch.as_tensor(reduce(tensor), device=tensor.device)
    if value.ndim:
        raise ValueError(f"LayerMetrics: {name!r}: reduce must return a scalar, got shape {tuple(value.shape)}")
    return value.detach().to(torch.promote_types(value.dtype, torch.float32))


def _tensors(output: Any) -> Iterator[Tensor]:
    """The floating-point tensors of a module's output, in order."""
    if isinstance(output, Tensor) and output.is_floating_point():
        yield output
    elif isinstance(output, Mapping | tuple | list):
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(part)


def _dense(gradient: Tensor) -> Tensor:
    return gradient.coalesce().values() if gradient.is_sparse else gradient
