"""Two processes: one run folder, one result, the one that a single process computes from the same weights."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, TINY, script, script_environment

ADVERSARIAL = [
    "--model.encoder=DIMEncoder",
    "--model.prior=AdversarialPrior",
    "--model.prior.hidden_sizes=[16]",
    "--model.prior_weight=0.1",
    "--model.weight_normalization={local_score: spectral, prior: spectral_persistent}",
]


@pytest.mark.parametrize("extra", [[], ADVERSARIAL], ids=["automatic", "manual"])
def test_two_processes_share_one_run(tmp_path: Path, extra: list[str]):
    tiny = [argument for argument in TINY if not (extra and "channels" in argument)]
    base = [ROOT / "configs/infomax_sample.yaml", ROOT / "configs/with/ddp.yaml"]
    files = [part for path in base for part in ("-c", path)]
    script("train", *files, *tiny, *extra, cwd=tmp_path)
    (run,) = (tmp_path / "runs/infomax_sample").iterdir()
    summary = json.loads((run / "summary.json").read_text())
    # 108 training images, 16 a batch, two processes: 3 batches an epoch; an adversarial batch takes two steps.
    rows = (run / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 3 + 2 + 1
    script("evaluate", run, "--trainer.devices=1", "--trainer.strategy=auto", "--json", "m.json", cwd=tmp_path)
    alone = json.loads((tmp_path / "m.json").read_text())["metrics"]
    assert alone == pytest.approx(summary["metrics"], abs=1e-6)


def test_two_processes_resume_their_run(tmp_path: Path):
    files = ["-c", ROOT / "configs/infomax_sample.yaml", "-c", ROOT / "configs/with/ddp.yaml"]
    script("train", *files, *TINY, "--trainer.max_epochs=3", "--run_dir", tmp_path / "whole", cwd=tmp_path)
    script("train", *files, *TINY, "--trainer.max_epochs=1", "--run_dir", tmp_path / "halves", cwd=tmp_path)
    script("train", "--resume", tmp_path / "halves", "--trainer.max_epochs=3", cwd=tmp_path)
    whole, halves = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("whole", "halves"))
    assert whole["metrics"] == halves["metrics"]


def test_torchrun_gives_what_lightnings_own_launcher_gives(tmp_path: Path):
    files = ["-c", ROOT / "configs/infomax_sample.yaml"]
    options = [*TINY, "--trainer.max_epochs=1", "--trainer.devices=2", "--trainer.strategy=ddp"]
    script("train", *files, *options, "--run_dir", "own", cwd=tmp_path)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launcher, ROOT / "scripts/train.py", *files, *options, "--run_dir", "launched"]
    result = subprocess.run(
        list(map(str, command)), cwd=tmp_path, env=script_environment(), capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
    own, launched = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("own", "launched"))
    assert own["metrics"] == launched["metrics"]
    assert (tmp_path / "own/metrics.csv").read_text() == (tmp_path / "launched/metrics.csv").read_text()
