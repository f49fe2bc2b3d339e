"""Every pair, killed by a signal at a random point and resumed, is bit-identical to an uninterrupted run."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.matrix.pairs import PAIRS, Pair
from tests.matrix.runs import assert_same_run, rows_of, write_config
from tests.training import train


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="a process that has initialised CUDA must not be forked")
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_killed_anywhere_and_resumed_is_bit_identical(pair: Pair, tmp_path: Path):
    arguments = ["-c", write_config(pair, tmp_path), f"--trainer.max_epochs={5 * pair.epochs}"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(*arguments, "--run_dir", whole)
    rows = random.SystemRandom().randint(1, len(rows_of(whole)) * 2 // 3)
    print(f"killed after {rows} of {len(rows_of(whole))} rows")
    process = multiprocessing.get_context("fork").Process(target=train, args=(*arguments, "--run_dir", broken))
    process.start()
    deadline = time.monotonic() + 300
    metrics = broken / "metrics.csv"
    while not metrics.is_file() or len(metrics.read_text().splitlines()) <= rows:
        assert process.is_alive(), "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    train("--resume", broken)
    assert_same_run(broken, whole)
