"""Weights normalised before use, in layers that need not know of it."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm

from .functions import (
    CallableNormalization,
    L2Normalization,
    PersistentSpectralNormalization,
    SpectralNormalization,
    Standardization,
    WeightFunction,
    WeightNorm,
    callable_of,
    follow_spectral,
    unit_dim,
)
from .selection import check_entries, matching, nearest, parameter_names, parametrizations_of, uses

Kind = str | Callable[[Tensor], Tensor]
Maker = Callable[[Tensor, int], WeightFunction]

KINDS: dict[str, type[WeightFunction]] = {
    function.kind: function
    for function in (
        SpectralNormalization,
        PersistentSpectralNormalization,
        WeightNorm,
        L2Normalization,
        Standardization,
    )
}


def normalize_weights(model: nn.Module, kinds: Mapping[str, Kind] | None) -> nn.Module:
    """Makes layers compute with f(W) instead of their weight W, which remains the trained variable.

    Call it before building the optimizer. Shared weights stay shared. Repeating a call changes nothing.

    Args:
        model: changed in place (``torch.nn.utils.parametrize``).
        kinds: f for each pattern. A pattern is a regular expression on parameter names or ``type:NAME``
            (``layers.weights.selection.select``). A kind is one of

            - ``spectral``: W / largest singular value, estimated afresh in each forward (``SpectralNormalization``);
            - ``spectral_persistent``: the same with torch's running estimate;
            - ``weight_norm``: g V / ||V|| for each output unit;
            - ``l2``: W / ||W|| for each output unit;
            - ``standardized``: mean 0 and variance 1 for each output unit;
            - any callable W -> tensor of the same shape, or its dotted import path (a class is instantiated
              without arguments); each weight gets a copy of its own.

            Biases are left alone unless the kind is a callable. The spectral kinds scale vectors (the scale of a
            normalisation layer) to norm 1, the others leave them alone.

    Returns:
        The model.

    Raises:
        ValueError: for an unknown kind, a pattern that selects nothing to normalise (the message names the nearest), or
            two kinds for one weight.
    """
    kinds = dict(kinds or {})
    check_entries("weight_normalization", list(kinds))
    makers = {pattern: _maker(kind) for pattern, kind in kinds.items()}
    weights, names = uses(model), parameter_names(model)
    # All are chosen before the first is changed, so that nothing has changed if something is wrong.
    chosen: dict[nn.Parameter, tuple[str, WeightFunction]] = {}
    for pattern, kind in kinds.items():
        found = matching(model, pattern)
        if not found:
            raise ValueError(
                f"weight_normalization: pattern {pattern!r} matches no parameter; {nearest(model, pattern)}"
            )
        left_alone = 0
        for parameter in (each for each in weights if each in found):
            owner, name = weights[parameter][0]
            if parametrize.is_parametrized(owner, name):
                _check_same(owner, name, kind)
                continue
            if kind in KINDS and ("bias" in name or parameter.dim() < KINDS[kind].min_dims):
                left_alone += 1
            elif parameter in chosen:
                other, _ = chosen[parameter]
                raise ValueError(f"weight_normalization: patterns {other!r} and {pattern!r} both match {name!r}")
            else:
                try:
                    chosen[parameter] = pattern, makers[pattern](parameter, unit_dim(owner))
                except ValueError as error:
                    raise ValueError(f"weight_normalization: {names[parameter][0]}: {error}") from error
        if left_alone == len(found):
            raise ValueError(
                f"weight_normalization: pattern {pattern!r} matches only what {kind!r} leaves alone (biases, vectors)"
            )
    for parameter, (_, function) in chosen.items():
        _register(weights[parameter], function)
    return model


def remove_weight_normalization(model: nn.Module) -> nn.Module:
    """Undoes ``normalize_weights``: each weight becomes a plain parameter with the value that was used.

    Returns:
        The model, changed in place; its ``state_dict`` loads into a model that was never normalised.
    """
    done: dict[nn.Module, nn.Parameter] = {}
    for owner, name, parametrization in list(_normalized(model)):
        if parametrization not in done:
            done[parametrization] = _plain_parameter(parametrization)
        parametrizations = parametrizations_of(owner)
        for hook in parametrizations.hooks.pop(name):
            hook.remove()
        _own_class(owner)
        # A fixed value: torch would compute it once more for each owner of a shared weight.
        parametrizations[name] = parametrize.ParametrizationList([nn.Identity()], done[parametrization])
        parametrize.remove_parametrizations(owner, name, leave_parametrized=False)
    return model


@torch.no_grad()
def reset_parameters(module: Any) -> None:
    """``module.reset_parameters()`` that also reaches normalised weights.

    Initialisers work in place, so on a normalised layer they would fill a temporary value of ``layer.weight``.
    """
    with plain_weights(module, recurse=False):
        module.reset_parameters()


@contextmanager
def plain_weights(model: nn.Module, recurse: bool = True) -> Iterator[None]:
    """Within it parametrized weights are plain parameters, uninitialised; what they then hold is assigned at the end.

    Args:
        model: the model; its other parameters stay as they are.
        recurse: include its submodules.
    """
    owners: list[Any] = [m for m in (model.modules() if recurse else [model]) if parametrize.is_parametrized(m)]
    kept = [(owner, type(owner), owner.parametrizations) for owner in owners]
    plain: dict[nn.Module, nn.Parameter] = {}  # a shared weight has one for all its owners
    with torch.no_grad():
        for owner, _, parametrizations in kept:
            values = {name: torch.empty_like(getattr(owner, name)) for name in parametrizations}
            owner.__class__ = parametrize.type_before_parametrizations(owner)
            del owner._modules["parametrizations"]
            for name, value in values.items():
                owner.register_parameter(name, plain.setdefault(parametrizations[name], nn.Parameter(value)))
    try:
        yield
    finally:
        for owner, normalized_class, parametrizations in kept:
            for name in parametrizations:
                del owner._parameters[name]
            owner.__class__, owner._modules["parametrizations"] = normalized_class, parametrizations
    with torch.no_grad():
        for owner, _, parametrizations in kept:
            for name, parametrization in parametrizations.items():
                if parametrization in plain:
                    weight = plain.pop(parametrization).detach()
                    if all(hasattr(function, "right_inverse") for function in parametrization):
                        setattr(owner, name, weight)
                    else:  # as when torch registers such a function
                        parametrization.original.copy_(weight)
                    if isinstance(parametrization[0], _SpectralNorm):  # ours, or torch's
                        follow_spectral(parametrization[0], weight)
                    elif isinstance(parametrization[0], WeightFunction):
                        parametrization[0].follow(weight)


def _maker(kind: Kind) -> Maker:
    if isinstance(kind, str) and kind in KINDS:
        return KINDS[kind].of
    function = callable_of(kind, "weight_normalization: kind", list(KINDS))
    # Each weight gets its own module with its own state.
    return lambda weight, dim: CallableNormalization(
        copy.deepcopy(function), kind if isinstance(kind, str) else repr(kind)
    )


def _check_same(owner: nn.Module, name: str, kind: Kind) -> None:
    present = parametrizations_of(owner)[name][0]
    present_kind = getattr(present, "kind", type(present).__name__)
    if present_kind != (kind if isinstance(kind, str) else repr(kind)):
        layer = parametrize.type_before_parametrizations(owner).__name__
        raise ValueError(f"weight_normalization: {name!r} of a {layer} is already {present_kind!r}, not {kind!r}")


def _register(owners: list[tuple[nn.Module, str]], function: WeightFunction) -> None:
    shared: nn.Module | None = None
    for owner, name in owners:
        _own_class(owner)
        # The other owners of a shared weight share the first one's list, whatever f makes of the parameter.
        parametrize.register_parametrization(owner, name, nn.Identity() if shared else function, unsafe=bool(shared))
        parametrizations = parametrizations_of(owner)
        if shared:
            parametrizations[name] = shared
        shared = parametrizations[name]
        if not hasattr(parametrizations, "hooks"):
            parametrizations.hooks = {}
        hooks = [owner.register_load_state_dict_pre_hook(partial(_load_plain, name=name))]
        if isinstance(owner, nn.RNNBase):
            hooks.append(owner.register_forward_hook(_let_go_of_the_graph))
        parametrizations.hooks[name] = hooks


def _let_go_of_the_graph(module: nn.RNNBase, *_: Any) -> None:
    """torch's recurrent layers keep the weights of the last forward, here part of its graph, until the next one."""
    module._flat_weights = [weight.detach() for weight in cast(list[Tensor], module._flat_weights)]


