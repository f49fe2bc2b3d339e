"""Dilated convolutions along a sequence: DGCNN's gated block and the convolution that it is built on."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def neighbors(x: Tensor, dilation: int = 1) -> Tensor:
    """Each position with its two neighbours: (B, L, D) -> (B, L, 3 D), x[i - dilation], x[i], x[i + dilation].

    The sequence is padded with zeros. A linear map of this is a convolution of kernel 3 with "same" padding; one matrix
    product in this layout needs no transposition and is as fast as a convolution on CPU and GPU.
    """
    padded = F.pad(x, (0, 0, dilation, dilation))
    length = x.shape[1]
    return torch.cat([padded[:, :length], x, padded[:, 2 * dilation :]], dim=-1)


class SequenceConvolution(nn.Linear):
    """A convolution of kernel 3 with "same" padding along the second dimension: (B, L, in) -> (B, L, out).

    Positions after a sequence's end must be zero in the input, like the padding before its beginning. The weight is
    that of a linear map of ``neighbors``, (out, 3 in), initialised as Glorot uniform for a convolution.

    Args:
        in_features: D of the input.
        out_features: D of the output.
        dilation: distance to the neighbours.
        bias: add a bias.
    """

    def __init__(self, in_features: int, out_features: int, dilation: int = 1, bias: bool = True) -> None:
        self.dilation = dilation
        super().__init__(3 * in_features, out_features, bias)

    def reset_parameters(self) -> None:
        # Glorot's fan-out counts the kernel too, which the shape of the matrix doesn't show.
        bound = (6 / (self.in_features + 3 * self.out_features)) ** 0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(neighbors(x, self.dilation))


class GatedConvolution(nn.Module):
    """A residual convolution with a gate that decides how much of the input is kept.

        g, h = split(Conv_3(x));    g = sigmoid(Dropout(g));    y = (g * x + (1 - g) * h) * mask

    Source: kexue.fm/archives/6671 (there with the gate's sign reversed); the dropout on the gate is from the
    article's code.

    Args:
        size: D of input and output.
        dilation: distance to the neighbours that the convolution sees.
        dropout: dropout rate of the gate, before the sigmoid.
    """

    def __init__(self, size: int, dilation: int = 1, dropout: float = 0.1) -> None:
        super().__init__()
        self.convolution = SequenceConvolution(size, 2 * size, dilation)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, L, D) and (B, L, 1), 1 for tokens and 0 for padding, where x is zero -> (B, L, D), zero there too."""
        gate, new = self.convolution(x).chunk(2, dim=-1)
        return torch.lerp(new, x.to(new.dtype), self.dropout(gate).sigmoid()) * mask.to(new.dtype)
