"""Penalties on the output of a recurrent network: its size and its changes."""

from torch import Tensor, nn

from ..losses import AddsLosses


class ActivationRegularization(AddsLosses, nn.Module):
    """Keeps the output of a recurrent network small and slow:

        activation_penalty = mean(h_dropped^2)        temporal_penalty = mean((h_t - h_(t-1))^2)

    Both are losses that the layer adds by itself, weighted by alpha and beta, float32; the second from two steps on.
    A penalty whose weight is 0 is not computed.

    Source: Merity et al., arXiv 1708.01009 (AR and TAR).

    Args:
        activation: alpha.
        temporal: beta.
    """

    def __init__(self, activation: float = 2.0, temporal: float = 1.0) -> None:
        super().__init__()
        self.activation, self.temporal = activation, temporal

    def forward(self, output: Tensor, dropped: Tensor) -> None:
        """Adds the penalties of an output (T, B, D) and of the same after dropout (T, B, D)."""
        if self.activation:
            self.add_loss("activation_penalty", dropped.float().square().mean(), self.activation)
        if self.temporal and len(output) > 1:
            self.add_loss("temporal_penalty", (output[1:] - output[:-1]).float().square().mean(), self.temporal)

    def extra_repr(self) -> str:
        return f"activation={self.activation}, temporal={self.temporal}"
