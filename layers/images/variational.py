"""A stochastic code and its KL divergence from the prior, as a loss."""

from torch import Tensor, nn

from ..losses import AddsLosses
from .priors import GaussianPrior


class VariationalCode(AddsLosses, nn.Module):
    """Draws codes z = mean + exp(logvar / 2) * noise and adds their KL divergence from N(0, I) as a loss, ``kl``:

        KL(N(mean, exp(logvar)) || N(0, I)) = -1/2 sum_k (1 + logvar_k - mean_k^2 - exp(logvar_k))

    in nats per image, averaged over the batch, in float32.

    Source: Kingma and Welling, arXiv 1312.6114; kexue.fm/archives/5253.

    Args:
        code_size: d, length of the code.
        weight: weight of the loss.
    """

    def __init__(self, code_size: int, weight: float = 1.0) -> None:
        super().__init__()
        self.prior = GaussianPrior(code_size)
        self.code_size, self.weight = code_size, weight

    def forward(self, mean: Tensor, logvar: Tensor) -> Tensor:
        """(B, d) twice -> codes (B, d) float32."""
        # The prior averages over the dimensions.
        self.add_loss("kl", self.code_size * self.prior(mean, logvar), self.weight)
        return self.prior.sample(mean, logvar)

    def extra_repr(self) -> str:
        return f"{self.code_size}, weight={self.weight:g}"
