"""Dilated convolutions along a sequence: the gated block of DGCNN, and what it shares with other convolutions."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def neighbors(x: Tensor, dilation: int = 1) -> Tensor:
    """Each position beside its two neighbours: (B, L, D) -> (B, L, 3 D), x[i - dilation], x[i], x[i + dilation].

    Zeros stand outside the sequence. A linear map of this is a convolution of kernel 3 with "same" padding; one matrix
    product in this layout needs no transposition and is as fast as a convolution on CPU and GPU.
    """
    padded = F.pad(x, (0, 0, dilation, dilation))
    length = x.shape[1]
    return torch.cat([padded[:, :length], x, padded[:, 2 * dilation :]], dim=-1)


class SequenceConvolution(nn.Linear):
    """A convolution of kernel 3 with "same" padding along the second dimension: (B, L, in) -> (B, L, out).

    Positions behind a sequence's end must be zero in the input, as those before its beginning are taken to be. The
    weight is that of a linear map of ``neighbors``, (out, 3 in), drawn as Glorot's uniform for a convolution.

    Args:
        in_features: D of the input.
        out_features: D of the output.
        dilation: distance of the neighbours.
        bias: whether there is one.
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
    """A residual convolution whose gate decides how much of the input stays.

        g, h = split(Conv_3(x));    g = sigmoid(Dropout(g));    y = (g * x + (1 - g) * h) * mask

    Source: kexue.fm/archives/6671 (there written with the gate's sign turned round); the dropout on the gate is the
    code's.

    Args:
        size: D of input and output.
        dilation: distance of the neighbours that the convolution sees.
        dropout: of the gate, before the sigmoid.
    """

    def __init__(self, size: int, dilation: int = 1, dropout: float = 0.1) -> None:
        super().__init__()
        self.convolution = SequenceConvolution(size, 2 * size, dilation)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, L, D) and (B, L, 1), 1 for tokens and 0 for padding, where x is zero -> (B, L, D), zero there too."""
        gate, new = self.convolution(x).chunk(2, dim=-1)
        return torch.lerp(new, x.to(new.dtype), self.dropout(gate).sigmoid()) * mask.to(new.dtype)
