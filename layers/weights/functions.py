"""Functions of a weight, W_used = f(W): the layer computes with f(W) while W itself is trained.

Each is a module for ``torch.nn.utils.parametrize``; ``layers.normalize_weights`` applies them to a model. A weight's
matrix M has one row per output unit: (units, everything else).
"""

import difflib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import _SpectralNorm, _WeightNorm

TINY = 1e-12


class WeightFunction(nn.Module, ABC):
    """Base class: f in float32 for half-precision weights, and outside autocast, whose products have 8 bits.

    Attributes:
        kind: the name that users select it by.
        min_dims: weights of fewer dimensions are left unchanged.

    Args:
        dim: the weight's dimension of output units.
    """

    kind: str
    min_dims = 2

    def __init__(self, dim: int = 0) -> None:
        super().__init__()
        self.dim = dim

    @classmethod
    def of(cls, weight: Tensor, dim: int) -> "WeightFunction":
        """The function for this weight."""
        return cls(dim)

    def forward(self, *originals: Tensor) -> Tensor:
        dtype = originals[0].dtype
        with torch.autocast(originals[0].device.type, enabled=False):
            return self.used([_at_least_float32(original) for original in originals]).to(dtype)

    @abstractmethod
    def used(self, originals: list[Tensor]) -> Tensor:
        """f of the trained tensors: W, or the several that ``right_inverse`` makes of it."""

    def right_inverse(self, weight: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The trained tensors for a plain weight, which an assignment or a plain model's checkpoint gives."""
        return weight

    def follow(self, weight: Tensor) -> None:
        """Updates what f remembers of the plain weight, which was replaced by this one."""

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class SpectralNormalization(WeightFunction):
    """W / sigma, sigma the largest singular value of M by a power iteration that starts from ones each time:

        u = ones;  n times:  v = normalise(M u),  u = normalise(M^T v);  sigma = v^T M u

    The gradient flows through all iterations; nothing is kept from one call to the next. After 5 iterations sigma is
    about 0.93 of the true value for a random matrix. For a vector sigma is its norm. If the iteration finds nothing
    (all rows of M sum to zero), sigma is the Frobenius norm.

    Source: kexue.fm/archives/6311.

    Args:
        dim: the weight's dimension of output units.
        iterations: n.
    """

    kind = "spectral"
    min_dims = 1

    def __init__(self, dim: int = 0, iterations: int = 5) -> None:
        super().__init__(dim)
        self.iterations = iterations

    def used(self, originals: list[Tensor]) -> Tensor:
        (weight,) = originals
        matrix = weight.unsqueeze(1) if weight.dim() == 1 else weight.movedim(self.dim, 0).flatten(1)
        u = matrix.new_ones(matrix.shape[1])
        for _ in range(self.iterations):
            v = F.normalize(matrix.mv(u), dim=0, eps=TINY)
            u = F.normalize(matrix.t().mv(v), dim=0, eps=TINY)
        sigma = v.dot(matrix.mv(u))
        return weight / torch.where(sigma > 0, sigma, matrix.norm()).clamp_min(TINY)


class PersistentSpectralNormalization(WeightFunction, _SpectralNorm):  # type: ignore[misc]  # two right_inverse
    """torch's spectral normalisation: u and v are buffers that each call in training improves by one iteration.

    No gradient flows through the iteration.

    Source: ``torch.nn.utils.parametrizations.spectral_norm``, whose ``state_dict`` keys it keeps.

    Args:
        weight: the initial weight.
        dim: the weight's dimension of output units.

    Raises:
        ValueError: from ``of``, if all weights are 0.
    """

    kind = "spectral_persistent"
    min_dims = 1

    def __init__(self, weight: Tensor, dim: int = 0) -> None:
        _SpectralNorm.__init__(self, _at_least_float32(weight.detach()), dim=dim)

    @classmethod
    def of(cls, weight: Tensor, dim: int) -> WeightFunction:
        if not weight.is_meta and not weight.any():
            raise ValueError(
                "spectral_persistent: all weights are 0, without a direction to start from: initialise them, or use "
                "another kind"
            )
        return cls(weight, dim)

    def used(self, originals: list[Tensor]) -> Tensor:
        return _SpectralNorm.forward(self, originals[0])

    def follow(self, weight: Tensor) -> None:
        follow_spectral(self, weight)

    def _apply(self, *args, **kwargs):
        super()._apply(*args, **kwargs)
        for name, buffer in self.named_buffers(recurse=False):
            self._buffers[name] = _at_least_float32(buffer)
        return self


@torch.no_grad()
def follow_spectral(function: _SpectralNorm, weight: Tensor) -> None:
    """Brings the running estimate of torch's spectral normalisation, or of ours, to this weight."""
    if weight.dim() > 1:
        function._power_method(function._reshape_weight_to_matrix(_at_least_float32(weight)), 15)


class WeightNorm(WeightFunction, _WeightNorm):
    """torch's weight norm: g V / ||V|| for each output unit; the norm g and V are trained.

    It only reparametrises W: initially f(W) is W itself.

    Raises:
        ValueError: if all weights of a unit are 0.

    Source: ``torch.nn.utils.parametrizations.weight_norm``, whose ``state_dict`` keys it keeps.
    """

    kind = "weight_norm"

    @classmethod
    def of(cls, weight: Tensor, dim: int) -> WeightFunction:
        function = cls(dim)
        function.right_inverse(weight)  # checks it
        return function

    def used(self, originals: list[Tensor]) -> Tensor:
        return _WeightNorm.forward(self, *originals)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        norms = torch.norm_except_dim(_at_least_float32(weight), 2, self.dim)
        if not weight.is_meta and not norms.all():
            raise ValueError(
                "weight_norm: all weights of a unit are 0, without direction: initialise them, or use another kind"
            )
        return norms.to(weight.dtype), weight


class L2Normalization(WeightFunction):
    """W / ||W|| for each output unit: all rows of M have norm 1."""

    kind = "l2"

    def used(self, originals: list[Tensor]) -> Tensor:
        (weight,) = originals
        return weight / unit_norms(weight, self.dim).clamp_min(TINY)


class Standardization(WeightFunction):
    """(W - mean) / sqrt(variance + 1e-5) for each output unit, mean and variance over its row of M.

    Source: Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization".
    """

    kind = "standardized"

    def used(self, originals: list[Tensor]) -> Tensor:
        (weight,) = originals
        others = _all_but(self.dim, weight.dim())
        variance, mean = torch.var_mean(weight, others, correction=0, keepdim=True)
        return (weight - mean) * torch.rsqrt(variance + 1e-5)


class CallableNormalization(WeightFunction):
    """Any callable, W -> a tensor of the same shape.

    Args:
        function: a function, or a module, which may have parameters and buffers; its ``right_inverse`` is used if it
            has one.
        kind: how the user named it.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], kind: str) -> None:
        super().__init__()
        self.function, self.kind = function, kind

    def used(self, originals: list[Tensor]) -> Tensor:
        return self.function(*originals)

    def right_inverse(self, weight: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.function.right_inverse(weight) if hasattr(self.function, "right_inverse") else weight

    def extra_repr(self) -> str:
        return self.kind


def unit_norms(weight: Tensor, dim: int) -> Tensor:
    """The Euclidean norm of each output unit's weights (of a vector as a whole), broadcastable to the weight.

    In float32 for half precision.
    """
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return torch.linalg.vector_norm(weight, dim=_all_but(dim, weight.dim()), keepdim=True, dtype=dtype)


def unit_dim(module: nn.Module) -> int:
    """The dimension of a module's weight along which its output units lie: 0, or 1 in a transposed convolution.

    There, with groups, the channels at the same place in each group count as one unit, as torch's weight norm has it.
    A module that stores its weight as (in, out) says so with the attribute ``weight_output_dim = 1``.
    """
    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    return 1 if isinstance(module, transposed) else getattr(module, "weight_output_dim", 0)


def callable_of(what: str | Callable[[Tensor], Tensor], owner: str, names: Sequence[str]) -> Callable[[Tensor], Tensor]:
    """A callable on weights, passed itself or by its dotted import path; a class is instantiated without arguments.

    Args:
        what: the callable or its path.
        owner: name of the argument, for the message.
        names: the other values that the argument takes, for the message.

    Raises:
        ValueError: if it is neither; the message names the nearest of ``names``.
    """
    found: Any = what
    if isinstance(what, str):
        try:
            found = pkgutil.resolve_name(what) if "." in what else None
        except (ImportError, AttributeError, ValueError):
            found = None
    if not callable(found):
        (near,) = difflib.get_close_matches(str(what), names, 1, 0.0)
        raise ValueError(
            f"{owner} {what!r} is none of {', '.join(names)} and no import path of a callable; the nearest is {near!r}"
        )
    return found() if isinstance(found, type) else found


def _all_but(dim: int, dims: int) -> list[int]:
    return [other for other in range(dims) if other != dim or dims == 1]


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
