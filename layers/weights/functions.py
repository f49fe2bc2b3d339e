"""Functions of a weight that a layer computes with, while the weight itself is what is trained: W_used = f(W).

Each is a module for ``torch.nn.utils.parametrize``; ``layers.normalize_weights`` puts them into a model. A weight's
matrix M has one row for each output unit: (units, everything else).
"""

import difflib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import _SpectralNorm, _WeightNorm

TINY = 1e-12


class WeightFunction(nn.Module, ABC):
    """Base: f in float32 for half-precision weights, and outside autocast, whose products have 8 bits.

    Attributes:
        kind: what the user calls it.
        min_dims: weights of fewer dimensions stay as they are.

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
        """The function for a weight with these values."""
        return cls(dim)

    def forward(self, *originals: Tensor) -> Tensor:
        dtype = originals[0].dtype
        with torch.autocast(originals[0].device.type, enabled=False):
            return self.used([_at_least_float32(original) for original in originals]).to(dtype)

    @abstractmethod
    def used(self, originals: list[Tensor]) -> Tensor:
        """f of what is trained: W, or the several tensors that ``right_inverse`` makes of it."""

    def right_inverse(self, weight: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What is trained, where a plain weight is given: by an assignment, or a plain model's checkpoint."""
        return weight

    def follow(self, weight: Tensor) -> None:
        """The plain weight was replaced by this one: bring what f remembers of it up to date."""

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class SpectralNormalization(WeightFunction):
    """W / sigma, sigma the largest singular value of M as a power iteration finds it that starts from ones each time:

        u = ones;  n times:  v = normalise(M u),  u = normalise(M^T v);  sigma = v^T M u

    The gradient flows through all iterations; nothing is kept from one call to the next. After 5 iterations sigma is
    about 0.93 of the true value for a random matrix. For a vector sigma is its norm. Where the iteration finds nothing
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


class PersistentSpectralNormalization(WeightFunction, _SpectralNorm):
    """torch's spectral normalisation: u and v are buffers that each call in training improves by one iteration.

    No gradient flows through the iteration.

    Source: ``torch.nn.utils.parametrizations.spectral_norm``, whose keys in the ``state_dict`` it has.

    Args:
        weight: the weight at first.
        dim: the weight's dimension of output units.
    """

    kind = "spectral_persistent"
    min_dims = 1

    def __init__(self, weight: Tensor, dim: int = 0) -> None:
        _SpectralNorm.__init__(self, _at_least_float32(weight.detach()), dim=dim)

    @classmethod
    def of(cls, weight: Tensor, dim: int) -> WeightFunction:
        return cls(weight, dim)

    def used(self, originals: list[Tensor]) -> Tensor:
        return _SpectralNorm.forward(self, originals[0])

    @torch.no_grad()
    def follow(self, weight: Tensor) -> None:
        if weight.dim() > 1:
            self._power_method(self._reshape_weight_to_matrix(_at_least_float32(weight)), 15)

    def _apply(self, *args, **kwargs):
        super()._apply(*args, **kwargs)
        for name, buffer in self._buffers.items():
            self._buffers[name] = _at_least_float32(buffer)
        return self


class WeightNorm(WeightFunction, _WeightNorm):
    """torch's weight norm: g V / ||V|| for each output unit; the norm g and V are trained.

    It starts at W, which it only writes in another way.

    Raises:
        ValueError: if the weights of a unit are all 0.

    Source: ``torch.nn.utils.parametrizations.weight_norm``, whose keys in the ``state_dict`` it has.
    """

    kind = "weight_norm"

    def used(self, originals: list[Tensor]) -> Tensor:
        return _WeightNorm.forward(self, *originals)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        norms = torch.norm_except_dim(_at_least_float32(weight), 2, self.dim)
        if not weight.is_meta and not norms.all():
            raise ValueError(
                "weight_norm: the weights of a unit are 0, without direction: draw them first, or use another kind"
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
        function: a function, or a module (with parameters or buffers of its own, if it likes); its ``right_inverse``
            is used where it has one.
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
    """The Euclidean norm of each output unit's weights, of a vector the norm of the whole: broadcasts over the weight.

    In float32 for half precision.
    """
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return torch.linalg.vector_norm(weight, dim=_all_but(dim, weight.dim()), keepdim=True, dtype=dtype)


def unit_dim(module: nn.Module) -> int:
    """The dimension of a module's weight along which its output units lie: 0, and 1 in a transposed convolution.

    A module that keeps its weight as (in, out) says so by an attribute ``weight_output_dim = 1``.
    """
    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    return 1 if isinstance(module, transposed) else getattr(module, "weight_output_dim", 0)


def callable_of(what: str | Callable[[Tensor], Tensor], owner: str, names: Sequence[str]) -> Callable[[Tensor], Tensor]:
    """A callable on weights, given itself or by its dotted import path; a class is called without arguments.

    Args:
        what: the callable or its path.
        owner: the argument that it was given for, for the message.
        names: what else could be meant.

    Raises:
        ValueError: if it is neither; the line names the nearest of ``names``.
    """
    found = what
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
