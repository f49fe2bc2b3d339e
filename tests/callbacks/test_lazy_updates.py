from functools import partial

import pytest
import torch
from torch import nn

from callbacks import LazyUpdates, WeightDecay
from callbacks.lazy_updates import rows_with_gradient
from callbacks.update_chain.chain import UpdateChain
from tests.callbacks.chain_tools import (
    GOLDEN,
    GivenGradients,
    MemoryLogger,
    assert_same,
    golden_trajectory,
    random_gradients,
    run,
)

ADAM = partial(torch.optim.Adam, lr=0.02)


def test_with_frozen_state_it_is_sparse_adam():
    recorded = run(GivenGradients(GOLDEN["grads"], ADAM), LazyUpdates(["embedding"], freeze_state=True))
    for actual, expected in zip(recorded.trajectory, golden_trajectory("SparseAdam"), strict=True):
        # torch's SparseAdam adds eps before it corrects the second moment: at most a relative 1e-6 of the update.
        assert_same({"embedding.weight": actual["embedding.weight"]}, expected, atol=1e-7)


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_plain_loops(rate):
    """The author's rule with Adam: absent rows stay and are not decayed, their moments decay."""
    gradients = random_gradients(15)
    module = GivenGradients(gradients, ADAM)
    start = module.embedding.weight.detach().tolist()
    recorded = run(module, LazyUpdates(["type:Embedding"]), WeightDecay(rate))
    m = [[0.0] * 2 for _ in range(6)]
    v = [[0.0] * 2 for _ in range(6)]
    weights = [list(row) for row in start]
    for t, given in enumerate(gradients, start=1):
        rows = given["embedding.weight"].tolist()
        for i in range(6):
            touched = any(g != 0 for g in rows[i])
            for j in range(2):
                m[i][j] = 0.9 * m[i][j] + 0.1 * rows[i][j]
                v[i][j] = 0.999 * v[i][j] + 0.001 * rows[i][j] ** 2
                h = (m[i][j] / (1 - 0.9**t)) / ((v[i][j] / (1 - 0.999**t)) ** 0.5 + 1e-8)
                if touched:
                    weights[i][j] += -0.02 * h - 0.02 * rate * weights[i][j]
        assert recorded.trajectory[t - 1]["embedding.weight"].tolist() == [
            pytest.approx(row, abs=1e-13) for row in weights
        ]


@pytest.mark.parametrize("freeze_state", [False, True])
def test_rows_that_are_never_drawn_stay_bit_identical(freeze_state):
    gradients = random_gradients(10)
    for given in gradients:
        given["embedding.weight"][[1, 4]] = 0
    module = GivenGradients(gradients, partial(torch.optim.AdamW, lr=0.1, weight_decay=0.5))
    start = module.embedding.weight.detach().clone()
    run(module, LazyUpdates(["embedding"], freeze_state))
    assert torch.equal(module.embedding.weight[[1, 4]], start[[1, 4]])
    assert not torch.equal(module.embedding.weight[[0, 2, 3, 5]], start[[0, 2, 3, 5]])


@pytest.mark.parametrize("make", [partial(torch.optim.SGD, momentum=0.9), torch.optim.RMSprop, torch.optim.Adagrad])
def test_frozen_state_of_other_optimizers(make):
    """With one row at a time, freezing equals a separate optimizer for each row."""
    torch.manual_seed(0)
    table = nn.Embedding(3, 2, dtype=torch.float64)
    rows = [table.weight[i : i + 1].detach().clone().requires_grad_() for i in range(3)]
    rule = LazyUpdates(["weight"], freeze_state=True)
    rule.choose(table)
    chain = UpdateChain(make(table.parameters(), lr=0.1), [rule], table)
    chain.optimizer.register_step_post_hook(chain.after_step)
    alone = [make([row], lr=0.1) for row in rows]
    for _ in range(4):
        for i in range(3):
            gradient = torch.randn(1, 2, dtype=torch.float64)
            table.weight.grad = torch.zeros_like(table.weight)
            table.weight.grad[i], rows[i].grad = gradient[0], gradient
            chain.before_step()
            chain.optimizer.step()
            alone[i].step()
    torch.testing.assert_close(table.weight.detach(), torch.cat(rows).detach(), rtol=0, atol=1e-14)


def test_rows_with_gradient():
    dense = torch.tensor([[0.0, 0.0], [0.0, 1e-30], [-0.0, 0.0]])
    assert rows_with_gradient(dense).tolist() == [[False], [True], [False]]
    sparse = torch.sparse_coo_tensor([[2, 0, 2]], [[1.0, 1.0], [0.0, 0.0], [-1.0, 2.0]], (4, 2))
    assert rows_with_gradient(sparse).tolist() == [[False], [False], [True], [False]]
    cancelled = torch.sparse_coo_tensor([[1, 1]], [[1.0], [-1.0]], (3, 1))
    assert rows_with_gradient(cancelled).tolist() == [[False], [False], [False]]
    assert rows_with_gradient(dense.reshape(3, 1, 2)).shape == (3, 1, 1)
    assert rows_with_gradient(torch.tensor(0.0)).item() is False


def test_sparse_gradients_of_an_embedding():
    class Sparse(GivenGradients):
        def __init__(self, *args):
            super().__init__(*args)
            self.embedding = nn.Embedding(6, 2, sparse=True, dtype=torch.float64)

        def training_step(self, batch, batch_idx):
            return self.embedding(torch.tensor([batch_idx, batch_idx, 3])).sum()

    module = Sparse([{}] * 3, partial(torch.optim.SGD, lr=0.5))
    start = module.embedding.weight.detach().clone()
    logger = MemoryLogger()
    rules = [LazyUpdates(["embedding"], log=True), WeightDecay(0.2)]
    run(module, *rules, logger=logger, log_every_n_steps=1)
    for row, steps in {0: [2], 1: [2], 2: [2], 3: [1, 1, 1], 4: [], 5: []}.items():
        theta = start[row]
        for times in steps:
            theta = theta - 0.5 * times - 0.5 * 0.2 * theta
        torch.testing.assert_close(module.embedding.weight[row].detach(), theta)
    assert logger.values("train/lazy_rows_share")[:3] == pytest.approx([4 / 6] * 3)


def test_nothing_included_is_bit_identical():
    gradients = random_gradients(6, absent=0.3)
    with_rule = run(GivenGradients(gradients, ADAM), LazyUpdates([])).trajectory
    for actual, expected in zip(with_rule, run(GivenGradients(gradients, ADAM)).trajectory, strict=True):
        assert_same(actual, expected)


def test_include_is_required():
    with pytest.raises(TypeError, match="include"):
        LazyUpdates()
    with pytest.raises(ValueError, match=r"LazyUpdates: include \(None\) must name the embeddings"):
        LazyUpdates(None)
    with pytest.raises(ValueError, match=r"include \('embedding'\) must be a list of strings"):
        LazyUpdates("embedding")
