"""Blocks of ON-LSTM steps replayed as CUDA graphs: one launch per block instead of two per step.

A block has a fixed number of steps, so windows of any length share its graph; the remaining steps run one by one.
"""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

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
        self._inputs = [tensor.clone() for tensor in inputs]
        self._outputs = [torch.empty_like(tensor) for tensor in outputs]
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


_seen: OrderedDict[Hashable, Replayed | None] = OrderedDict()
_works = True


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
    elif (replayed := _seen.get(key)) is not None:
        _seen.move_to_end(key)
        replayed(inputs, outputs, new_weight)
    elif key in _seen:
        given = [tensor.clone() for tensor in inputs]
        function(inputs, outputs)
        _seen[key] = _checked(function, given, outputs)
    else:
        _seen[key] = None
        if len(_seen) > KEPT:
            _seen.popitem(last=False)
        function(inputs, outputs)


def _checked(
    function: Callable[[Sequence[Tensor], Sequence[Tensor]], None], inputs: Sequence[Tensor], expected: Sequence[Tensor]
) -> Replayed | None:
    """The graph, if it can be captured and reproduces the expected outputs; else None, and no graph is tried again."""
    global _works
    again = [torch.empty_like(tensor) for tensor in expected]
    try:
        replayed = Replayed(function, inputs, expected)
        replayed(inputs, again)
        same = (
            torch.allclose(a, b, rtol=1e-2, atol=1e-3, equal_nan=True) for a, b in zip(again, expected, strict=True)
        )
        _works = all(same)
    except RuntimeError:
        _works = False
    if _works:
        return replayed
    warnings.warn("CUDA graphs do not work here: ON-LSTM runs without them", stacklevel=2)
    return None
