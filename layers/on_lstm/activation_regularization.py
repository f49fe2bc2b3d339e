"""Penalties on the output of a recurrent network: its size and its changes."""

from torch import Tensor, nn

from ..losses import AddsLosses


class ActivationRegularization(AddsLosses, nn.Module):
    """Keeps the output of a recurrent network small and slowly varying:

        activation_penalty = mean(h_dropped^2)        temporal_penalty = mean((h_t - h_(t-1))^2)

    The layer adds both as losses, weighted by alpha and beta, in float32; the second needs at least two steps. A
    penalty of weight 0 is not computed.

    Source: Merity et al., arXiv 1708.01009 (AR and TAR).

    Args:
        activation: alpha.
        temporal: beta.
    """

    def __init__(self, activation: float = 2.0, temporal: float = 1.0) -> None:
        super().__init__()
        self.activation, self.temporal = activation, temporal

    def forward(self, output: Tensor, dropped: Tensor) -> None:
        """Adds the penalties for an output (T, B, D) and the same output after dropout (T, B, D)."""
        if self.activation:
            self.add_loss("activation_penalty", dropped.float().square().mean(), self.activation)
        if self.temporal and len(output) > 1:
            self.add_loss("temporal_penalty", (output[1:] - output[:-1]).float().square().mean(), self.temporal)

    def extra_repr(self) -> str:
        return f"activation={self.activation}, temporal={self.temporal}"
