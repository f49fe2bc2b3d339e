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

    Without weights all are drawn anew by the ``reset_parameters`` of the modules (``_reset_parameters`` in some of
    torch's), inner modules first, so that a model's own scheme has the last word. Of buffers, those are reset that
    these methods reset (running statistics are).

    Source: kexue.fm/archives/6985, trick 3 (Keras' ``clone_model`` with and without ``set_weights``).

    Args:
        model: any module, in any mode and on any device, which the copy keeps.
        weights: whether the copy has the model's weights.

    Raises:
        ValueError: if a parameter is drawn by none of these methods; names it.
    """
    cloned = copy.deepcopy(model)
    for module in cloned.modules():
        if isinstance(module, TiedLinear):
            module.embedding  # noqa: B018 - finds the copy's embedding, and lets go of the model
    if weights:
        return cloned
    for parameter in cloned.parameters():
        if parameter.is_floating_point():
            parameter.fill_(torch.nan)  # what no method draws stays so, and is found
    # Reversed: a module comes before its children in `modules()`, and each once, however often it is used.
    for module in reversed(list(cloned.modules())):
        reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        if reset is not None:
            reset()
    left = [name for name, parameter in cloned.named_parameters() if parameter.isnan().any()]
    if left:
        owner = cloned.get_submodule(left[0].rpartition(".")[0])
        advice = f"give {type(owner).__name__} (or a module around it) a method reset_parameters"
        if ".parametrizations." in f".{left[0]}":
            advice = "remove the weight's parametrization before, and apply it to the copy"
        raise ValueError(f"clone: nothing draws {left[0]} anew: {advice}")
    return cloned
