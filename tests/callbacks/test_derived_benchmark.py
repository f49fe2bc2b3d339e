"""The benchmark's rows have what scripts/benchmark.py and readers need; their values are not tested."""

import pytest
import torch

from benchmarks import derived_optimizers


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(derived_optimizers.SIZES, "1M", {"width": 8, "layers": 1, "words": 10})


def test_rows_of_step_times():
    rows = derived_optimizers.step_times("1M", rounds=2)
    assert len(rows) == len(derived_optimizers.TRICKS) + 3 + 3
    for row in rows:
        assert row["benchmark"] == "derived_optimizers"
        assert row["ratio"] * row["our_time_over_the_peers"] == pytest.approx(1)
        assert row["our_ms"] > 0
    assert {row["peer"] for row in rows} == {f"torch AdamW alone, {form}" for form in ("for-loop", "foreach", "fused")}


def test_rows_against_pytorch_optimizer():
    pytest.importorskip("pytorch_optimizer")
    rows = derived_optimizers.against_pytorch_optimizer("1M", rounds=2)
    assert len(rows) == 3
    assert all(row["peer"].startswith("pytorch_optimizer ") for row in rows)


def test_the_arms_do_what_they_are_named_after():
    """The timed step is real: with all six tricks the weights move, and Lookahead has its slow copy."""
    model = derived_optimizers.Words(8, 1, 10)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    rules = derived_optimizers.TRICKS["all six"]()
    step = derived_optimizers.chained(model, torch.optim.SGD(model.parameters(), lr=1.0), rules)
    for _ in range(derived_optimizers.STEPS):
        step()
    moved = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert all(moved)
    assert set(rules[-1].copies["optimizer0"]) == {name for name, _ in model.named_parameters()}
