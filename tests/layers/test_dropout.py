import pytest
import torch
from torch import nn

from layers import LockedDropout, WordDropout


def test_one_mask_for_all_steps_and_the_mean_is_kept():
    x = torch.ones(5, 400, 50)
    y = LockedDropout(0.3)(x)
    assert torch.equal(y, y[:1].expand_as(y))
    torch.testing.assert_close(y.unique(), torch.tensor([0.0, 1 / 0.7]))
    assert float(y.mean()) == pytest.approx(1, abs=0.02)


def test_a_word_is_dropped_wherever_it_stands():
    embedding = nn.Embedding(1000, 3)
    nn.init.ones_(embedding.weight)
    tokens = torch.arange(1000).repeat(2, 1)
    vectors = WordDropout(0.2)(embedding, tokens)
    assert torch.equal(vectors[0], vectors[1])
    assert set(vectors.unique().tolist()) == {0.0, 1.25}
    assert torch.equal(vectors.amin(2), vectors.amax(2)), "whole rows"
    assert float((vectors == 0).float().mean()) == pytest.approx(0.2, abs=0.04)


def test_evaluation_changes_nothing():
    embedding, tokens = nn.Embedding(5, 3), torch.tensor([[1, 2]])
    assert torch.equal(WordDropout(0.5).eval()(embedding, tokens), embedding(tokens))
    x = torch.randn(2, 3, 4)
    assert torch.equal(LockedDropout(0.5).eval()(x), x)
    assert torch.equal(LockedDropout(0.0)(x), x)


@pytest.mark.parametrize("dropout", [LockedDropout, WordDropout])
def test_a_probability_out_of_range_is_refused(dropout):
    with pytest.raises(ValueError, match=r"p \(1\.0\) must be in \[0, 1\)"):
        dropout(1.0)
