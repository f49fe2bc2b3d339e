import threading
from typing import NamedTuple

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from datamodules import loader as loader_module
from datamodules.loader import BatchLoader
from tests.tools import quiet_trainer


def make_loader(num_items=23, batch_size=4, **options):
    options = {"shuffle": True, "drop_last": True, **options}
    return BatchLoader(lambda index: index, num_items, batch_size, **options)


def read(loader, epoch=0):
    loader.set_epoch(epoch)
    return [batch.tolist() for batch in loader]


def test_order_depends_on_seed_and_epoch_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = read(make_loader())
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert read(make_loader()) == first
    assert read(make_loader(), epoch=1) != first
    assert read(make_loader(seed=1)) != first


def test_every_item_appears_once():
    items = [item for batch in read(make_loader(drop_last=False)) for item in batch]
    assert sorted(items) == list(range(23))
    assert len(read(make_loader())) == len(make_loader()) == 5
    assert read(make_loader(shuffle=False, drop_last=False))[-1] == [20, 21, 22]


def test_too_few_items_are_an_error():
    with pytest.raises(ValueError, match="3 items are too few for a batch of 4"):
        make_loader(num_items=3)
    with pytest.raises(ValueError, match=r"^1 item is too few for a batch of 4: lower data\.batch_size$"):
        make_loader(num_items=1)


@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks_share_the_items(monkeypatch, drop_last):
    seen = []
    for rank in range(2):
        monkeypatch.setattr(loader_module, "rank_and_world_size", lambda rank=rank: (rank, 2))
        loader = make_loader(drop_last=drop_last)
        batches = read(loader, epoch=3)
        assert len(batches) == len(loader)
        seen.append([item for batch in batches for item in batch])
    assert not set(seen[0]) & set(seen[1])
    if drop_last:
        assert len(seen[0]) == len(seen[1]) == 8
    else:
        assert sorted(seen[0] + seen[1]) == list(range(23))


@pytest.mark.parametrize("done", [0, 1, 4])
def test_state_continues_the_epoch(done):
    whole = read(make_loader(), epoch=2)
    loader = make_loader()
    loader.set_epoch(2)
    batches = iter(loader)
    for _ in range(done):
        next(batches)
    state = loader.state_dict()
    resumed = make_loader()
    resumed.load_state_dict(state)
    if done:
        assert resumed.state_dict() == state  # a checkpoint written before the first batch must not lose the position
    assert read(resumed, epoch=2) == whole[done:]
    assert read(resumed, epoch=3) == read(make_loader(), epoch=3)


class Recorder(pl.LightningModule):
    """Keeps the batches of every epoch; raises before a given step."""

    def __init__(self, crash_at=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.crash_at = crash_at
        self.seen = []

    def training_step(self, batch, batch_idx):
        if self.global_step == self.crash_at:
            raise KeyboardInterrupt
        self.seen.append((self.current_epoch, batch_idx, batch.tolist()))
        return self.weight * batch.float().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", batch.float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, crash_at=None, ckpt_path=None, save=None, **options):
    module = Recorder(crash_at)
    checkpoint = ModelCheckpoint(folder, save_top_k=-1, filename="{step}", **(save or {"every_n_train_steps": 1}))
    trainer = quiet_trainer(checkpoint, max_epochs=3, **options)
    validation = make_loader(shuffle=False, drop_last=False)
    try:
        trainer.fit(module, make_loader(), validation, ckpt_path=ckpt_path, weights_only=True)
    except (KeyboardInterrupt, SystemExit):
        assert crash_at is not None
    return module.seen


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("step", [1, 4, 5, 8, 13])
@pytest.mark.parametrize("options", [{}, {"limit_train_batches": 4}, {"val_check_interval": 2}], ids=str)
def test_trainer_resumes_with_the_remaining_batches(tmp_path, step, options):
    if step > 3 * options.get("limit_train_batches", 5) - 1:
        pytest.skip("nothing is left after this step")
    whole = fit(tmp_path / "whole", **options)
    before = fit(tmp_path / "cut", crash_at=step, **options)
    after = fit(tmp_path / "rest", ckpt_path=tmp_path / "cut" / f"step={step}.ckpt", **options)
    assert before + after == whole


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("at_train_end", [True, False])
@pytest.mark.parametrize("options", [{}, {"limit_train_batches": 4}], ids=str)
def test_trainer_resumes_after_an_epoch(tmp_path, at_train_end, options):
    save = {"every_n_epochs": 1, "save_on_train_epoch_end": at_train_end}
    whole = fit(tmp_path / "whole", save=save, **options)
    epoch = options.get("limit_train_batches", 5)
    after = fit(tmp_path / "rest", ckpt_path=tmp_path / "whole" / f"step={2 * epoch}.ckpt", save=save, **options)
    assert after == whole[2 * epoch :]


class Pinned(NamedTuple):
    index: Tensor
    text: list[str]


@pytest.fixture
def pretended_cuda(monkeypatch):
    """A process that uses CUDA; returns the shapes of the tensors that were pinned, with the thread that did it."""
    pinned = []

    def pin_memory(tensor):
        pinned.append((tuple(tensor.shape), threading.current_thread()))
        return tensor.clone()

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
    return pinned


def test_with_cuda_each_batch_is_pinned_by_a_thread_one_ahead(pretended_cuda):
    asked = []

    def fetch(index):
        asked.append(index.tolist())
        return Pinned(index, ["a"])

    expected = read(make_loader(), epoch=2)
    pretended_cuda.clear()
    loader = BatchLoader(fetch, 23, 4, shuffle=True, drop_last=True)
    loader.set_epoch(2)
    for number, batch in enumerate(loader, 1):
        assert type(batch) is Pinned
        assert batch.index.tolist() == expected[number - 1]
        assert batch.text == ["a"]
        assert asked[:number] == expected[:number]
        assert len(asked) <= number + 1
        assert loader.state_dict() == {"epoch": 2, "batches_done": number}  # of what was used, not of what was made
    assert asked == expected
    assert [shape for shape, _ in pretended_cuda] == [(4,)] * 5
    assert all(thread is not threading.current_thread() for _, thread in pretended_cuda)


def test_with_cuda_an_error_comes_at_its_batch_and_the_thread_ends(pretended_cuda):
    def fetch(index):
        if 8 in index:
            raise ValueError("item 8")
        return index

    batches = iter(BatchLoader(fetch, 23, 4))
    assert [next(batches).tolist() for _ in range(2)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(ValueError, match="item 8"):
        next(batches)
    batches = iter(make_loader())
    next(batches)
    batches.close()
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"limit_train_batches": 4}], ids=str)
def test_with_cuda_the_trainer_resumes_with_the_remaining_batches(tmp_path, options, request):
    whole = fit(tmp_path / "whole", **options)
    pinned = request.getfixturevalue("pretended_cuda")
    before = fit(tmp_path / "cut", crash_at=6, **options)
    after = fit(tmp_path / "rest", ckpt_path=tmp_path / "cut" / "step=6.ckpt", **options)
    assert before + after == whole
    assert pinned
