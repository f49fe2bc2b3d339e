"""Recurrent layers with a common interface, the cells of language models: ONLSTM and LSTM."""

import math
import warnings
from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from .recurrence import recurrence
from .steps import Gates

State = tuple[Tensor, Tensor]


class RecurrentLayer(nn.Module, ABC):
    """Base class of the cell slot, ``Callable[[int, int], RecurrentLayer]``: (input_size, hidden_size) -> layer.

    Parameters are named as in ``nn.LSTM`` (``weight_ih_l0``, ``weight_hh_l0``, ``bias_ih_l0``, ``bias_hh_l0``, then
    ``…_l1`` ...) and all initialised from U(-1/sqrt(hidden_size), 1/sqrt(hidden_size)).

    DropConnect: in training each entry of ``weight_hh`` is zeroed with probability p, one mask per call and no
    factor 1 / (1 - p); in evaluation the weight is multiplied by 1 - p, its mean in training.

    Args:
        input_size: size of an input vector.
        hidden_size: size of h and c.
        rows: rows of each weight matrix, the total size of all gates.
        num_layers: number of stacked layers, each reading the one below.
        dropconnect: p.
        batch_first: input and output are (B, T, ...) instead of (T, B, ...); state and distances are unaffected.

    Raises:
        ValueError: if a size is not positive or ``dropconnect`` is not in [0, 1].
    """

    weight_hh_l0: nn.Parameter

    def __init__(
        self, input_size: int, hidden_size: int, rows: int, num_layers: int, dropconnect: float, batch_first: bool
    ) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            if size <= 0:
                raise ValueError(f"{name} ({size}) must be positive")
        if isinstance(dropconnect, bool) or not 0 <= dropconnect <= 1:  # a bool is nn.LSTM's bias, by position
            raise ValueError(f"dropconnect ({dropconnect}) must be a number in [0, 1]")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.dropconnect, self.batch_first = dropconnect, batch_first
        for layer in range(num_layers):
            columns = hidden_size if layer else input_size
            self.register_parameter(f"weight_ih_l{layer}", nn.Parameter(torch.empty(rows, columns)))
            self.register_parameter(f"weight_hh_l{layer}", nn.Parameter(torch.empty(rows, hidden_size)))
            self.register_parameter(f"bias_ih_l{layer}", nn.Parameter(torch.empty(rows)))
            self.register_parameter(f"bias_hh_l{layer}", nn.Parameter(torch.empty(rows)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Re-initialises all weights."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, input: Tensor, state: State | None = None) -> tuple[Tensor, State, tuple[Tensor, Tensor] | None]:
        """Reads a sequence.

        Args:
            input: (T, B, input_size), or (B, T, input_size) with ``batch_first``.
            state: h and c before the sequence, each (num_layers, B, hidden_size); None: zeros.

        Returns:
            output (T, B, hidden_size), or (B, T, hidden_size) with ``batch_first``: h of the last layer;
            (h, c) after the sequence, each (num_layers, B, hidden_size);
            the pair of distances, each (num_layers, T, B), or None for a cell without levels.

        Raises:
            ValueError: on wrong shapes.
            TypeError: for a ``PackedSequence``, or a state that is no pair.
        """
        if isinstance(input, PackedSequence):
            raise TypeError(
                "input is a PackedSequence: give it padded (torch.nn.utils.rnn.pad_packed_sequence); what comes before "
                "the padding does not depend on it"
            )
        if state is not None and not (isinstance(state, tuple | list) and len(state) == 2):
            raise TypeError("state must be the pair (h, c), or None")
        if input.dim() != 3 or input.shape[-1] != self.input_size or input.numel() == 0:
            order = "(B, T, " if self.batch_first else "(T, B, "
            raise ValueError(f"input {tuple(input.shape)} must be a non-empty {order}{self.input_size})")
        batch = input.shape[0 if self.batch_first else 1]
        shape = (self.num_layers, batch, self.hidden_size)
        if state is None:
            zeros = torch.zeros(shape, dtype=self.weight_hh_l0.dtype, device=input.device)
            state = (zeros, zeros)
        for name, tensor in zip("hc", state, strict=True):
            if tensor.shape != shape:
                raise ValueError(f"state {name} {tuple(tensor.shape)} must be (num_layers, B, hidden_size) = {shape}")
        return self._run(input, state)

    @abstractmethod
    def _run(self, input: Tensor, state: State) -> tuple[Tensor, State, tuple[Tensor, Tensor] | None]:
        """``forward`` for checked shapes and a given state."""

    def weights(self, layer: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The weights of a layer: weight_ih, weight_hh after DropConnect (a new mask in training), bias_ih, bias_hh."""
        weight_ih, weight_hh, bias_ih, bias_hh = (
            getattr(self, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        if self.dropconnect:
            keep = 1 - self.dropconnect
            weight_hh = weight_hh * (torch.empty_like(weight_hh).bernoulli_(keep) if self.training else keep)
        return weight_ih, weight_hh, bias_ih, bias_hh

    def extra_repr(self) -> str:
        shown = ("num_layers", 1), ("dropconnect", 0.0), ("batch_first", False)
        changed = [f"{name}={getattr(self, name)}" for name, usual in shown if getattr(self, name) != usual]
        return ", ".join([str(self.input_size), str(self.hidden_size), *changed])


class ONLSTM(RecurrentLayer):
    """Ordered-neurons LSTM: two master gates, monotone along the M = hidden_size / chunk_size levels of the state.

        f, i, o = sigmoid(W x + U h + b)      g = tanh(W x + U h + b)          the gates of an LSTM
        F = cumsum(softmax(W x + U h + b))                                     master forget gate, rises to 1
        I = 1 - cumsum(softmax(W x + U h + b))                                 master input gate, falls to 0
        w = F I      c' = (f w + F - w) c + (i w + I - w) g      h' = o tanh(c')

    Each value of F and I acts on ``chunk_size`` neighbouring neurons. ``output, (h, c), (distance_forget,
    distance_input) = ONLSTM(...)(input, state)``: the distances (num_layers, T, B) are 1 - mean(F) and mean(I), in
    [0, 1]; where distance_forget is high, much is forgotten: a constituent ends before that word.

    Rows of the weights: master input gate (M), master forget gate (M), then output, cell, input and forget gate
    (hidden_size each). DropConnect and initialisation: ``RecurrentLayer``.

    Under autocast the matrix products use the lower precision, all else (cumax, the state) stays in float32. Where a
    gradient is differentiated in its turn (``create_graph=True``) it comes from a slower loop of torch's operators.
    There are no ``torch.func`` transforms, ``torch.export`` or ``fullgraph`` compilation, and of ``nn.LSTM``'s
    arguments no ``bias``, ``dropout``, ``bidirectional`` or ``proj_size``; sequences are padded, not packed.

    Source: Shen et al., arXiv 1810.09536; ``reverse_cumsum``: kexue.fm/archives/6621.

    Args:
        input_size: size of an input vector.
        hidden_size: size of h and c, a multiple of ``chunk_size``.
        num_layers: number of stacked layers, each reading the one below.
        chunk_size: neurons that share a level.
        dropconnect: probability that an entry of ``weight_hh`` is zeroed for a call in training.
        input_gate: master input gate: ``paper`` is I above (0 at the last level, which is never written);
            ``reverse_cumsum`` sums the softmax from the right (1 at the first level).
        batch_first: input and output are (B, T, ...) instead of (T, B, ...).

    Raises:
        ValueError: if ``chunk_size`` does not divide ``hidden_size``, or an argument is out of its range.

    Example:
        import torch

        from layers import ONLSTM

        layer = ONLSTM(input_size=30, hidden_size=60, chunk_size=10)
        output, (h, c), (distance_forget, _) = layer(torch.randn(20, 4, 30))  # (T, B, input_size)
        assert output.shape == (20, 4, 60) and distance_forget.shape == (1, 20, 4)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        chunk_size: int = 10,
        dropconnect: float = 0.0,
        input_gate: Literal["paper", "reverse_cumsum"] = "paper",
        batch_first: bool = False,
    ) -> None:
        if isinstance(chunk_size, bool):  # nn.LSTM's fourth argument, by position
            raise ValueError(f"chunk_size ({chunk_size}) must be a number: nn.LSTM's bias is no argument here")
        if chunk_size <= 0 or hidden_size % chunk_size:
            raise ValueError(f"hidden_size ({hidden_size}) must be a multiple of chunk_size ({chunk_size})")
        if input_gate not in ("paper", "reverse_cumsum"):
            raise ValueError(f"input_gate ({input_gate}) must be 'paper' or 'reverse_cumsum'")
        rows = 4 * hidden_size + 2 * (hidden_size // chunk_size)
        super().__init__(input_size, hidden_size, rows, num_layers, dropconnect, batch_first)
        self.chunk_size, self.input_gate = chunk_size, input_gate

    def _run(self, input: Tensor, state: State) -> tuple[Tensor, State, tuple[Tensor, Tensor]]:
        output = input.transpose(0, 1) if self.batch_first else input
        gates = Gates(self.hidden_size // self.chunk_size, self.chunk_size, self.input_gate == "reverse_cumsum")
        last_h, last_c, forget, written = [], [], [], []
        for layer in range(self.num_layers):
            output, c, distances = recurrence(output, state[0][layer], state[1][layer], self.weights(layer), gates)
            last_h.append(output[-1].to(self.weight_hh_l0.dtype))
            last_c.append(c.to(self.weight_hh_l0.dtype))
            forget.append(distances[0])
            written.append(distances[1])
        output = output.transpose(0, 1) if self.batch_first else output
        return output, (torch.stack(last_h), torch.stack(last_c)), (torch.stack(forget), torch.stack(written))

    def extra_repr(self) -> str:
        gate = "" if self.input_gate == "paper" else f", input_gate={self.input_gate!r}"
        return f"{super().extra_repr()}, chunk_size={self.chunk_size}{gate}"


class LSTM(RecurrentLayer):
    """torch's LSTM (its fused kernels, cuDNN on a GPU) with the interface of ``RecurrentLayer``; distances are None.

    Under autocast it stays in float32 on a CPU.

    Rows of the weights as in ``nn.LSTM``: input, forget, cell, output gate (hidden_size each).

    Args:
        input_size: size of an input vector.
        hidden_size: size of h and c.
        num_layers: number of stacked layers, each reading the one below.
        dropconnect: probability that an entry of ``weight_hh`` is zeroed for a call in training.
        batch_first: input and output are (B, T, ...) instead of (T, B, ...).

    Example:
        model:
          class_path: ONLSTMLanguageModel
          init_args:
            cell:
              class_path: LSTM
              init_args: {dropconnect: 0.5}
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        dropconnect: float = 0.0,
        batch_first: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size, 4 * hidden_size, num_layers, dropconnect, batch_first)

    def _run(self, input: Tensor, state: State) -> tuple[Tensor, State, None]:
        weights = [weight for layer in range(self.num_layers) for weight in self.weights(layer)]
        # torch's LSTM has no autocast on a CPU: oneDNN refuses mixed precisions.
        on_cpu = input.device.type == "cpu"
        input = input.to(self.weight_hh_l0.dtype) if on_cpu else input
        with warnings.catch_warnings(), torch.autocast("cpu", enabled=False) if on_cpu else nullcontext():
            # Weights after DropConnect are new tensors, so cuDNN gathers them in every call and warns about it.
            warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")
            output, h, c = torch.lstm(
                input, state, weights, True, self.num_layers, 0.0, self.training, False, self.batch_first
            )
        return output, (h, c), None
