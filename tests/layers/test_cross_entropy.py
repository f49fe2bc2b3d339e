import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layers import TiedLinear, cross_entropy, linear_cross_entropy


@pytest.mark.parametrize("entries", [1, 50, 10**6])
def test_equals_the_plain_form_in_value_and_gradient(monkeypatch, entries):
    monkeypatch.setattr(cross_entropy, "CHUNK_ENTRIES", entries)
    torch.manual_seed(0)
    embedding = nn.Embedding(11, 5, dtype=torch.float64)
    output = TiedLinear(embedding).double()
    x = torch.randn(23, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 11, (23,))
    targets[[0, 7, 22]] = -100
    inputs = (x, embedding.weight, output.bias)
    ours = linear_cross_entropy(output, x, targets)
    plain = F.cross_entropy(output(x), targets)
    torch.testing.assert_close(ours.double(), plain, rtol=1e-6, atol=0)
    for mine, theirs in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(plain, inputs), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-8)
