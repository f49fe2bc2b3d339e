"""The experiment with all tricks from YAML, killed at a random step: the same bits as one that never was."""

import random
from pathlib import Path

import pytest

from tests.conftest import ROOT, script
from tests.test_resume import EXPERIMENT, equal, load, start_and_kill

ADD_ONS = ["weight_decay", "layer_adaptation", "gradient_accumulation", "lookahead", "average", "piecewise_linear_lr"]
# The add-ons come last, behind the option that empties the list of callbacks.
ARGUMENTS = ["-c", str(ROOT / "configs" / "infomax_sample.yaml"), *EXPERIMENT]
ARGUMENTS += [part for name in ADD_ONS for part in ("-c", str(ROOT / "configs" / "with" / f"{name}.yaml"))]
ARGUMENTS += ["--trainer.callbacks.schedule={2: 1.0, 6: 0.1}"]


@pytest.mark.slow  # in one process: tests/matrix and test_chain_resume.py
def test_killed_and_resumed_with_all_tricks(tmp_path: Path):
    whole, run = tmp_path / "whole", tmp_path / "run"
    result = script("train", "--run_dir", whole, *ARGUMENTS, cwd=tmp_path)
    assert result.stdout.count("Update chain of Adam: gradient: GradientAccumulation(steps=4) -> learning rate:") == 1
    rows = random.SystemRandom().randint(1, 6)
    print(f"killed after {rows} rows")
    start_and_kill(ARGUMENTS, run, rows)
    script("train", "--resume", run, cwd=tmp_path)
    assert (run / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    for name in ("last.ckpt", "best.ckpt"):
        ours, theirs = (load(folder / "checkpoints" / name) for folder in (run, whole))
        for key in ("state_dict", "optimizer_states", "global_step", "update_chain"):
            assert equal(ours[key], theirs[key]), (name, key)
        for key in ("Lookahead", "AveragedWeights", "GradientAccumulation"):
            assert equal(ours["callbacks"][key], theirs["callbacks"][key]), (name, key)
