import pytest
import torch
from torch.nn import functional as F

from layers import AdversarialPrior, GaussianPrior


def test_kl_equals_that_of_torch_distributions():
    mean, logvar = torch.randn(5, 4), torch.randn(5, 4)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (logvar / 2).exp()), torch.distributions.Normal(0.0, 1.0)
    ).mean()
    torch.testing.assert_close(GaussianPrior(4)(mean, logvar), expected)


def test_gaussian_samples_have_the_given_moments():
    mean, logvar = torch.tensor([[1.0, -2.0]]).expand(20000, 2), torch.tensor([[0.0, 2.0]]).expand(20000, 2)
    samples = GaussianPrior(2).sample(mean.bfloat16(), logvar.bfloat16())
    assert samples.dtype == torch.float32
    torch.testing.assert_close(samples.mean(0), torch.tensor([1.0, -2.0]), atol=0.1, rtol=0)
    torch.testing.assert_close(samples.var(0).log(), torch.tensor([0.0, 2.0]), atol=0.1, rtol=0)


def test_adversarial_prior_plays_against_the_encoder():
    """Encoder and discriminator pull D(sigmoid(code)) in opposite directions."""
    prior = AdversarialPrior(3, hidden_sizes=(8,), penalty=0.0)
    code = torch.randn(6, 3, requires_grad=True)
    logits = prior.discriminator(torch.sigmoid(code))
    torch.testing.assert_close(prior(code, None), -F.logsigmoid(logits).mean())
    (for_encoder,) = torch.autograd.grad(prior(code, None), code)
    (for_discriminator,) = torch.autograd.grad(F.softplus(logits).mean(), code)
    assert torch.all(for_encoder * for_discriminator <= 0)
    assert for_encoder.abs().max() > 0


def test_encoders_loss_gives_no_gradient_to_the_discriminator():
    prior = AdversarialPrior(3, hidden_sizes=(8,))
    prior(torch.randn(6, 3, requires_grad=True), None).backward()
    assert all(parameter.grad is None for parameter in prior.parameters())


def test_discriminator_loss_does_not_reach_the_encoder():
    prior = AdversarialPrior(3, hidden_sizes=(8,))
    code = torch.randn(6, 3, requires_grad=True)
    prior.discriminator_loss(code).backward()
    assert code.grad is None
    assert all(parameter.grad is not None for parameter in prior.discriminator[0].parameters())


def test_discriminator_loss_by_hand():
    prior = AdversarialPrior(2, hidden_sizes=(5,), penalty=0.7)
    code = torch.randn(4, 2)
    torch.manual_seed(3)
    loss = prior.discriminator_loss(code)
    torch.manual_seed(3)
    real = torch.rand(4, 2).requires_grad_()
    fake = torch.sigmoid(code).requires_grad_()
    expected, penalties = 0.0, []
    for inputs, sign in ((real, -1), (fake, 1)):
        expected = expected + F.softplus(sign * prior.discriminator(inputs)).mean()
        norms = []
        for b in range(4):
            (gradient,) = torch.autograd.grad(prior.discriminator(inputs[b : b + 1]).sum(), inputs, retain_graph=True)
            norms.append(gradient[b].square().sum())
        penalties.append(torch.stack(norms).mean())
    torch.testing.assert_close(loss, expected + 0.7 * (penalties[0] + penalties[1]) / 2)


def test_discriminator_learns_to_tell_codes_from_the_uniform_distribution():
    prior = AdversarialPrior(2, hidden_sizes=(32,), penalty=0.0)
    optimizer = torch.optim.Adam(prior.parameters(), 1e-2)
    code = torch.full((256, 2), 4.0)  # sigmoid near 1: far from uniform
    for _ in range(100):
        optimizer.zero_grad()
        loss = prior.discriminator_loss(code)
        loss.backward()
        optimizer.step()
    assert loss < 0.5  # 2 log 2 for a discriminator that can't tell
    assert prior(code, None) > 1.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_priors_compute_in_float32_under_autocast(dtype):
    mean = torch.randn(4, 3).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        assert GaussianPrior(3)(mean, mean).dtype == torch.float32
        prior = AdversarialPrior(3, hidden_sizes=(8,))
        assert prior(mean, None).dtype == torch.float32
        assert prior.discriminator_loss(mean).dtype == torch.float32
