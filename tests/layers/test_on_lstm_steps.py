"""How ONLSTM's steps are computed: in C++ or without a compiler, with packed weights, in blocks as on CUDA."""

import concurrent.futures
import os
import warnings
from collections import OrderedDict

import pytest
import torch
from test_recurrent import flat
from torch import Tensor

from layers import ONLSTM
from layers.on_lstm import cpu as on_lstm_cpu
from layers.on_lstm import graphs as on_lstm_graphs
from layers.on_lstm import recurrence as on_lstm
from layers.on_lstm.steps import Gates, PlainSteps

# --------------------------------------------------------------------------------------------------------- the compiler


def test_concurrent_builds_give_one_library(monkeypatch: pytest.MonkeyPatch, tmp_path):
    if on_lstm_cpu.compiled() is None:
        pytest.skip("no C++ compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    flags = ["-O0", "-fopenmp"]  # quick to build
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first, second = pool.map(on_lstm_cpu._built, [flags, flags])
    assert first == second
    assert [file.name for file in first.parent.iterdir()] == [first.name]
    built = os.stat(first).st_mtime_ns
    assert os.stat(on_lstm_cpu._built(flags)).st_mtime_ns == built


@pytest.mark.parametrize("compiler", ["/no/such/compiler", "false", "true"])
def test_without_a_compiler_plain_torch_gives_the_same(compiler: str, monkeypatch: pytest.MonkeyPatch, tmp_path, capfd):
    layer, x = ONLSTM(5, 20), torch.randn(4, 3, 5)
    expected = flat(layer(x))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", compiler)
    on_lstm_cpu.compiled.cache_clear()
    try:
        torch.testing.assert_close(flat(layer(x)), expected)
        assert on_lstm_cpu.compiled() is None
        assert on_lstm_cpu.compiled.cache_info().misses == 1  # tried once
    finally:
        on_lstm_cpu.compiled.cache_clear()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_products_with_a_packed_weight(dtype: torch.dtype, tolerance: float, transposed: bool):
    weight = torch.randn(430, 370).to(dtype)
    assert weight.numel() > on_lstm_cpu.LARGE_WEIGHT
    weight = weight.T if transposed else weight
    x, bias = torch.randn(20, weight.shape[1]).to(dtype), torch.randn(len(weight)).to(dtype)
    exact = x.double() @ weight.double().T
    for found, expected in (
        (on_lstm_cpu.product_with(weight, 9, 20)(x), exact),
        (on_lstm_cpu.linear(x, weight), exact),
        (on_lstm_cpu.linear(x, weight, bias), exact + bias.double()),
    ):
        assert found.dtype == dtype
        assert (found.double() - expected).norm() < tolerance * expected.norm()


def test_without_onednn_the_products_are_the_same(monkeypatch: pytest.MonkeyPatch):
    layer, x = ONLSTM(5, 20), torch.randn(6, 3, 5)
    expected = flat(layer(x))
    monkeypatch.setattr(on_lstm_cpu, "_onednn", lambda dtype: None)
    torch.testing.assert_close(flat(layer(x)), expected)


# ------------------------------------------------------------------------------------------------------ blocks of steps


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch):
    """Has blocks of steps run as on CUDA, a graph being its function, called again."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(on_lstm_graphs, "capture", lambda function: function)
    monkeypatch.setattr(on_lstm_graphs, "_seen", OrderedDict())
    monkeypatch.setattr(on_lstm_graphs, "_works", True)
    on_lstm_graphs.warn_once.cache_clear()
    return monkeypatch


@pytest.mark.parametrize("scratch", [False, True])
@pytest.mark.parametrize("replays", ["right", "wrong", "fails"])
def test_blocks_of_steps_equal_all_steps_in_turn(replays: str, scratch: bool, graphs: pytest.MonkeyPatch):
    """Buffers, order of blocks, remaining steps."""
    calls = []

    def capture(function):
        if replays == "fails":
            raise RuntimeError("no graphs here")
        return lambda: (calls.append(1), replays == "right" and function())

    graphs.setattr(on_lstm_graphs, "capture", capture)
    gates, batch, hidden, rows = Gates(3, 2, False), 2, 6, 30
    step = PlainSteps(gates)

    def both(length: int, blocks: bool) -> list[Tensor]:
        torch.manual_seed(length)
        weight = torch.randn(rows, hidden)
        zx, h, c = torch.randn(length, batch, rows), torch.randn(batch, hidden), torch.randn(batch, hidden)
        a = torch.empty(1, batch, rows) if scratch else zx
        output, cells, distances = *torch.empty(2, length, batch, hidden), torch.empty(2, length, batch)
        forward = (zx, h, c), (a, output, cells, distances)
        if blocks:
            on_lstm._forward_blocks(weight, step, *forward, gates)
        else:
            on_lstm._forward_steps(lambda x: x @ weight.T, step, *forward)
        if scratch:
            return [output, cells, distances]
        gradients = torch.randn(length, batch, hidden), torch.randn(2, length, batch), c, *torch.randn(2, batch, hidden)
        dz, (dh, dc) = torch.empty_like(a), torch.empty(2, batch, hidden)
        backward = (a, cells, *gradients), (dz, dh, dc)
        if blocks:
            on_lstm._backward_blocks(weight, step, *backward, gates)
        else:
            on_lstm._backward_steps(lambda x: x @ weight, step, *backward)
        return [output, cells, distances, a, dz, dh, dc]

    # 41 steps are four blocks and a step, 7 no block; the first block of a kind runs directly, the second is checked.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for length in (41, 7, 20):
            torch.testing.assert_close(both(length, blocks=True), both(length, blocks=False))
    assert on_lstm_graphs._works == (replays == "right")
    assert len(caught) == (replays != "right")
    # Of the first window's four blocks one is checked and two are replayed, of the last window's both are replayed.
    assert len(calls) == {"right": 5 if scratch else 10, "wrong": 1, "fails": 0}[replays]


def doubling(inputs: list[Tensor], outputs: list[Tensor]) -> None:
    for given, out in zip(inputs, outputs, strict=True):
        torch.mul(given, 2, out=out)


def call(value: float, key: str = "key") -> float:
    """Runs ``doubling``, possibly as a graph, on a constant; the mean of what it gives."""
    inputs, outputs = [torch.full((3, 2), value)], [torch.empty(3, 2)]
    on_lstm_graphs.run(key, doubling, inputs, outputs, True)
    return outputs[0].mean().item()


@pytest.mark.parametrize("scale", [1.0, 1e-5, 1e-12])
@pytest.mark.parametrize("error", [-1.0, 0.1])  # all zeros; a tenth too much
def test_a_wrong_graph_is_found_at_any_size_of_its_results(error: float, scale: float, graphs: pytest.MonkeyPatch):
    def capture(function):
        (outputs,) = [
            cell.cell_contents._outputs for cell in function.__closure__ if hasattr(cell.cell_contents, "_outputs")
        ]
        return lambda: (function(), [output.mul_(1 + error) for output in outputs])

    graphs.setattr(on_lstm_graphs, "capture", capture)
    with pytest.warns(UserWarning, match="differs from the steps one by one by"):
        assert [call(scale) for _ in range(4)] == pytest.approx([2 * scale] * 4, rel=1e-6)
    assert not on_lstm_graphs._works


def test_zeros_and_nan_are_no_difference(graphs: pytest.MonkeyPatch):
    for value in (0.0, float("nan"), float("inf")):
        on_lstm_graphs._seen.clear()
        assert str([call(value) for _ in range(3)]) == str([value] * 3)
    assert on_lstm_graphs._works


def test_a_graph_captured_in_validation_serves_training(graphs: pytest.MonkeyPatch):
    with torch.inference_mode():
        assert [call(1.0) for _ in range(3)] == [2, 2, 2]
    assert isinstance(on_lstm_graphs._seen["key"], on_lstm_graphs.Replayed)
    with torch.no_grad():
        assert call(3.0) == 6


def test_short_memory_is_said_once_and_a_graph_tried_again_later(graphs: pytest.MonkeyPatch):
    tries = []

    def capture(function):
        tries.append(1)
        if len(tries) < 3:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {len(tries)} MiB\nmore words")
        return function

    graphs.setattr(on_lstm_graphs, "capture", capture)
    graphs.setattr(on_lstm_graphs, "CALLS_AFTER_NO_MEMORY", 3)
    with pytest.warns(UserWarning, match="no memory for a CUDA graph now") as warned:
        assert {call(1.0) for _ in range(9)} == {2.0}
    assert len(warned) == 1
    assert str(warned[0].message).endswith(": CUDA out of memory")
    assert isinstance(on_lstm_graphs._seen["key"], on_lstm_graphs.Replayed)


def test_each_failure_says_its_cause(graphs: pytest.MonkeyPatch):
    def capture(function):
        raise RuntimeError("operation not permitted when stream is capturing")

    graphs.setattr(on_lstm_graphs, "capture", capture)
    with pytest.warns(UserWarning, match="runs without them: operation not permitted when stream is capturing"):
        assert {call(1.0) for _ in range(4)} == {2.0}
