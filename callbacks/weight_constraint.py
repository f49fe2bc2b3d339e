"""Constraints on the weights after each step of any optimizer."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from layers.weights.functions import callable_of, unit_dim, unit_norms
from layers.weights.selection import DEFAULT_EXCLUDE, uses

from .update_chain.chain import Action, Block, Phase, check_argument
from .update_chain.kept_weights import KeepsWeights
from .update_chain.rule import UpdateRule

Projection = Callable[[list[Tensor], list[int]], None]
"""Changes weights in place; the second argument is the dimension of each weight's output units."""


class WeightConstraint(UpdateRule):
    """Constrains the weights after each step of any optimizer: ``theta <- constraint(theta)``.

    It acts after everything else that changes the weights; averages see its result, and Lookahead's slow copy fulfils
    it too. Batches that only accumulate and steps that the GradScaler skips change nothing. Parameters that require no
    gradient are left alone; a weight that is normalised before use is constrained in its trained form.

    With w the weights of one output unit (a row of ``nn.Linear`` or ``nn.Embedding``, a convolution's kernels for one
    output channel, all of a vector):

    - ``max_norm``: w * min(1, limit / ||w||)
    - ``unit_norm``: w / ||w||; zero stays zero
    - ``non_negative``: max(w, 0)
    - ``clip``: min(max(w, -limit), limit)
    - any callable from theta to a tensor of the same shape, or its dotted import path.

    Args:
        constraint: one of these.
        limit: the largest norm for ``max_norm``, the largest absolute value for ``clip``; above 0.
        include: parameters to constrain; None: all (see ``layers.weights.selection.select``).
        exclude: parameters to leave out, also of those included; by default normalisation layers and biases.

    Raises:
        ValueError: for an unknown constraint, a limit that is not positive, a callable that returns another shape, or
            an entry that is not a valid expression or, at the start, matches nothing; at the start, for a complex
            parameter with ``non_negative`` or ``clip``.

    Source: kexue.fm/archives/6311 (Keras' ``kernel_constraint``). Difference: Keras divides by the norm + 1e-7, which
    shrinks the weights a little in every step.

    Example:
        trainer:
          callbacks+:
            - class_path: WeightConstraint
              init_args: {constraint: max_norm, limit: 2.0, include: ["type:Linear"]}
    """

    phase = Phase.CONSTRAINT
    repeatable = True

    def __init__(
        self,
        constraint: str | Callable[[Tensor], Tensor] = "max_norm",
        limit: float = 3.0,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] = DEFAULT_EXCLUDE,
    ) -> None:
        super().__init__(include, exclude)
        check_argument("WeightConstraint", "limit", limit, "above 0 and finite", 0 < limit < float("inf"))
        self.constraint, self.limit = constraint, limit
        named: dict[Any, Projection] = {
            "max_norm": partial(_max_norm, limit=limit),
            "unit_norm": _unit_norm,
            "non_negative": _non_negative,
            "clip": partial(_clip, limit=limit),
        }
        if isinstance(constraint, str) and constraint in named:
            self._project = named[constraint]
        else:
            self._project = partial(
                _apply, function=callable_of(constraint, "WeightConstraint: constraint", list(named))
            )
        self._needs_norms = constraint in ("max_norm", "unit_norm")
        self._dims: dict[Tensor, int] = {}

    def settings(self) -> dict[str, Any]:
        name = self.constraint
        if not isinstance(name, str):  # not repr: a function's has its address, which differs in a resumed run
            kind = name if hasattr(name, "__qualname__") else type(name)
            name = f"{kind.__module__}.{kind.__qualname__}"
        limit = {"limit": self.limit} if name in ("max_norm", "clip") else {}
        return {"constraint": name, **limit, **self.selection()}

    def choose(self, module: nn.Module) -> None:
        super().choose(module)
        self._dims = {parameter: unit_dim(owners[0][0]) for parameter, owners in uses(module).items()}
        if self.constraint in ("non_negative", "clip"):
            for name, parameter in module.named_parameters():
                if parameter.is_complex() and self.chosen(parameter):
                    raise ValueError(
                        f"WeightConstraint: {self.constraint} needs an order, which the complex numbers of {name} "
                        "don't have; exclude it, or take max_norm"
                    )

    def chosen(self, parameter: nn.Parameter) -> bool:
        # The norm of a scalar (a temperature) means nothing.
        return super().chosen(parameter) and not (self._needs_norms and parameter.dim() == 0)

    def plan(self, block: Block) -> Action | None:
        # Lookahead also moves weights that have no gradient in this step.
        positions = [i for i in block.members(self, stepped_only=False) if block.chain.params[i].requires_grad]
        if not positions:
            return None
        chain, params, names = block.chain, block.params(positions), block.names(positions)
        dims = [self._dims.get(parameter, 0) for parameter in params]
        lookaheads = [rule for rule in chain.rules if isinstance(rule, KeepsWeights) and rule.phase == Phase.LOOKAHEAD]

        def constrain(lr: float) -> None:
            self._project(params, dims)
            for lookahead in lookaheads:
                # It starts from the weights before the first step, which are unconstrained; later it follows theta.
                if lookahead.kept_steps.get(chain.key, 0) == 0:
                    slow = lookahead.copies[chain.key]
                    self._project([slow[name] for name in names], dims)

        return constrain


def _max_norm(weights: list[Tensor], dims: list[int], limit: float) -> None:
    norms = _norms(weights, dims)
    # Exactly 1 within the limit: those weights stay bit-identical.
    scales = [torch.where(norm > limit, limit / norm, 1.0) for norm in norms]
    torch._foreach_mul_(weights, scales)


def _unit_norm(weights: list[Tensor], dims: list[int]) -> None:
    torch._foreach_div_(weights, [torch.where(norm > 0, norm, 1.0) for norm in _norms(weights, dims)])


def _non_negative(weights: list[Tensor], dims: list[int]) -> None:
    torch._foreach_clamp_min_(weights, 0.0)


def _clip(weights: list[Tensor], dims: list[int], limit: float) -> None:
    torch._foreach_clamp_min_(weights, -limit)
    torch._foreach_clamp_max_(weights, limit)


def _apply(weights: list[Tensor], dims: list[int], function: Callable[[Tensor], Tensor]) -> None:
    for weight in weights:
        result = function(weight)
        if not isinstance(result, Tensor) or result.shape != weight.shape:
            got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise ValueError(
                f"WeightConstraint: the callable returned {got} for a weight of shape {tuple(weight.shape)}; it must "
                "return a tensor of that shape"
            )
        weight.copy_(result)


def _norms(weights: list[Tensor], dims: list[int]) -> list[Tensor]:
    return [unit_norms(weight, dim) for weight, dim in zip(weights, dims, strict=True)]