def _own_class(module: nn.Module) -> None:
    """Gives a parametrized module a class of its own, separate from that of its deep copies.

    torch adds and removes properties of the class, which would also change the copies that share it.
    """
    if parametrize.is_parametrized(module):
        cls: Any = type(module)
        content = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
        module.__class__ = type(cls)(cls.__name__, cls.__bases__, content)


def _normalized(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Owner, name and parametrization of each normalised weight."""
    for owner in model.modules():
        if parametrize.is_parametrized(owner):
            for name, parametrization in parametrizations_of(owner).items():
                if isinstance(parametrization[0], WeightFunction):
                    yield owner, name, parametrization


@torch.no_grad()
def _plain_parameter(parametrization: Any) -> nn.Parameter:
    """A parameter with the value used: the trained one itself if there is only one, since an optimizer knows it."""
    training = parametrization.training
    value = parametrization.eval()()  # a running estimate stays as the last forward used it
    parametrization.train(training)
    if not parametrization.is_tensor:
        return nn.Parameter(value, requires_grad=parametrization.original0.requires_grad)
    parametrization.original.copy_(value)
    return parametrization.original


@torch.no_grad()
def _load_plain(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any, name: str) -> None:
    """Converts the weight in a plain model's ``state_dict`` to the names and tensors that it has here."""
    inner = f"{prefix}parametrizations.{name}."
    if prefix + name not in state_dict or any(key.startswith(inner) for key in state_dict):
        return
    parametrization = parametrizations_of(module)[name]
    function = parametrization[0]
    plain = state_dict.pop(prefix + name)
    like = next(parametrization.parameters())
    originals = function.right_inverse(plain.to(like.device, like.dtype))
    if isinstance(originals, Tensor):
        state_dict[f"{inner}original"] = originals
    else:
        state_dict |= {f"{inner}original{i}": original for i, original in enumerate(originals)}
    if plain.shape == like.shape:
        function.follow(plain.to(like.device))
    for key, value in parametrization.state_dict().items():
        state_dict.setdefault(inner + key, value)
