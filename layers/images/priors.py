"""Priors: they keep the distribution of the codes simple."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Prior(nn.Module, ABC):
    """Base class of the prior slot.

    Attributes:
        stochastic: the prior needs an encoder that outputs a distribution of codes.
        adversarial: the prior trains a discriminator of its own with ``discriminator_loss``.
    """

    stochastic = False
    adversarial = False

    @abstractmethod
    def sample(self, mean: Tensor, logvar: Tensor | None) -> Tensor:
        """The codes (B, d), float32, that the objectives see, from the encoder's outputs."""

    @abstractmethod
    def forward(self, mean: Tensor, logvar: Tensor | None) -> Tensor:
        """The encoder's loss."""


class GaussianPrior(Prior):
    """Analytic KL to N(0, I), as in a VAE: -1/2 mean_{b,k}(1 + logvar - mean^2 - exp(logvar)).

    The mean runs over the dimensions of the code too, as in the article: for the usual sum over dimensions,
    multiply the weight by ``code_size``. Codes are drawn as mean + exp(logvar / 2) * noise.

    Source: kexue.fm/archives/6024.

    Args:
        code_size: length of the code.

    Example:
        model:
          prior: GaussianPrior
          prior_weight: 0.01
    """

    stochastic = True

    def __init__(self, code_size: int) -> None:
        super().__init__()
        self.code_size = code_size

    def sample(self, mean: Tensor, logvar: Tensor | None) -> Tensor:
        assert logvar is not None
        mean, logvar = mean.float(), logvar.float()
        return mean + torch.exp(logvar / 2) * torch.randn_like(mean)

    def forward(self, mean: Tensor, logvar: Tensor | None) -> Tensor:
        assert logvar is not None
        mean, logvar = mean.float(), logvar.float()
        return -0.5 * (1 + logvar - mean.square() - logvar.exp()).mean()


class AdversarialPrior(Prior):
    """The paper's prior: sigmoid(code) should look like a draw from the uniform distribution on [0, 1]^d.

    A discriminator D (MLP, ReLU) minimises E_u[softplus(-D(u))] + E_x[softplus(D(sigmoid(z)))] + penalty * mean of
    the squared gradient norms of D at both; the encoder minimises the non-saturating E_x[softplus(-D(sigmoid(z)))].
    The two losses have opposite signs in D(sigmoid(z)), which makes the game adversarial. Each loss gives gradients
    only to its own player. Computed in float32.

    Source: arXiv 1808.06670; rdevon/DIM.

    Args:
        code_size: length of the code.
        hidden_sizes: widths of the discriminator's hidden layers.
        penalty: weight of the gradient penalty.

    Example:
        model:
          prior: AdversarialPrior
          prior_weight: 1.0
    """

    adversarial = True

    def __init__(self, code_size: int, hidden_sizes: tuple[int, ...] = (1000, 200), penalty: float = 1.0) -> None:
        super().__init__()
        self.penalty = penalty
        layers: list[nn.Module] = []
        for in_features, out_features in zip((code_size, *hidden_sizes), (*hidden_sizes, 1), strict=True):
            layers += [nn.Linear(in_features, out_features), nn.ReLU()]
        self.discriminator = nn.Sequential(*layers[:-1])

    def sample(self, mean: Tensor, logvar: Tensor | None) -> Tensor:
        return mean.float()

    def forward(self, mean: Tensor, logvar: Tensor | None) -> Tensor:
        # The discriminator is constant here, so one backward pass can serve both losses.
        constants = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        with torch.autocast(mean.device.type, enabled=False):
            logits = torch.func.functional_call(self.discriminator, constants, (torch.sigmoid(mean.float()),))
            return F.softplus(-logits).mean()

    def discriminator_loss(self, mean: Tensor) -> Tensor:
        """The discriminator's loss; no gradient reaches the encoder."""
        with torch.autocast(mean.device.type, enabled=False):
            fake = torch.sigmoid(mean.detach().float())
            real = torch.rand_like(fake)
            inputs = torch.cat([real, fake]).requires_grad_(self.penalty > 0 and torch.is_grad_enabled())
            real_logits, fake_logits = self.discriminator(inputs).chunk(2)
            loss = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
            if inputs.requires_grad:
                logits = real_logits.sum() + fake_logits.sum()
                (gradient,) = torch.autograd.grad(logits, inputs, create_graph=True)
                # As many real as fake: one mean over both is the mean of the two penalties.
                loss = loss + self.penalty * gradient.square().sum(1).mean()
            return loss
