"""The tied output layer: one weight, one name, both gradients."""

import copy
import pickle

import pytest
import torch
from torch import nn

from layers import TiedLinear
from lightning_modules import ONLSTMLanguageModel, SparseTransformer


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


class HeadFirst(nn.Module):
    """Registers the head before the embedding: a deep copy reaches the head first."""

    def __init__(self) -> None:
        super().__init__()
        embedding = nn.Embedding(7, 4)
        self.output = nn.Sequential(nn.Linear(4, 4), TiedLinear(embedding))
        self.embedding = embedding


def test_a_copy_of_a_model_is_tied_to_its_own_embedding_in_any_order():
    model = HeadFirst()
    copied = copy.deepcopy(copy.deepcopy(model))
    assert copied.output[1].embedding is copied.embedding
    assert copied.embedding is not model.embedding
    assert pickle.loads(pickle.dumps(copied)).output[1].embedding.weight.shape == (7, 4)


def test_a_copy_of_the_head_alone_is_a_second_head_on_the_same_embedding():
    model = HeadFirst()
    head = model.output[1]
    nn.init.ones_(head.bias)
    for copied in (copy.deepcopy(head), copy.deepcopy(model.output)[1]):
        assert copied.embedding is model.embedding
        assert copied.bias is not head.bias
        assert torch.equal(copied.bias, head.bias)
        assert set(copied.state_dict()) == {"bias"}
    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert again.output[1].embedding is again.embedding


def test_a_new_number_of_rows():
    model = TinyModel()
    nn.init.ones_(model.output.bias)
    model.embedding = nn.Embedding(9, 4)
    model.output.tie(model.embedding)
    assert model.output.bias.tolist() == [1.0] * 7 + [0.0] * 2
    assert model(torch.tensor([8])).shape == (1, 9)
    model.embedding.weight = nn.Parameter(model.embedding.weight[:5].detach())
    model.output.tie(model.embedding)
    assert model.output.bias.tolist() == [1.0] * 5
    assert model(torch.tensor([[4]])).shape == (1, 1, 5)
    assert set(dict(model.named_parameters())) == {"embedding.weight", "output.bias"}


def test_the_language_models_use_it():
    on_lstm = ONLSTMLanguageModel(embedding_size=10, hidden_size=10, num_layers=1)
    transformer = SparseTransformer(vocab_size=7, embed_dim=8, num_layers=1, num_heads=2, tie_embedding=True).network
    for model in (on_lstm, transformer):
        copied = copy.deepcopy(model)
        assert copied.output.embedding is copied.embedding
        weights = [p for p in copied.parameters() if p.shape == copied.embedding.weight.shape]
        assert len(weights) == 1
        assert [name for name in copied.state_dict() if name.startswith(("embedding", "output"))] == [
            "embedding.weight",
            "output.bias",
        ]
