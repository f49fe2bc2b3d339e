import pytest
import torch

from datamodules import loader as loader_module
from datamodules.windows import ContiguousLoader, RandomWindowLoader
from readers.errors import DataError

TEXT = torch.arange(1003, dtype=torch.int32)


def read(loader, epoch=0):
    loader.set_epoch(epoch)
    return list(loader)


def as_rank(monkeypatch, rank, world_size):
    monkeypatch.setattr(loader_module, "rank_and_world_size", lambda: (rank, world_size))


@pytest.mark.parametrize("variable", [False, True])
def test_rows_continue_from_batch_to_batch(variable):
    batches = read(ContiguousLoader(TEXT, 4, 17, variable=variable))
    rows = torch.cat([batch.inputs for batch in batches], dim=1)
    targets = torch.cat([batch.targets for batch in batches], dim=1)
    assert rows.dtype == targets.dtype == torch.int64
    assert torch.equal(targets, rows + 1)
    # 1003 tokens are four rows of 250; the last token of each is only a target.
    assert torch.equal(rows, torch.arange(4)[:, None] * 250 + torch.arange(249))


def test_fixed_windows_keep_the_last_short_one():
    loader = ContiguousLoader(TEXT, 4, 20)
    lengths = [batch.inputs.shape[1] for batch in read(loader)]
    assert lengths == [20] * 12 + [9]
    assert len(loader) == 13


def test_windows_of_an_epoch_depend_on_seed_and_epoch_alone():
    text = torch.zeros(60_000, dtype=torch.int32)

    def lengths(epoch, seed=0):
        return [batch.inputs.shape[1] for batch in read(ContiguousLoader(text, 2, 40, variable=True, seed=seed), epoch)]

    torch.manual_seed(1)
    first = lengths(0)
    torch.manual_seed(2)
    assert lengths(0) == first
    assert lengths(1) != first
    assert lengths(0, seed=1) != first
    assert len(lengths(1)) == len(first)


def test_lengths_follow_the_recipe():
    """Mean and standard deviation of the mixture 0.95 N(70, 5) + 0.05 N(35, 5), and its share of short windows."""
    loader = ContiguousLoader(torch.zeros(2_000_001), 1, 70, variable=True)
    lengths = torch.tensor([batch.inputs.shape[1] for batch in read(loader)]).double()
    assert len(lengths) == len(loader)
    assert lengths.sum() == 2_000_000
    mean = 0.95 * 70 + 0.05 * 35
    assert abs(lengths.mean() - mean) < 0.01  # the number of windows is the text over the mean length
    assert abs(lengths.std() - (25 + 0.95 * 0.05 * 35**2) ** 0.5) < 0.4
    assert abs((lengths < 52).double().mean() - 0.05) < 0.004
    long = lengths[lengths > 52]
    assert abs(long.mean() - 70) < 0.6
    assert abs(long.std() - 5) < 0.15


@pytest.mark.parametrize("tokens", [4, 5, 9, 23, 61, 200])
@pytest.mark.parametrize("bptt", [1, 4, 12])
def test_any_size_is_read_whole(tokens, bptt):
    for variable in (False, True):
        for epoch in range(5):
            loader = ContiguousLoader(torch.arange(tokens), 2, bptt, variable=variable)
            batches = read(loader, epoch)
            assert len(batches) == len(loader)
            assert all(batch.inputs.shape[1] > 0 for batch in batches)
            assert sum(batch.inputs.shape[1] for batch in batches) == tokens // 2 - 1


@pytest.mark.parametrize("done", [0, 1, 7])
@pytest.mark.parametrize("kind", ["contiguous", "random"])
def test_state_continues_the_epoch(kind, done):
    def make():
        if kind == "random":
            return RandomWindowLoader(TEXT, 4, 20, training=True)
        return ContiguousLoader(TEXT, 4, 17, variable=True)

    whole = read(make(), 2)
    first = make()
    first.set_epoch(2)
    batches = iter(first)
    for _ in range(done):
        next(batches)
    resumed = make()
    resumed.load_state_dict(first.state_dict())
    rest = read(resumed, 2)
    assert len(rest) == len(whole) - done
    for ours, expected in zip(rest, whole[done:], strict=True):
        assert torch.equal(ours.inputs, expected.inputs)
        assert torch.equal(ours.targets, expected.targets)


def test_each_rank_has_its_own_rows_and_the_same_windows(monkeypatch):
    alone = read(ContiguousLoader(TEXT, 6, 17, variable=True), 1)
    parts = []
    for rank in range(2):
        as_rank(monkeypatch, rank, 2)
        parts.append(read(ContiguousLoader(TEXT, 3, 17, variable=True), 1))
    for whole, first, second in zip(alone, *parts, strict=True):
        assert torch.equal(whole.inputs, torch.cat([first.inputs, second.inputs]))


def test_random_windows_appear_once_in_a_new_order_per_epoch():
    loader = RandomWindowLoader(TEXT, 4, 20, training=True)
    batches = read(loader)
    assert len(batches) == len(loader) == 12  # 50 full windows, 12 full batches
    starts = torch.cat([batch.inputs[:, 0] for batch in batches]).tolist()
    assert starts != sorted(starts)
    assert len(set(starts)) == 48
    assert all(start % 20 == 0 for start in starts)
    for batch in batches:
        assert torch.equal(batch.inputs, batch.inputs[:, :1] + torch.arange(20))
        assert torch.equal(batch.targets, batch.inputs + 1)
    assert [batch.inputs[0, 0].item() for batch in read(loader, 1)] != [batch.inputs[0, 0].item() for batch in batches]


def test_evaluation_windows_predict_every_token_once():
    batches = read(RandomWindowLoader(TEXT, 4, 20))
    targets = torch.cat([batch.targets for batch in batches]).flatten()
    assert targets[targets >= 0].tolist() == list(range(1, 1003))
    assert set(targets[targets < 0].tolist()) == {-100}


def test_too_little_text_is_reported():
    with pytest.raises(DataError, match=r"my file has 7 tokens .* too few for 4 rows of at least 2: lower data.batch"):
        ContiguousLoader(torch.zeros(7), 4, 20, name="my file")
    with pytest.raises(DataError, match=r"my file has 30 tokens .* too few for a batch of 4 windows of 20: lower"):
        RandomWindowLoader(torch.zeros(30), 4, 20, training=True, name="my file")


@pytest.mark.parametrize("rows", [4, 3])
def test_processes_share_the_rows_of_an_evaluation(monkeypatch, rows):
    alone = read(ContiguousLoader(TEXT, rows, 20, shared=True))
    parts = []
    for rank in range(2):
        as_rank(monkeypatch, rank, 2)
        parts.append(read(ContiguousLoader(TEXT, rows, 20, shared=True)))
    for whole, first, second in zip(alone, *parts, strict=True):
        if rows % 2:  # both read everything, with the same mean
            assert torch.equal(first.inputs, whole.inputs)
            assert torch.equal(second.targets, whole.targets)
        else:
            assert torch.equal(torch.cat([first.inputs, second.inputs]), whole.inputs)
