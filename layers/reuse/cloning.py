"""Copies of a model, with its weights or with new ones."""

import copy
import inspect
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ..weights.functions import WeightFunction
from ..weights.normalization import plain_weights
from .tied_linear import TiedLinear

Model = TypeVar("Model", bound=nn.Module)


@torch.no_grad()
def clone(model: Model, weights: bool = True) -> Model:
    """A copy that shares nothing with the model; what is shared inside the model is shared inside the copy.

    Without ``weights`` all are re-initialised by the modules' ``reset_parameters`` (``_reset_parameters`` in some of
    torch's; ``_init_weights(module)`` in Hugging Face's, called with each module inside), inner modules first, so that
    a model's own scheme has the last word. Buffers are reset where these methods do so (running statistics are).
    Weights that are normalised before use (by ``layers.normalize_weights``, torch's parametrizations or its older
    hooks) are drawn as if they were plain, and stay normalised.

    Source: kexue.fm/archives/6985, trick 3 (Keras' ``clone_model`` with and without ``set_weights``).

    Args:
        model: any module; the copy keeps its mode and device.
        weights: whether the copy keeps the model's weights.

    Raises:
        ValueError: if none of these methods initialises a parameter; the message names it.
    """
    # What a forward left behind has a graph, which can't be copied (torch's older weight norm and spectral norm do so).
    left = (value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor))
    cloned = copy.deepcopy(model, {id(value): value.clone() for value in left if not value.is_leaf})
    for module in cloned.modules():
        if isinstance(module, TiedLinear):
            module.embedding  # noqa: B018 - resolves the copy's embedding and releases the model
    if weights:
        return cloned
    modules = dict(cloned.named_modules())
    with plain_weights(cloned):
        # A normalisation may have parameters of its own, and is no part of the model meanwhile.
        parts = {name: module for name, module in modules.items() if not name or isinstance(module, WeightFunction)}
        for part in parts.values():
            for parameter in part.parameters():
                if parameter.is_floating_point() or parameter.is_complex():
                    parameter.fill_(torch.nan)  # marks what no method initialises
        # Reversed: `named_modules` lists a module before its children, and each once, however often it is used.
        for module in reversed(modules.values()):
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            if reset is not None:
                reset()
            each = getattr(module, "_init_weights", None)
            if each is not None and _takes_a_module(each):
                module.apply(each)
            _take_over(module)
        for name, part in parts.items():
            _refuse_left(name, part)
    return cloned


def _takes_a_module(method: Callable) -> bool:
    """Whether a method needs one argument; one with a default is no module."""
    parameters = list(inspect.signature(method).parameters.values())
    return len(parameters) == 1 and parameters[0].default is inspect.Parameter.empty


def _take_over(module: nn.Module) -> None:
    """Gives what torch's older weight norm and spectral norm train the weight that was drawn in its place."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            weight = getattr(module, hook.name)
            getattr(module, f"{hook.name}_v").copy_(weight)
            getattr(module, f"{hook.name}_g").copy_(torch.norm_except_dim(weight, 2, hook.dim))
        elif isinstance(hook, SpectralNorm):
            getattr(module, f"{hook.name}_orig").copy_(getattr(module, hook.name))


def _refuse_left(path: str, part: nn.Module) -> None:
    for name, parameter in part.named_parameters(prefix=path):
        if parameter.isnan().any():
            owner = type(part.get_submodule(name.removeprefix(path).lstrip(".").rpartition(".")[0])).__name__
            raise ValueError(
                f"clone: nothing re-initialises {name}: give {owner} (or a module around it) a method reset_parameters"
            )
