"""The tied output layer: one weight, one name, both gradients."""

import copy

import pytest
import torch
from torch import nn

from layers import TiedLinear


class TinyModel(nn.Module):
    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.output = TiedLinear(self.embedding, bias=bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.output(self.embedding(tokens))


@pytest.mark.parametrize("bias", [True, False])
def test_the_weight_counts_once(bias: bool):
    model = TinyModel(bias)
    assert set(model.state_dict()) == {"embedding.weight"} | ({"output.bias"} if bias else set())
    assert sum(p.numel() for p in model.parameters()) == 7 * 4 + 7 * bias
    if bias:
        assert not model.output.bias.any()


def test_the_gradient_is_the_sum_of_both_paths():
    model = TinyModel().double()
    tokens = torch.tensor([1, 3, 3])
    separate = model.embedding.weight.detach().clone().requires_grad_()
    head = model.embedding.weight.detach().clone().requires_grad_()
    (separate[tokens] @ head.T + model.output.bias).square().sum().backward()
    model.output.bias.grad = None
    model(tokens).square().sum().backward()
    torch.testing.assert_close(model.embedding.weight.grad, separate.grad + head.grad)


def test_stays_tied_after_deepcopy_conversion_and_a_new_weight():
    model = copy.deepcopy(TinyModel()).to(torch.float64)
    assert model.output.embedding is model.embedding
    model.embedding.weight = nn.Parameter(torch.eye(9, 4, dtype=torch.float64))
    model.output.bias = nn.Parameter(torch.zeros(9, dtype=torch.float64))
    assert model(torch.tensor([2])).argmax() == 2
