import pytest
import torch

from datamodules import CopyTaskDataModule, DataError


def small(**options):
    sizes = {"length": 4, "distance": 11, "num_symbols": 5, "sample_train_size": 40, "sample_test_size": 20}
    return CopyTaskDataModule(**{**sizes, "batch_size": 8, "eval_batch_size": 6, **options})


def test_the_end_repeats_the_beginning_and_only_it_is_predicted():
    data = small()
    assert (data.vocab_size, data.sequence_length) == (6, 14)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        for batch in loader:
            assert batch.inputs.shape == batch.targets.shape == (len(batch.inputs), 14)
            assert batch.inputs.dtype == batch.targets.dtype == torch.int64
            for row, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
                symbols, fillers = row[:4], row[4:11]
                assert all(1 <= symbol <= 5 for symbol in symbols)
                assert fillers == [0] * 7
                assert row[11:] == symbols[:3]
                predicted = {place: token for place, token in enumerate(targets) if token != -100}
                # Each was read distance - 1 positions earlier.
                assert predicted == {10 + i: row[i] for i in range(4)}


def test_every_token_is_one_later_than_its_input():
    (batch, *_) = small(distance=4).train_dataloader()  # without a filler
    assert torch.equal(batch.inputs[:, 4:], batch.targets[:, 3:-1])


def test_the_splits_differ_and_the_seed_decides():
    data, again, other = small(), small(), small(seed=1)
    for split in ("train", "val", "test"):
        assert torch.equal(data.symbols[split], again.symbols[split])
        assert not torch.equal(data.symbols[split], other.symbols[split])
    assert not torch.equal(data.symbols["val"], data.symbols["test"])
    assert data.describe() == again.describe() != other.describe()
    assert [len(data.symbols[split]) for split in ("train", "val", "test")] == [40, 20, 20]
    assert sum(len(batch.inputs) for batch in data.test_dataloader()) == 20


def test_all_symbols_are_equally_likely():
    symbols = small(sample_train_size=5000, num_symbols=8).symbols["train"]
    counts = torch.bincount(symbols.flatten(), minlength=9)
    assert counts[0] == 0
    torch.testing.assert_close(counts[1:] / counts.sum(), torch.full((8,), 1 / 8), rtol=0.1, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, r"length \(0\) must be at least 1"),
        ({"distance": 3}, r"distance \(3\) must be at least length \(4\)"),
        ({"num_symbols": 1}, r"num_symbols \(1\) must be at least 2"),
        ({"batch_size": 0}, r"batch_size \(0\) must be at least 1"),
        ({"seed": -1}, r"seed \(-1\) must be at least 0"),
    ],
)
def test_arguments_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


@pytest.mark.parametrize("source", ["hub", "somewhere"])
def test_sample_is_the_only_source(source):
    with pytest.raises(DataError, match=f"give sample, not {source}"):
        small(source=source)
