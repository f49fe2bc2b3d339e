"""Losses from anywhere: a module adds a loss in its forward, and whoever trains the model collects them."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["AddsLosses", "Losses", "collect_losses"]


Calls = Literal["first", "all"]


class AddsLosses:
    """Mixin for an ``nn.Module`` that adds losses of its own: ``class Layer(AddsLosses, nn.Module)``.

    It holds no state: copies, pickles and the ``state_dict`` are those of the module without it.

    Source: kexue.fm/archives/6311, ``add_loss``.
    """

    def add_loss(self, name: str, value: Tensor, weight: float = 1.0) -> None:
        """Adds ``weight * value`` to the loss of the step; call it in ``forward``.

        Inside ``collect_losses`` the value is collected, elsewhere it is dropped: a layer that is used alone, or in a
        model whose training loop does not collect, behaves as if the line were not there.

        Args:
            name: the value is logged under it, without its weight; several modules may share a name. From one module
                only the first value of a name counts (``collect_losses(calls="first")``), even within one forward:
                sum such values before adding them.
            value: () floating point, with a gradient unless gradients are disabled (``torch.no_grad``, validation).
            weight: its factor in the sum, a finite number; 0 to log the value only.

        Raises:
            ValueError: if the value is detached, not a scalar, or not floating point; the message names the module.
        """
        losses = _collecting.get()
        if losses is not None:
            losses.add(self, name, value, weight)


class Term(NamedTuple):
    """One value and its weight."""

    value: Tensor
    weight: float

    @property
    def weighted(self) -> Tensor:
        """The value times its weight, ()."""
        return self.value if self.weight == 1 else self.weight * self.value


class Losses:
    """The losses that the modules of a model added in one step; made by ``collect_losses``.

    Values with the same name from several modules are summed.
    """

    def __init__(self, model: nn.Module, calls: Calls) -> None:
        self.model, self.calls = model, calls
        self._terms: dict[tuple[Any, str], list[Term]] = {}

    def add(self, module: Any, name: str, value: Tensor, weight: float) -> None:
        """See ``AddsLosses.add_loss``; ``module`` is the one that adds."""
        self._check(module, name, value, weight)
        terms = self._terms.setdefault((module, name), [])
        # Half precision is summed in float32, so that small terms are not lost beside large ones.
        term = Term(value.to(torch.promote_types(value.dtype, torch.float32)), float(weight))
        if not terms or self.calls == "all":
            terms.append(term)
        elif term.value.requires_grad and not terms[0].value.requires_grad:
            terms[0] = term

    def total(self) -> Tensor:
        """Sum of ``weight * value``, () float32 or wider, in the order of adding.

        Raises:
            ValueError: if nothing was added, or nothing with a gradient although gradients are enabled.
        """
        total = None
        for term in (term for terms in self._terms.values() for term in terms if term.weight):
            total = term.weighted if total is None else total + term.weighted
        owner = type(self.model).__name__
        if total is None:
            raise ValueError(f"{owner}: no loss was added: call add_loss with a weight in the forward of a module")
        if torch.is_grad_enabled() and not total.requires_grad:
            names = ", ".join(self.values())
            raise ValueError(f"{owner}: no loss ({names}) has a gradient: all were added under torch.no_grad")
        if torch.is_grad_enabled() and (lost := self._without_gradient()):
            warnings.warn(
                f"{owner}: {', '.join(lost)} was added under torch.no_grad and trains nothing: in "
                "torch.utils.checkpoint set use_reentrant=False, in a frozen part add it with weight 0",
                stacklevel=2,
            )
        return total

    def _without_gradient(self) -> list[str]:
        """Names of those with a weight."""
        terms = ((name, term) for (_, name), terms in self._terms.items() for term in terms)
        return list(dict.fromkeys(name for name, term in terms if term.weight and not term.value.requires_grad))

    def values(self) -> dict[str, Tensor]:
        """The sum of the unweighted values of each name, detached."""
        sums: dict[str, Tensor] = {}
        for (_, name), terms in self._terms.items():
            for term in terms:
                value = term.value.detach()
                sums[name] = sums[name] + value if name in sums else value
        return sums

    def clear(self) -> None:
        """Drops all values, and the graph with them."""
        self._terms.clear()

    def _check(self, module: Any, name: str, value: Tensor, weight: float) -> None:
        problem = None
        if not isinstance(name, str) or not name or name == "loss":
            problem = "the name must be a non-empty string other than 'loss', which is the sum"
        elif not isinstance(weight, int | float) or not abs(weight) < float("inf"):
            problem = f"the weight ({weight!r}) must be a finite number"
        elif not isinstance(value, Tensor):
            problem = f"got {type(value).__name__}, it must be a tensor"
        elif not value.is_floating_point():
            problem = f"got a tensor of {value.dtype}, it must be floating point"
        elif value.ndim:
            problem = f"got a tensor of shape {tuple(value.shape)}, it must be a scalar: take its mean or sum"
        elif weight and torch.is_grad_enabled() and not value.requires_grad:
            problem = "got a value without gradient: don't detach it, or add it with weight 0 to only log it"
        if problem:
            raise ValueError(f"{self._path(module)}: add_loss({name!r}) {problem}")

    def _path(self, module: Any) -> str:
        """``encoder.2``, or the class name if the module is the model itself or not part of it."""
        names = (path for path, part in self.model.named_modules() if part is module)
        return next(names, "") or type(module).__name__


_collecting: ContextVar[Losses | None] = ContextVar("collecting", default=None)


@contextmanager
def collect_losses(model: nn.Module, calls: Calls = "first") -> Iterator[Losses]:
    """Collects what the modules of a model add while the context is open.

        with collect_losses(model) as losses:
            model(x)
        losses.total().backward()

    Open one context per step: gradient accumulation, validation between steps and multiple processes then need no
    special care, and the graph lives no longer than the step. An exception empties the collection. Contexts may be
    nested; the innermost collects. What activation checkpointing recomputes in ``backward`` comes after the context
    has closed and does not count twice.

    Args:
        model: error messages name modules by their path in it.
        calls: for a module that is called several times: ``first``: its first value of each name counts (a value
            under ``torch.no_grad`` gives way to one with a gradient); ``all``: the sum of its values.

    Raises:
        ValueError: for any other ``calls``.
    """
    if calls not in ("first", "all"):
        raise ValueError(f"calls ({calls!r}) must be 'first' or 'all'")
    losses = Losses(model, calls)
    before = _collecting.set(losses)
    try:
        yield losses
    except BaseException:
        losses.clear()
        raise
    finally:
        _collecting.reset(before)
