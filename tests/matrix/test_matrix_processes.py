"""Two processes equal one with the same global batch: metrics, gradients, and so weights."""

import re
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from datamodules import loader
from tests.matrix.pairs import PAIRS, Pair
from tests.matrix.runs import make_data, make_model
from tests.tools import Batches, in_two_processes, quiet_trainer

Results = dict[str, Any]
STEPS = 2
LR = 0.1  # of plain SGD, so that weights differ only as gradients do


def measure(pair: Pair, folder: Path, data: pl.LightningDataModule, **arguments: Any) -> Results:
    """The metrics of the untrained module, and its state after two steps (in a search, two epochs)."""
    model = make_model(pair, data, folder, **pair.still)
    if pair.trainable:
        model.make_optimizer = lambda parameters, _: torch.optim.SGD(parameters, LR)
    trainer = quiet_trainer(**arguments)
    evaluated = trainer.validate(model, data, verbose=False) + trainer.test(model, data, verbose=False)
    metrics = {name: value for metrics in evaluated for name, value in metrics.items()}
    limits = {"max_epochs": -1, "max_steps": STEPS} if pair.trainable else {"max_epochs": STEPS}
    quiet_trainer(limit_val_batches=0, **limits, **arguments).fit(model, data)
    # Running statistics differ between processes; of a search, compare the partition: its parameter counts epochs.
    state = dict(model.named_parameters() if pair.trainable else model.named_buffers())
    return {"metrics": metrics, "state": {name: value.detach().clone() for name, value in state.items()}}


def measure_all(rank: int, folder: Path) -> None:
    own = folder / f"rank{rank}"
    own.mkdir()
    results = {}
    for pair in PAIRS:
        ddp = {"devices": 2, "strategy": "ddp", "use_distributed_sampler": False}
        results[pair.name] = measure(pair, own, make_data(pair, **without_augmentation(pair)), **ddp)
    torch.save(results, folder / f"rank{rank}.pt")


def in_one_process(pair: Pair, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    changes = without_augmentation(pair)
    if not pair.coupled:
        if "batch_size" in pair.data[1]:  # a graph is one batch
            changes["batch_size"] = 2 * pair.data[1]["batch_size"]
        return measure(pair, folder, make_data(pair, **changes))
    data = make_data(pair, **changes)
    data.prepare_data()
    data.setup("fit")
    ranks = []
    for rank in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(loader, "rank_and_world_size", lambda rank=rank: (rank, 2))
            ranks.append(list(data.train_dataloader()))
    # Alternating between the ranks.
    in_turn = [batch for both in zip(*ranks, strict=True) for batch in both]
    data.train_dataloader = lambda: Batches(in_turn)
    return measure(pair, folder, data, accumulate_grad_batches=2)


def without_augmentation(pair: Pair) -> dict[str, Any]:
    return {"augment": False} if "augment" in pair.data[1] else {}


@pytest.fixture(scope="module")
def both_ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Results]:
    """The results of each of two processes, for all pairs: starting them takes longer than all their work."""
    folder = tmp_path_factory.mktemp("ranks")
    in_two_processes(measure_all, folder)
    return tuple(torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2))


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_two_processes_equal_one(
    pair: Pair, both_ranks: tuple[Results, Results], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first, second = (results[pair.name] for results in both_ranks)
    one = in_one_process(pair, tmp_path, monkeypatch)
    # The last batches are uneven.
    comparable = {name for name in one["metrics"] if not (pair.by_batch and re.search(pair.by_batch, name))}
    assert comparable
    for metrics in (first["metrics"], second["metrics"]):
        assert metrics.keys() == one["metrics"].keys()
        for name in comparable:
            assert metrics[name] == pytest.approx(one["metrics"][name], abs=1e-6, rel=1e-6), name
    assert first["state"].keys() == one["state"].keys()
    for name, value in one["state"].items():
        assert torch.equal(first["state"][name], second["state"][name]), name
        torch.testing.assert_close(first["state"][name], value, rtol=0, atol=1e-6, msg=lambda text, n=name: n + text)
