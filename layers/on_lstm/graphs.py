"""Blocks of ON-LSTM steps replayed as CUDA graphs: one launch per block instead of two per step.

A block has a fixed number of steps, so windows of any length share its graph; the remaining steps run one by one.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from .steps import warn_once

STEPS = 10
# Number of shapes whose graphs are kept, each with its own buffers: the layers of a model in training and evaluation.
KEPT = 24


class Replayed:
    """``function(inputs, outputs)``, which launches the same kernels for tensors of these shapes, as a CUDA graph."""

    def __init__(
        self,
        function: Callable[[Sequence[Tensor], Sequence[Tensor]], None],
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
    ) -> None:
        # Buffers made under inference mode (Lightning's validation) could not be written in training.
        with torch.inference_mode(False):
            self._inputs = [torch.empty_like(tensor) for tensor in inputs]
            self._outputs = [torch.empty_like(tensor) for tensor in outputs]
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._replay = capture(lambda: function(self._inputs, self._outputs))

    def __call__(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], new_weight: bool = True) -> None:
        for own, given in list(zip(self._inputs, inputs, strict=True))[0 if new_weight else 1 :]:
            own.copy_(given)
        self._replay()
        for own, given in zip(self._outputs, outputs, strict=True):
            given.copy_(own)


def capture(function: Callable[[], None]) -> Callable[[], None]:
    """Captures the kernels that a function launches; calling the result launches them all at once."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):  # libraries set themselves up in the first runs, which can't be captured
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        function()
    return graph.replay


# By key the graph, or the number of calls until one is captured.
_seen: OrderedDict[Hashable, Replayed | int] = OrderedDict()
_works = True
CALLS_AFTER_NO_MEMORY = 1000
# Of the norm of a tensor, by which a replay may differ from the steps one by one; more is an error, not rounding.
TOLERANCE = 1e-2


def run(
    key: Hashable,
    function: Callable[[Sequence[Tensor], Sequence[Tensor]], None],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    new_weight: bool,
) -> None:
    """``function(inputs, outputs)``, from the third call with the same key on as a graph. Outputs may overwrite inputs.

    ``new_weight`` is False if the first input, a large one, is that of the previous call.
    """
    if not _works or torch.cuda.is_current_stream_capturing():
        function(inputs, outputs)
        return
    if key not in _seen:
        _seen[key] = 2
        if len(_seen) > KEPT:
            _seen.popitem(last=False)
    _seen.move_to_end(key)
    found = _seen[key]
    if isinstance(found, Replayed):
        found(inputs, outputs, new_weight)
    elif found > 1:
        _seen[key] = found - 1
        function(inputs, outputs)
    else:
        given = [tensor.clone() for tensor in inputs]
        function(inputs, outputs)
        _seen[key] = _checked(function, given, outputs)


def _checked(
    function: Callable[[Sequence[Tensor], Sequence[Tensor]], None], inputs: Sequence[Tensor], expected: Sequence[Tensor]
) -> Replayed | int:
    """The graph, if it can be captured and reproduces the expected outputs; else the calls until the next try.

    Where memory was short a graph is tried again later; after any other failure none is.
    """
    global _works
    again = [torch.empty_like(tensor) for tensor in expected]
    try:
        replayed = Replayed(function, inputs, expected)
        replayed(inputs, again)
    except torch.OutOfMemoryError as error:
        cause = _short(error).partition(". ")[0]  # the numbers behind it differ each time, and would be said each time
        warn_once(f"there is no memory for a CUDA graph now, ON-LSTM's steps run one by one for a while: {cause}")
        return CALLS_AFTER_NO_MEMORY
    except RuntimeError as error:
        _works = False
        warn_once(f"CUDA graphs do not work here, ON-LSTM runs without them: {_short(error)}")
        return CALLS_AFTER_NO_MEMORY
    errors = [_relative_error(a, b) for a, b in zip(again, expected, strict=True)]
    if max(errors) <= TOLERANCE:
        return replayed
    _works = False
    warn_once(
        "CUDA graphs do not work here, ON-LSTM runs without them: a replay differs from the steps one by one by "
        f"{max(errors):.2g} of the norm of a tensor"
    )
    return CALLS_AFTER_NO_MEMORY


def _relative_error(found: Tensor, expected: Tensor) -> float:
    """|found - expected| / |expected|; NaN equals NaN, as in a training that diverges."""
    found, expected = found.double(), expected.double()
    difference = torch.where(found.isnan() & expected.isnan() | (found == expected), 0.0, found - expected)
    error = float(difference.norm() / expected.nan_to_num(posinf=0.0, neginf=0.0).norm().clamp(min=1e-300))
    return error if error == error else float("inf")


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
