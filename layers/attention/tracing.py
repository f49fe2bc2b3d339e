"""When tensors stand for others: in torch.func, forward-mode derivatives, torch.compile, torch.export; fake ones."""

import torch
from torch import Tensor
from torch.autograd import forward_ad


def is_transformed() -> bool:
    """Whether torch.func (grad, vmap, jvp …) or forward-mode derivatives are at work, which no own operator passes on.

    Within torch.compile and torch.export they are torch's to handle.
    """
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_plain() -> bool:
    """Whether tensors made now are like those of the next step: values, of the class Tensor."""
    return not torch.compiler.is_compiling() and not is_transformed() and type(torch.empty(0)) is Tensor


def may_look(x: Tensor) -> bool:
    """Whether the values of a tensor may decide what is done: they exist, and no device is waited for."""
    return x.device.type == "cpu" and is_plain() and type(x) is Tensor
