"""Any module's activation, gradient or weight as a metric."""

import difflib
import functools
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

Reduction = Callable[[Tensor], Tensor]
QUANTITIES = ("activation", "gradient", "weight")


def sq_norm(rows: Tensor) -> Tensor:
    """(B, n) -> (): mean over the rows of the sum of squares, the article's ``x_h_norm``."""
    return rows.square().sum(1).mean()


def norm(rows: Tensor) -> Tensor:
    """(B, n) -> (): mean over the rows of the Euclidean norm."""
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
    """Logs a number about the inside of a model that its code knows nothing of:

        LayerMetrics({"train/x_h_norm": {"module": "encoder.2", "reduce": "sq_norm"}})

    Each entry is ``log name: {module, of, reduce}``. ``module`` is the path of a submodule, as in ``named_modules()``;
    ``""`` (left out) is the whole model, for gradients and weights. ``of`` is

    - ``activation`` (left out): what the module gives in training, (B, ...); of several tensors the first;
    - ``gradient``: that of all parameters below it, when it is complete, before clipping;
    - ``weight``: all parameters below it, after the step.

    ``reduce`` makes a number of it: ``sq_norm`` (left out): the sum of squares, ``norm``: the Euclidean norm, both as a
    mean over the batch, ``mean`` and ``std`` of all entries, or the import path of a function of your own, from a
    tensor to a scalar. Activations are flattened to (B, n) float32 for the named ones and come as they are to your
    function; weights and gradients are one row (1, n).

    Logged by single steps, as training losses are. An activation counts by all calls of the module since the last
    optimizer step, weighted by their rows: a module that is called twice, accumulated batches, and several processes
    give what one large batch would. Validation and test don't count. Nothing keeps a graph alive, and the hooks are
    removed when training ends, with an exception or without.

    Source: kexue.fm/archives/6311, ``metrics_tensors``.

    Args:
        metrics: the entries.

    Raises:
        ValueError: an entry is malformed; when training starts, there is no such module, or it has no weights.
    """

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
        # Of each activation since the last optimizer step: the sum of values times rows, and the rows.
        self._sums: dict[str, tuple[Tensor, int]] = {}

    @property
    def state_key(self) -> str:
        # Lightning refuses two stateful callbacks of one type under one key.
        return self._generate_state_key(metrics=sorted(self.metrics))

    def state_dict(self) -> dict[str, Any]:
        """What has come together in each process since the last step, for a run that stops before the next."""
        own = {name: {"sum": total.cpu(), "rows": rows} for name, (total, rows) in self._sums.items()}
        ranks = [own]
        if self._in_processes():
            ranks = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(ranks, own)
        return {"ranks": ranks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        rank, world_size = 0, 1
        if self._in_processes():
            rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        ranks = state_dict["ranks"]
        own = ranks[rank] if len(ranks) == world_size else {}
        self._sums = {name: (part["sum"], part["rows"]) for name, part in own.items() if name in self.metrics}

    @staticmethod
    def _in_processes() -> bool:
        return torch.distributed.is_available() and torch.distributed.is_initialized()

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
                    f"LayerMetrics: {name!r}: {metric.module!r} ({type(module).__name__}) has no parameters, so no "
                    f"{metric.of}"
                )
            self._modules[name] = module
        for name, module in self._modules.items():
            if self.metrics[name].of == "activation":
                self._hooks.append(module.register_forward_hook(self._hook(name, self.metrics[name].reduce)))

    def _hook(self, name: str, reduce: Reduction) -> Any:
        # A function, no method: copies of the model are made during training, and must not copy this callback.
        def take(module: nn.Module, args: tuple, output: Any) -> None:
            if not self._in_step:
                return
            activation = next(_tensors(output), None)
            if activation is None:
                kind = type(output).__name__
                raise ValueError(f"LayerMetrics: {name!r}: {type(module).__name__} gives no tensor, but {kind}")
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
        # All names in one order: another process may have called other modules, or in another order.
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
            rank_zero_warn(f"LayerMetrics: {name!r} is not logged: {path} was not called in this epoch of training")
        self._silent.clear()

    def _of(self, quantity: str) -> Iterable[tuple[str, nn.Module]]:
        return ((name, module) for name, module in self._modules.items() if self.metrics[name].of == quantity)

    def _log_row(self, pl_module: pl.LightningModule, name: str, tensors: list[Tensor]) -> None:
        if not tensors:  # all frozen, or a model without parameters
            return
        reduce = self.metrics[name].reduce
        if reduce in (norm, sq_norm):
            # Without a copy of all weights.
            dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
            total = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors, 2, dtype=dtype)))
            value = total if reduce is norm else total.square()
        else:
            value = _reduced(name, reduce, torch.cat([tensor.flatten() for tensor in tensors])[None])
        pl_module.log(name, value)


def _checked(name: str, entry: Mapping[str, Any]) -> LayerMetric:
    """The entry with what was left out; ValueError if something is wrong with it."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"LayerMetrics: {name!r} ({entry!r}) must be {{module: ..., of: ..., reduce: ...}}")
    for key in entry:
        if key not in LayerMetric._fields:
            nearest = difflib.get_close_matches(str(key), LayerMetric._fields, n=1, cutoff=0.0)[0]
            raise ValueError(f"LayerMetrics: {name!r} has no key {key!r}; did you mean {nearest!r}?")
    of = entry.get("of", "activation")
    if of not in QUANTITIES:
        raise ValueError(f"LayerMetrics: {name!r}: of ({of!r}) must be {', '.join(QUANTITIES)}")
    if of == "activation" and not entry.get("module"):
        # Under DDP training_step runs as the model's forward, so the model's output would be the loss, too.
        raise ValueError(f"LayerMetrics: {name!r}: an activation needs a module; the whole model has no one activation")
    return LayerMetric(entry.get("module", ""), of, _function(name, entry.get("reduce", "sq_norm")))


def _function(name: str, reduce: str | Reduction) -> Reduction:
    """The reduction of that name, or what the import path names."""
    if callable(reduce):
        return reduce
    if reduce in REDUCTIONS:
        return REDUCTIONS[reduce]
    try:
        return pkgutil.resolve_name(str(reduce))
    except (ImportError, AttributeError, ValueError) as error:
        known = ", ".join(REDUCTIONS)
        raise ValueError(
            f"LayerMetrics: {name!r}: reduce ({reduce!r}) must be {known}, or the import path of a function: {error}"
        ) from None


def _reduced(name: str, reduce: Reduction, tensor: Tensor) -> Tensor:
    """The number that a reduction makes of a tensor, () float."""
    if reduce in REDUCTIONS.values():
        tensor = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
        tensor = tensor.flatten(1) if tensor.ndim > 1 else tensor.reshape(-1, 1)
    with torch.no_grad():
        value = torch.as_tensor(reduce(tensor), device=tensor.device)
    if value.ndim:
        raise ValueError(f"LayerMetrics: {name!r}: reduce gave shape {tuple(value.shape)}, it must give a scalar")
    return value.detach().to(torch.promote_types(value.dtype, torch.float32))


def _tensors(output: Any) -> Iterable[Tensor]:
    """The floating-point tensors of a module's output, in order."""
    if isinstance(output, Tensor) and output.is_floating_point():
        yield output
    elif isinstance(output, Mapping | tuple | list):
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(part)


def _dense(gradient: Tensor) -> Tensor:
    return gradient.coalesce().values() if gradient.is_sparse else gradient
