"""Copies of a model, with its weights or with new ones."""

import copy
from typing import TypeVar

import torch
from torch import nn

from .tied_linear import TiedLinear

Model = TypeVar("Model", bound=nn.Module)


@torch.no_grad()
def clone(model: Model, weights: bool = True) -> Model:
    """A copy that shares nothing with the model; what is shared inside the model is shared inside the copy.

    Without ``weights`` all are re-initialised by the modules' ``reset_parameters`` (``_reset_parameters`` in some of
    torch's), inner modules first, so that a model's own scheme has the last word. Buffers are reset where these
    methods do so (running statistics are).

    Source: kexue.fm/archives/6985, trick 3 (Keras' ``clone_model`` with and without ``set_weights``).

    Args:
        model: any module; the copy keeps its mode and device.
        weights: whether the copy keeps the model's weights.

    Raises:
        ValueError: if none of these methods initialises a parameter; the message names it.
    """
    cloned = copy.deepcopy(model)
    for module in cloned.modules():
        if isinstance(module, TiedLinear):
            module.embedding  # noqa: B018 - resolves the copy's embedding and releases the model
    if weights:
        return cloned
    for parameter in cloned.parameters():
        if parameter.is_floating_point():
            parameter.fill_(torch.nan)  # marks what no method initialises
    # Reversed: `modules()` lists a module before its children, and each once, however often it is used.
    for module in reversed(list(cloned.modules())):
        reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        if reset is not None:
            reset()
    left = [name for name, parameter in cloned.named_parameters() if parameter.isnan().any()]
    if left:
        owner = cloned.get_submodule(left[0].rpartition(".")[0])
        advice = f"give {type(owner).__name__} (or a module around it) a method reset_parameters"
        if ".parametrizations." in f".{left[0]}":
            advice = "remove the weight's parametrization first and apply it to the copy"
        raise ValueError(f"clone: nothing re-initialises {left[0]}: {advice}")
    return cloned
